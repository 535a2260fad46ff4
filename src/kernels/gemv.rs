//! One row of activations times packed weights: decoding.

use super::act::Coded;
use super::isa::Isa;
use super::output::Output;
use super::path::DotPath;
use super::tile::Tile;
use crate::repack::{NR, PackedWeights, TILE_K};
use std::ops::Range;

/// Columns `16 * strips.start ..` of `out[n] = act[k] . w[n, k]`; other columns are left alone.
pub fn gemv<P: DotPath, T: Tile<P>>(act: &Coded, w: &PackedWeights, strips: Range<usize>, out: Output) {
    assert!(w.packing() == T::PACKING && act.codes.len() == w.k() / 4 * P::ACT_BYTES);
    assert!(out.n() == w.n() && strips.end <= w.n_strips());
    let (scales, sums) = (act.scales(0), act.sums(0));
    for i in strips {
        let mut columns = [0f32; NR];
        // SAFETY: the strip holds k / 32 tiles and `codes` k activations (checked by their
        // constructors); scales and sums have k / 32 entries.
        unsafe { strip::<P, T>(w.strip(i), &act.codes, scales, sums, &mut columns) };
        out.write_strip(i, &columns);
    }
}

/// # Safety
/// `strip` holds `scales.len()` tiles, `codes` as many times 32 activations, `sums` as many sums.
#[inline(always)]
unsafe fn strip<P: DotPath, T: Tile<P>>(
    strip: &[u8],
    codes: &[u8],
    scales: &[f32],
    sums: &[i32],
    out: &mut [f32; NR],
) {
    let mut total = [P::I::fsplat(0.0); 4];
    let consts = P::consts();
    let scale_consts = T::scale_consts();
    debug_assert!(codes.len() == scales.len() * TILE_K / 4 * P::ACT_BYTES);
    let mut act = codes.as_ptr();
    for (t, (&d, &sum)) in scales.iter().zip(sums).enumerate() {
        let (codes_at, scales_at) = T::place(t);
        // The offset of the codes enters as the accumulators' first value.
        let mut acc = [P::start(sum, T::OFFSET); 4];
        // SAFETY: one tile and one block of activations per scale, as the caller vouches.
        unsafe {
            T::dot(consts, &mut acc, strip.as_ptr().add(codes_at), act);
            let d = P::I::fsplat(d);
            let ([s0, s1], [s2, s3]) = {
                let at = strip.as_ptr().add(scales_at);
                (T::scales(scale_consts, at, 0), T::scales(scale_consts, at, 1))
            };
            for ((total, acc), scale) in total.iter_mut().zip(acc).zip([s0, s1, s2, s3]) {
                let scale = P::I::fmul(scale, d);
                *total = P::I::fadd(*total, P::I::fmul(P::I::to_float(P::total(consts, acc)), scale));
            }
            act = act.add(8 * P::ACT_BYTES);
        }
    }
    for (c, total) in total.into_iter().enumerate() {
        // SAFETY: 16 floats in out.
        unsafe { P::I::fstore(out.as_mut_ptr().add(4 * c), total) };
    }
}
