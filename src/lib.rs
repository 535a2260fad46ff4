//! bitpane runs quantized vision transformers and small language models, natively and
//! as WebAssembly in a web page.
//!
//! Modules stand in the order in which data flows; each may use the ones above it and
//! none below it (`tests/layering.rs` checks this).

#![deny(unsafe_code)]

pub use bitpane_core::{container, error, image, kernels, layers, quant, repack};

pub mod models;

pub mod tokenizer;

pub mod grammar;

pub mod template;

pub mod quantizer;

pub mod tasks;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(target_arch = "wasm32")]
pub mod web;

pub use error::{Code, Error, Result};
