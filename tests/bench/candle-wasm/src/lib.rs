//! candle's quantized llama on the CPU, one thread: the least that a benchmark needs.

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;
use std::io::Cursor;
use wasm_bindgen::prelude::*;

/// A loaded model with its key-value cache.
#[wasm_bindgen]
pub struct Model {
    weights: ModelWeights,
    n_past: usize,
}

#[wasm_bindgen]
impl Model {
    /// Reads a whole GGUF file.
    #[wasm_bindgen(constructor)]
    pub fn new(file: Vec<u8>) -> Result<Model, JsError> {
        console_error_panic_hook::set_once();
        let mut reader = Cursor::new(file);
        let content = gguf_file::Content::read(&mut reader)?;
        let weights = ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?;
        Ok(Model { weights, n_past: 0 })
    }

    /// Appends tokens to the context and gives the most likely next one. With `restart`
    /// the context is emptied first.
    pub fn forward(&mut self, tokens: &[u32], restart: bool) -> Result<u32, JsError> {
        if restart {
            self.n_past = 0;
        }
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.weights.forward(&input, self.n_past)?;
        self.n_past += tokens.len();
        Ok(logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?)
    }
}
