//! The native command line, `bitpane COMMAND`.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 bad input, 2 wrong usage.

mod bench;
mod calibrate;
mod chat;
mod classify;
mod completions;
mod convert;
mod embed;
mod generate;
mod imatrix;
mod info;
mod inspect;
mod labels;
mod logits;
mod open;
mod output;
mod perplexity;
mod photo;
mod pictures;
mod probe;
mod quantize;
mod rerank;
mod sampling;
mod sequential;
mod serve;
mod session;
mod source;
mod template;
mod tokenize;

pub use photo::decode_image;

use crate::error::{Code, Error};
use clap::{Parser, Subcommand};
use output::Output;
use std::io;

/// Runs quantized language models and vision transformers on this machine.
#[derive(Parser)]
#[command(name = "bitpane", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document on stdout instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  bitpane info model.gguf
  bitpane generate model.gguf --prompt \"Once upon a time\"
  bitpane chat model.gguf --system \"Answer briefly.\"
  bitpane classify vit.safetensors cat.jpg dog.png --labels names.txt --quantize Q8_0";

#[derive(Subcommand)]
enum Command {
    Info(info::Args),
    Generate(Box<generate::Args>),
    Chat(Box<chat::Args>),
    Template(template::Args),
    Classify(classify::Args),
    Convert(convert::Args),
    Tokenize(tokenize::Args),
    Logits(logits::Args),
    Embed(embed::Args),
    Rerank(rerank::Args),
    Perplexity(perplexity::Args),
    Bench(bench::Args),
    Serve(Box<serve::Args>),
    Completions(completions::Args),
    Quantize(Box<quantize::Args>),
    Imatrix(imatrix::Args),
    Inspect(inspect::Args),
}

/// Why a command ended early.
enum Failure {
    /// An option has a value that no input could justify: exit code 2.
    Usage(Error),
    /// Something about the input: exit code 1.
    Input(Error),
    /// Already reported, piece by piece: exit code 1.
    Reported,
    /// Whoever read stdout has gone, which is no failure of ours.
    ReaderGone,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Input(error)
    }
}

impl From<io::Error> for Failure {
    /// Only for writing to stdout: reading wraps its errors with the file's name.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Input(
                Error::new(Code::Io, format!("cannot write the result: {error}")).source(error),
            ),
        }
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command line; the exit code.
pub fn run() -> i32 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Where they cannot be written nobody reads them.
            let _ = error.print();
            return error.exit_code();
        }
    };
    let mut out = Output::new(cli.json);
    let outcome = match cli.command {
        Command::Info(args) => info::run(&args, &mut out),
        Command::Generate(args) => generate::run(&args, &mut out),
        Command::Chat(args) => chat::run(&args, &mut out),
        Command::Template(args) => template::run(&args, &mut out),
        Command::Classify(args) => classify::run(&args, &mut out),
        Command::Convert(args) => convert::run(&args, &mut out),
        Command::Tokenize(args) => tokenize::run(&args, &mut out),
        Command::Logits(args) => logits::run(&args, &mut out),
        Command::Embed(args) => embed::run(&args, &mut out),
        Command::Rerank(args) => rerank::run(&args, &mut out),
        Command::Perplexity(args) => perplexity::run(&args, &mut out),
        Command::Bench(args) => bench::run(&args, &mut out),
        Command::Completions(args) => completions::run(&args, &mut out),
        Command::Serve(args) => serve::run(&args, &mut out),
        Command::Quantize(args) => quantize::run(&args, &mut out),
        Command::Imatrix(args) => imatrix::run(&args, &mut out),
        Command::Inspect(args) => inspect::run(&args, &mut out),
    };
    exit_code(outcome.and_then(|()| Ok(out.finish()?)))
}

fn exit_code(outcome: Outcome) -> i32 {
    match outcome {
        Ok(()) | Err(Failure::ReaderGone) => 0,
        Err(Failure::Reported) => 1,
        Err(Failure::Input(error)) => {
            output::report(&error);
            1
        }
        Err(Failure::Usage(mut error)) => {
            if let Some(key) = error.key.take() {
                error.message = format!("{}: {}", flag(&key), error.message);
            }
            output::report(&error);
            output::note("\nFor more information, try '--help'.");
            2
        }
    }
}

/// The flag that sets an option of the API: `repeatPenalty` is `--repeat-penalty`.
fn flag(key: &str) -> String {
    let mut flag = String::from("--");
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
    }
    flag
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn option_keys_become_flags() {
        assert_eq!(flag("repeatPenalty"), "--repeat-penalty");
        assert_eq!(flag("quantize"), "--quantize");
    }
}
