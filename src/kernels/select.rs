//! Which path multiplies, chosen once per process for each kind of codes.
//!
//! Builds without relaxed SIMD have one path. Builds with it ask the engine how it reads the
//! second operand of the dot product, and measure: on processors without a byte dot product
//! the plain path is faster.

use super::act::Activations;
use super::isa::{Isa, Native};
use super::path::DotPath;
use super::{PlainPath, matmul_on};
use crate::repack::PackedWeights;

#[cfg(not(target_feature = "relaxed-simd"))]
mod one {
    use super::*;

    /// Nothing to choose.
    pub fn select_paths(_now_ms: &dyn Fn() -> f64) {}

    pub(in crate::kernels) fn matmul(
        act: &mut Activations,
        rows: Option<&[usize]>,
        w: &PackedWeights,
        out: &mut [f32],
    ) {
        matmul_on::<PlainPath>(act, rows, w, out);
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
pub(super) use one::matmul;
#[cfg(not(target_feature = "relaxed-simd"))]
pub use one::{backend_name, backend_reason, select_paths};

#[cfg(target_feature = "relaxed-simd")]
mod relaxed;
#[cfg(target_feature = "relaxed-simd")]
pub(super) use relaxed::matmul;
#[cfg(target_feature = "relaxed-simd")]
pub use relaxed::{backend_name, backend_reason, select_paths};
