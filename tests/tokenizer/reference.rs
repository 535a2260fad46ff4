//! Access to the reference data.

use bitpane::container::{Metadata, gguf};
use bitpane::tokenizer::Tokenizer;
use std::path::PathBuf;

/// Every vocabulary of the reference data.
pub const VOCABULARIES: &[&str] =
    &["llama-spm", "phi-3", "gpt-2", "falcon", "starcoder", "deepseek-coder", "bert-bge"];

/// A file or folder of the reference data; says so on standard error where it is absent.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    eprintln!("skipped: ../shared/{path} absent");
    None
}

pub fn metadata(path: &str) -> Option<Metadata> {
    let bytes = std::fs::read(shared(path)?).unwrap();
    let header = gguf::parse(&bytes, Some(bytes.len() as u64)).unwrap();
    Some(header.expect("a whole header").metadata)
}

pub fn tokenizer(path: &str) -> Option<Tokenizer> {
    Some(Tokenizer::from_gguf(&metadata(path)?).unwrap_or_else(|e| panic!("{path}: {e}")))
}

pub fn vocabulary(name: &str) -> Option<Tokenizer> {
    tokenizer(&format!("data/tokenizers/llama.cpp/ggml-vocab-{name}.gguf"))
}
