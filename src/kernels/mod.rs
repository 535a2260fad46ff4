//! What runs hot: products of packed weights with activations, and the vector maths between.
//!
//! One generic driver per regime ([`gemv`] for one row, [`gemm`] for many, [`float`] for
//! float weights), over a tile ([`tile`]), a way to multiply ([`path`]) and an instruction
//! set ([`isa`]). Results do not depend on the instruction set, on the regime, or on how
//! columns are split among threads: k is always summed in file order, 32 at a time, and each
//! 32-sum is an exact integer.

#![allow(unsafe_code)]

pub mod act;
pub mod attention;
pub mod float;
pub mod gemm;
pub mod gemv;
pub mod isa;
pub mod path;
pub mod reference;
pub mod tile;
pub mod vecmath;

use crate::repack::{NR, PackedWeights, Packing};
use act::{Activations, MR};
use isa::Isa;
use path::{DotPath, P16};
use tile::{Tile, TileI8, TileU4};

/// The multiplication path of this build.
pub type NativePath = P16<isa::Native>;

/// As shown to users: which kernels run.
pub fn backend_name() -> (&'static str, &'static str) {
    (<isa::Native as Isa>::NAME, NativePath::NAME)
}

/// `out[i, j] = sum over k of act[i, k] * w[j, k]`: `act` is `[m, k]`, `w` is `[n, k]`, `out`
/// is `[m, n]`, row-major.
///
/// Integer packings multiply the quantized activations, unless `act` was prepared as float
/// only; float packings multiply the float ones.
///
/// # Panics
/// Where the shapes do not agree: a bug in the caller, not an input error.
pub fn matmul(act: &Activations, w: &PackedWeights, out: &mut [f32]) {
    matmul_on::<NativePath>(act, w, out);
}

/// [`matmul`] on a given path, for tests.
pub fn matmul_on<P: DotPath>(act: &Activations, w: &PackedWeights, out: &mut [f32]) {
    assert_eq!(act.k(), w.k(), "activations and weights disagree on k");
    assert_eq!(out.len(), act.m() * w.n(), "output is not m x n");
    match w.packing() {
        Packing::U4 if act.is_quantized() => integer::<P, TileU4>(act, w, out),
        Packing::I8 if act.is_quantized() => integer::<P, TileI8>(act, w, out),
        _ => float::matmul::<P::I>(act, w, out),
    }
}

fn integer<P: DotPath, T: Tile>(act: &Activations, w: &PackedWeights, out: &mut [f32]) {
    if act.m() == 1 {
        gemv::gemv::<P, T>(act, w, 0..w.n_strips(), out);
    } else {
        gemm::gemm::<P, T>(act, w, 0..w.n_strips(), out);
    }
}

/// Columns of strip `i` that exist: the last strip may be part padding.
fn strip_columns(w: &PackedWeights, i: usize) -> usize {
    (w.n() - i * NR).min(NR)
}

const _: () = assert!(MR <= 8 && NR == 16);
