//! A release, made and checked but for the last step: publishing is a person's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::build;
use crate::consumers;
use crate::licences;
use crate::process;
use crate::setup;
use crate::suite;
use crate::workspace::Workspace;

const LIMIT: Duration = Duration::from_secs(60 * 60);
const CHANGELOG: &str = "CHANGELOG.md";

/// Options of `release`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Leaves out the tests, for another look at the package only.
    no_tests: bool,
}

impl Options {
    /// Reads the options from the command line. Without `--dry-run` there is nothing to be done.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut is_dry = false;
        for arg in args {
            match arg.as_str() {
                "--dry-run" => is_dry = true,
                "--no-tests" => options.no_tests = true,
                other => return Err(format!("unknown option {other:?}; `cargo xtask help` lists them")),
            }
        }
        if is_dry {
            Ok(options)
        } else {
            Err("releases are published by hand: `cargo xtask release --dry-run`".into())
        }
    }
}

/// Checks all there is, builds the package twice and compares, writes the tables of README.
pub fn run(ws: &mut Workspace, options: &Options) -> Result<bool, String> {
    setup::all(ws).into_result()?;
    has_section(ws)?;
    licences::check(ws)?;
    println!("  checked  {CHANGELOG} and the licences");
    build::everything(ws)?;
    let first = pack(ws, "first")?;
    recompile(ws)?;
    build::everything(ws)?;
    let second = pack(ws, "second")?;
    if first.1 != second.1 {
        return Err(format!(
            "two builds gave two packages: {} and {}",
            first.0.display(),
            second.0.display()
        ));
    }
    println!("  same     {}: {} bytes, the same twice", second.0.display(), second.1.len());
    if !options.no_tests && !suite::run(ws, &suite::Options::default()) {
        return Ok(false);
    }
    if !options.no_tests {
        let mut all = consumers::command(ws, &consumers::Options::every());
        process::run(ws, "consumers", &mut all, LIMIT).into_result("consumers")?;
    }
    let mut sizes = ws.words(&["node", "tests/sizes.mjs", "--update"]);
    let table = process::run(ws, "sizes", &mut sizes, LIMIT).into_result("sizes")?;
    println!("{}", table.output.trim_end());
    println!("  ready    npm publish {}", second.0.display());
    Ok(true)
}

/// The version that is to be released has to be described.
fn has_section(ws: &Workspace) -> Result<(), String> {
    let manifest = fs::read_to_string(ws.at("Cargo.toml")).map_err(|error| format!("Cargo.toml: {error}"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let version = version.ok_or("Cargo.toml has no version")?;
    let changes = fs::read_to_string(ws.at(CHANGELOG)).map_err(|error| format!("{CHANGELOG}: {error}"))?;
    if changes.lines().any(|line| line.starts_with(&format!("## {version}"))) {
        return Ok(());
    }
    Err(format!("{CHANGELOG} has no section for version {version}"))
}

/// The package as npm would send it: its path and its bytes.
fn pack(ws: &Workspace, folder: &str) -> Result<(PathBuf, Vec<u8>), String> {
    let folder = ws.target().join("release").join(folder);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut command = ws.words(&["npm", "pack", "./pkg", "--pack-destination"]);
    command.arg(&folder);
    process::run(ws, "pack", &mut command, LIMIT).into_result("pack")?;
    let entry =
        fs::read_dir(&folder).map_err(failed)?.next().ok_or("npm has packed nothing")?.map_err(failed)?;
    let bytes = fs::read(entry.path()).map_err(failed)?;
    Ok((entry.path(), bytes))
}

/// Forgets what has been compiled of this repository's own crates and linked, and the package.
fn recompile(ws: &Workspace) -> Result<(), String> {
    for target in build::TARGETS {
        let mut command: Command =
            ws.words(&["cargo", "clean", "--target", target, "--profile", "wasm-release"]);
        command.args(["--package", "bitpane", "--package", "bitpane-template"]);
        process::run(ws, "clean", &mut command, LIMIT).into_result("clean")?;
    }
    fs::remove_dir_all(ws.at("pkg")).map_err(|error| format!("pkg: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dry_run_is_done() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>());
        assert_eq!(parse(&["--dry-run"]), Ok(Options { no_tests: false }));
        assert_eq!(parse(&["--no-tests", "--dry-run"]), Ok(Options { no_tests: true }));
        assert!(
            parse(&[]).is_err() && parse(&["--no-tests"]).is_err() && parse(&["--dry-run", "--x"]).is_err()
        );
    }
}
