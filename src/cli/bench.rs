//! `bitpane bench`: how fast a language model runs here.

use super::{Failure, Outcome, open, output, output::Output};
use crate::error::{Code, Error};
use crate::tasks::{GenerateOptions, ModelInfo, Step, TextModel};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Measure how fast a language model reads prompts and writes
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to write
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    decode: u32,
    /// Measure so many times, after one round that does not count; the medians are the result
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    /// Tokens per second, median.
    prompt_tps: f64,
    decode_tps: f64,
    prompt_tokens: u32,
    decode_tokens: u32,
    load_ms: f64,
    /// Every round.
    prompt_ms: Vec<f64>,
    decode_ms: Vec<f64>,
    #[serde(flatten)]
    model: Model,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    architecture: String,
    parameters: u64,
    bits_per_weight: f64,
    weight_bytes: u64,
    isa: &'static str,
    kernel: String,
    threads: usize,
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Self {
        Model {
            architecture: info.architecture,
            parameters: info.parameters,
            bits_per_weight: info.bits_per_weight,
            weight_bytes: info.weight_bytes,
            isa: info.backend.isa,
            kernel: info.backend.kernel,
            threads: info.backend.threads,
        }
    }
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Milliseconds of a prompt and of the tokens after the first, in an empty context.
fn round(model: &mut TextModel, prompt: &[u32], n_decode: u32) -> Result<(f64, f64), Error> {
    model.forget();
    let mut options =
        GenerateOptions { max_tokens: n_decode as usize, ignore_eos: true, ..GenerateOptions::default() };
    options.sampler.temperature = 0.0;
    let begin = Instant::now();
    let mut generation = model.start(prompt.to_vec(), options)?;
    let mut prompt_ms = 0.0;
    let mut first = begin;
    loop {
        match model.step(&mut generation)? {
            Step::Prefill { .. } => {
                first = Instant::now();
                prompt_ms = (first - begin).as_secs_f64() * 1e3;
            }
            Step::Piece { .. } => {}
            Step::Done { .. } => return Ok((prompt_ms, first.elapsed().as_secs_f64() * 1e3)),
        }
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let n_ctx = args.prompt.saturating_add(args.decode) as usize;
    let begin = Instant::now();
    let mut model = open::text_model(&args.model, &args.load, None)?;
    let load_ms = begin.elapsed().as_secs_f64() * 1e3;
    let info = model.info();
    if n_ctx > info.context_length {
        let what = format!("prompt and text do not fit a context of {}", info.context_length);
        return Err(Failure::Usage(Error::new(Code::BadArgument, what).key("prompt")));
    }
    // Any tokens do; those of most vocabularies' first hundreds are bytes and short pieces.
    let n_vocab = model.tokenizer().n_vocab() as u32;
    let prompt: Vec<u32> = (0..args.prompt).map(|i| (i * 7919 + 3) % n_vocab).collect();
    round(&mut model, &prompt, args.decode)?;
    let (mut prompt_ms, mut decode_ms) = (Vec::new(), Vec::new());
    for _ in 0..args.repeats {
        let (reading, writing) = round(&mut model, &prompt, args.decode)?;
        prompt_ms.push(reading);
        decode_ms.push(writing);
    }
    // The first token comes out of the prompt's own pass.
    let document = Document {
        prompt_tps: f64::from(args.prompt) / median(&prompt_ms) * 1e3,
        decode_tps: f64::from(args.decode - 1) / median(&decode_ms) * 1e3,
        prompt_tokens: args.prompt,
        decode_tokens: args.decode - 1,
        load_ms,
        prompt_ms,
        decode_ms,
        model: info.into(),
    };
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    let Document { prompt_tps, decode_tps, prompt_tokens, decode_tokens, model, .. } = &document;
    out.line(format!(
        "{}: {} weights in {}, {} threads, {} {}",
        model.architecture,
        output::count(model.parameters),
        output::bytes(model.weight_bytes),
        model.threads,
        model.isa,
        model.kernel
    ))?;
    out.line(format!("prompt of {prompt_tokens} tokens: {prompt_tps:.1} tokens/s"))?;
    out.line(format!("text of {decode_tokens} tokens: {decode_tps:.1} tokens/s"))?;
    Ok(())
}
