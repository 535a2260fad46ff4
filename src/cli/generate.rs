//! `bitpane generate`: continues a text.

use super::{Failure, Outcome, open, output, output::Output};
use crate::tasks::sampler::SamplerParams;
use crate::tasks::{GenerateOptions, Reason, Step, TextModel};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Continue a text with a language model
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// The text to continue
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Write at most this many tokens
    #[arg(long, value_name = "N", default_value_t = GenerateOptions::default().max_tokens)]
    max_tokens: usize,
    /// Go on where the model would end its text
    #[arg(long)]
    ignore_eos: bool,
    /// End before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Most tokens that prompt and answer may have together [default: the model's, at most 2048]
    #[arg(long, value_name = "N")]
    context_length: Option<usize>,
    #[command(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    load: open::LoadArgs,
}

/// How tokens are chosen.
#[derive(clap::Args)]
#[command(next_help_heading = "Choosing tokens")]
struct SamplerArgs {
    /// 0 always takes the most probable token; more is more varied
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().temperature)]
    temperature: f32,
    /// Choose among this many of the most probable tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().top_k)]
    top_k: i64,
    /// Choose among the fewest tokens that reach this probability together
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().top_p)]
    top_p: f32,
    /// Choose among tokens with at least this share of the highest probability
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().min_p)]
    min_p: f32,
    /// Make recent tokens less likely; 1 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().repeat_penalty)]
    repeat_penalty: f32,
    /// How many tokens count as recent
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().repeat_last_n)]
    repeat_last_n: i64,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: i64,
}

impl Args {
    fn options(&self) -> GenerateOptions {
        let s = &self.sampler;
        GenerateOptions {
            max_tokens: self.max_tokens,
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            sampler: SamplerParams {
                temperature: s.temperature,
                top_k: s.top_k,
                top_p: s.top_p,
                min_p: s.min_p,
                repeat_penalty: s.repeat_penalty,
                repeat_last_n: s.repeat_last_n,
                seed: Some(s.seed),
            },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    text: String,
    tokens: Vec<u32>,
    reason: Reason,
    prompt_tokens: usize,
    prompt_ms: f64,
    decode_tokens: usize,
    decode_ms: f64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    args.options().sampler.validate().map_err(Failure::Usage)?;
    let mut model = open::text_model(&args.model, &args.load, args.context_length)?;
    let tokens = model.tokenize(&args.prompt, true, false)?;
    let document = write(&mut model, args, tokens, out)?;
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    out.line("")?;
    output::note(format!(
        "\nprompt: {}; text: {}",
        output::rate(document.prompt_tokens, "tokens", document.prompt_ms),
        output::rate(document.decode_tokens, "tokens", document.decode_ms),
    ));
    Ok(())
}

/// Generates, showing prompt and text as it comes unless JSON is wanted.
fn write(
    model: &mut TextModel,
    args: &Args,
    prompt: Vec<u32>,
    out: &mut Output,
) -> Result<Document, Failure> {
    let begin = Instant::now();
    let mut prompt_end = begin;
    let mut generation = model.start(prompt, args.options())?;
    if !out.json {
        out.piece(&args.prompt)?;
    }
    let mut text = String::new();
    let reason = loop {
        let (piece, end) = match model.step(&mut generation)? {
            Step::Prefill { .. } => {
                prompt_end = Instant::now();
                continue;
            }
            Step::Piece { text, .. } => (text, None),
            Step::Done { text, reason } => (text, Some(reason)),
        };
        if !out.json {
            out.piece(&piece)?;
        }
        text.push_str(&piece);
        if let Some(reason) = end {
            break reason;
        }
    };
    Ok(Document {
        text,
        tokens: generation.tokens().to_vec(),
        reason,
        prompt_tokens: generation.n_prompt(),
        prompt_ms: (prompt_end - begin).as_secs_f64() * 1e3,
        decode_tokens: generation.tokens().len(),
        decode_ms: prompt_end.elapsed().as_secs_f64() * 1e3,
    })
}
