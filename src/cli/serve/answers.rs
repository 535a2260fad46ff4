//! The model behind the endpoints, and one answer of it.

use super::http::{Events, Refusal, answer, refuse};
use crate::error::{Code, Error};
use crate::tasks::{Embedder, GenerateOptions, Reason, Step, StepLogprobs, TextModel};
use serde_json::{Value, json};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tiny_http::Request;

/// The model and its name.
pub(super) struct Host {
    pub(super) model: Embedder,
    name: String,
    created: u64,
    n_answers: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Host {
    pub(super) fn new(model: Embedder, path: &Path) -> Host {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Host { model, name, created: now(), n_answers: 0 }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The model, as OpenAI lists it.
    pub(super) fn describe(&self) -> Value {
        json!({ "id": self.name, "object": "model", "created": self.created, "owned_by": "bitpane" })
    }

    /// What every answer begins with.
    pub(super) fn head(&mut self, prefix: &str) -> Head {
        self.n_answers += 1;
        Head {
            number: self.n_answers,
            id: format!("{prefix}-{:x}{:08x}", self.created, self.n_answers),
            created: now(),
            model: self.name.clone(),
        }
    }

    /// The language model.
    pub(super) fn text(&mut self) -> Result<&mut TextModel, Error> {
        match &mut self.model {
            Embedder::Text(model) => Ok(model),
            Embedder::Encoder(_) => Err(Error::new(
                Code::UnsupportedArch,
                "the model is an encoder: it makes vectors and writes no text",
            )),
        }
    }
}

/// What every answer begins with.
pub(super) struct Head {
    number: u64,
    id: String,
    created: u64,
    model: String,
}

impl Head {
    /// A number that no other answer of this run has.
    pub(super) fn unique(&self) -> u64 {
        self.number
    }

    pub(super) fn document(&self, object: &str, choices: &Value) -> Value {
        let Head { id, created, model, .. } = self;
        json!({ "id": id, "object": object, "created": created, "model": model, "choices": choices })
    }
}

/// Why an answer ended early.
pub(super) enum Stopped {
    Error(Error),
    /// Nobody listens any longer.
    ClientGone,
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Stopped::Error(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(_: io::Error) -> Self {
        Stopped::ClientGone
    }
}

/// Figures of answers to one request.
#[derive(Default)]
pub(super) struct Usage {
    n_prompt: usize,
    n_cached: Option<usize>,
    n_written: usize,
}

impl Usage {
    pub(super) fn document(&self) -> Value {
        json!({
            "prompt_tokens": self.n_prompt,
            "completion_tokens": self.n_written,
            "total_tokens": self.n_prompt + self.n_written,
            "prompt_tokens_details": { "cached_tokens": self.n_cached.unwrap_or(0) },
        })
    }

    /// Several prompts count one after another.
    pub(super) fn add(&mut self, other: &Usage) {
        self.n_prompt += other.n_prompt;
        self.n_written += other.n_written;
        self.n_cached = Some(self.n_cached.unwrap_or(0) + other.n_cached.unwrap_or(0));
    }
}

/// Writes one answer; `take` gets each piece of text with its log-probabilities.
pub(super) fn write(
    model: &mut TextModel,
    prompt: &[u32],
    options: GenerateOptions,
    usage: &mut Usage,
    mut take: impl FnMut(&str, Option<StepLogprobs>) -> Result<(), Stopped>,
) -> Result<Reason, Stopped> {
    let mut generation = model.start(prompt.to_vec(), options)?;
    let reason = loop {
        match model.step(&mut generation)? {
            Step::Prefill { .. } => {}
            Step::Piece { text, logprobs, .. } => take(&text, logprobs)?,
            Step::Done { text, reason } => {
                take(&text, None)?;
                break reason;
            }
        }
    };
    // Several answers share one prompt, as OpenAI counts them.
    usage.n_prompt = generation.n_prompt();
    usage.n_cached.get_or_insert(generation.n_cached());
    usage.n_written += generation.tokens().len();
    Ok(reason)
}

/// OpenAI's word for it.
pub(super) fn finish_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "stop",
        Reason::Length | Reason::Context => "length",
    }
}

/// Options of the answer of that number: each has a seed of its own.
pub(super) fn of_choice(options: &GenerateOptions, index: usize) -> GenerateOptions {
    let mut options = options.clone();
    options.sampler.seed = options.sampler.seed.map(|seed| seed.saturating_add(index as i64));
    options
}

/// Answers with what `make` gives.
pub(super) fn whole(request: Request, make: impl FnOnce() -> Result<Value, Error>) {
    match make() {
        Ok(document) => answer(request, 200, &document),
        Err(error) => refuse(request, &error.into()),
    }
}

/// Streams what `make` sends. An error after the beginning is an event, since the status is out already.
pub(super) fn stream(request: Request, make: impl FnOnce(&mut Events) -> Result<(), Stopped>) {
    let Ok(mut events) = Events::begin(request) else { return };
    let outcome = make(&mut events);
    if let Err(Stopped::Error(error)) = outcome {
        // Where it cannot be sent, the client has gone.
        let _ = events.send(&Refusal::from(error).document());
    }
    let _ = events.end();
}
