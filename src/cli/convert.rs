//! `bitpane convert`: checkpoints and graphs of other programs to GGUF.

use super::{Outcome, labels, open, output::Output};
use crate::container::{tflite, torch};
use crate::error::{Code, Error, Result};
use crate::tasks::convert::{Extras, tflite_to_gguf, torch_to_gguf};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Longest .tflite file, bytes: it is held as a whole.
const MAX_TFLITE: u64 = 1 << 30;
/// Longest text that goes along, bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Convert a vision model to GGUF: a checkpoint of PyTorch (.pth, .pt, .bin) or a quantized .tflite
///
/// Nothing of a checkpoint is run: only tensors are read.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model to read
    input: PathBuf,
    /// The GGUF file to write
    output: PathBuf,
    /// The model's config.json [default: the one beside the input, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The model's preprocessor_config.json [default: the one beside the input, if there is one]
    #[arg(long, value_name = "FILE")]
    preprocessor: Option<PathBuf>,
    /// Names of the classes, one per line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A name for the model
    #[arg(long)]
    name: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    architecture: String,
    tensors: usize,
    /// Tensors that were left out.
    skipped: Vec<String>,
    bytes_before: u64,
    bytes_after: u64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let document = convert(args)?;
    if out.json {
        out.document(&document)?;
    } else {
        let Document { architecture, tensors, skipped, bytes_before, bytes_after } = &document;
        out.line(format!("{architecture}: {tensors} tensors, {bytes_before} bytes became {bytes_after}"))?;
        if !skipped.is_empty() {
            out.line(format!("left out: {} tensors that are no weights", skipped.len()))?;
        }
    }
    Ok(())
}

fn convert(args: &Args) -> Result<Document> {
    let (file, len) = open::open(&args.input)?;
    let input = &args.input;
    let in_file = |e: Error| open::in_file(input, e);
    let len = len.ok_or_else(|| in_file(Error::new(Code::Io, "not a regular file")))?;
    let extras = extras(args)?;
    let prefix = open::prefix(input, 8)?;
    // Written beside, so that a failure leaves no half of a model under the name.
    let part = args.output.with_extension("gguf.part");
    let result = if tflite::is_tflite(&prefix) {
        let bytes = open::read_bytes(input, MAX_TFLITE)?;
        let gguf = tflite_to_gguf(&bytes, &extras).map_err(in_file)?;
        let write = |part: &Path| std::fs::write(part, &gguf);
        write(&part).map_err(|e| open::io_error(&part, "cannot write", e)).map(|()| {
            let header = crate::container::parse(&gguf, Some(gguf.len() as u64)).ok().flatten();
            ("qcnn".to_string(), header.map_or(0, |h| h.tensors.len()), Vec::new())
        })
    } else if torch::is_torch(&prefix) {
        from_torch(file, len, &part, &extras).map_err(in_file)
    } else {
        let rule = "neither a checkpoint of PyTorch nor a .tflite file";
        return Err(in_file(Error::new(Code::BadMagic, rule).at(0)));
    };
    let (architecture, tensors, skipped) = result.inspect_err(|_| drop(std::fs::remove_file(&part)))?;
    std::fs::rename(&part, &args.output).map_err(|e| open::io_error(&args.output, "cannot write", e))?;
    let bytes_after = std::fs::metadata(&args.output).map_or(0, |m| m.len());
    Ok(Document { architecture, tensors, skipped, bytes_before: len, bytes_after })
}

fn from_torch(file: File, len: u64, part: &Path, extras: &Extras) -> Result<(String, usize, Vec<String>)> {
    let created = File::create(part).map_err(|e| open::io_error(part, "cannot write", e))?;
    let mut out = BufWriter::new(created);
    let converted = torch_to_gguf(&mut BufReader::new(file), len, &mut out, extras)?;
    out.flush().map_err(|e| open::io_error(part, "cannot write", e))?;
    Ok((converted.architecture.into(), converted.n_tensors, converted.skipped))
}

fn extras(args: &Args) -> Result<Extras> {
    let text = |given: &Option<PathBuf>, name: &str| {
        let path = given.clone().or_else(|| open::beside(&args.input, name));
        path.map(|path| open::read_text(&path, MAX_TEXT)).transpose()
    };
    Ok(Extras {
        name: args.name.clone(),
        config: text(&args.config, "config.json")?,
        preprocessor: text(&args.preprocessor, "preprocessor_config.json")?,
        labels: args.labels.as_deref().map(labels::read).transpose()?,
    })
}
