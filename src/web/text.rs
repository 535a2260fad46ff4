//! Language models.

use super::{from_js, to_js, to_object};
use crate::tasks;
use crate::template::Clock;
use wasm_bindgen::prelude::*;

/// A loaded language model.
#[wasm_bindgen]
pub struct TextModel {
    inner: tasks::TextModel,
}

impl TextModel {
    pub(super) fn new(inner: tasks::TextModel) -> Self {
        TextModel { inner }
    }
}

/// A generation under way. Belongs to the model that started it; starting another ends it.
#[wasm_bindgen]
pub struct Generation {
    inner: tasks::Generation,
}

#[wasm_bindgen]
impl Generation {
    /// How many tokens have been guessed, and how many of them rightly.
    pub fn guesses(&self) -> Vec<u32> {
        let (made, right) = self.inner.n_drafted();
        vec![made as u32, right as u32]
    }

    /// Tokens of the prompt that the context still held, so that they cost nothing.
    #[wasm_bindgen(js_name = cachedTokens)]
    pub fn n_cached(&self) -> usize {
        self.inner.n_cached()
    }

    /// Tokens that a full context had to forget.
    #[wasm_bindgen(js_name = forgottenTokens)]
    pub fn n_forgotten(&self) -> usize {
        self.inner.n_forgotten()
    }

    /// The seed of the random choices.
    pub fn seed(&self) -> f64 {
        self.inner.seed() as f64
    }
}

/// A scoring under way. Belongs to the model that started it.
#[wasm_bindgen]
pub struct Scoring {
    inner: tasks::Scoring,
}

#[wasm_bindgen]
impl Scoring {
    /// What has been recorded since the last call.
    #[wasm_bindgen(js_name = takeRecord)]
    pub fn take_record(&mut self) -> Vec<u8> {
        self.inner.take_record()
    }

    /// [`tasks::Score`], once all is scored.
    pub fn score(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.score())
    }
}

#[wasm_bindgen]
impl TextModel {
    /// [`tasks::ModelInfo`].
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.info())
    }

    /// Token ids of a text.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, JsValue> {
        self.inner.tokenize(text, add_special, parse_special).map_err(to_object)
    }

    /// The prompt of a conversation: `request` is the JSON that [`tasks::ChatRequest`] reads, `now` the wall
    /// clock's seconds since 1970-01-01 00:00.
    #[wasm_bindgen(js_name = chatTokens)]
    pub fn chat_tokens(&mut self, request: &str, now: f64) -> Result<Vec<u32>, JsValue> {
        let request = tasks::ChatRequest::from_json(request).map_err(to_object)?;
        self.inner.chat_tokens(&request, Clock::from_seconds(now as i64)).map_err(to_object)
    }

    /// The prompt of a conversation as text.
    #[wasm_bindgen(js_name = chatText)]
    pub fn chat_text(&self, request: &str, now: f64) -> Result<String, JsValue> {
        let request = tasks::ChatRequest::from_json(request).map_err(to_object)?;
        Ok(self.inner.chat_text(&request, Clock::from_seconds(now as i64)).map_err(to_object)?.text)
    }

    /// The bytes that token ids stand for: not always whole UTF-8 characters.
    pub fn detokenize(
        &self,
        ids: &[u32],
        remove_special: bool,
        unparse_special: bool,
    ) -> Result<Vec<u8>, JsValue> {
        self.inner.tokenizer().decode(ids, remove_special, unparse_special).map_err(to_object)
    }

    /// The vector of token ids; `options` are those of [`tasks::EmbedOptions`].
    pub fn embed(&mut self, ids: &[u32], options: JsValue) -> Result<Vec<f32>, JsValue> {
        self.inner.embed_tokens(ids, &from_js(options)?).map_err(to_object)
    }

    /// The token that starts a text, for models that have one.
    pub fn bos(&self) -> Option<u32> {
        self.inner.tokenizer().bos()
    }

    /// Logits of the last `last` tokens, row after row: `[last, n_vocab]`.
    pub fn logits(&mut self, ids: &[u32], last: usize) -> Result<Vec<f32>, JsValue> {
        self.inner.logits(ids, last).map(|rows| rows.concat()).map_err(to_object)
    }

    /// Begins to score a text: [`tasks::ScoreOptions`].
    #[wasm_bindgen(js_name = startScoring)]
    pub fn start_scoring(
        &self,
        text: &str,
        context: Option<usize>,
        record: bool,
        against: Option<Vec<u8>>,
    ) -> Result<Scoring, JsValue> {
        let options = tasks::ScoreOptions { context, record, against };
        Ok(Scoring { inner: self.inner.start_scoring(text, options).map_err(to_object)? })
    }

    /// Scores one piece; whether that was the last.
    #[wasm_bindgen(js_name = stepScoring)]
    pub fn step_scoring(&mut self, scoring: &mut Scoring) -> Result<bool, JsValue> {
        self.inner.step_scoring(&mut scoring.inner).map_err(to_object)
    }

    /// Has a smaller model of the same vocabulary guess tokens where speculation is asked for.
    #[wasm_bindgen(js_name = setDraft)]
    pub fn set_draft(&mut self, draft: TextModel) -> Result<(), JsValue> {
        self.inner.set_draft(draft.inner).map_err(to_object)
    }

    /// The context as bytes.
    #[wasm_bindgen(js_name = saveSession)]
    pub fn save_session(&mut self) -> Result<Vec<u8>, JsValue> {
        self.inner.save_session(&[]).map_err(to_object)
    }

    /// Takes up a saved context; the number of its tokens.
    #[wasm_bindgen(js_name = restoreSession)]
    pub fn restore_session(&mut self, bytes: &[u8]) -> Result<usize, JsValue> {
        Ok(self.inner.restore_session(bytes).map_err(to_object)?.0)
    }

    /// Begins a generation; `options` are those of [`tasks::GenerateOptions`].
    pub fn start(&mut self, prompt: Vec<u32>, options: JsValue) -> Result<Generation, JsValue> {
        let mut options: tasks::GenerateOptions = from_js(options)?;
        // The standard library has no randomness here.
        options.sampler.seed.get_or_insert_with(|| (js_sys::Math::random() * 4_294_967_296.0) as i64);
        let inner = self.inner.start(prompt, options).map_err(to_object)?;
        Ok(Generation { inner })
    }

    /// One step of a generation: [`tasks::Step`].
    pub fn step(&mut self, generation: &mut Generation) -> Result<JsValue, JsValue> {
        to_js(&self.inner.step(&mut generation.inner).map_err(to_object)?)
    }
}
