//! Convolutions by products of bytes whose sums of two are exact in 16 bits, for engines that compute those of all bytes
//! that way and no sums of four: x86 without AVX-VNNI.
//!
//! Codes of inputs are below 256. So the sum of two products is exact where the two weights, less their zero point, are
//! together at most 128 from 0. Trained weights are, but for a few in a thousand: what two are beyond
//! is another product, of the four inputs that they meet.

use super::{Dense, Map, Rows, STRIP, Window};
use crate::kernels::isa::PairDot8;
use crate::kernels::parallel::Shared;
use std::ops::Range;

/// Rows that meet a strip together: of five, with the vector of ones, sums would not fit the registers that V8 has.
const ROWS: usize = 4;
/// Most that two weights come to together: times 255 it has 15 bits.
const REACH: i32 = 128;
/// Bytes of eight outputs' weights of four inputs.
const QUAD: usize = 4 * STRIP;

/// Weights less their zero points.
pub(super) struct Pairs {
    /// For each strip and four inputs, four weights of each of eight outputs.
    codes: Vec<u8>,
    /// What is left of some: their four inputs, and the weights of eight outputs.
    rest: Vec<(usize, [u8; QUAD])>,
    /// Of each strip those of the rest.
    of_strip: Vec<Range<usize>>,
}

impl Pairs {
    /// Of codes as [`Dense`] packs them, in strips of `strip_bytes`.
    pub(super) fn new(codes: &[u8], strip_bytes: usize, zero: i8) -> Self {
        let mut pairs =
            Pairs { codes: Vec::with_capacity(codes.len()), rest: Vec::new(), of_strip: Vec::new() };
        for strip in codes.chunks_exact(strip_bytes) {
            let first = pairs.rest.len();
            for (i, quad) in strip.as_chunks::<QUAD>().0.iter().enumerate() {
                let mut left = quad.map(|code| i32::from(code as i8) - i32::from(zero));
                pairs.codes.extend(take(&mut left));
                while left.iter().any(|&x| x != 0) {
                    pairs.rest.push((i, take(&mut left)));
                }
            }
            pairs.of_strip.push(first..pairs.rest.len());
        }
        pairs
    }
}

/// Takes from each two weights as much as one product may have.
fn take(left: &mut [i32; QUAD]) -> [u8; QUAD] {
    let mut taken = [0; QUAD];
    for (left, taken) in left.as_chunks_mut::<2>().0.iter_mut().zip(taken.as_chunks_mut::<2>().0) {
        let mut reach = REACH;
        for (left, taken) in left.iter_mut().zip(taken) {
            let most = reach.min(127);
            let part = (*left).clamp(-most, most);
            (reach, *left, *taken) = (reach - part.abs(), *left - part, part as i8 as u8);
        }
    }
    taken
}

impl Dense {
    /// Whether few weights are so large that they take products of their own: pairs of bytes take three operations where
    /// halves take four.
    pub fn suits_pairs(&self) -> bool {
        let pairs = self.pairs();
        4 * pairs.rest.len() <= pairs.codes.len() / QUAD
    }

    fn pairs(&self) -> &Pairs {
        let strip_bytes = STRIP * self.padded_k();
        self.pairs.get_or_init(|| Pairs::new(&self.codes, strip_bytes, self.zeros.weights))
    }

    /// [`Dense::forward`] by sums of two products of bytes.
    ///
    /// # Panics
    /// As that does.
    pub fn forward_pairs<I: PairDot8>(&self, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        self.forward_by(Self::pairs_block::<I>, input, window, out_width, out);
    }

    /// Some strips of the outputs of `rows`.
    fn pairs_block<I: PairDot8>(&self, rows: Rows, strips: Range<usize>, _: &mut Vec<u8>, out: &Shared<u8>) {
        let (padded_n, k) = (self.n.next_multiple_of(STRIP), self.padded_k());
        let pairs = self.pairs();
        assert!(rows.a.len() >= (rows.n - 1) * rows.stride + k);
        assert!((rows.first + rows.n) * padded_n <= out.len() && strips.end * STRIP <= padded_n);
        let (quads, rounding) = (std::hint::black_box(k / 4), self.requantize.rounding::<I>());
        for strip in strips {
            let codes = &pairs.codes[strip * STRIP * k..][..STRIP * k];
            let rest = &pairs.rest[pairs.of_strip[strip].clone()];
            let start = self.start(strip, -i32::from(self.zeros.input));
            // SAFETY: rows are within `a` and their outputs within `out` (asserted), these columns of which are this
            // part's alone; the strip holds `quads`; there are 8 of all numbers.
            unsafe {
                let start = [I::load(start.as_ptr().cast()), I::load(start.as_ptr().add(4).cast())];
                for first in (0..rows.n).step_by(ROWS) {
                    let sums = tile::<I>(
                        codes.as_ptr(),
                        rest,
                        std::array::from_fn(|r| {
                            rows.a.as_ptr().add((first + r).min(rows.n - 1) * rows.stride)
                        }),
                        quads,
                        start,
                    );
                    let at = (rows.first + first) * padded_n + strip * STRIP;
                    let to = out.start(at..at + STRIP);
                    let scale = self.requantize.scale::<I>(strip * STRIP);
                    rounding.store_rows(sums, scale, rows.n - first, to, padded_n);
                }
            }
        }
    }
}

/// Four rows times 8 columns, added to `start`.
///
/// # Safety
/// `4 * quads` bytes of each row and `32 * quads` of the strip are readable; those of `rest` are among the `quads`.
#[inline(always)]
unsafe fn tile<I: PairDot8>(
    mut strip: *const u8,
    rest: &[(usize, [u8; QUAD])],
    rows: [*const u8; ROWS],
    quads: usize,
    start: [I::V; 2],
) -> [[I::V; 2]; ROWS] {
    let ones = I::splat16(1);
    let mut sums = [start; ROWS];
    // SAFETY: the caller's.
    unsafe {
        let mut at = rows;
        for _ in 0..quads {
            add::<I>(&mut sums, strip, at, ones);
            at = at.map(|row| row.add(4));
            strip = strip.add(QUAD);
        }
        for (quad, codes) in rest {
            add::<I>(&mut sums, codes.as_ptr(), rows.map(|row| row.add(4 * quad)), ones);
        }
    }
    sums
}

/// Adds the products of four inputs of each row with eight columns' weights.
///
/// # Safety
/// 32 bytes of weights and 4 of each row are readable.
#[inline(always)]
unsafe fn add<I: PairDot8>(
    sums: &mut [[I::V; 2]; ROWS],
    weights: *const u8,
    rows: [*const u8; ROWS],
    ones: I::V,
) {
    // SAFETY: the caller's.
    unsafe {
        let columns = [I::load(weights), I::load(weights.add(16))];
        for (sums, row) in sums.iter_mut().zip(rows) {
            let a = I::load32_splat(row);
            for (sum, w) in sums.iter_mut().zip(columns) {
                *sum = I::add32(*sum, I::dot16(I::pair_dot8(w, a), ones));
            }
        }
    }
}
