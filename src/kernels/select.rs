//! Which path multiplies, chosen once per process for each kind of codes, apart for decoding
//! (one row) and for prompts.
//!
//! Natively there is one path. In a browser the engine's instructions decide which is fastest,
//! and a page cannot ask for them: [`select_paths`] measures.

use super::act::Activations;
use super::attention::{KvCache, Query, attention_on};
use super::isa::{Isa, Native};
use super::output::Output;
use super::path::DotPath;
use super::qconv::{Dense, Depthwise, Map};
use super::window::Window;
use super::{PlainPath, prepare_on, strips_on};
use crate::repack::PackedWeights;

#[cfg(not(target_family = "wasm"))]
mod one {
    use super::*;
    use crate::repack::Packing;
    use std::ops::Range;

    /// Nothing to choose.
    pub fn select_paths(_now_ms: &dyn Fn() -> f64) {}

    /// Nothing to choose.
    pub fn warm_paths(_now_ms: &dyn Fn() -> f64) {}

    /// Nothing to choose.
    pub fn hold(_packing: Packing) {}

    /// Takes a path by its name; whether there is one of this name.
    pub fn take_path(name: &str) -> bool {
        name == PlainPath::NAME
    }

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

    pub(in crate::kernels) fn attention(q: &[f32], query: &Query, kv: &KvCache, out: &mut [f32]) {
        attention_on::<PlainPath>(q, query, kv, out);
    }

    /// [`Dense::forward`].
    pub fn convolve(layer: &Dense, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        layer.forward::<Native>(input, window, out_width, out);
    }

    /// [`Depthwise::forward`] with the instruction set of this build.
    pub fn convolve_each(layer: &Depthwise, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        layer.forward::<Native>(input, window, out_width, out);
    }

    /// As shown to users: instruction set, and paths.
    pub fn backend_name() -> (&'static str, String) {
        (<Native as Isa>::NAME, PlainPath::NAME.into())
    }

    /// Why this path, for people.
    pub fn backend_reason() -> &'static str {
        "this build has one"
    }
}

#[cfg(not(target_family = "wasm"))]
pub(super) use one::{attention, prepare, strips};
#[cfg(not(target_family = "wasm"))]
pub use one::{
    backend_name, backend_reason, convolve, convolve_each, hold, select_paths, take_path, warm_paths,
};

#[cfg(target_family = "wasm")]
mod measured;
#[cfg(target_feature = "relaxed-simd")]
pub use measured::has_pairs;
#[cfg(target_family = "wasm")]
pub(super) use measured::{attention, prepare, strips};
#[cfg(target_family = "wasm")]
pub use measured::{
    backend_name, backend_reason, convolve, convolve_each, hold, select_paths, take_path, warm_paths,
};
