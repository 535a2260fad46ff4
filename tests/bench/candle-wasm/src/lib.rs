//! candle's quantized llama and Qwen3 on the CPU, one thread: the least that a benchmark needs.

use candle_core::quantized::gguf_file;
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen3};
use std::io::Cursor;
use wasm_bindgen::prelude::*;

enum Weights {
    Llama(quantized_llama::ModelWeights),
    Qwen3(quantized_qwen3::ModelWeights),
}

/// A loaded model with its key-value cache.
#[wasm_bindgen]
pub struct Model {
    weights: Weights,
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
        let is_qwen3 = match content.metadata.get("general.architecture") {
            Some(name) => name.to_string()? == "qwen3",
            None => false,
        };
        let weights = if is_qwen3 {
            Weights::Qwen3(quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?)
        } else {
            Weights::Llama(quantized_llama::ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?)
        };
        Ok(Model { weights, n_past: 0 })
    }

    /// Appends tokens to the context and gives the most likely next one. With `restart`
    /// the context is emptied first.
    pub fn forward(&mut self, tokens: &[u32], restart: bool) -> Result<u32, JsError> {
        if restart {
            self.n_past = 0;
            if let Weights::Qwen3(weights) = &mut self.weights {
                weights.clear_kv_cache();
            }
        }
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match &mut self.weights {
            Weights::Llama(weights) => weights.forward(&input, self.n_past)?,
            Weights::Qwen3(weights) => weights.forward(&input, self.n_past)?,
        };
        self.n_past += tokens.len();
        Ok(logits.squeeze(0)?.argmax(0)?.to_scalar::<u32>()?)
    }
}
