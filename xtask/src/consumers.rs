//! Installs the packed package into fresh projects and drives what they make of it (tests/consumers).

use std::process::Command;
use std::time::Duration;

use crate::build;
use crate::process;
use crate::setup;
use crate::workspace::Workspace;

/// All of them together, the heaviest bundler included.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Options of `consumers`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Names as tests/consumers/consumers.test.mjs has them, separated by commas; the quick ones by default.
    only: Option<String>,
}

impl Options {
    /// All that there are.
    pub fn every() -> Options {
        Options { only: Some("all".into()) }
    }

    /// Reads the options from the command line.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let words: Vec<&str> = args.iter().flat_map(|arg| arg.split('=')).collect();
        match words[..] {
            [] => Ok(Options::default()),
            ["--all"] => Ok(Options::every()),
            ["--only", names] if !names.is_empty() => Ok(Options { only: Some(names.into()) }),
            _ => Err("the options are --all and --only NAME,...; `cargo xtask help` lists them".into()),
        }
    }
}

/// The tests of the consumers asked for, of what lies in pkg/.
pub fn command(ws: &Workspace, options: &Options) -> Command {
    let mut command = ws.words(&["npm", "run", "--silent", "consumers"]);
    if let Some(names) = &options.only {
        command.env("CONSUMERS", names);
    }
    if let Some(chromium) = setup::browser(ws) {
        command.env("CHROME", chromium);
    }
    command
}

/// Builds the package and tests its consumers; whether all of them work.
pub fn run(ws: &mut Workspace, options: &Options) -> Result<bool, String> {
    setup::all(ws).into_result()?;
    build::everything(ws)?;
    let outcome = process::run(ws, "consumers", &mut command(ws, options), LIMIT).into_result("consumers")?;
    for line in outcome.output.lines().map(|line| line.trim_start_matches("# ")) {
        if line.starts_with("consumer ") || line.starts_with("package: ") {
            println!("  {line}");
        }
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
        assert_eq!(parse(&[]), Ok(Options { only: None }));
        assert_eq!(parse(&["--all"]), Ok(Options { only: Some("all".into()) }));
        assert_eq!(parse(&["--only", "vite,next"]), Ok(Options { only: Some("vite,next".into()) }));
        assert_eq!(parse(&["--only=vite"]), Ok(Options { only: Some("vite".into()) }));
        for wrong in [&["--only"][..], &["--only="], &["vite"], &["--al"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
