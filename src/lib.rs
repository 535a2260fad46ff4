//! bitpane runs quantized vision transformers and small language models, natively and
//! as WebAssembly in a web page.
//!
//! Modules stand in the order in which data flows; each may use the ones above it and
//! none below it (`tests/layering.rs` checks this).

#![deny(unsafe_code)]
// The vector instructions of wasm64, which only its build uses, are not stable yet: rust-lang/rust#90599.
#![cfg_attr(target_arch = "wasm64", feature(simd_wasm64))]

pub use bitpane_core::{container, error, image, kernels, layers, quant, repack};

pub mod models;

pub mod tokenizer;

pub mod grammar;

pub mod template;

pub mod quantizer;

pub mod tasks;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(target_family = "wasm")]
pub mod web;

pub use error::{Code, Error, Result};
