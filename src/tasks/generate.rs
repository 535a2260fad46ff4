//! Text generation, one step at a time, so that a caller can stop between any two.

use super::TextModel;
use super::sampler::{Logprobs, Sampler, SamplerParams};
use super::speculate::{Drafts, Speculation};
use super::stop::StopFilter;
use crate::error::{Code, Error, Result};
use crate::grammar::{Constraint, Grammar};
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
    /// Where the context is full, forgets half of it and goes on instead of ending. A prompt that is too long
    /// loses tokens in the same place.
    pub context_shift: bool,
    /// With `context_shift`: so many tokens at the start are never forgotten, BOS not counted, which never is;
    /// -1 for the whole prompt. By default 0.
    pub n_keep: i64,
    /// Gives ln p of each token, and of this many of the most probable ones beside it; at most
    /// [`MAX_LOGPROBS`]. By default `None`: neither. See [`TokenLogprob`](super::sampler::TokenLogprob).
    pub logprobs: Option<usize>,
    /// Guesses several tokens at a time and checks them at once: quicker where the text repeats what is
    /// there, or with a draft model; the same text. By default `None`: no guesses.
    pub speculative: Option<Speculation>,
    /// A grammar in GBNF that the text follows: no token is chosen that it does not allow, the text ends only
    /// where it may, and does when nothing can follow. Where `max_tokens` or the context ends it before, the
    /// text is cut off.
    pub grammar: Option<String>,
    /// A JSON Schema, as JSON, that the text follows in the same way. Not beside `grammar`.
    pub json_schema: Option<String>,
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
            context_shift: false,
            n_keep: 0,
            logprobs: None,
            speculative: None,
            grammar: None,
            json_schema: None,
            sampler: SamplerParams::default(),
        }
    }
}

/// Most tokens for which one step gives log-probabilities, as OpenAI's limit.
pub const MAX_LOGPROBS: usize = 20;

impl GenerateOptions {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Code::BadArgument`] whose key is the option.
    pub fn validate(&self) -> Result<()> {
        self.sampler.validate()?;
        self.speculative.iter().try_for_each(Speculation::validate)?;
        if self.grammar.is_some() && self.json_schema.is_some() {
            return Err(Error::new(Code::BadArgument, "either grammar or jsonSchema").key("jsonSchema"));
        }
        if self.n_keep < -1 {
            let rule = format!("nKeep must be at least -1, not {}", self.n_keep);
            return Err(Error::new(Code::BadArgument, rule).key("nKeep"));
        }
        match self.logprobs {
            Some(n) if n > MAX_LOGPROBS => {
                let rule = format!("logprobs must be a whole number from 0 to {MAX_LOGPROBS}, not {n}");
                Err(Error::new(Code::BadArgument, rule).key("logprobs"))
            }
            _ => Ok(()),
        }
    }

    /// The grammar that is asked for.
    ///
    /// # Errors
    /// [`Code::GrammarError`], [`Code::GrammarBudget`].
    pub fn read_grammar(&self) -> Result<Option<Grammar>> {
        let named =
            |key: &'static str| move |error: Error| if error.key.is_some() { error } else { error.key(key) };
        match (&self.grammar, &self.json_schema) {
            (Some(text), _) => Grammar::from_gbnf(text).map_err(named("grammar")).map(Some),
            (None, Some(text)) => Grammar::from_json_schema(text).map_err(named("jsonSchema")).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// A token and how probable the model found it, before any sampler.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scored {
    /// The token.
    pub token: u32,
    /// Its bytes: not always whole characters.
    pub bytes: Vec<u8>,
    /// ln p, in nats.
    pub logprob: f64,
}

/// The log-probabilities of one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepLogprobs {
    /// The token that was chosen.
    #[serde(flatten)]
    pub chosen: Scored,
    /// The most probable tokens, the first one first, whether or not the chosen one is among them.
    pub top: Vec<Scored>,
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
    /// A part of the prompt was processed: a part of a layer, with as many tokens as pass together.
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
        /// Log-probabilities, if they were asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        logprobs: Option<StepLogprobs>,
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
    /// As much of it as the context takes.
    n_prompt: usize,
    /// Prompt tokens in the context.
    fed: usize,
    /// Prompt tokens that were in the context from the start.
    n_cached: usize,
    /// Prompt and what was written.
    history: Vec<u32>,
    /// What of that the context holds or is to hold: all, unless it was full.
    window: Vec<u32>,
    /// How many of the first tokens are never forgotten.
    n_keep: usize,
    /// Tokens that were forgotten.
    n_forgotten: usize,
    n_written: usize,
    sampler: Sampler,
    logprobs: Logprobs,
    constraint: Option<Constraint>,
    decoder: StreamDecoder,
    stop: StopFilter,
    drafts: Drafts,
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

    /// Tokens that the context had to forget.
    pub fn n_forgotten(&self) -> usize {
        self.n_forgotten
    }

    /// Tokens that were guessed, and those of them that were right.
    pub fn n_drafted(&self) -> (usize, usize) {
        (self.drafts.n_drafted, self.drafts.n_accepted)
    }

    /// The seed of the random choices: the one that was asked for, or the one that was made up.
    pub fn seed(&self) -> u64 {
        self.sampler.seed()
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
        options.validate()?;
        let n_keep = self.n_keep(&prompt, &options);
        let (n_ctx, mut window) = (self.n_ctx(), prompt.clone());
        if prompt.len() >= n_ctx {
            // In a context of one token nothing can follow.
            if !options.context_shift || n_ctx < 2 {
                let what =
                    format!("a prompt of {} tokens leaves no room in a context of {n_ctx}", prompt.len());
                return Err(Error::new(Code::ContextOverflow, what).key("prompt"));
            }
            window.drain(n_keep..prompt.len() - (n_ctx - n_keep).div_ceil(2).min(n_ctx - 1));
        }
        let sampler = Sampler::with_tokenizer(options.sampler.clone(), self.tokenizer())?;
        let constraint = match options.read_grammar()? {
            Some(grammar) => Some(Constraint::new(&grammar, self.token_trie())?),
            None => None,
        };
        let ended = constraint.as_ref().is_some_and(Constraint::is_complete).then_some(Reason::Stop);
        let fed = self.keep_prefix(&window);
        Ok(Generation {
            fed,
            n_cached: fed,
            n_forgotten: prompt.len() - window.len(),
            n_prompt: window.len(),
            history: prompt.clone(),
            window,
            n_keep,
            prompt,
            n_written: 0,
            sampler,
            logprobs: Logprobs::default(),
            constraint,
            decoder: StreamDecoder::new(),
            stop: StopFilter::new(options.stop.clone()),
            drafts: Drafts::default(),
            options,
            ended,
        })
    }

    /// Processes a part of the prompt, short enough that who wants to stop need not wait, or writes one token.
    ///
    /// # Errors
    /// [`Code::NumericFault`] where the model computes NaN or infinity.
    pub fn step(&mut self, g: &mut Generation) -> Result<Step> {
        let total = g.n_prompt;
        if g.fed < total {
            g.fed = self.append_prompt(&g.window[..total], g.fed);
            return Ok(Step::Prefill { done: g.fed, total });
        }
        let full = g.window.len() >= self.n_ctx();
        let reason = g.ended.or((g.n_written >= g.options.max_tokens).then_some(Reason::Length));
        if let Some(reason) = reason.or(full.then_some(Reason::Context)) {
            g.ended = Some(reason);
            let (text, _) = g.stop.push(&g.decoder.finish());
            return Ok(Step::Done { text: text + &g.stop.finish(), reason });
        }
        let logits = self.row_logits(g.drafts.row());
        if g.options.logprobs.is_some() {
            g.logprobs.keep(logits);
        }
        if let Some(constraint) = &mut g.constraint {
            constraint.mask(logits, !g.options.ignore_eos)?;
        }
        let token = g.sampler.sample(logits, &g.history)?;
        if self.tokenizer().is_eog(token) && !g.options.ignore_eos {
            g.ended = Some(Reason::Stop);
            return self.step(g);
        }
        g.history.push(token);
        g.window.push(token);
        g.n_written += 1;
        let piece = g.decoder.push(self.tokenizer(), token);
        let (text, met) = g.stop.push(&piece);
        let mut complete = false;
        if let Some(constraint) = &mut g.constraint {
            constraint.accept(self.tokenizer().token_bytes(token).unwrap_or_default())?;
            complete = constraint.is_complete();
        }
        if met || complete {
            g.ended = Some(Reason::Stop);
        } else if g.n_written < g.options.max_tokens {
            self.prepare_next(g, token);
        }
        Ok(Step::Piece { text, token, logprobs: self.step_logprobs(g, token) })
    }

    /// Processes the token that was just written, so that there are logits for the next one.
    fn prepare_next(&mut self, g: &mut Generation, token: u32) {
        if g.options.context_shift && g.window.len() >= self.n_ctx() {
            self.make_room(g);
        }
        if g.window.len() < self.n_ctx() && !g.drafts.is_guessed(token) {
            let room = (g.options.max_tokens - g.n_written).min(self.n_ctx() - g.window.len());
            self.append_with_guesses(&g.window, &mut g.drafts, g.options.speculative.as_ref(), room - 1);
        }
    }

    /// How many of the first tokens the context is not to forget, as llama.cpp counts them.
    fn n_keep(&self, prompt: &[u32], options: &GenerateOptions) -> usize {
        let bos = usize::from(self.tokenizer().bos() == prompt.first().copied());
        let keep = usize::try_from(options.n_keep).map_or(prompt.len(), |n| n.saturating_add(bos));
        keep.min(prompt.len()).min(self.n_ctx().saturating_sub(4))
    }

    /// Forgets half of what the context holds beyond the tokens to keep.
    fn make_room(&mut self, g: &mut Generation) {
        // The last token is not in the context yet, and guesses after it are void.
        let n_held = g.window.len() - 1;
        let n_forget = (n_held - g.n_keep).div_ceil(2);
        self.go_back(n_held);
        self.forget_range(g.n_keep, n_forget);
        g.window.drain(g.n_keep..g.n_keep + n_forget);
        g.n_forgotten += n_forget;
    }

    fn step_logprobs(&self, g: &mut Generation, token: u32) -> Option<StepLogprobs> {
        let n = g.options.logprobs?;
        let bytes = |token| self.tokenizer().token_bytes(token).unwrap_or_default().to_vec();
        let scored = |token, logprob| Scored { token, bytes: bytes(token), logprob };
        let chosen = scored(token, g.logprobs.of(token));
        Some(StepLogprobs { chosen, top: g.logprobs.top(n).map(|t| scored(t.id, t.logprob)).collect() })
    }
}
