//! `bitpane imatrix`: which inputs of a model's matrices matter.

use super::calibrate::{self, Data, Keep};
use super::open::Threads;
use super::source::Source;
use super::{Outcome, open, output, output::Output};
use serde::Serialize;
use std::path::PathBuf;

/// Collect an importance matrix: how large the inputs of each matrix are on some data
///
/// The file is llama.cpp's (GGUF), for `bitpane quantize --imatrix` and `llama-quantize --imatrix`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF or safetensors file, or a folder with safetensors files, of a language model or an image classifier
    model: PathBuf,
    /// The file to write
    output: PathBuf,
    /// Texts, images or folders with images; by default a short text and drawings that come with this program
    data: Vec<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Serialize)]
struct Document {
    tensors: usize,
    bytes: usize,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    args.threads.start();
    let data = Data::read(&args.data)?;
    let source = Source::open(&args.model)?;
    let outline = source.outline().map_err(|e| open::in_file(&args.model, e))?;
    let found = calibrate::run(&source, &outline, data, Keep::Squares, true)?.statistics;
    let names: Vec<String> = args.data.iter().map(|p| p.display().to_string()).collect();
    let named = if names.is_empty() { "bitpane".into() } else { names.join(", ") };
    let bytes = found.to_gguf(&named)?;
    std::fs::write(&args.output, &bytes).map_err(|e| open::io_error(&args.output, "cannot write", e))?;
    if out.json {
        out.document(&Document { tensors: found.len(), bytes: bytes.len() })?;
    } else {
        let line = format!("the inputs of {} matrices, {}", found.len(), output::bytes(bytes.len() as u64));
        out.line(line)?;
    }
    Ok(())
}
