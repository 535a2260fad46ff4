//! Convolutions by products of bytes, four at a time, for engines that compute them of all bytes in full: those of
//! [`Reading::Unsigned`](super::super::path32::Unsigned) and [`Signed`](super::super::path32::Signed).
//!
//! An input's code less its zero point is `v + low`, where the engine reads v. So
//!
//! ```text
//! sum of (v + low) * (w - zero) = sum of v * w - zero * (sum of v) + low * (sum of (w - zero))
//! ```
//! The first is the products', the second one number per row, the last one per output.

use super::{Dense, MAX_ROWS, Map, Rows, STRIP, Window};
use crate::kernels::isa::Dot8;
use crate::kernels::parallel::Shared;
use crate::kernels::path32::Reading;
use std::ops::Range;

/// Rows that meet a strip together: two sums each, two vectors of weights and one of inputs fit the registers.
const ROWS: usize = 5;

impl Dense {
    /// [`Dense::forward`] by bytes.
    ///
    /// # Panics
    /// As that does.
    pub fn forward_bytes<I: Dot8, R: Reading>(
        &self,
        input: Map,
        window: &Window,
        out_width: usize,
        out: &mut [u8],
    ) {
        self.forward_by(Self::byte_block::<I, R>, input, window, out_width, out);
    }

    /// Some strips of the outputs of `rows`.
    fn byte_block<I: Dot8, R: Reading>(
        &self,
        rows: Rows,
        strips: Range<usize>,
        scratch: &mut Vec<u8>,
        out: &Shared<u8>,
    ) {
        let (padded_n, k) = (self.n.next_multiple_of(STRIP), self.padded_k());
        let rows = if R::UNSIGNED { rows } else { signed::<I>(rows, k, scratch) };
        assert!(rows.n <= MAX_ROWS && rows.a.len() >= (rows.n - 1) * rows.stride + k);
        let zero = i32::from(self.zeros.weights);
        let low = if R::UNSIGNED { 0 } else { 128 } - i32::from(self.zeros.input);
        // What the zero point of the weights takes from each row, and from rows of a tile that are beyond the last.
        let mut taken = [0; MAX_ROWS + ROWS];
        if zero != 0 {
            for (i, taken) in taken[..rows.n].iter_mut().enumerate() {
                *taken = zero.wrapping_mul(sum::<I, R>(&rows.a[i * rows.stride..][..k]));
            }
        }
        let (quads, rounding) = (std::hint::black_box(k / 4), self.requantize.rounding::<I>());
        assert!((rows.first + rows.n) * padded_n <= out.len() && strips.end * STRIP <= padded_n);
        for strip in strips {
            let codes = self.strip(strip).as_ptr();
            let start = self.start(strip, low);
            // SAFETY: rows are within `a` and their outputs within `out` (asserted), these columns of which are this
            // part's alone; the strip holds `quads`; there are 8 of all numbers.
            unsafe {
                let start = [I::load(start.as_ptr().cast()), I::load(start.as_ptr().add(4).cast())];
                for first in (0..rows.n).step_by(ROWS) {
                    let at = (rows.first + first) * padded_n + strip * STRIP;
                    let to = out.start(at..at + STRIP);
                    let less = |r: usize| {
                        let row = I::load32_splat(taken.as_ptr().add(first + r).cast());
                        start.map(|start| I::sub32(start, row))
                    };
                    if rows.n == 1 {
                        let sums = single::<I, R>(codes, rows.a.as_ptr(), quads, less(0));
                        rounding.store(sums, self.requantize.scale::<I>(strip * STRIP), to);
                        continue;
                    }
                    let starts = if zero == 0 { [start; ROWS] } else { std::array::from_fn(less) };
                    let sums = tile::<I, R>(codes, rows.starts(first), quads, starts);
                    let scale = self.requantize.scale::<I>(strip * STRIP);
                    rounding.store_rows(sums, scale, rows.n - first, to, padded_n);
                }
            }
        }
    }
}

/// Rows as an engine reads them that takes all bytes for signed.
fn signed<'a, I: Dot8>(rows: Rows, k: usize, to: &'a mut Vec<u8>) -> Rows<'a> {
    to.resize(rows.n * k, 0);
    let flip = I::splat32(i32::from_le_bytes([0x80; 4]));
    for (i, to) in to.chunks_exact_mut(k).enumerate() {
        let from = &rows.a[i * rows.stride..][..k];
        let (to, to_rest) = to.as_chunks_mut::<16>();
        let (from, from_rest) = from.as_chunks::<16>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: 16 bytes each.
            unsafe { I::store(to.as_mut_ptr(), I::xor(I::load(from.as_ptr()), flip)) }
        }
        to_rest.iter_mut().zip(from_rest).for_each(|(to, from)| *to = from ^ 0x80);
    }
    Rows { a: to, stride: k, ..rows }
}

/// The products of two vectors of bytes, weights and inputs, added to `sum`.
#[inline(always)]
pub(super) fn dot<I: Dot8, R: Reading>(sum: I::V, w: I::V, a: I::V) -> I::V {
    if R::UNSIGNED { I::dot8_unsigned(sum, w, a) } else { I::dot8_signed(sum, w, a) }
}

/// The sum of what the engine reads of a row.
#[inline(always)]
fn sum<I: Dot8, R: Reading>(row: &[u8]) -> i32 {
    let (ones, mut sum) = (I::splat16(0x0101), I::splat32(0));
    let (whole, rest) = row.as_chunks::<16>();
    for bytes in whole {
        // SAFETY: 16 bytes.
        sum = dot::<I, R>(sum, ones, unsafe { I::load(bytes.as_ptr()) });
    }
    let read = |byte: &u8| if R::UNSIGNED { i32::from(*byte) } else { i32::from(*byte as i8) };
    I::sum32(sum) + rest.iter().map(read).sum::<i32>()
}

/// Five rows times 8 columns, added to `sums`.
///
/// # Safety
/// `4 * quads` bytes of each row and `32 * quads` of the strip are readable.
#[inline(always)]
unsafe fn tile<I: Dot8, R: Reading>(
    mut strip: *const u8,
    mut rows: [*const u8; ROWS],
    quads: usize,
    mut sums: [[I::V; 2]; ROWS],
) -> [[I::V; 2]; ROWS] {
    for _ in 0..quads {
        // SAFETY: the caller's.
        unsafe {
            let columns = [I::load(strip), I::load(strip.add(16))];
            for (sums, row) in sums.iter_mut().zip(&mut rows) {
                let a = I::load32_splat(*row);
                for (sum, w) in sums.iter_mut().zip(columns) {
                    *sum = dot::<I, R>(*sum, w, a);
                }
                *row = row.add(4);
            }
            strip = strip.add(32);
        }
    }
    sums
}

/// One row times 8 columns, added to `sums`. Each product waits for the last but one.
///
/// # Safety
/// `4 * quads` bytes of the row and `32 * quads` of the strip are readable.
#[inline(always)]
unsafe fn single<I: Dot8, R: Reading>(
    strip: *const u8,
    row: *const u8,
    quads: usize,
    sums: [I::V; 2],
) -> [I::V; 2] {
    let mut sums = [sums, [I::splat32(0); 2]];
    // SAFETY: the caller's.
    let step = |quad: usize, sums: &mut [I::V; 2]| unsafe {
        let a = I::load32_splat(row.add(4 * quad));
        sums[0] = dot::<I, R>(sums[0], I::load(strip.add(32 * quad)), a);
        sums[1] = dot::<I, R>(sums[1], I::load(strip.add(32 * quad + 16)), a);
    };
    for pair in 0..quads / 2 {
        let [even, odd] = &mut sums;
        step(2 * pair, even);
        step(2 * pair + 1, odd);
    }
    if quads % 2 == 1 {
        step(quads - 1, &mut sums[0]);
    }
    std::array::from_fn(|i| I::add32(sums[0][i], sums[1][i]))
}
