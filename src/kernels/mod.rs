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
pub mod crew;
pub mod depthwise;
pub mod float;
pub mod gemm;
pub mod gemv;
pub mod isa;
pub mod lut;
mod micro;
pub mod output;
pub mod parallel;
pub mod path;
pub mod path16;
pub mod path32;
pub mod pool;
pub mod qconv;
pub mod reference;
pub mod resample;
pub mod scan;
mod select;
pub mod sums;
pub mod superblock;
pub mod tile;
pub mod vecmath;
pub mod window;

use crate::repack::{NR, PackedWeights, Packing, TILE_K};
use act::{Activations, Coded, Span};
use isa::Isa;
use output::Output;
use path::{DotPath, P16};
#[cfg(target_feature = "relaxed-simd")]
pub use select::has_pairs;
pub use select::{backend_name, backend_reason, convolve, convolve_each, hold, take_path};
use std::ops::Range;
use tile::{Tile, TileBits, TileI8, TileI8Half, TileU4};

/// The path that every build has.
pub type PlainPath = P16<isa::Native>;

/// `out[i, j] = sum over k of act[i, k] * w[j, k]`: `act` is `[m, k]`, `w` is `[n, k]`, `out`
/// is `[m, n]`, row-major.
///
/// Integer packings multiply the quantized activations, unless `act` is float only; float
/// packings multiply the float ones.
///
/// # Panics
/// Where the shapes do not agree: a bug in the caller, not an input error.
pub fn matmul(act: &mut Activations, w: &PackedWeights, out: &mut [f32]) {
    matmul_many(act, None, &mut [Product::new(w, out)]);
}

/// [`matmul`] with some rows of the activations, in any order and any number: `out[i, j]` is
/// row `rows[i]` of `act` times row j of `w`, bit for bit as in the product with all of them.
///
/// For mixtures of experts: all rows are quantized once, and each expert takes its own.
///
/// # Panics
/// Where the shapes do not agree, or a row is not in `act`: a bug in the caller.
pub fn matmul_rows(act: &mut Activations, rows: &[usize], w: &PackedWeights, out: &mut [f32]) {
    matmul_many(act, Some(rows), &mut [Product::new(w, out)]);
}

/// A matrix to multiply with, and where the product goes.
pub struct Product<'a> {
    /// `[n, k]`.
    pub w: &'a PackedWeights,
    /// `[m, n]`.
    pub out: &'a mut [f32],
    /// `[n]`, added to every row.
    pub bias: Option<&'a [f32]>,
}

impl<'a> Product<'a> {
    /// A product without bias.
    pub fn new(w: &'a PackedWeights, out: &'a mut [f32]) -> Self {
        Product { w, out, bias: None }
    }
}

/// [`matmul`], or [`matmul_rows`] with some rows, of the same activations with several matrices:
/// they are shared among threads as one, which is quicker than one after another.
///
/// # Panics
/// As those.
pub fn matmul_many(act: &mut Activations, rows: Option<&[usize]>, products: &mut [Product]) {
    act.take_rows(rows);
    for product in products.iter() {
        select::prepare(act, product.w);
    }
    let codes = &*act;
    parallel::products(codes.n_taken(), products, &|w, strips, out| select::strips(codes, w, strips, out));
    for Product { w, out, .. } in products {
        if let Some(mut rest) = act.take_rest(w) {
            let out = &mut out[..rows.map_or(rest.act.m(), <[usize]>::len) * w.n()];
            rest.out.resize(out.len(), 0.0);
            matmul_many(&mut rest.act, rows, &mut [Product::new(w, &mut rest.out)]);
            vecmath::add::<isa::Native>(out, &rest.out);
            act.keep_rest(rest);
        }
    }
}

/// [`matmul`], or [`matmul_rows`] with some rows, on a given path.
pub fn matmul_on<P: DotPath>(
    act: &mut Activations,
    rows: Option<&[usize]>,
    w: &PackedWeights,
    out: &mut [f32],
) {
    act.take_rows(rows);
    prepare_on::<P>(act, w);
    let act = &*act;
    let strips = |w: &PackedWeights, strips, out: Output| strips_on::<P>(act, w, strips, out);
    parallel::products(act.n_taken(), &mut [Product::new(w, out)], &strips);
}

/// Chooses how products are formed, where there is a choice: by measuring, on one thread, for the weights that there are.
/// `now_ms` is a clock in milliseconds. Calling it again measures anew.
pub fn select_paths(now_ms: &dyn Fn() -> f64) {
    pool::on_one_thread(|| select::select_paths(now_ms));
}

/// Has the engine optimise what [`select_paths`] will measure: while a model loads, since engines do that aside. Does
/// nothing where there are no weights of a new kind.
pub fn warm_paths(now_ms: &dyn Fn() -> f64) {
    pool::on_one_thread(|| select::warm_paths(now_ms));
}

/// Makes of the activations what [`strips_on`] multiplies.
fn prepare_on<P: DotPath>(act: &mut Activations, w: &PackedWeights) {
    match w.packing() {
        Packing::U4 if act.is_integer() => prepare_tiles::<P, TileU4>(act),
        Packing::Bits if act.is_integer() && by_table::<P::I>(act.n_taken()) => act.make_tables::<P::I>(),
        Packing::Bits if act.is_integer() => prepare_tiles::<P, TileBits>(act),
        Packing::I8 if act.is_integer() => prepare_tiles::<P::Signed, TileI8>(act),
        Packing::I8Half if act.is_integer() => prepare_tiles::<P::Signed, TileI8Half>(act),
        Packing::Super(kind) if act.is_integer() => superblock::prepare::<P>(act, kind),
        _ => act.make_floats(),
    }
}

fn prepare_tiles<P: DotPath, T: Tile<P>>(act: &mut Activations) {
    if act.n_taken() == 1 {
        act.make_codes::<P>(Span::Tile);
    } else {
        act.make_tiles::<P>(Span::Tile, T::PANEL_OFFSET, TILE_K);
    }
}

/// The strips' columns of a product on a given path.
fn strips_on<P: DotPath>(act: &Activations, w: &PackedWeights, strips: Range<usize>, out: Output) {
    assert_eq!(act.k(), w.k(), "activations and weights disagree on k");
    match w.packing() {
        Packing::U4 if act.is_integer() => integer::<P, TileU4>(act.codes::<P>(Span::Tile), w, strips, out),
        Packing::Bits if act.is_integer() && by_table::<P::I>(out.m()) => {
            lut::gemv::<P::I>(act.tables(), act.codes::<P16<P::I>>(Span::Tile), w, strips, out);
        }
        Packing::Bits if act.is_integer() => {
            integer::<P, TileBits>(act.codes::<P>(Span::Tile), w, strips, out);
        }
        Packing::I8 if act.is_integer() => {
            integer::<P::Signed, TileI8>(act.codes::<P::Signed>(Span::Tile), w, strips, out);
        }
        Packing::I8Half if act.is_integer() => {
            integer::<P::Signed, TileI8Half>(act.codes::<P::Signed>(Span::Tile), w, strips, out);
        }
        Packing::Super(kind) if act.is_integer() => {
            superblock::matmul::<P>(act.codes::<P>(Span::Super), out.m(), w, kind, strips, out);
        }
        _ => float::matmul::<P::I>(act.floats(), w, strips, out),
    }
}

fn integer<P: DotPath, T: Tile<P>>(act: &Coded, w: &PackedWeights, strips: Range<usize>, out: Output) {
    if out.m() == 1 {
        gemv::gemv::<P, T>(act, w, strips, out);
    } else {
        gemm::gemm::<P, T>(act, out.m(), w, strips, out);
    }
}

/// Whether products of `m` rows with signs look sums up.
fn by_table<I: Isa>(m: usize) -> bool {
    m == 1 && I::HAS_LOOKUP
}

/// Columns of strip `i` that exist: the last strip may be part padding.
fn strip_columns(w: &PackedWeights, i: usize) -> usize {
    (w.n() - i * NR).min(NR)
}

const _: () = assert!(NR == 16);
