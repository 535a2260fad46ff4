//! Which path multiplies, chosen once per process for each kind of codes.
//!
//! Builds without relaxed SIMD have one path. Builds with it ask the engine how it reads the
//! second operand of the dot product, and measure: on processors without a byte dot product
//! the plain path is faster.

use super::act::Activations;
use super::isa::{Isa, Native};
use super::output::Output;
use super::path::DotPath;
use super::{PlainPath, prepare_on, strips_on};
use crate::repack::PackedWeights;
use std::ops::Range;

#[cfg(not(target_feature = "relaxed-simd"))]
mod one {
    use super::*;

    /// Nothing to choose.
    pub fn select_paths(_now_ms: &dyn Fn() -> f64) {}

    pub(in crate::kernels) fn prepare(act: &mut Activations, w: &PackedWeights) {
        prepare_on::<PlainPath>(act, w);
    }

    pub(in crate::kernels) fn strips(
        act: &Activations,
        w: &PackedWeights,
        strips: Range<usize>,
        out: Output,
    ) {
        strips_on::<PlainPath>(act, w, strips, out);
    }

    /// As shown to users: instruction set, and path per kind of codes.
    pub fn backend_name() -> (&'static str, String) {
        (<Native as Isa>::NAME, PlainPath::NAME.into())
    }

    /// Why this path, for people.
    pub fn backend_reason() -> &'static str {
        "this build has one"
    }
}

#[cfg(not(target_feature = "relaxed-simd"))]
pub use one::{backend_name, backend_reason, select_paths};
#[cfg(not(target_feature = "relaxed-simd"))]
pub(super) use one::{prepare, strips};

#[cfg(target_feature = "relaxed-simd")]
mod relaxed;
#[cfg(target_feature = "relaxed-simd")]
pub use relaxed::{backend_name, backend_reason, select_paths};
#[cfg(target_feature = "relaxed-simd")]
pub(super) use relaxed::{prepare, strips};
