//! `bitpane embed`: a text as a vector.

use super::{Failure, Outcome, open, output::Output};
use crate::tasks::EmbedOptions;
use serde::Serialize;
use std::path::PathBuf;

/// Make a vector of a text
#[derive(clap::Args)]
pub(super) struct Args {
    /// An encoder or a language model: a GGUF file
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT", required_unless_present = "tokens", conflicts_with = "tokens")]
    text: Option<String>,
    /// Token ids, separated by commas, instead of a text; taken as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    tokens: Vec<u32>,
    /// How the vectors of tokens become one: mean, cls, last, rank or none [default: as the model says]
    #[arg(long, value_name = "POOLING")]
    pooling: Option<String>,
    /// Leave the vector as long as it is; otherwise its length becomes 1
    #[arg(long)]
    no_normalize: bool,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    /// One vector; without pooling one per token.
    embedding: Embedding,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding {
    Pooled(Vec<f32>),
    Tokens(Vec<Vec<f32>>),
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let options = EmbedOptions { pooling: args.pooling.clone(), normalize: !args.no_normalize };
    options.check().map_err(Failure::Usage)?;
    let mut model = open::embedder(&args.model, &args.load)?;
    let tokens = match &args.text {
        Some(text) => model.tokenize(text)?,
        None => args.tokens.clone(),
    };
    let vector = model.embed_tokens(&tokens, &options)?;
    if out.json {
        let embedding = match args.pooling.as_deref().or(model.info().pooling) {
            Some("none") => {
                let n_embd = vector.len() / tokens.len();
                Embedding::Tokens(vector.chunks_exact(n_embd).map(<[f32]>::to_vec).collect())
            }
            _ => Embedding::Pooled(vector),
        };
        out.document(&Document { embedding })?;
        return Ok(());
    }
    for value in &vector {
        out.line(value.to_string())?;
    }
    Ok(())
}
