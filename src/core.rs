//! What computes: tensor types, containers, packed layouts, kernels.
//!
//! The crate `bitpane` is made of these modules and its own, and shows all of them. They are a
//! crate apart so that these are compiled for speed and the others, which run rarely, for size.

#![deny(unsafe_code)]
// The vector instructions of wasm64, which only its build uses, are not stable yet: rust-lang/rust#90599.
#![cfg_attr(target_arch = "wasm64", feature(simd_wasm64))]

pub mod error;
pub mod quant;

pub mod container;

pub mod repack;

pub mod kernels;

pub mod layers;

pub mod image;

pub use error::{Code, Error, Result};
