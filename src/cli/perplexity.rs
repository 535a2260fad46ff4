//! `bitpane perplexity`: how well a language model predicts a text.

use super::{Failure, Outcome, open, output, output::Output, output::Progress};
use crate::error::{Code, Error};
use crate::tasks::TextModel;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Most bytes of text.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// Measure how well a language model predicts a text
///
/// The text is tokenized without special tokens and cut into pieces of N - 1 tokens. Each piece is
/// scored by itself, after the model's BOS token where it has one.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// A text file, UTF-8
    file: PathBuf,
    /// N: tokens that each piece may have, BOS included [default: the model's, at most 2048]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    context: Option<u32>,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    /// Mean over all scored tokens, in nats.
    nll: f64,
    perplexity: f64,
    /// Tokens scored.
    tokens: usize,
    chunks: usize,
    ms: f64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let text = open::read_text(&args.file, MAX_TEXT_BYTES)?;
    let mut model = open::text_model(&args.model, &args.load, args.context.map(|n| n as usize))?;
    let document = measure(&mut model, &text).map_err(|e| match e {
        Failure::Input(e) => Failure::Input(open::in_file(&args.file, e)),
        other => other,
    })?;
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    let row = |name: &str, value: String| [name.to_string(), value];
    out.table(
        [false, false],
        &[
            row("perplexity", format!("{:.4}", document.perplexity)),
            row("nll", format!("{:.6} nats per token", document.nll)),
            row("scored", output::rate(document.tokens, "tokens", document.ms)),
        ],
    )?;
    Ok(())
}

fn measure(model: &mut TextModel, text: &str) -> Result<Document, Failure> {
    let begin = Instant::now();
    let tokens = model.tokenize(text, false, false)?;
    let bos = model.tokenizer().bos();
    let piece_len = model.info().context_length - 1;
    if tokens.len() + usize::from(bos.is_some()) < 2 || piece_len == 0 {
        return Err(Error::new(Code::BadArgument, "too few tokens to score any").into());
    }
    let mut progress = Progress::new();
    let (mut sum, mut n_scored, mut n_chunks) = (0.0, 0, 0);
    for piece in tokens.chunks(piece_len) {
        let chunk: Vec<u32> = bos.into_iter().chain(piece.iter().copied()).collect();
        let (nll, n) = model.nll(&chunk)?;
        sum += nll;
        n_scored += n;
        n_chunks += 1;
        progress.show("scoring", (n_chunks * piece_len) as u64, tokens.len() as u64);
    }
    let nll = sum / n_scored as f64;
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    Ok(Document { nll, perplexity: nll.exp(), tokens: n_scored, chunks: n_chunks, ms })
}
