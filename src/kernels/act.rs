//! Activations `[m, k]`: the floats, and their 8-bit codes in the layout that a path reads.
//!
//! Each 32 values of a row share one scale `d = amax / 127`; codes are `round(x / d)` (ties
//! to even) within +-127, never -128. Their sum is kept per 32 for the offset of unsigned
//! weight codes: `sum a * (q - z) = sum a * q - z * sum a`.

use super::isa::Isa;
use super::path::DotPath;
use crate::repack::TILE_K;

/// Rows per tile of the matrix-matrix kernels; rows are padded to a multiple of it.
pub const MR: usize = 4;

/// The input of one or several matrix products: quantized once, used by all of them.
#[derive(Default)]
pub struct Activations {
    m: usize,
    k: usize,
    x: Vec<f32>,
    quantized: bool,
    /// Codes. One row: `[k / 4][plane][4 bytes]`. More: in tiles of [`MR`] rows,
    /// `[tile][k / 4][plane][MR][4 bytes]`; the path says how many planes.
    codes: Vec<u8>,
    /// Per row (padded to [`MR`]) and 32 values: the scale.
    scales: Vec<f32>,
    /// Per row (padded to [`MR`]) and 32 values: the sum of the codes.
    sums: Vec<i32>,
}

impl Activations {
    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether codes exist; otherwise products are computed in float.
    pub fn is_quantized(&self) -> bool {
        self.quantized
    }

    /// The floats, `[m, k]`.
    pub fn x(&self) -> &[f32] {
        &self.x
    }

    /// Codes of row tile `tile`, or of the only row.
    pub(super) fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// Scales of a (padded) row, one per 32 k.
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        let n = self.k / TILE_K;
        &self.scales[row * n..][..n]
    }

    /// Sums of codes of a (padded) row, one per 32 k.
    pub(super) fn sums(&self, row: usize) -> &[i32] {
        let n = self.k / TILE_K;
        &self.sums[row * n..][..n]
    }

    /// Makes room for `[m, k]` floats and hands them out to be filled; [`Self::quantize`]
    /// must follow before integer products.
    pub fn fill(&mut self, m: usize, k: usize) -> &mut [f32] {
        (self.m, self.k, self.quantized) = (m, k, false);
        self.x.resize(m * k, 0.0);
        &mut self.x
    }

    /// Quantizes what [`Self::fill`] was given. Without effect where k is not a multiple of 32:
    /// such inputs only meet float weights.
    pub fn quantize<P: DotPath>(&mut self) {
        if self.k == 0 || !self.k.is_multiple_of(TILE_K) {
            return;
        }
        let (m, k) = (self.m, self.k);
        let rows = if m == 1 { 1 } else { m.next_multiple_of(MR) };
        let n_blocks = k / TILE_K;
        self.codes.resize(rows * k / 4 * P::ACT_BYTES, 0);
        self.scales.resize(rows * n_blocks, 0.0);
        self.sums.resize(rows * n_blocks, 0);
        let tile_rows = if m == 1 { 1 } else { MR };
        let group = tile_rows * P::ACT_BYTES;
        for row in 0..rows {
            let first = row / tile_rows * tile_rows * (k / 4) * P::ACT_BYTES + row % tile_rows * 4;
            for block in 0..n_blocks {
                let at = row * k + block * TILE_K;
                let x = if row < m { &self.x[at..at + TILE_K] } else { &[0f32; TILE_K] };
                let codes = &mut self.codes[first + block * 8 * group..][..8 * group - (tile_rows - 1) * 4];
                // SAFETY: x has 32 floats; the planes of 8 groups lie `4 * tile_rows` apart in `codes`.
                let (scale, sum) =
                    unsafe { quantize_block::<P>(x.as_ptr(), codes.as_mut_ptr(), 4 * tile_rows) };
                self.scales[row * n_blocks + block] = scale;
                self.sums[row * n_blocks + block] = sum;
            }
        }
        self.quantized = true;
    }
}

/// Quantizes 32 floats; the planes of the 8 groups of 4 codes are written `plane_stride`
/// bytes apart. Gives (d, sum of codes).
///
/// # Safety
/// 32 floats at `x` are readable, and 4 bytes at each of the `8 * ACT_BYTES / 4` planes writable.
#[inline(always)]
unsafe fn quantize_block<P: DotPath>(x: *const f32, codes: *mut u8, plane_stride: usize) -> (f32, i32) {
    let group = plane_stride * (P::ACT_BYTES / 4);
    // SAFETY: offsets 0..32 of x; the caller vouches for the places written.
    unsafe {
        let load = |i: usize| P::I::fload(x.add(4 * i));
        let mut amax = P::I::fabs(load(0));
        for i in 1..8 {
            amax = P::I::fmax(amax, P::I::fabs(load(i)));
        }
        let amax = P::I::fhmax(amax);
        // Below the smallest normal f32 the inverse overflows; such a block is zero for any use.
        let inv = if amax > 1e-35 { 127.0 / amax } else { 0.0 };
        let inv = P::I::fsplat(inv);
        let mut sum = P::I::splat32(0);
        for i in 0..4 {
            let a = P::I::round(P::I::fmul(load(2 * i), inv));
            let b = P::I::round(P::I::fmul(load(2 * i + 1), inv));
            sum = P::I::add32(sum, P::I::add32(a, b));
            let p = codes.add(2 * i * group);
            P::store_act(p, p.add(group), plane_stride, a, b);
        }
        (amax / 127.0, P::I::sum32(sum))
    }
}
