//! Encoders of texts.

use super::{from_js, to_js, to_object};
use crate::tasks;
use wasm_bindgen::prelude::*;

/// A loaded encoder.
#[wasm_bindgen]
pub struct EncoderModel {
    inner: tasks::EncoderModel,
}

impl EncoderModel {
    pub(super) fn new(inner: tasks::EncoderModel) -> Self {
        EncoderModel { inner }
    }
}

#[wasm_bindgen]
impl EncoderModel {
    /// [`tasks::ModelInfo`].
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.info())
    }

    /// Token ids of a text.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, JsValue> {
        self.inner.tokenizer().encode(text, add_special, parse_special).map_err(to_object)
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

    /// The score of a document for a query.
    pub fn rerank(&mut self, query: &str, document: &str) -> Result<f32, JsValue> {
        self.inner.rerank(query, &[document]).map(|scores| scores[0]).map_err(to_object)
    }
}
