//! Runs tests/fuzz.rs for longer than the tests do.

use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::setup;
use crate::workspace::Workspace;

/// Time to compile, on top of what the targets take.
const COMPILE: Duration = Duration::from_secs(30 * 60);

/// Options of `fuzz`.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    seconds: u64,
}

impl Options {
    /// Reads the options from the command line.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let words: Vec<&str> = args.iter().flat_map(|arg| arg.split('=')).collect();
        match words[..] {
            [] => Ok(Options { seconds: 60 }),
            ["--seconds", n] => match n.parse() {
                Ok(seconds @ 1..=1_000_000) => Ok(Options { seconds }),
                _ => Err(format!("--seconds {n:?} is no number from 1 to 1000000")),
            },
            _ => Err("the one option is --seconds N; `cargo xtask help` lists them".into()),
        }
    }
}

/// The targets, each for so long, beside each other. With the features of the other tests, which are compiled already.
pub fn command(ws: &Workspace, seconds: u64) -> Command {
    let mut command = ws.words(&["cargo", "test", "--all-features", "--test", "fuzz", "--", "--nocapture"]);
    command.env("FUZZ_SECONDS", seconds.to_string());
    command
}

/// Runs every target; whether all held.
pub fn run(ws: &mut Workspace, options: &Options) -> Result<bool, String> {
    setup::ready(ws, |tool| matches!(tool, setup::Tool::Toolchain)).into_result()?;
    let mut command = command(ws, options.seconds);
    let limit = COMPILE + Duration::from_secs(4 * options.seconds);
    let outcome = process::run(ws, "fuzz", &mut command, limit).into_result("fuzz")?;
    for line in outcome.output.lines().filter(|line| line.contains(" inputs in ")) {
        println!("  {line}");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_options() {
        let parse =
            |args: &[&str]| Options::parse(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(Options { seconds: 60 }));
        assert_eq!(parse(&["--seconds", "5"]), Ok(Options { seconds: 5 }));
        assert_eq!(parse(&["--seconds=7"]), Ok(Options { seconds: 7 }));
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--second", "1"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
