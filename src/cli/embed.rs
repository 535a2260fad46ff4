//! `bitpane embed`: a text or a photo as a vector.

use super::{Failure, Outcome, open, output::Output, photo};
use crate::error::Error;
use crate::models::vision::Values;
use crate::tasks::{AttentionOptions, EmbedOptions, similarity};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Make a vector of a text or a photo
#[derive(clap::Args)]
pub(super) struct Args {
    /// An encoder, a language model or a vision model
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["tokens", "image"], conflicts_with = "tokens")]
    text: Option<String>,
    /// Token ids, separated by commas, instead of a text; taken as they are
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "image")]
    tokens: Vec<u32>,
    /// A photo, for vision models; together with --text their similarity is given too
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Of a photo: one vector, one of each patch, or how much the model attends to each patch
    #[arg(long, value_enum, default_value_t = What::Pooled, requires = "image")]
    output: What,
    /// For attention: the layer, from 0 on [default: all layers together (rollout)]
    #[arg(long, value_name = "N", requires = "image")]
    layer: Option<usize>,
    /// For attention: the head of that layer, from 0 on [default: the mean of all heads]
    #[arg(long, value_name = "N", requires = "layer")]
    head: Option<usize>,
    /// How the vectors of tokens become one: mean, cls, last, rank or none [default: as the model says]
    #[arg(long, value_name = "POOLING")]
    pooling: Option<String>,
    /// Leave the vector as long as it is; otherwise its length becomes 1
    #[arg(long)]
    no_normalize: bool,
    #[command(flatten)]
    load: open::LoadArgs,
}

/// What of a photo.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Pooled,
    Patches,
    Attention,
}

#[derive(Serialize)]
struct Document {
    /// One vector; without pooling one per token.
    embedding: Embedding,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhotoDocument {
    shape: Vec<usize>,
    /// Row-major.
    embedding: Vec<f32>,
    /// The cosine with the text's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
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
    if let Some(image) = &args.image {
        return photo_vector(args, image, out);
    }
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

/// The vector of a photo; without `--image`, texts go to the models that are made for them.
fn photo_vector(args: &Args, image: &Path, out: &mut Output) -> Outcome {
    let mut model = open::vision_model(&args.model, &args.load)?;
    let photo = photo::read(image)?;
    let view = photo.view()?;
    let in_file = |e: Error| open::in_file(image, e);
    let found = match args.output {
        What::Pooled if args.no_normalize => {
            model.features(&view).map(|v| Values { shape: vec![v.len()], values: v })
        }
        What::Pooled => model.embed_image(&view).map(|v| Values { shape: vec![v.len()], values: v }),
        What::Patches => model.patches(&view),
        What::Attention => model.attention(&view, AttentionOptions { layer: args.layer, head: args.head }),
    };
    let Values { shape, values } = found.map_err(in_file)?;
    let compared = match &args.text {
        Some(text) => Some(similarity(&model.embed_image(&view).map_err(in_file)?, &model.embed_text(text)?)),
        None => None,
    };
    if out.json {
        out.document(&PhotoDocument { shape, embedding: values, similarity: compared })?;
        return Ok(());
    }
    if let Some(similarity) = compared {
        out.line(format!("similarity {similarity:.4}"))?;
        return Ok(());
    }
    let per_line = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
    for row in values.chunks(per_line) {
        let row: Vec<String> = row.iter().map(f32::to_string).collect();
        out.line(row.join(" "))?;
    }
    Ok(())
}
