//! Text generation, one step at a time, so that a caller can stop between any two.

use super::TextModel;
use super::sampler::{Sampler, SamplerParams};
use super::stop::StopFilter;
use crate::error::{Code, Error, Result};
use crate::tokenizer::StreamDecoder;
use serde::{Deserialize, Serialize};

/// Tokens of a prompt that one step processes.
pub(super) const PROMPT_CHUNK: usize = 128;

/// How to generate. Every field may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GenerateOptions {
    /// Most tokens to write; by default 256.
    pub max_tokens: usize,
    /// Go on where the model would end.
    pub ignore_eos: bool,
    /// Texts that end the generation; they are not given out.
    pub stop: Vec<String>,
    /// How tokens are chosen.
    #[serde(flatten)]
    pub sampler: SamplerParams,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: 256,
            ignore_eos: false,
            stop: Vec::new(),
            sampler: SamplerParams::default(),
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The model ended its text, or a stop string was met.
    Stop,
    /// `max_tokens` were written.
    Length,
    /// The context is full.
    Context,
}

/// What one step brought.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Step {
    /// A part of the prompt was processed.
    Prefill {
        /// Prompt tokens in the context.
        done: usize,
        /// Prompt tokens.
        total: usize,
    },
    /// A token was written; its text may be empty while a character or a stop string may
    /// still be incomplete.
    Piece {
        /// What can be shown now.
        text: String,
        /// The token.
        token: u32,
    },
    /// The end.
    Done {
        /// Text that had been held back.
        text: String,
        /// Why.
        reason: Reason,
    },
}

/// A generation under way. Belongs to the model that started it.
pub struct Generation {
    prompt: Vec<u32>,
    /// Prompt tokens in the context.
    fed: usize,
    /// Prompt tokens that were in the context from the start.
    n_cached: usize,
    /// Prompt and what was written.
    history: Vec<u32>,
    n_written: usize,
    sampler: Sampler,
    decoder: StreamDecoder,
    stop: StopFilter,
    options: GenerateOptions,
    ended: Option<Reason>,
}

impl Generation {
    /// Tokens written so far.
    pub fn tokens(&self) -> &[u32] {
        &self.history[self.prompt.len()..]
    }

    /// Tokens of the prompt.
    pub fn n_prompt(&self) -> usize {
        self.prompt.len()
    }

    /// Tokens of the prompt that the context still held, so that they cost nothing.
    pub fn n_cached(&self) -> usize {
        self.n_cached
    }
}

impl TextModel {
    /// Begins a generation. Tokens that the context already holds are not processed again.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for an empty prompt, an unknown token or an option;
    /// [`Code::ContextOverflow`] where the prompt does not leave room for one token.
    pub fn start(&mut self, prompt: Vec<u32>, options: GenerateOptions) -> Result<Generation> {
        self.check_tokens(&prompt)?;
        let n_ctx = self.n_ctx();
        if prompt.len() >= n_ctx {
            let what = format!("a prompt of {} tokens leaves no room in a context of {n_ctx}", prompt.len());
            return Err(Error::new(Code::ContextOverflow, what).key("prompt"));
        }
        options.sampler.validate()?;
        let fed = self.keep_prefix(&prompt);
        Ok(Generation {
            fed,
            n_cached: fed,
            history: prompt.clone(),
            prompt,
            n_written: 0,
            sampler: Sampler::new(options.sampler.clone())?,
            decoder: StreamDecoder::new(),
            stop: StopFilter::new(options.stop.clone()),
            options,
            ended: None,
        })
    }

    /// Processes a part of the prompt, or writes one token.
    ///
    /// # Errors
    /// [`Code::NumericFault`] where the model computes NaN or infinity.
    pub fn step(&mut self, g: &mut Generation) -> Result<Step> {
        let total = g.prompt.len();
        if g.fed < total {
            let end = (g.fed + PROMPT_CHUNK).min(total);
            let n_out = usize::from(end == total);
            self.append(&g.prompt[g.fed..end], n_out);
            g.fed = end;
            return Ok(Step::Prefill { done: end, total });
        }
        let full = g.history.len() >= self.n_ctx();
        let reason = g.ended.or((g.n_written >= g.options.max_tokens).then_some(Reason::Length));
        if let Some(reason) = reason.or(full.then_some(Reason::Context)) {
            g.ended = Some(reason);
            let (text, _) = g.stop.push(&g.decoder.finish());
            return Ok(Step::Done { text: text + &g.stop.finish(), reason });
        }
        let token = g.sampler.sample(self.last_logits(), &g.history)?;
        if self.tokenizer().is_eog(token) && !g.options.ignore_eos {
            g.ended = Some(Reason::Stop);
            return self.step(g);
        }
        g.history.push(token);
        g.n_written += 1;
        let piece = g.decoder.push(self.tokenizer(), token);
        let (text, met) = g.stop.push(&piece);
        if met {
            g.ended = Some(Reason::Stop);
        } else if g.n_written < g.options.max_tokens && g.history.len() < self.n_ctx() {
            self.append(&[token], 1);
        }
        Ok(Step::Piece { text, token })
    }
}
