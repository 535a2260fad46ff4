//! Random inputs: tests/fuzz.rs for longer than the tests run it, and the targets in fuzz/ under libFuzzer.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::process;
use crate::setup;
use crate::workspace::Workspace;

/// Time to compile, on top of what the targets take.
const COMPILE: Duration = Duration::from_secs(30 * 60);
/// The targets in fuzz/.
pub const TARGETS: [&str; 6] = ["gguf", "safetensors", "tokenizer", "template", "image", "quantizer"];
/// Targets of libFuzzer that run beside each other: each takes a core.
const LANES: usize = 2;
/// What `cargo fuzz` compiles with, so that a C++ compiler is all that is needed beyond the toolchain.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg=fuzzing -Zsanitizer=address";

/// Options of `fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    seconds: u64,
    /// The targets of libFuzzer to run; none for those of tests/fuzz.rs.
    coverage: Vec<&'static str>,
}

impl Options {
    /// Reads the options from the command line.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options { seconds: 60, coverage: Vec::new() };
        let mut words = args.iter().flat_map(|arg| arg.split('='));
        while let Some(word) = words.next() {
            match word {
                "--seconds" => options.seconds = seconds(words.next())?,
                "--coverage" => options.coverage.extend(TARGETS),
                "--target" => options.coverage.push(target(words.next())?),
                other => return Err(format!("unknown option {other:?}; `cargo xtask help` lists them")),
            }
        }
        Ok(options)
    }
}

fn seconds(word: Option<&str>) -> Result<u64, String> {
    match word.map(str::parse) {
        Some(Ok(seconds @ 1..=1_000_000)) => Ok(seconds),
        _ => Err("--seconds needs a number from 1 to 1000000".into()),
    }
}

fn target(word: Option<&str>) -> Result<&'static str, String> {
    let known = TARGETS.iter().find(|&&target| Some(target) == word);
    known.copied().ok_or_else(|| format!("--target needs one of {}", TARGETS.join(", ")))
}

/// The targets of tests/fuzz.rs, each for so long, beside each other. With the features of the other tests, which
/// are compiled already.
pub fn command(ws: &Workspace, seconds: u64) -> Command {
    let mut command = ws.words(&["cargo", "test", "--all-features", "--test", "fuzz", "--", "--nocapture"]);
    command.env("FUZZ_SECONDS", seconds.to_string());
    command
}

/// Runs every target; whether all held.
pub fn run(ws: &mut Workspace, options: &Options) -> Result<bool, String> {
    setup::ready(ws, |tool| matches!(tool, setup::Tool::Toolchain)).into_result()?;
    if !options.coverage.is_empty() {
        return run_coverage(ws, &options.coverage, options.seconds, None).map(|()| true);
    }
    let mut command = command(ws, options.seconds);
    let limit = COMPILE + Duration::from_secs(4 * options.seconds);
    let outcome = process::run(ws, "fuzz", &mut command, limit).into_result("fuzz")?;
    for line in outcome.output.lines().filter(|line| line.contains(" inputs in ")) {
        println!("  {line}");
    }
    Ok(true)
}

/// Whether there is a C++ compiler, which libFuzzer is compiled with.
pub fn can_run_coverage(ws: &Workspace) -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    ws.capture(&[&compiler, "--version"]).is_some()
}

/// Runs targets under libFuzzer from the seeds on, with random numbers that begin at `random`, or at the clock.
///
/// # Errors
/// What an input breaks: the output names the file that holds it.
pub fn run_coverage(
    ws: &Workspace,
    targets: &[&str],
    seconds: u64,
    random: Option<u32>,
) -> Result<(), String> {
    let words = ["cargo", "test", "--all-features", "--test", "fuzz", "write_seeds", "--", "--ignored"];
    process::run(ws, "seeds", &mut ws.words(&words), COMPILE).into_result("seeds")?;
    let host = ws.capture(&["rustc", "--print", "host-tuple"]).ok_or("rustc does not tell its host")?;
    let folder = ws.target().join("fuzz");
    let mut build =
        ws.words(&["cargo", "build", "--release", "--bins", "--manifest-path", "fuzz/Cargo.toml"]);
    // With a target given, the flags are not those of build scripts and macros.
    build.args(["--target", &host]).arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS);
    process::run(ws, "fuzz targets", &mut build, COMPILE).into_result("fuzz targets")?;
    let programs = folder.join(&host).join("release");
    let left = Mutex::new(targets.iter());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let lane = || -> Result<(), String> {
        while let Some(target) = next() {
            println!("  {target}: {}", run_target(ws, &programs, target, seconds, random)?);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let outcomes = lanes.into_iter().map(|lane| lane.join().unwrap_or(Err("a lane panicked".into())));
        // All lanes are waited for, and all failures told.
        let failures: Vec<String> = outcomes.filter_map(Result::err).collect();
        if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
    })
}

/// Runs one target; what it did, in words.
fn run_target(
    ws: &Workspace,
    programs: &Path,
    target: &str,
    seconds: u64,
    random: Option<u32>,
) -> Result<String, String> {
    let artifacts = ws.at("fuzz/artifacts").join(target);
    std::fs::create_dir_all(&artifacts).map_err(|e| format!("{}: {e}", artifacts.display()))?;
    let mut command = ws.command(&programs.join(target).to_string_lossy());
    command
        .arg(ws.at("fuzz/corpus").join(target))
        .args(["-timeout=20", "-rss_limit_mb=3072", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(random.map(|random| format!("-seed={random}")));
    let limit = COMPILE + Duration::from_secs(seconds);
    let outcome = process::run(ws, target, &mut command, limit).into_result(target)?;
    let done = outcome.output.lines().find(|line| line.starts_with("Done ")).unwrap_or("Done");
    let coverage = outcome.output.lines().rev().find_map(|line| line.split_once(" cov: "));
    let coverage = coverage.and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?");
    Ok(format!("{}, coverage {coverage}", done.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>());
        let own = |seconds| Ok(Options { seconds, coverage: Vec::new() });
        assert_eq!(parse(&[]), own(60));
        assert_eq!(parse(&["--seconds", "5"]), own(5));
        assert_eq!(parse(&["--seconds=7"]), own(7));
        assert_eq!(parse(&["--coverage"]), Ok(Options { seconds: 60, coverage: TARGETS.to_vec() }));
        assert_eq!(parse(&["--target", "image"]), Ok(Options { seconds: 60, coverage: vec!["image"] }));
        for wrong in [
            &["--seconds"][..],
            &["--seconds", "0"],
            &["--seconds", "x"],
            &["--second", "1"],
            &["--target"],
            &["--target", "all"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
