//! `bitpane perplexity`: how well a language model predicts a text.

use super::{Failure, Outcome, open, output, output::Output, output::Progress};
use crate::tasks::{Score, ScoreOptions, TextModel};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most bytes of text.
const MAX_TEXT_BYTES: u64 = 256 << 20;
/// Most bytes of a record: it is held in memory.
const MAX_RECORD_BYTES: u64 = 8 << 30;

/// Measure how well a language model predicts a text
///
/// The text is tokenized without special tokens and cut into pieces of N - 1 tokens. Each piece is
/// scored by itself, after the model's BOS token where it has one.
///
/// To see what a quantization did, record the distributions of the original with --record and compare the
/// quantized model's with --against: the mean divergence (KL) and how often both find the same token likeliest.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// A text file, UTF-8
    file: PathBuf,
    /// N: tokens that each piece may have, BOS included [default: the model's, at most 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
    /// Write the distributions to this file: two bytes per token and word of the vocabulary
    #[arg(long, value_name = "OUT")]
    record: Option<PathBuf>,
    /// Compare with the distributions in this file, which --record wrote for the same text
    #[arg(long, value_name = "RECORD")]
    against: Option<PathBuf>,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    #[serde(flatten)]
    score: Score,
    ms: f64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let text = open::read_text(&args.file, MAX_TEXT_BYTES)?;
    let against = args.against.as_deref().map(|path| open::read_bytes(path, MAX_RECORD_BYTES)).transpose()?;
    let context = args.context.map(|n| n as usize);
    let mut model = open::text_model(&args.model, &args.load, context)?;
    let options = ScoreOptions { context: None, record: args.record.is_some(), against };
    let document = measure(&mut model, &text, options, args.record.as_deref()).map_err(|e| match e {
        Failure::Input(e) if e.key.as_deref() == Some("against") => {
            Failure::Input(open::in_file(args.against.as_deref().unwrap_or(&args.file), e))
        }
        Failure::Input(e) => Failure::Input(open::in_file(&args.file, e)),
        other => other,
    })?;
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    let row = |name: &str, value: String| [name.to_string(), value];
    let score = &document.score;
    let mut rows = vec![
        row("perplexity", format!("{:.4}", score.perplexity)),
        row("nll", format!("{:.6} nats per token", score.nll)),
    ];
    if let Some(d) = &score.divergence {
        rows.push(row("reference nll", format!("{:.6}", d.reference_nll)));
        rows.push(row("divergence", format!("{:.6} +- {:.6} nats per token", d.mean, d.standard_error)));
        rows.push(row("", format!("median {:.6}, 99 % {:.6}, largest {:.6}", d.median, d.p99, d.max)));
        rows.push(row("same likeliest", format!("{:.2} %", d.same_top * 100.0)));
    }
    rows.push(row("scored", output::rate(score.tokens, "tokens", document.ms)));
    out.table([false, false], &rows)?;
    Ok(())
}

fn measure(
    model: &mut TextModel,
    text: &str,
    options: ScoreOptions,
    record: Option<&Path>,
) -> Result<Document, Failure> {
    let begin = Instant::now();
    let mut scoring = model.start_scoring(text, options)?;
    let create = |path| File::create(path).map_err(|e| open::io_error(path, "cannot create", e));
    let mut file = record.map(|path| create(path).map(|file| (path, BufWriter::new(file)))).transpose()?;
    let mut progress = Progress::new();
    loop {
        let is_last = model.step_scoring(&mut scoring)?;
        if let Some((path, file)) = &mut file {
            file.write_all(&scoring.take_record()).map_err(|e| open::io_error(path, "cannot write", e))?;
        }
        let (done, total) = scoring.progress();
        progress.show("scoring", done as u64, total as u64);
        if is_last {
            break;
        }
    }
    if let Some((path, file)) = &mut file {
        file.flush().map_err(|e| open::io_error(path, "cannot write", e))?;
    }
    Ok(Document { score: scoring.score(), ms: begin.elapsed().as_secs_f64() * 1e3 })
}
