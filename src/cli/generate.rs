//! `bitpane generate`: continues a text.

use super::sampling::SamplerArgs;
use super::session::SessionArgs;
use super::{Failure, Outcome, open, output, output::Output};
use crate::tasks::{GenerateOptions, Reason, Speculation, Step, StepLogprobs, TextModel};
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
    /// Write only text that follows this grammar (a file in llama.cpp's format, GBNF)
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
    /// Write only JSON that follows this JSON Schema
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Give ln p of each token and of the N most probable ones (at most 20) with --json
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    speculation: SpeculationArgs,
    #[command(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    load: open::LoadArgs,
}

/// Guessing several tokens at a time
#[derive(clap::Args)]
#[command(next_help_heading = "Speculation: quicker, the same text")]
struct SpeculationArgs {
    /// Guess what followed the same words before; helps with texts that repeat themselves
    #[arg(long, conflicts_with = "draft")]
    lookup: bool,
    /// Guess with this smaller model of the same vocabulary
    #[arg(long, value_name = "MODEL")]
    draft: Option<PathBuf>,
    /// Guess at most this many tokens at a time
    #[arg(long, value_name = "N", default_value_t = Speculation::default().max_draft)]
    max_draft: usize,
}

impl SpeculationArgs {
    fn options(&self) -> Option<Speculation> {
        let max_draft = self.max_draft;
        (self.lookup || self.draft.is_some()).then(|| Speculation { max_draft, ..Speculation::default() })
    }
}

/// Longer files hold no grammar.
const MAX_GRAMMAR_BYTES: u64 = 16 << 20;

impl Args {
    fn options(&self) -> Result<GenerateOptions, Failure> {
        let read = |path: &Option<PathBuf>| {
            path.as_deref().map(|path| open::read_text(path, MAX_GRAMMAR_BYTES)).transpose()
        };
        let mut options = GenerateOptions {
            grammar: read(&self.grammar)?,
            json_schema: read(&self.json_schema)?,
            max_tokens: self.max_tokens,
            ignore_eos: self.ignore_eos,
            stop: self.stop.clone(),
            logprobs: self.logprobs,
            speculative: self.speculation.options(),
            sampler: self.sampler.params(),
            ..GenerateOptions::default()
        };
        self.session.apply(&mut options);
        options.validate().map_err(Failure::Usage)?;
        Ok(options)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    text: String,
    tokens: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<StepLogprobs>>,
    reason: Reason,
    seed: u64,
    prompt_tokens: usize,
    /// Of them, those that a session held.
    cached_tokens: usize,
    /// Tokens that a full context had to forget.
    forgotten_tokens: usize,
    prompt_ms: f64,
    decode_tokens: usize,
    decode_ms: f64,
    /// Tokens that were guessed, and those that were right.
    #[serde(skip_serializing_if = "Option::is_none")]
    guesses: Option<Guesses>,
}

#[derive(Serialize)]
struct Guesses {
    made: usize,
    right: usize,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let options = args.options()?;
    // Before the model, which takes longer to read.
    options.read_grammar()?;
    let mut model = open::text_model(&args.model, &args.load, args.session.context_length)?;
    args.session.restore(&mut model)?;
    if let Some(path) = &args.speculation.draft {
        let draft = open::text_model(path, &args.load.without_adapters(), Some(model.info().context_length))?;
        model.set_draft(*draft).map_err(|e| open::in_file(path, e))?;
    }
    let tokens = model.tokenize(&args.prompt, true, false)?;
    let document = write(&mut model, args, options, tokens, out)?;
    args.session.save(&mut model, &[])?;
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    out.line("")?;
    if let Some(Guesses { made, right }) = document.guesses {
        output::note(format!("\nguessed {made} tokens, {right} of them right"));
    }
    output::note(format!(
        "\nprompt: {}; text: {}; seed: {}",
        output::rate(document.prompt_tokens, "tokens", document.prompt_ms),
        output::rate(document.decode_tokens, "tokens", document.decode_ms),
        document.seed,
    ));
    Ok(())
}

/// Generates, showing prompt and text as it comes unless JSON is wanted.
fn write(
    model: &mut TextModel,
    args: &Args,
    options: GenerateOptions,
    prompt: Vec<u32>,
    out: &mut Output,
) -> Result<Document, Failure> {
    let begin = Instant::now();
    let mut prompt_end = begin;
    let mut logprobs = options.logprobs.map(|_| Vec::new());
    let mut generation = model.start(prompt, options)?;
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
            Step::Piece { text, logprobs: of_step, .. } => {
                logprobs.iter_mut().for_each(|all| all.extend(of_step.clone()));
                (text, None)
            }
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
    let (made, right) = generation.n_drafted();
    let guesses = args.speculation.options().map(|_| Guesses { made, right });
    Ok(Document {
        text,
        tokens: generation.tokens().to_vec(),
        logprobs,
        reason,
        seed: generation.seed(),
        prompt_tokens: generation.n_prompt(),
        cached_tokens: generation.n_cached(),
        forgotten_tokens: generation.n_forgotten(),
        prompt_ms: (prompt_end - begin).as_secs_f64() * 1e3,
        decode_tokens: generation.tokens().len(),
        decode_ms: prompt_end.elapsed().as_secs_f64() * 1e3,
        guesses,
    })
}
