//! Tokenizers against llama.cpp's own results, and malformed tokenizer data.

#[path = "tokenizer/faults.rs"]
mod faults;
#[path = "tokenizer/json.rs"]
mod json;
#[path = "tokenizer/limits.rs"]
mod limits;
#[path = "tokenizer/merges.rs"]
mod merges;
#[path = "tokenizer/random.rs"]
mod random;
#[path = "tokenizer/unigram.rs"]
mod unigram;

// A page has no files.
#[cfg(not(target_arch = "wasm32"))]
#[path = "tokenizer/documents.rs"]
mod documents;
#[cfg(not(target_arch = "wasm32"))]
#[path = "tokenizer/reference.rs"]
mod reference;
#[cfg(not(target_arch = "wasm32"))]
#[path = "tokenizer/texts.rs"]
mod texts;
#[cfg(not(target_arch = "wasm32"))]
#[path = "tokenizer/vectors.rs"]
mod vectors;

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
