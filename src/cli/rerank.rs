//! `bitpane rerank`: how well documents answer a query.

use super::{Outcome, open, output, output::Output};
use serde::Serialize;
use std::path::PathBuf;

/// Score documents against a query with a cross-encoder
#[derive(clap::Args)]
pub(super) struct Args {
    /// An encoder with a classification head: a GGUF file
    model: PathBuf,
    /// The query
    #[arg(long, value_name = "TEXT")]
    query: String,
    /// A document (may be given several times)
    #[arg(long, value_name = "TEXT", required = true)]
    document: Vec<String>,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    /// One score per document, in the order given; higher is better.
    scores: Vec<f32>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let mut model = open::encoder_model(&args.model, &args.load)?;
    let documents: Vec<&str> = args.document.iter().map(String::as_str).collect();
    let scores = model.rerank(&args.query, &documents)?;
    if out.json {
        out.document(&Document { scores })?;
        return Ok(());
    }
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let row = |&i: &usize| [format!("{:.4}", scores[i]), output::one_line(documents[i], 72)];
    let rows: Vec<[String; 2]> = order.iter().map(row).collect();
    out.table([true, false], &rows)?;
    Ok(())
}
