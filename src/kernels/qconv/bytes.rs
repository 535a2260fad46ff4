//! Convolutions by products of bytes, four at a time, for engines that compute them of all bytes in full: those of
//! [`Reading::Unsigned`](super::super::path32::Unsigned) and [`Signed`](super::super::path32::Signed).
//!
//! The codes of inputs are bytes again: a value is `v + low`, where the engine reads v. So
//!
//! ```text
//! sum of (v + low) * (w - zero) = sum of v * w - zero * (sum of v) + low * (sum of (w - zero))
//! ```
//! The first is the products', the second one number per row, the last one per output.

use super::{Block, Dense, Map, STRIP, Window};
use crate::kernels::isa::{Dot8, Isa};
use crate::kernels::parallel::Shared;
use crate::kernels::path32::Reading;
use std::ops::Range;

/// Rows that meet a panel together: two sums each, two vectors of weights and one of inputs fit the registers.
const ROWS: usize = 5;

/// Buffers of a part.
#[derive(Default)]
pub(super) struct Scratch {
    /// Rows of codes as the engine reads them, each as long as a panel.
    codes: Vec<u8>,
    /// Their sums.
    sums: Vec<i32>,
    /// `[k / 4][8][4]` codes of weights.
    panel: Vec<u8>,
}

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
        out: &mut [i16],
    ) {
        let by: Block = Self::byte_block::<I, R>;
        self.forward_by(by, input, window, out_width, out);
    }

    /// Some strips of the outputs of `rows`.
    fn byte_block<I: Dot8, R: Reading>(
        &self,
        rows: super::Rows,
        strips: Range<usize>,
        scratch: &mut super::Scratch,
        out: &Shared<i16>,
    ) {
        let (padded_n, k) = (self.n.next_multiple_of(STRIP), self.padded_k());
        // What the engine reads as 0 stands for this.
        let low = -i32::from(self.input_zero) - if R::UNSIGNED { 128 } else { 0 };
        let Scratch { codes, sums, panel } = &mut scratch.bytes;
        read_rows::<I, R>(rows, k, self.input_zero, codes, sums);
        panel.resize(k * STRIP, 0);
        let (zero, quads) = (i32::from(self.zero), std::hint::black_box(k / 4));
        for strip in strips {
            self.unpack_bytes::<I>(strip, panel);
            let start: [i32; STRIP] = std::array::from_fn(|j| {
                let j = strip * STRIP + j;
                let own = self.sums[j].wrapping_sub(zero.wrapping_mul(k as i32));
                self.requantize.bias[j].wrapping_add(low.wrapping_mul(own))
            });
            for first in (0..rows.n).step_by(ROWS) {
                // SAFETY: rows are within the codes, the last stands in for those beyond; the panel holds `quads`;
                // these columns of these rows are this part's alone.
                unsafe {
                    let start = [I::load(start.as_ptr().cast()), I::load(start.as_ptr().add(4).cast())];
                    let place = |r: usize| (first + r).min(rows.n - 1);
                    let starts = std::array::from_fn(|r| {
                        let row = I::splat32(zero.wrapping_mul(sums[place(r)]));
                        start.map(|start| I::sub32(start, row))
                    });
                    let row = |r: usize| codes.as_ptr().add(place(r) * k);
                    let sums = tile::<I, R>(panel.as_ptr(), std::array::from_fn(row), quads, starts);
                    for (r, sums) in sums.into_iter().enumerate().take(rows.n - first) {
                        let at = (rows.first + first + r) * padded_n + strip * STRIP;
                        let to = out.part(at..at + STRIP);
                        self.requantize.store::<I>(strip * STRIP, sums, to.as_mut_ptr());
                    }
                }
            }
        }
    }

    /// The codes of a strip, four k of a column beside each other.
    fn unpack_bytes<I: Isa>(&self, strip: usize, panel: &mut [u8]) {
        let codes = &self.codes[strip * STRIP * self.padded_k()..][..STRIP * self.padded_k()];
        for (from, to) in codes.chunks_exact(32).zip(panel.chunks_exact_mut(32)) {
            // SAFETY: 32 bytes each.
            unsafe {
                let (first, second) = (I::load(from.as_ptr()), I::load(from.as_ptr().add(16)));
                I::store(to.as_mut_ptr(), I::zip_low16(first, second));
                I::store(to.as_mut_ptr().add(16), I::zip_high16(first, second));
            }
        }
    }
}

/// Rows of `k` centred values as bytes, and the sums of what the engine reads of them.
fn read_rows<I: Isa, R: Reading>(
    rows: super::Rows,
    k: usize,
    zero: i8,
    codes: &mut Vec<u8>,
    sums: &mut Vec<i32>,
) {
    assert!(rows.a.len() >= (rows.n - 1) * rows.stride + k);
    codes.resize(rows.n * k, 0);
    sums.clear();
    let (zeros, ones) = (I::splat16(i16::from(zero) as u16), I::splat16(1));
    let flip: u8 = if R::UNSIGNED { 0x80 } else { 0 };
    let flips = I::splat16(u16::from_le_bytes([flip; 2]));
    for (i, to) in codes.chunks_exact_mut(k).enumerate() {
        let from = &rows.a[i * rows.stride..][..k];
        let mut sum = I::splat32(0);
        let (to, to_rest) = to.as_chunks_mut::<16>();
        let (from, from_rest) = from.as_chunks::<16>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: 16 halves, 16 bytes.
            unsafe {
                let p = from.as_ptr();
                let [a, b] = [p, p.add(8)].map(|p| I::add16(I::load(p.cast()), zeros));
                sum = I::add32(sum, I::add32(I::dot16(a, ones), I::dot16(b, ones)));
                I::store(to.as_mut_ptr(), I::xor(I::narrow8(a, b), flips));
            }
        }
        let mut sum = I::sum32(sum);
        for (to, &from) in to_rest.iter_mut().zip(from_rest) {
            let code = (from + i16::from(zero)).clamp(-128, 127) as i8;
            sum += i32::from(code);
            *to = code as u8 ^ flip;
        }
        sums.push(if R::UNSIGNED { sum + 128 * k as i32 } else { sum });
    }
}

/// Five rows times 8 columns, added to `sums`.
///
/// # Safety
/// `4 * quads` bytes of each row and `32 * quads` of the panel are readable.
#[inline(always)]
unsafe fn tile<I: Dot8, R: Reading>(
    mut panel: *const u8,
    mut rows: [*const u8; ROWS],
    quads: usize,
    mut sums: [[I::V; 2]; ROWS],
) -> [[I::V; 2]; ROWS] {
    for _ in 0..quads {
        // SAFETY: the caller's.
        unsafe {
            let columns = [I::load(panel), I::load(panel.add(16))];
            for (sums, row) in sums.iter_mut().zip(&mut rows) {
                let a = I::load32_splat(*row);
                for (sum, w) in sums.iter_mut().zip(columns) {
                    *sum =
                        if R::UNSIGNED { I::dot8_unsigned(*sum, w, a) } else { I::dot8_signed(*sum, w, a) };
                }
                *row = row.add(4);
            }
            panel = panel.add(32);
        }
    }
    sums
}
