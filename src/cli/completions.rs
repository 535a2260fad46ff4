//! `bitpane completions`: what a shell needs to complete the command line.

use super::{Cli, Outcome, output::Output};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bitpane completions bash > ~/.local/share/bash-completion/completions/bitpane
  bitpane completions zsh > ~/.zfunc/_bitpane
  bitpane completions fish > ~/.config/fish/completions/bitpane.fish")]
pub(super) struct Args {
    /// bash, zsh or fish (elvish and powershell work too)
    shell: Shell,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bitpane", &mut script);
    let script = String::from_utf8_lossy(&script);
    if out.json {
        out.document(&serde_json::json!({ "script": script }))?;
    } else {
        out.line(script.trim_end())?;
    }
    Ok(())
}
