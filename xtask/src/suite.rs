//! Runs every test there is and sums them up.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::build;
use crate::consumers;
use crate::counts::{self, Counts};
use crate::fuzz;
use crate::licences;
use crate::process::{self, Outcome};
use crate::setup::{self, Tool};
use crate::workspace::Workspace;

/// No step of the tests takes this long unless it hangs.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Options of `test`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    only: Vec<String>,
    list: bool,
}

impl Options {
    /// Reads the options from the command line.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--list" => options.list = true,
                "--only" => options.only(args.next().ok_or("--only needs the name of a step")?)?,
                other => match other.strip_prefix("--only=") {
                    Some(names) => options.only(names)?,
                    None => return Err(format!("unknown option {other:?}; `cargo xtask help` lists them")),
                },
            }
        }
        Ok(options)
    }

    fn only(&mut self, names: &str) -> Result<(), String> {
        for name in names.split(',') {
            if STEPS.iter().all(|step| step.name != name) {
                return Err(format!("there is no step {name:?}; `cargo xtask test --list` names them"));
            }
            self.only.push(name.to_string());
        }
        Ok(())
    }

    fn wants(&self, step: &Step) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == step.name)
    }
}

/// One row of the summary.
struct Step {
    name: &'static str,
    about: &'static str,
    needs: &'static [Tool],
    run: fn(&Workspace) -> Row,
}

const STEPS: [Step; 13] = [
    Step {
        name: "format",
        about: "rustfmt changes nothing",
        needs: &[Tool::Toolchain],
        run: |ws| check(ws, "format", &["cargo", "fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        about: "no warning, natively and for WebAssembly",
        needs: &[Tool::Toolchain],
        run: clippy,
    },
    Step {
        name: "docs",
        about: "the documentation builds, with every link in it",
        needs: &[Tool::Toolchain],
        run: docs,
    },
    Step {
        name: "licences",
        about: "the list of what is built in is up to date, and all of it may be",
        needs: &[Tool::Toolchain],
        run: |ws| {
            let start = Instant::now();
            let failure = licences::check(ws).err();
            Row::of_check("licences", start.elapsed(), failure)
        },
    },
    Step {
        name: "native",
        about: "cargo test with all features",
        needs: &[Tool::Toolchain],
        run: |ws| {
            let words =
                ["cargo", "test", "--workspace", "--all-features", "--no-fail-fast", "--", "--show-output"];
            tests(ws, "native", &mut ws.words(&words), counts::rust)
        },
    },
    Step {
        name: "fuzz",
        about: "random files, templates and tokenizers, and libFuzzer's targets, a minute each",
        needs: &[Tool::Toolchain],
        run: fuzz_all,
    },
    Step {
        name: "wasm",
        about: "wasm-pack test in headless Chrome",
        needs: &[Tool::Toolchain, Tool::WasmBindgen, Tool::WasmPack, Tool::Chromium],
        run: |ws| {
            let words = ["wasm-pack", "test", "--headless", "--chrome"];
            tests(ws, "wasm", &mut ws.words(&words), counts::rust)
        },
    },
    Step {
        name: "relaxed",
        about: "the kernels once more, compiled with relaxed SIMD",
        needs: &[Tool::Toolchain, Tool::WasmBindgen, Tool::Chromium],
        run: relaxed_kernels,
    },
    Step {
        name: "build",
        about: "pkg/ and the page",
        needs: &[Tool::Toolchain, Tool::WasmBindgen, Tool::Node],
        run: build_all,
    },
    Step {
        name: "opcodes",
        about: "each build in pkg/ holds the instructions it stands for, and no others; kernels take no more than they did",
        needs: &[Tool::Toolchain],
        run: |ws| {
            let words = ["cargo", "test", "--package", "xtask", "--test", "opcodes", "--test", "loops"];
            tests(ws, "opcodes", &mut ws.words(&words), counts::rust)
        },
    },
    Step {
        name: "types",
        about: "tsc on the package and the page",
        needs: &[Tool::Node],
        run: |ws| check(ws, "types", &["npm", "run", "--silent", "check"]),
    },
    Step {
        name: "browser",
        about: "the package and the page in Chromium",
        needs: &[Tool::Node, Tool::Chromium],
        run: browser,
    },
    Step {
        name: "consumers",
        about: "the packed package in fresh projects: static files, esbuild, Vite, Node",
        needs: &[Tool::Node, Tool::Chromium],
        run: |ws| {
            let mut command = consumers::command(ws, &consumers::Options::default());
            tests(ws, "consumers", &mut command, counts::node)
        },
    },
];

/// The result of a step.
struct Row {
    name: &'static str,
    counts: Counts,
    /// A check is one yes or no; its counts are not counts of tests.
    is_check: bool,
    elapsed: Duration,
    /// Why the step failed.
    failure: Option<String>,
    skip_reasons: Vec<String>,
}

/// Runs the steps asked for; whether nothing failed.
pub fn run(ws: &mut Workspace, options: &Options) -> bool {
    if options.list {
        for step in &STEPS {
            println!("{:<10} {}", step.name, step.about);
        }
        return true;
    }
    let start = Instant::now();
    println!("setup: what the tests need");
    let steps: Vec<&Step> = STEPS.iter().filter(|step| options.wants(step)).collect();
    let report = setup::ready(ws, |tool| steps.iter().any(|step| step.needs.contains(&tool)));
    let mut rows = Vec::new();
    for step in steps {
        println!("{}: {}", step.name, step.about);
        let row = match step.needs.iter().find_map(|&tool| report.problem(tool)) {
            Some(problem) => failed(step.name, format!("not run: {problem}")),
            None => (step.run)(ws),
        };
        println!("{}", row.describe());
        rows.push(row);
    }
    summarize(&rows, start.elapsed())
}

impl Row {
    fn of_check(name: &'static str, elapsed: Duration, failure: Option<String>) -> Row {
        let failed = u32::from(failure.is_some());
        let counts = Counts { passed: 1 - failed, failed, skipped: 0 };
        Row { name, counts, is_check: true, elapsed, failure, skip_reasons: Vec::new() }
    }

    fn describe(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        match &self.failure {
            None => format!("  passed   {} ({seconds:.1} s)", self.name),
            Some(why) => format!("{why}\n  FAILED   {} ({seconds:.1} s)", self.name),
        }
    }
}

fn failed(name: &'static str, why: String) -> Row {
    Row::of_check(name, Duration::ZERO, Some(why))
}

/// A step that is one yes or no.
fn check(ws: &Workspace, name: &'static str, words: &[&str]) -> Row {
    let outcome = process::run(ws, name, &mut ws.words(words), LIMIT);
    let elapsed = outcome.elapsed;
    Row::of_check(name, elapsed, outcome.into_result(name).err())
}

/// A step that counts tests. One in which no test ran is a failure: nothing was shown.
fn tests(ws: &Workspace, name: &'static str, command: &mut Command, count: fn(&str) -> Counts) -> Row {
    let outcome: Outcome = process::run(ws, name, command, LIMIT);
    let mut counts = count(&outcome.output);
    let skip_reasons = counts::skip_reasons(&outcome.output);
    let elapsed = outcome.elapsed;
    let failure = match (&outcome.failure, counts.passed, counts.failed) {
        (Some(reason), _, _) => Some(format!("{name}: {reason}\n{}", outcome.excerpt())),
        (None, _, 1..) => Some(format!("{name}: tests failed\n{}", outcome.excerpt())),
        (None, 0, 0) => Some(format!("{name}: no test passed\n{}", outcome.excerpt())),
        (None, _, _) => None,
    };
    if failure.is_some() && counts.failed == 0 {
        // It did not get as far as to count: what failed is the step.
        counts.failed = 1;
    }
    Row { name, counts, is_check: false, elapsed, failure, skip_reasons }
}

fn clippy(ws: &Workspace) -> Row {
    let native: &[&str] = &["--workspace", "--all-features"];
    let wasm: &[&str] = &["--target", "wasm32-unknown-unknown"];
    let mut elapsed = Duration::ZERO;
    let mut failures = Vec::new();
    for (title, args) in [("clippy native", native), ("clippy wasm", wasm)] {
        let mut command = ws.words(&["cargo", "clippy", "--all-targets", "--keep-going"]);
        command.args(args).args(["--", "-D", "warnings"]);
        let outcome = process::run(ws, title, &mut command, LIMIT);
        elapsed += outcome.elapsed;
        failures.extend(outcome.into_result(title).err());
    }
    let failure = (!failures.is_empty()).then(|| failures.join("\n"));
    Row::of_check("clippy", elapsed, failure)
}

fn docs(ws: &Workspace) -> Row {
    let mut command =
        ws.words(&["cargo", "doc", "--no-deps", "--all-features", "--workspace", "--exclude", "xtask"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    let outcome = process::run(ws, "docs", &mut command, LIMIT);
    let elapsed = outcome.elapsed;
    Row::of_check("docs", elapsed, outcome.into_result("docs").err())
}

/// Only the kernels differ between the builds. Without wasm-pack, which would compile all tests.
fn relaxed_kernels(ws: &Workspace) -> Row {
    let mut command = ws.words(&["cargo", "test", "--target", build::TARGET]);
    command.args(["kernels", "attention", "qconv"].iter().flat_map(|test| ["--test", test]));
    command.args(build::RELAXED.cargo_args());
    command.args(["--config", &format!("target.{}.runner='wasm-bindgen-test-runner'", build::TARGET)]);
    tests(ws, "relaxed", &mut command, counts::rust)
}

/// The targets of tests/fuzz.rs, and those of libFuzzer where it can be compiled, on nearly the same inputs in every
/// run: what a change breaks is told apart from what was always broken, which `cargo xtask fuzz --coverage` looks for.
fn fuzz_all(ws: &Workspace) -> Row {
    const SECONDS: u64 = 60;
    let n_targets = fuzz::TARGETS.len() as u32;
    let mut row = tests(ws, "fuzz", &mut fuzz::command(ws, SECONDS), counts::rust);
    if !fuzz::can_run_coverage(ws) {
        row.counts.skipped += n_targets;
        row.skip_reasons.push("skipped: libFuzzer's targets: there is no C++ compiler".into());
        return row;
    }
    let start = Instant::now();
    match fuzz::run_coverage(ws, &fuzz::TARGETS, SECONDS, Some(1)) {
        Ok(()) => row.counts.passed += n_targets,
        Err(why) => {
            row.counts.failed += 1;
            row.failure = Some(row.failure.into_iter().chain([why]).collect::<Vec<_>>().join("\n"));
        }
    }
    row.elapsed += start.elapsed();
    row
}

fn build_all(ws: &Workspace) -> Row {
    let start = Instant::now();
    let failure = build::everything(ws).err();
    Row::of_check("build", start.elapsed(), failure)
}

/// Runs tests/browser, which serves what `build` made.
fn browser(ws: &Workspace) -> Row {
    let mut command = ws.words(&["npm", "test", "--silent"]);
    if let Some(chromium) = setup::browser(ws) {
        command.env("CHROME", chromium);
    }
    tests(ws, "browser", &mut command, counts::node)
}

/// Prints the table and, as the last line, the sum; whether nothing failed.
fn summarize(rows: &[Row], elapsed: Duration) -> bool {
    println!("\n{:<10}{:<8}{:>8}{:>8}{:>9}{:>10}", "step", "", "passed", "failed", "skipped", "seconds");
    let mut sum = Counts::default();
    for row in rows {
        let state = if row.failure.is_some() { "FAILED" } else { "ok" };
        let seconds = format!("{:.1}", row.elapsed.as_secs_f64());
        let number = |n: u32| if row.is_check { "-".to_string() } else { n.to_string() };
        let Counts { passed, failed, skipped } = row.counts;
        println!(
            "{:<10}{state:<8}{:>8}{:>8}{:>9}{seconds:>10}",
            row.name,
            number(passed),
            number(failed),
            number(skipped)
        );
        sum.add(row.counts);
    }
    for reason in rows.iter().flat_map(|row| &row.skip_reasons) {
        println!("  {reason}");
    }
    println!("in {:.0} s; a step without counts is one test", elapsed.as_secs_f64());
    println!("{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    sum.failed == 0 && sum.passed > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        Options::parse(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_options() {
        let only = Options { only: vec!["format".into(), "wasm".into()], list: false };
        assert_eq!(parse(&["--only", "format,wasm"]).as_ref(), Ok(&only));
        assert_eq!(parse(&["--only=format", "--only=wasm"]).as_ref(), Ok(&only));
        assert!(parse(&["--only", "nothing"]).is_err());
        assert!(parse(&["--only"]).is_err());
        assert!(parse(&["--lsit"]).is_err());
    }

    fn in_shell(script: &str) -> Row {
        let ws = Workspace::new();
        tests(&ws, "suite test", &mut ws.words(&["sh", "-c", script]), counts::rust)
    }

    #[test]
    fn a_step_fails_when_a_test_does_or_none_ran() {
        let passed = in_shell("echo 'test result: ok. 2 passed; 0 failed; 1 ignored'");
        assert_eq!((passed.failure, passed.counts), (None, Counts { passed: 2, failed: 0, skipped: 1 }));
        assert!(in_shell("echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'").failure.is_some());
        assert_eq!(in_shell("echo 'no tests to run!'").counts.failed, 1);
        let broken = in_shell("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; exit 101");
        assert_eq!(broken.counts, Counts { passed: 2, failed: 1, skipped: 0 });
    }

    #[test]
    fn one_failed_row_fails_the_whole() {
        let rows = [Row::of_check("a", Duration::ZERO, None), failed("b", "why".into())];
        assert!(summarize(&rows[..1], Duration::ZERO));
        assert!(!summarize(&rows, Duration::ZERO));
        assert!(!summarize(&[], Duration::ZERO));
    }
}
