//! What computes: tensor types, containers, packed layouts, kernels.
//!
//! The crate `bitpane` is made of these modules and its own, and shows all of them. They are a
//! crate apart so that these are compiled for speed and the others, which run rarely, for size.

#![deny(unsafe_code)]

pub mod error;
pub mod quant;

pub mod container;

pub mod repack;

pub mod kernels;

pub mod layers;

pub mod image;

pub use error::{Code, Error, Result};
