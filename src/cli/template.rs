//! `bitpane template`: a conversation as the model reads it. Needs no weights.

use super::chat::{format, now};
use super::{Outcome, open, output::Output};
use crate::tasks::{ChatFormat, ChatRequest};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::path::PathBuf;

/// Most bytes of a file with messages.
const MAX_MESSAGES_BYTES: u64 = 64 << 20;

/// Show a conversation as the prompt that a model's chat template makes of it
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF file; weights are not needed
    model: PathBuf,
    /// JSON: a list of messages, or an object with messages, tools, documents, enable_thinking,
    /// add_generation_prompt and chat_template_kwargs
    #[arg(long, value_name = "FILE")]
    messages: PathBuf,
    /// Use the template in this file instead of the model's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    text: String,
    tokens: Vec<u32>,
    chat_template: &'static str,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let json = open::read_text(&args.messages, MAX_MESSAGES_BYTES)?;
    let header = open::header(&args.model)?;
    let in_model = |e| open::in_file(&args.model, e);
    let tokenizer = Tokenizer::from_gguf(&header.metadata).map_err(in_model)?;
    let format = match &args.template {
        Some(path) => format(path)?,
        None => ChatFormat::from_gguf(&header.metadata).map_err(in_model)?,
    };
    let request = ChatRequest::from_json(&json).map_err(|e| open::in_file(&args.messages, e))?;
    let prompt = format.render(&tokenizer, &request, now())?;
    let tokens = prompt.encode(&tokenizer)?;
    let chat_template = if args.template.is_some() { "given" } else { format.origin() };
    if out.json {
        out.document(&Document { text: prompt.text, tokens, chat_template })?;
    } else {
        out.piece(&prompt.text)?;
        out.line("")?;
    }
    Ok(())
}
