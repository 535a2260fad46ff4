//! Convolutions by products of 16 bits, for any engine: codes less their zero points have 9.

use super::{Dense, Rows, STRIP};
use crate::kernels::isa::Isa;
use crate::kernels::parallel::Shared;
use std::ops::Range;

/// Rows that meet a panel together.
const ROWS: usize = 4;

impl Dense {
    /// Some strips of the outputs of `rows`.
    pub(super) fn halves_block<I: Isa>(
        &self,
        rows: Rows,
        strips: Range<usize>,
        scratch: &mut Vec<u8>,
        out: &Shared<u8>,
    ) {
        let (padded_n, k) = (self.n.next_multiple_of(STRIP), self.padded_k());
        // The rows, then the panel, in halves.
        scratch.resize(2 * k * (rows.n + STRIP), 0);
        let (a, panel) = scratch.split_at_mut(2 * k * rows.n);
        widen_rows::<I>(rows, k, self.zeros.input, a);
        let widened = Rows { a, stride: 2 * k, ..rows };
        let (pairs, rounding) = (std::hint::black_box(k / 2), self.requantize.rounding::<I>());
        assert!((rows.first + rows.n) * padded_n <= out.len() && strips.end * STRIP <= padded_n);
        for strip in strips {
            self.unpack::<I>(strip, panel);
            // SAFETY: rows are within `a` and their outputs within `out` (asserted), these columns of which are this
            // part's alone; the panel holds `pairs`; biases and scales are padded to whole strips.
            unsafe {
                let bias = self.requantize.bias::<I>(strip * STRIP);
                for first in (0..rows.n).step_by(ROWS) {
                    let sums = tile::<I>(panel.as_ptr(), widened.starts(first), pairs, bias);
                    let at = (rows.first + first) * padded_n + strip * STRIP;
                    let to = out.start(at..at + STRIP);
                    let scale = self.requantize.scale::<I>(strip * STRIP);
                    rounding.store_rows(sums, scale, rows.n - first, to, padded_n);
                }
            }
        }
    }

    /// The codes of a strip less their zero point, of each four k the first and third, then the second and fourth.
    fn unpack<I: Isa>(&self, strip: usize, panel: &mut [u8]) {
        let zero = I::splat16(i16::from(self.zeros.weights) as u16);
        let (from, to) = (self.strip(strip), panel);
        for (from, to) in from.chunks_exact(32).zip(to.chunks_exact_mut(64)) {
            // SAFETY: 32 bytes, 32 halves.
            unsafe {
                for (i, codes) in
                    [I::load(from.as_ptr()), I::load(from.as_ptr().add(16))].into_iter().enumerate()
                {
                    let even = I::sar16::<8>(I::shl16::<8>(codes));
                    let odd = I::sar16::<8>(codes);
                    I::store(to.as_mut_ptr().add(16 * i), I::sub16(even, zero));
                    I::store(to.as_mut_ptr().add(32 + 16 * i), I::sub16(odd, zero));
                }
            }
        }
    }
}

/// Rows of `k` codes less their zero point as halves, in the order of [`Dense::unpack`].
fn widen_rows<I: Isa>(rows: Rows, k: usize, zero: u8, to: &mut [u8]) {
    let zeros = I::splat16(zero.into());
    for (i, to) in to.chunks_exact_mut(2 * k).enumerate() {
        let from = &rows.a[i * rows.stride..][..k];
        let (from, from_rest) = from.as_chunks::<8>();
        let (to, to_rest) = to.as_chunks_mut::<16>();
        for (to, from) in to.iter_mut().zip(from) {
            // SAFETY: 8 bytes, 8 halves.
            unsafe {
                let codes = I::sub16(I::load8x8_unsigned(from.as_ptr()), zeros);
                I::store(to.as_mut_ptr(), I::permute_0213(codes));
            }
        }
        for (j, to) in to_rest.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *to = (i16::from(from_rest[[0, 2, 1, 3][j]]) - i16::from(zero)).to_le_bytes();
        }
    }
}

/// Four rows times 8 columns.
///
/// # Safety
/// `2 * pairs` halves of each row and `16 * pairs` of the panel are readable.
#[inline(always)]
unsafe fn tile<I: Isa>(
    mut panel: *const u8,
    mut rows: [*const u8; ROWS],
    pairs: usize,
    bias: [I::V; 2],
) -> [[I::V; 2]; ROWS] {
    let mut sums = [bias; ROWS];
    for _ in 0..pairs {
        // SAFETY: the caller's.
        unsafe {
            let columns = [I::load(panel), I::load(panel.add(16))];
            for (sums, row) in sums.iter_mut().zip(&mut rows) {
                let a = I::load32_splat(*row);
                sums[0] = I::add32(sums[0], I::dot16(columns[0], a));
                sums[1] = I::add32(sums[1], I::dot16(columns[1], a));
                *row = row.add(4);
            }
            panel = panel.add(32);
        }
    }
    sums
}
