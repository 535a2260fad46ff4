//! Activations as 8-bit codes, in the order in which kernels read them.

use super::Span;
use crate::kernels::isa::{Isa, Native};
use crate::kernels::parallel::{self, Shared, work};
use crate::kernels::path::{DotPath, P16};

/// A path's name and a span.
pub(super) type Layout = Option<(&'static str, Span)>;

/// The activations in one path's layout. Rows are padded to whole tiles; what padding holds does
/// not matter, since nobody keeps its products.
#[derive(Default)]
pub struct Coded {
    /// The path and span, or `None` where what follows is of an earlier fill.
    pub(super) layout: Layout,
    /// Rows per tile: 1 or [`DotPath::ROWS`].
    tile_rows: usize,
    n_blocks: usize,
    n_sums: usize,
    /// Codes. One row: `[k / 4][plane][4 bytes]`. More: in tiles of `ROWS` rows,
    /// `[tile][k / 4][plane][ROWS][4 bytes]`; the path says how many planes.
    pub(in crate::kernels) codes: Vec<u8>,
    /// `[tile][span][tile_rows]`.
    scales: Vec<f32>,
    /// Sums of codes as the path joins them, `[tile][32 k or (super span) 16 k][tile_rows]`.
    sums: Vec<i32>,
    /// Super span: the sums as activations, to meet the minima of sub-blocks. Per 256 k, 4 groups of 4
    /// sums over 16, then 2 groups of 4 sums over 32. Several rows: as [`P16`] has them. One row: as the
    /// path has them, sums of [`min_parts`] bytes as `low + 64 * high`, one after the other.
    pub(in crate::kernels) min_codes: Vec<u8>,
    starts: Vec<Starts>,
}

/// What the lanes of sums begin with.
#[derive(Default)]
struct Starts {
    /// The offset of the codes, and how many `sums` go into each; `None` where they are of an
    /// earlier fill.
    of: Option<(i32, usize)>,
    /// `[tile][start][tile_rows]`
    lanes: Vec<i32>,
}

/// In how many parts a sum is that meets the minima in decoding.
pub(in crate::kernels) const fn min_parts<P: DotPath>() -> usize {
    if P::ACT_BYTES == MIN_GROUP_BYTES { 1 } else { 2 }
}
/// Bytes of a group of a row in [`Coded::min_codes`].
pub(in crate::kernels) const MIN_GROUP_BYTES: usize = 8;

/// Groups of sums per 256 k in [`Coded::min_codes`].
pub(in crate::kernels) const MIN_GROUPS: usize = 6;

/// A tile of rows without end: `n` per row.
fn tile_of<T>(all: &[T], tile: usize, tile_rows: usize, n: usize) -> &[T] {
    &all[tile * n * tile_rows..][..n * tile_rows]
}

/// Where the sums of tiles of rows begin; codes without offset have none.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct TileStarts<'a> {
    lanes: &'a [i32],
    per_tile: usize,
}

impl<'a> TileStarts<'a> {
    /// Those of a tile of rows.
    #[inline(always)]
    pub(in crate::kernels) fn tile(self, tile: usize) -> &'a [i32] {
        &self.lanes[tile * self.per_tile..][..self.per_tile]
    }
}

impl Coded {
    /// Scales of a tile of rows, one per span and row.
    pub(in crate::kernels) fn scales(&self, tile: usize) -> &[f32] {
        tile_of(&self.scales, tile, self.tile_rows, self.n_blocks)
    }

    /// Sums of codes of a tile of rows.
    pub(in crate::kernels) fn sums(&self, tile: usize) -> &[i32] {
        tile_of(&self.sums, tile, self.tile_rows, self.n_sums)
    }

    /// Where the sums of tiles of rows begin, every `len` k of codes with `offset`: to be asked for once a product.
    ///
    /// # Panics
    /// Where [`Self::make_starts`] has not made them: a bug in the caller.
    pub(in crate::kernels) fn starts(&self, span: Span, offset: i32, len: usize) -> TileStarts<'_> {
        let of = len / span.sum_len();
        if offset == 0 {
            return TileStarts { lanes: &[], per_tile: 0 };
        }
        match self.starts.iter().find(|starts| starts.of == Some((offset, of))) {
            Some(starts) => {
                TileStarts { lanes: &starts.lanes, per_tile: self.tile_rows * (self.n_sums / of) }
            }
            None => unreachable!("no starts for offset {offset} every {len}"),
        }
    }

    /// Makes [`Self::starts`].
    pub(super) fn make_starts<P: DotPath>(&mut self, span: Span, offset: i32, len: usize) {
        let of = len / span.sum_len();
        if offset == 0 || self.starts.iter().any(|starts| starts.of == Some((offset, of))) {
            return;
        }
        let free = self.starts.iter().position(|starts| starts.of.is_none()).unwrap_or_else(|| {
            self.starts.push(Starts::default());
            self.starts.len() - 1
        });
        let Starts { of: kind, lanes } = &mut self.starts[free];
        *kind = Some((offset, of));
        lanes.clear();
        if of == 1 {
            lanes.extend(self.sums.iter().map(|&sum| P::start_lane(sum, offset)));
            return;
        }
        for sums in self.sums.chunks_exact(of * self.tile_rows) {
            for r in 0..self.tile_rows {
                let sum = sums[r..].iter().step_by(self.tile_rows).fold(0, |a, &b| P::add_sums(a, b));
                lanes.push(P::start_lane(sum, offset));
            }
        }
    }

    pub(super) fn quantize<P: DotPath>(&mut self, x: &[f32], m: usize, k: usize, span: Span) {
        self.tile_rows = if m == 1 { 1 } else { P::ROWS };
        let rows = m.next_multiple_of(self.tile_rows);
        self.n_blocks = k / span.len();
        self.n_sums = k / span.sum_len();
        self.starts.iter_mut().for_each(|starts| starts.of = None);
        self.codes.resize(rows * k / 4 * P::ACT_BYTES, 0);
        self.min_codes.clear();
        self.scales.resize(rows * self.n_blocks, 0.0);
        self.sums.resize(rows * self.n_sums, 0);
        self.quantize_tiles::<P>(x, k, span);
        if span == Span::Super {
            self.code_sums::<P>();
        }
        self.layout = Some((P::NAME, span));
    }

    /// Fills codes, scales and sums; tiles of rows are shared among threads.
    fn quantize_tiles<P: DotPath>(&mut self, x: &[f32], k: usize, span: Span) {
        let (tile_rows, n_blocks, n_sums) = (self.tile_rows, self.n_blocks, self.n_sums);
        let (codes, scales) = (Shared::new(&mut self.codes), Shared::new(&mut self.scales));
        let sums = Shared::new(&mut self.sums);
        let n_tiles = (x.len() / k).div_ceil(tile_rows);
        parallel::ranges(n_tiles, tile_rows * k * work::ROUND, &|tiles| {
            for tile in tiles {
                let own = |per_row: usize| tile * tile_rows * per_row..(tile + 1) * tile_rows * per_row;
                // SAFETY: a tile is in one range only.
                let (codes, scales, sums) = unsafe {
                    (
                        codes.part(own(k / 4 * P::ACT_BYTES)),
                        scales.part(own(n_blocks)),
                        sums.part(own(n_sums)),
                    )
                };
                let rows = x[tile * tile_rows * k..].chunks_exact(k).take(tile_rows);
                for (r, x) in rows.enumerate() {
                    let at = RowOfTile {
                        tile_rows,
                        codes: &mut codes[4 * r..],
                        scales: &mut scales[r..],
                        sums: &mut sums[r..],
                    };
                    quantize_row::<P>(x, span, at);
                }
            }
        });
    }

    /// Fills `min_codes` from `sums`.
    pub(super) fn code_sums<P: DotPath>(&mut self) {
        let tile_rows = self.tile_rows;
        let rows = self.sums.len() / self.n_sums.max(1);
        let group = tile_rows * MIN_GROUP_BYTES;
        self.min_codes.resize(rows / tile_rows * self.n_blocks * MIN_GROUPS * group, 0);
        let blocks = self.min_codes.chunks_exact_mut(MIN_GROUPS * group);
        for (to, sums) in blocks.zip(self.sums.chunks_exact(16 * tile_rows)) {
            for r in 0..tile_rows {
                let mut lanes = [0i32; MIN_GROUPS * 4];
                for (i, &s) in sums[r..].iter().step_by(tile_rows).enumerate() {
                    let sum = P::whole_sum(s);
                    lanes[i] = sum;
                    lanes[16 + i / 2] = lanes[16 + i / 2].wrapping_add(sum);
                }
                for (i, pair) in lanes.chunks_exact(8).enumerate() {
                    let to = &mut to[2 * i * group + 4 * r..][..2 * group - (tile_rows - 1) * 4];
                    // SAFETY: 8 lanes are read; two groups of two planes lie in `to`.
                    unsafe {
                        let p = pair.as_ptr().cast::<u8>();
                        let to = to.as_mut_ptr();
                        let (a, b) = (P::I::load(p), P::I::load(p.add(16)));
                        if tile_rows > 1 || min_parts::<P>() == 1 {
                            P16::<P::I>::store_act(to, to.add(group), 4 * tile_rows, a, b);
                        } else {
                            let low = P::I::splat32(63);
                            let (a_low, b_low) = (P::I::and(a, low), P::I::and(b, low));
                            P::store_act(to, to.add(group), 4, a_low, b_low);
                            let (a, b) = (P::I::sar32::<6>(a), P::I::sar32::<6>(b));
                            P::store_act(to.add(4), to.add(group + 4), 4, a, b);
                        }
                    }
                }
            }
        }
    }

    /// Takes some rows of `from`, whose number of rows is `m`.
    pub(super) fn pick<P: DotPath>(&mut self, from: &Coded, m: usize, rows: &[usize]) {
        assert!(rows.iter().all(|&row| row < m), "rows {rows:?} of {m}");
        self.layout = from.layout;
        self.tile_rows = if rows.len() == 1 { 1 } else { P::ROWS };
        (self.n_blocks, self.n_sums) = (from.n_blocks, from.n_sums);
        self.starts.iter_mut().for_each(|starts| starts.of = None);
        let (tile, to_tile) = (from.tile_rows, self.tile_rows);
        let (padded, to_padded) = (m.next_multiple_of(tile), rows.len().next_multiple_of(to_tile));
        let bytes = |from: &[u8], to: &mut Vec<u8>| {
            to.resize(from.len() / padded * to_padded, 0);
            pick_rows(from.as_chunks::<4>().0, tile, padded, rows, to.as_chunks_mut().0, to_tile);
        };
        bytes(&from.codes, &mut self.codes);
        self.scales.resize(to_padded * self.n_blocks, 0.0);
        pick_rows(&from.scales, tile, padded, rows, &mut self.scales, to_tile);
        self.sums.resize(to_padded * self.n_sums, 0);
        pick_rows(&from.sums, tile, padded, rows, &mut self.sums, to_tile);
    }
}

/// A row's place in its tile: from its first code, scale and sum on.
struct RowOfTile<'a> {
    tile_rows: usize,
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

/// The scale of codes of `x`, and what makes codes of it.
#[inline(always)]
fn scale_of<I: Isa>(x: &[f32]) -> (f32, f32) {
    let amax = largest::<I>(x);
    // Below the smallest normal f32 the inverse overflows; such a block is zero for any use.
    (amax / 127.0, if amax > 1e-35 { 127.0 / amax } else { 0.0 })
}

/// Takes from all numbers what their codes stand for.
pub(super) fn leave_rest(x: &mut [f32], span: Span) {
    parallel::chunks(x, span.len(), work::ROUND, &|_, x| {
        for x in x.chunks_exact_mut(span.len()) {
            let (scale, inv) = scale_of::<Native>(x);
            let (scale, inv) = (Native::fsplat(scale), Native::fsplat(inv));
            for four in x.as_chunks_mut::<4>().0 {
                // SAFETY: 4 floats.
                unsafe {
                    let x = Native::fload(four.as_ptr());
                    let coded = Native::to_float(Native::round(Native::fmul(x, inv)));
                    Native::fstore(four.as_mut_ptr(), Native::fsub(x, Native::fmul(coded, scale)));
                }
            }
        }
    });
}

fn quantize_row<P: DotPath>(x: &[f32], span: Span, to: RowOfTile) {
    let RowOfTile { tile_rows, codes, scales, sums } = to;
    let group = tile_rows * P::ACT_BYTES;
    for (block, x) in x.chunks_exact(span.len()).enumerate() {
        let (mut scale, inv) = scale_of::<P::I>(x);
        for (i, x) in x.chunks_exact(32).enumerate() {
            let chunk = block * (span.len() / 32) + i;
            let codes = &mut codes[chunk * 8 * group..][..8 * group - (tile_rows - 1) * 4];
            // SAFETY: x has 32 floats; the planes of 8 groups lie `4 * tile_rows` apart in `codes`.
            let halves = unsafe { round32::<P>(x.as_ptr(), inv, codes.as_mut_ptr(), 4 * tile_rows) };
            if halves.iter().any(|[low, high]| low.wrapping_add(*high).unsigned_abs() > 16 * 127) {
                // Only NaN rounds to such codes; the maximum may have passed over it.
                scale = f32::NAN;
            }
            let joined = halves.map(|[low, high]| P::join_sums(low, high));
            match span {
                Span::Tile => sums[chunk * tile_rows] = P::add_sums(joined[0], joined[1]),
                Span::Super => {
                    sums[2 * chunk * tile_rows] = joined[0];
                    sums[(2 * chunk + 1) * tile_rows] = joined[1];
                }
            }
        }
        scales[block * tile_rows] = scale;
    }
}

/// Some of `padded` rows, from tiles of `tile` rows to tiles of `to_tile` rows.
fn pick_rows<T: Copy>(from: &[T], tile: usize, padded: usize, rows: &[usize], to: &mut [T], to_tile: usize) {
    let n = from.len() / padded;
    if n == 0 {
        return;
    }
    for (i, &row) in rows.iter().enumerate() {
        let from = from[row / tile * tile * n + row % tile..].iter().step_by(tile);
        let to = to[i / to_tile * to_tile * n + i % to_tile..].iter_mut().step_by(to_tile);
        to.zip(from).take(n).for_each(|(to, from)| *to = *from);
    }
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
