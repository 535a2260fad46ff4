//! Tokenizers against llama.cpp's own results, and malformed tokenizer data.

#[path = "tokenizer/faults.rs"]
mod faults;
#[path = "tokenizer/json.rs"]
mod json;
#[path = "tokenizer/limits.rs"]
mod limits;
#[path = "tokenizer/merges.rs"]
mod merges;
#[path = "tokenizer/unigram.rs"]
mod unigram;
// Needs the reference data, and a page has no files.
#[cfg(not(target_arch = "wasm32"))]
#[path = "tokenizer/vectors.rs"]
mod vectors;

use bitpane::container::{Metadata, gguf};
use bitpane::tokenizer::Tokenizer;
use std::path::PathBuf;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Milliseconds allowed for a megabyte. Builds without optimization, browsers and busy machines need the slack.
const PER_MEGABYTE_MS: f64 = if cfg!(debug_assertions) { 4000.0 } else { 1000.0 };

fn now_ms() -> f64 {
    #[cfg(target_arch = "wasm32")]
    return js_sys::Date::now();
    #[cfg(not(target_arch = "wasm32"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64() * 1e3
    }
}

/// Every vocabulary of the reference data.
const VOCABULARIES: &[&str] =
    &["llama-spm", "phi-3", "gpt-2", "falcon", "starcoder", "deepseek-coder", "bert-bge"];

/// A file or folder of the reference data; says so on standard error where it is absent.
fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: ../shared/{path} absent");
    None
}

fn metadata(path: &str) -> Option<Metadata> {
    let bytes = std::fs::read(shared(path)?).unwrap();
    let header = gguf::parse(&bytes, Some(bytes.len() as u64)).unwrap();
    Some(header.expect("a whole header").metadata)
}

fn tokenizer(path: &str) -> Option<Tokenizer> {
    Some(Tokenizer::from_gguf(&metadata(path)?).unwrap_or_else(|e| panic!("{path}: {e}")))
}

fn vocabulary(name: &str) -> Option<Tokenizer> {
    tokenizer(&format!("data/tokenizers/llama.cpp/ggml-vocab-{name}.gguf"))
}
