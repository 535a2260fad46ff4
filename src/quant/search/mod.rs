//! The encoders that search: scales, minima and integer sub-scales of least weighted squared error
//! `sum w (x - decoded)^2`, where `decoded` is what the stored block says, rounded scales included.
//!
//! Everything here is sums, products, quotients and comparisons of f32 in one fixed order, so that the
//! bytes are the same natively and in WebAssembly. Sums run in [`LANES`] lanes, which compilers turn into
//! vectors without changing a bit.
//!
//! The method is that of Lloyd (1982) on a grid: codes for a scale, the least-squares scale for the codes,
//! and again, from several first guesses; as in ggml's `make_qx_quants` and `make_qkx3_quants`, which take the
//! best first guess and stop there.

mod affine;
mod levels;
mod scale;
mod super_min;
mod super_signed;
mod ternary;

pub(super) use affine::affine;
pub(super) use levels::{Fp4, Linear, Nonlinear};
pub(super) use scale::{best_of, codes, symmetric};
pub(super) use super_min::{MinForm, super_min};
pub(super) use super_signed::{SignedForm, super_signed};
pub(super) use ternary::ternary;

use super::blocks::extreme;

/// Partial sums.
const LANES: usize = 8;

/// Adds up `term(i)` for `i < N`, a multiple of [`LANES`].
#[inline(always)]
fn sum<const N: usize>(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    for first in (0..N).step_by(LANES) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += term(first + l);
        }
    }
    fold(lanes)
}

#[inline(always)]
fn fold(l: [f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// The nearest whole number, the even one of two; for magnitudes below 2^22. Two additions, where `round`
/// would be a call.
#[inline(always)]
fn whole(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// Whether sums of squares of such values are far from overflow and underflow. Other blocks are rounded
/// without a search.
pub(super) fn is_ordinary(x: &[f32]) -> bool {
    let largest = extreme(x).abs();
    largest == 0.0 || (1e-15..1e15).contains(&largest)
}

/// The codec's other two functions: rounding, and decoding.
pub(super) type Plain = (super::Quantize, fn(&[u8], &mut [f32]));

/// Runs `encode` on each block with its values and weights; rounds blocks that are not ordinary, and those whose
/// values differ so much that the sums of the search are too coarse for it to do better.
pub(super) fn search_blocks<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    weights: &[f32],
    blocks: &mut [u8],
    (round, decode): Plain,
    encode: impl Fn(&[f32; LEN], &[f32; LEN], &mut [u8; BYTES]),
) {
    let (values, weights) = (values.as_chunks::<LEN>().0, weights.as_chunks::<LEN>().0);
    for ((x, w), block) in values.iter().zip(weights).zip(blocks.as_chunks_mut::<BYTES>().0) {
        if !is_ordinary(x) {
            round(x, block);
            continue;
        }
        let w = if w.iter().any(|&w| w > 0.0) { w } else { &[1.0; LEN] };
        encode(x, w, block);
        let mut rounded = [0; BYTES];
        round(x, &mut rounded);
        if error(x, w, &rounded, decode) < error(x, w, block, decode) {
            *block = rounded;
        }
    }
}

fn error<const LEN: usize>(
    x: &[f32; LEN],
    w: &[f32; LEN],
    block: &[u8],
    decode: fn(&[u8], &mut [f32]),
) -> f32 {
    let mut back = [0f32; LEN];
    decode(block, &mut back);
    sum::<LEN>(|i| {
        let off = x[i] - back[i];
        w[i] * off * off
    })
}
