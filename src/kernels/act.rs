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

/// The input of one or several matrix products: quantized once per layout, used by all.
#[derive(Default)]
pub struct Activations {
    m: usize,
    k: usize,
    x: Vec<f32>,
    integer: bool,
    coded: Vec<Coded>,
}

/// The activations in one path's layout.
#[derive(Default)]
pub struct Coded {
    /// The path, or `None` where what follows is of an earlier fill.
    layout: Option<&'static str>,
    n_blocks: usize,
    /// Codes. One row: `[k / 4][plane][4 bytes]`. More: in tiles of [`MR`] rows,
    /// `[tile][k / 4][plane][MR][4 bytes]`; the path says how many planes.
    pub(super) codes: Vec<u8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Coded {
    /// Scales of a (padded) row, one per 32 k.
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        &self.scales[row * self.n_blocks..][..self.n_blocks]
    }

    /// Sums of codes of a (padded) row, one per 32 k.
    pub(super) fn sums(&self, row: usize) -> &[i32] {
        &self.sums[row * self.n_blocks..][..self.n_blocks]
    }

    fn quantize<P: DotPath>(&mut self, x: &[f32], m: usize, k: usize) {
        let tile_rows = if m == 1 { 1 } else { MR };
        let rows = m.next_multiple_of(tile_rows);
        let n_blocks = k / TILE_K;
        self.n_blocks = n_blocks;
        self.codes.resize(rows * k / 4 * P::ACT_BYTES, 0);
        self.scales.resize(rows * n_blocks, 0.0);
        self.sums.resize(rows * n_blocks, 0);
        let group = tile_rows * P::ACT_BYTES;
        for row in 0..rows {
            let first = row / tile_rows * tile_rows * (k / 4) * P::ACT_BYTES + row % tile_rows * 4;
            for block in 0..n_blocks {
                let at = row * k + block * TILE_K;
                let x = if row < m { &x[at..at + TILE_K] } else { &[0f32; TILE_K] };
                let codes = &mut self.codes[first + block * 8 * group..][..8 * group - (tile_rows - 1) * 4];
                // SAFETY: x has 32 floats; the planes of 8 groups lie `4 * tile_rows` apart in `codes`.
                let (scale, sum) =
                    unsafe { quantize_block::<P>(x.as_ptr(), codes.as_mut_ptr(), 4 * tile_rows) };
                self.scales[row * n_blocks + block] = scale;
                self.sums[row * n_blocks + block] = sum;
            }
        }
        self.layout = Some(P::NAME);
    }
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

    /// The floats, `[m, k]`.
    pub fn x(&self) -> &[f32] {
        &self.x
    }

    /// Whether products with integer weights may use quantized activations.
    pub fn is_integer(&self) -> bool {
        self.integer
    }

    /// Makes room for `[m, k]` floats and hands them out to be filled. With `integer`,
    /// products with integer weights quantize them; otherwise all products are in float.
    pub fn fill(&mut self, m: usize, k: usize, integer: bool) -> &mut [f32] {
        (self.m, self.k, self.integer) = (m, k, integer);
        self.coded.iter_mut().for_each(|c| c.layout = None);
        self.x.resize(m * k, 0.0);
        &mut self.x
    }

    /// The codes in the layout of `P`, made on first use. k is a multiple of 32 wherever
    /// integer weights are.
    pub fn coded<P: DotPath>(&mut self) -> &Coded {
        let found = self.coded.iter().position(|c| c.layout == Some(P::NAME));
        let i = found.unwrap_or_else(|| {
            let i = self.coded.iter().position(|c| c.layout.is_none()).unwrap_or_else(|| {
                self.coded.push(Coded::default());
                self.coded.len() - 1
            });
            self.coded[i].quantize::<P>(&self.x, self.m, self.k);
            i
        });
        &self.coded[i]
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
