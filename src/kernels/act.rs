//! Activations `[m, k]`: the floats, and their 8-bit codes in the layout that a path reads.
//!
//! Each 32 values of a row share one scale `d = amax / 127`; codes are `round(x / d)` (ties
//! to even) within +-127, never -128. Their sum is kept per 32 for the offset of unsigned
//! weight codes: `sum a * (q - z) = sum a * q - z * sum a`.

use super::isa::Isa;
use super::path::{DotPath, P16};
use crate::repack::{SUPER_K, TILE_K};

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
    /// The rows that products take: all of them where there is no list.
    taken: Option<Vec<usize>>,
    /// `coded` and `x` of those rows, as far as they have been made.
    picked: Vec<Coded>,
    picked_x: Vec<f32>,
}

/// How far one activation scale reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// 32 k: for weights with a scale per 32.
    Tile,
    /// 256 k: for weights whose sub-scales are integers, so that a whole block is summed in
    /// integers.
    Super,
}

impl Span {
    const fn len(self) -> usize {
        match self {
            Span::Tile => TILE_K,
            Span::Super => SUPER_K,
        }
    }
}

/// A path's name and a span.
type Layout = Option<(&'static str, Span)>;

/// The activations in one path's layout.
#[derive(Default)]
pub struct Coded {
    /// The path and span, or `None` where what follows is of an earlier fill.
    layout: Layout,
    n_blocks: usize,
    n_sums: usize,
    /// Codes. One row: `[k / 4][plane][4 bytes]`. More: in tiles of [`MR`] rows,
    /// `[tile][k / 4][plane][MR][4 bytes]`; the path says how many planes.
    pub(super) codes: Vec<u8>,
    scales: Vec<f32>,
    /// Sums of codes as the path joins them: per 32 k (tile span) or per 16 k (super span).
    sums: Vec<i32>,
    /// Super span: the sums as activations of [`P16`], to meet the minima of sub-blocks. Per
    /// 256 k, 4 groups of 4 sums over 16, then 2 groups of 4 sums over 32.
    pub(super) min_codes: Vec<u8>,
}

/// Groups of sums per 256 k in [`Coded::min_codes`].
pub(super) const MIN_GROUPS: usize = 6;

impl Coded {
    /// Scales of a (padded) row, one per span.
    pub(super) fn scales(&self, row: usize) -> &[f32] {
        &self.scales[row * self.n_blocks..][..self.n_blocks]
    }

    /// Sums of codes of a (padded) row.
    pub(super) fn sums(&self, row: usize) -> &[i32] {
        &self.sums[row * self.n_sums..][..self.n_sums]
    }

    fn quantize<P: DotPath>(&mut self, x: &[f32], m: usize, k: usize, span: Span) {
        let tile_rows = if m == 1 { 1 } else { MR };
        let rows = m.next_multiple_of(tile_rows);
        let len = span.len();
        self.n_blocks = k / len;
        self.n_sums = if span == Span::Tile { k / 32 } else { k / 16 };
        self.codes.resize(rows * k / 4 * P::ACT_BYTES, 0);
        self.min_codes.clear();
        self.scales.resize(rows * self.n_blocks, 0.0);
        self.sums.resize(rows * self.n_sums, 0);
        let group = tile_rows * P::ACT_BYTES;
        let zeros = vec![0f32; if rows > m { k } else { 0 }];
        for row in 0..rows {
            let first = row / tile_rows * tile_rows * (k / 4) * P::ACT_BYTES + row % tile_rows * 4;
            let x = if row < m { &x[row * k..][..k] } else { &zeros };
            for (block, x) in x.chunks_exact(len).enumerate() {
                let amax = largest::<P::I>(x);
                // Below the smallest normal f32 the inverse overflows; such a block is zero for any use.
                let inv = if amax > 1e-35 { 127.0 / amax } else { 0.0 };
                self.scales[row * self.n_blocks + block] = amax / 127.0;
                for (i, x) in x.chunks_exact(32).enumerate() {
                    let chunk = block * (len / 32) + i;
                    let codes =
                        &mut self.codes[first + chunk * 8 * group..][..8 * group - (tile_rows - 1) * 4];
                    // SAFETY: x has 32 floats; the planes of 8 groups lie `4 * tile_rows` apart in `codes`.
                    let halves = unsafe { round32::<P>(x.as_ptr(), inv, codes.as_mut_ptr(), 4 * tile_rows) };
                    if halves.iter().any(|[low, high]| low.wrapping_add(*high).unsigned_abs() > 16 * 127) {
                        // Only NaN rounds to such codes; the maximum may have passed over it.
                        self.scales[row * self.n_blocks + block] = f32::NAN;
                    }
                    let sums = &mut self.sums[row * self.n_sums..];
                    match span {
                        Span::Tile => {
                            let [a, b] = halves;
                            sums[chunk] = P::join_sums(a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1]));
                        }
                        Span::Super => {
                            let joined = halves.map(|[low, high]| P::join_sums(low, high));
                            sums[2 * chunk..][..2].copy_from_slice(&joined);
                        }
                    }
                }
            }
        }
        if span == Span::Super {
            self.code_sums::<P>(rows, tile_rows);
        }
        self.layout = Some((P::NAME, span));
    }

    /// Fills `min_codes` from `sums`.
    fn code_sums<P: DotPath>(&mut self, rows: usize, tile_rows: usize) {
        let row_bytes = self.n_blocks * MIN_GROUPS * P16::<P::I>::ACT_BYTES;
        self.min_codes.resize(rows * row_bytes, 0);
        for row in 0..rows {
            let first = row / tile_rows * tile_rows * row_bytes + row % tile_rows * 4;
            for (block, s) in self.sums[row * self.n_sums..][..self.n_sums].chunks_exact(16).enumerate() {
                let mut lanes = [0i32; MIN_GROUPS * 4];
                for (i, &s) in s.iter().enumerate() {
                    let sum = P::whole_sum(s);
                    lanes[i] = sum;
                    lanes[16 + i / 2] = lanes[16 + i / 2].wrapping_add(sum);
                }
                let group = tile_rows * P16::<P::I>::ACT_BYTES;
                for (i, pair) in lanes.chunks_exact(8).enumerate() {
                    let at = first + (block * MIN_GROUPS + 2 * i) * group;
                    let to = &mut self.min_codes[at..][..2 * group - (tile_rows - 1) * 4];
                    // SAFETY: 8 lanes are read; two groups of two planes lie in `to`.
                    unsafe {
                        let p = pair.as_ptr().cast::<u8>();
                        let to = to.as_mut_ptr();
                        let (a, b) = (P::I::load(p), P::I::load(p.add(16)));
                        P16::<P::I>::store_act(to, to.add(group), 4 * tile_rows, a, b);
                    }
                }
            }
        }
    }
}

impl Coded {
    /// Takes some rows of `from`, whose number of rows is `m`.
    fn pick(&mut self, from: &Coded, m: usize, rows: &[usize]) {
        assert!(rows.iter().all(|&row| row < m), "rows {rows:?} of {m}");
        let tile = if m == 1 { 1 } else { MR };
        let to_tile = if rows.len() == 1 { 1 } else { MR };
        let n_rows = rows.len().next_multiple_of(to_tile);
        (self.n_blocks, self.n_sums) = (from.n_blocks, from.n_sums);
        let padded = m.next_multiple_of(tile);
        pick_planes(&from.codes, padded, tile, rows, to_tile, &mut self.codes);
        pick_planes(&from.min_codes, padded, tile, rows, to_tile, &mut self.min_codes);
        self.scales.clear();
        self.sums.clear();
        for &row in rows {
            self.scales.extend_from_slice(from.scales(row));
            self.sums.extend_from_slice(from.sums(row));
        }
        self.scales.resize(n_rows * self.n_blocks, 0.0);
        self.sums.resize(n_rows * self.n_sums, 0);
    }
}

/// Rows of 4-byte planes, from tiles of `tile` rows to tiles of `to_tile` rows.
fn pick_planes(from: &[u8], padded: usize, tile: usize, rows: &[usize], to_tile: usize, to: &mut Vec<u8>) {
    let planes = from.len() / (4 * padded);
    to.clear();
    if planes == 0 {
        return;
    }
    to.resize(rows.len().next_multiple_of(to_tile) * planes * 4, 0);
    let (from, to) = (from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0);
    for (i, &row) in rows.iter().enumerate() {
        let from = from[row / tile * tile * planes + row % tile..].iter().step_by(tile);
        let to = to[i / to_tile * to_tile * planes + i % to_tile..].iter_mut().step_by(to_tile);
        to.zip(from).take(planes).for_each(|(to, from)| *to = *from);
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
        self.take_rows(None);
        self.x.resize(m * k, 0.0);
        &mut self.x
    }

    /// Has the products that follow take these rows only, in this order, until the next call.
    pub(super) fn take_rows(&mut self, rows: Option<&[usize]>) {
        self.taken = rows.map(<[usize]>::to_vec);
        self.picked.iter_mut().for_each(|c| c.layout = None);
        self.picked_x.clear();
    }

    /// Rows that products take.
    pub(super) fn n_taken(&self) -> usize {
        self.taken.as_ref().map_or(self.m, Vec::len)
    }

    /// Makes ready the floats that products take.
    pub(super) fn make_floats(&mut self) {
        if let (Some(rows), true) = (&self.taken, self.picked_x.is_empty()) {
            for &row in rows {
                self.picked_x.extend_from_slice(&self.x[row * self.k..][..self.k]);
            }
        }
    }

    /// The floats that products take.
    pub(super) fn floats(&self) -> &[f32] {
        if self.taken.is_some() { &self.picked_x } else { &self.x }
    }

    /// Makes ready the codes that products take, in the layout of `P`. k is a multiple of the span
    /// wherever such weights are.
    pub fn make_codes<P: DotPath>(&mut self, span: Span) {
        let layout = Some((P::NAME, span));
        let (all, is_new) = slot(&mut self.coded, layout);
        if is_new {
            all.quantize::<P>(&self.x, self.m, self.k, span);
        }
        if let Some(rows) = &self.taken {
            let (picked, is_new) = slot(&mut self.picked, layout);
            if is_new {
                picked.pick(all, self.m, rows);
                picked.layout = layout;
            }
        }
    }

    /// The codes that products take, in the layout of `P`.
    ///
    /// # Panics
    /// Where [`Self::make_codes`] has not made them: a bug in the caller.
    pub(super) fn codes<P: DotPath>(&self, span: Span) -> &Coded {
        let made = if self.taken.is_some() { &self.picked } else { &self.coded };
        match made.iter().find(|c| c.layout == Some((P::NAME, span))) {
            Some(coded) => coded,
            None => unreachable!("no codes for {} over {span:?}", P::NAME),
        }
    }
}

/// Where codes of a layout are, or a place for them and true.
fn slot(all: &mut Vec<Coded>, layout: Layout) -> (&mut Coded, bool) {
    let made = all.iter().position(|c| c.layout == layout);
    let i = made.or_else(|| all.iter().position(|c| c.layout.is_none())).unwrap_or_else(|| {
        all.push(Coded::default());
        all.len() - 1
    });
    (&mut all[i], made.is_none())
}

/// Largest magnitude; the length is a multiple of 32.
#[inline(always)]
fn largest<I: Isa>(x: &[f32]) -> f32 {
    let mut amax = [I::fsplat(0.0); 2];
    for pair in x.chunks_exact(8) {
        for (i, amax) in amax.iter_mut().enumerate() {
            // SAFETY: 8 floats.
            *amax = I::fmax(*amax, I::fabs(unsafe { I::fload(pair.as_ptr().add(4 * i)) }));
        }
    }
    I::fhmax(I::fmax(amax[0], amax[1]))
}

/// Rounds 32 floats times `inv`; the planes of the 8 groups of 4 codes are written
/// `plane_stride` bytes apart. Gives the sums of the codes of either half, over k % 4 = 0, 1 and
/// 2, 3.
///
/// # Safety
/// 32 floats at `x` are readable, and 4 bytes at each of the `8 * ACT_BYTES / 4` planes writable.
#[inline(always)]
unsafe fn round32<P: DotPath>(x: *const f32, inv: f32, codes: *mut u8, plane_stride: usize) -> [[i32; 2]; 2] {
    let group = plane_stride * (P::ACT_BYTES / 4);
    let inv = P::I::fsplat(inv);
    std::array::from_fn(|half| {
        let mut sum = P::I::splat32(0);
        for i in 2 * half..2 * half + 2 {
            // SAFETY: i < 4: floats 8i .. 8i + 8 and groups 2i, 2i + 1.
            unsafe {
                let a = P::I::round(P::I::fmul(P::I::fload(x.add(8 * i)), inv));
                let b = P::I::round(P::I::fmul(P::I::fload(x.add(8 * i + 4)), inv));
                sum = P::I::add32(sum, P::I::add32(a, b));
                let p = codes.add(2 * i * group);
                P::store_act(p, p.add(group), plane_stride, a, b);
            }
        }
        P::I::half_sums32(sum)
    })
}
