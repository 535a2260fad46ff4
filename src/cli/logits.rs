//! `bitpane logits`: what a language model expects after each token.

use super::{Outcome, open, output, output::Output};
use crate::tasks::TextModel;
use serde::Serialize;
use std::path::PathBuf;

/// Show the logits that a language model computes after given tokens
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Rows for this many of the last tokens
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    last: u32,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    /// One row of `n_vocab` values per token, the last token's last.
    logits: Vec<Vec<f32>>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let mut model = open::text_model(&args.model, &args.load, None)?;
    let logits = model.logits(&args.tokens, args.last as usize)?;
    if out.json {
        out.document(&Document { logits })?;
        return Ok(());
    }
    let first = args.tokens.len() - logits.len();
    for (i, row) in logits.iter().enumerate() {
        let token = args.tokens[first + i];
        out.line(format!("after token {} ({token} {}), most likely:", first + i + 1, shown(&model, token)))?;
        out.table([true, false, true], &most_likely(&model, row))?;
    }
    Ok(())
}

/// The five tokens with the highest logits.
fn most_likely(model: &TextModel, row: &[f32]) -> Vec<[String; 3]> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.truncate(5);
    order.iter().map(|&i| [i.to_string(), shown(model, i as u32), format!("{:.4}", row[i])]).collect()
}

/// A token's text in quotes.
fn shown(model: &TextModel, token: u32) -> String {
    let bytes = model.tokenizer().token_bytes(token).unwrap_or_default();
    format!("{:?}", output::one_line(&String::from_utf8_lossy(bytes), 24))
}
