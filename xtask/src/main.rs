//! `cargo xtask`: builds, serves and tests bitpane, and installs what that needs.

mod bench;
mod build;
mod consumers;
mod counts;
mod demo;
mod exact;
mod fuzz;
mod licences;
mod process;
mod release;
mod server;
mod setup;
mod suite;
mod workspace;

use std::process::ExitCode;

use workspace::Workspace;

const HELP: &str = "\
usage: cargo xtask <command>

  demo [--port N] [--open] [--shared] [--no-isolation]
                                        build everything and serve the page on localhost
  test [--only STEP,...] [--list]       run every test and print one summary
  fuzz [--seconds N]                    random templates and tokenizers, for longer than the tests do
  fuzz --coverage [--seconds N]         the targets in fuzz/ under libFuzzer (or --target NAME); needs a C++ compiler
  build                                 make pkg/ (the npm package) and the page
  serve [the same options]              serve what is built already
  bench [--help] [OPTION ...]           measure it beside its peers; the options are the runner's
  consumers [--all] [--only NAME,...]   install the packed package into fresh projects and drive them
  licences                              write the list of what is built in, and under which terms
  release --dry-run [--no-tests]        all checks, the package twice with the same bytes, the tables of README
  setup                                 only install what the other commands need
  help                                  print this

  --seconds N  for each target of fuzz (by default 60)
  --port N     the port to listen on (by default the first free one from 8080 on)
  --open       open the address in a browser
  --shared     also serve ../shared under /shared/ (reference data, where there is any)
  --no-isolation
               leave out the headers without which a page has one thread
  --only STEP  run some steps of the tests only; --list names them
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `Ok(false)` means that it failed and has already said why.
fn dispatch(args: &[String]) -> Result<bool, String> {
    let (command, options) = match args.split_first() {
        Some((command, options)) => (command.as_str(), options),
        None => ("help", args),
    };
    let mut workspace = Workspace::new();
    match command {
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(true)
        }
        "setup" => {
            none_left(options)?;
            setup::all(&mut workspace).into_result()?;
            Ok(true)
        }
        "build" => {
            none_left(options)?;
            setup::for_build(&mut workspace).into_result()?;
            build::everything(&workspace)?;
            Ok(true)
        }
        "demo" => {
            let options = demo::Options::parse(options)?;
            setup::for_build(&mut workspace).into_result()?;
            build::everything(&workspace)?;
            demo::serve(&workspace, &options)?;
            Ok(true)
        }
        "licences" => {
            none_left(options)?;
            licences::write(&workspace)?;
            Ok(true)
        }
        "release" => release::run(&mut workspace, &release::Options::parse(options)?),
        "serve" => {
            demo::serve(&workspace, &demo::Options::parse(options)?)?;
            Ok(true)
        }
        "bench" => bench::run(&mut workspace, options),
        "test" => {
            let options = suite::Options::parse(options)?;
            Ok(suite::run(&mut workspace, &options))
        }
        "consumers" => consumers::run(&mut workspace, &consumers::Options::parse(options)?),
        "fuzz" => fuzz::run(&mut workspace, &fuzz::Options::parse(options)?),
        other => Err(format!("unknown command {other:?}; `cargo xtask help` lists them")),
    }
}

fn none_left(options: &[String]) -> Result<(), String> {
    match options.first() {
        None => Ok(()),
        Some(option) => Err(format!("unknown option {option:?}; `cargo xtask help` lists them")),
    }
}
