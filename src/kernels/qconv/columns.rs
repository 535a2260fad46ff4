//! Convolutions of each channel by itself with windows of 3 x 3, by products of bytes four at a time.
//!
//! The three taps of a column of the window, and a fourth one of no weight, are a lane of four bytes. The columns of a row of
//! outputs are put together once, for 16 channels, and meet the weights of each column of the window.

use super::bytes::dot;
use super::depthwise::{Depthwise, Row, Scratch};
use super::{Map, STRIP, Window};
use crate::kernels::isa::Dot8;
use crate::kernels::path32::Reading;
use std::ops::Range;

/// Channels at a time.
pub(super) const BLOCK: usize = 2 * STRIP;
/// Bytes of a column of 16 channels.
const COLUMN: usize = 4 * BLOCK;
/// Side of the window.
const SIDE: usize = 3;
/// Bytes of the weights of 16 channels.
const WINDOW: usize = SIDE * COLUMN;

/// Weights less their zero points, for whole blocks of channels.
pub(super) struct Columns {
    /// For each block and column of the window, four bytes of each of 16 channels; then the same of what is left of
    /// weights that are no bytes.
    weights: Vec<u8>,
    /// Of each block.
    kinds: Vec<Kind>,
    /// What reading inputs as less by 128 takes from the sum of each channel.
    shift: Vec<i32>,
}

/// What the weights of a block are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Bytes.
    Bytes,
    /// Sums of two bytes: codes and their zero point may be 255 apart.
    Sums,
    /// One of them is neither.
    Neither,
}

impl Columns {
    /// Of weights that `weight` gives by tap and channel.
    pub(super) fn new(channels: usize, weight: impl Fn(usize, usize) -> i16) -> Self {
        let n_blocks = channels / BLOCK;
        let mut weights = vec![0; 2 * n_blocks * WINDOW];
        let (mut kinds, mut shift) = (vec![Kind::Bytes; n_blocks], vec![0; n_blocks * BLOCK]);
        for c in 0..n_blocks * BLOCK {
            for tap in 0..SIDE * SIDE {
                let at = 2 * (c / BLOCK) * WINDOW + tap % SIDE * COLUMN + c % BLOCK * 4 + tap / SIDE;
                let weight = weight(tap, c);
                let byte = weight.clamp(-128, 127);
                let rest = weight - byte;
                (weights[at], weights[at + WINDOW]) = (byte as u8, rest as u8);
                let kind = match i8::try_from(rest) {
                    Ok(0) => Kind::Bytes,
                    Ok(_) => Kind::Sums,
                    Err(_) => Kind::Neither,
                };
                kinds[c / BLOCK] = kinds[c / BLOCK].max(kind);
                shift[c] += 128 * i32::from(weight);
            }
        }
        Columns { weights, kinds, shift }
    }

    /// Bytes of the weights in memory.
    pub(super) fn n_bytes(&self) -> usize {
        self.weights.len()
    }
}

impl Depthwise {
    /// [`Depthwise::forward`] by bytes, where the window and the weights are such.
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
        match window.size == [SIDE; 2] && window.dilation == [1; 2] {
            true => self.forward_by(Self::byte_row::<I, R>, input, window, out_width, out),
            false => self.forward::<I>(input, window, out_width, out),
        }
    }

    /// Some channels of a row of the output, from a multiple of 16 on.
    fn byte_row<I: Dot8, R: Reading>(&self, row: &Row, channels: Range<usize>, scratch: &mut Scratch) {
        for c in channels.clone().step_by(BLOCK) {
            let end = channels.end.min(c + BLOCK);
            match self.columns.kinds.get(c / BLOCK) {
                Some(Kind::Bytes) => self.block::<I, R, 1>(row, c, &mut scratch.columns),
                Some(Kind::Sums) => self.block::<I, R, 2>(row, c, &mut scratch.columns),
                Some(Kind::Neither) | None => self.row::<I>(row, c..end, scratch),
            }
        }
    }

    /// 16 channels from `c` on, whose weights are sums of `N` bytes.
    fn block<I: Dot8, R: Reading, const N: usize>(&self, row: &Row, c: usize, columns: &mut Vec<u8>) {
        let Row { input, window, out_width, out, .. } = *row;
        let step = window.stride[1] * COLUMN;
        columns.resize((out_width - 1) * step + WINDOW, 0);
        self.gather::<I, R>(row, c, columns);
        let rounding = self.requantize.rounding::<I>();
        let shift: [i32; BLOCK] = match R::UNSIGNED {
            true => [0; BLOCK],
            false => std::array::from_fn(|i| self.columns.shift[c + i]),
        };
        let first = row.y * out_width * input.stride + c;
        assert!(first + (out_width - 1) * input.stride + BLOCK <= out.len());
        let weights = &self.columns.weights[2 * (c / BLOCK) * WINDOW..][..N * WINDOW];
        // SAFETY: weights and the columns of each output are there (`columns` is as long as they reach); biases and
        // scales are padded; these channels of these outputs are this part's alone.
        unsafe {
            let (low, high) = (self.requantize.bias::<I>(c), self.requantize.bias::<I>(c + STRIP));
            let add = |i: usize, v| I::add32(v, I::load(shift.as_ptr().add(4 * i).cast()));
            let start = [add(0, low[0]), add(1, low[1]), add(2, high[0]), add(3, high[1])];
            for x in 0..out_width {
                let (mut sums, at) = (start, columns.as_ptr().add(x * step));
                for column in 0..SIDE {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let part = column * COLUMN + 16 * i;
                        let taps = I::load(at.add(part));
                        for n in 0..N {
                            let w = I::load(weights.as_ptr().add(n * WINDOW + part));
                            *sum = dot::<I, R>(*sum, w, taps);
                        }
                    }
                }
                let to = first + x * input.stride;
                let to = out.start(to..to + BLOCK);
                rounding.store([sums[0], sums[1]], self.requantize.scale::<I>(c), to);
                let scale = self.requantize.scale::<I>(c + STRIP);
                rounding.store([sums[2], sums[3]], scale, to.add(STRIP));
            }
        }
    }

    /// Puts the columns of a row of outputs together, of 16 channels from `c` on.
    fn gather<I: Dot8, R: Reading>(&self, row: &Row, c: usize, columns: &mut [u8]) {
        let Row { input: Map { data, height, width, stride, .. }, window, outside, .. } = *row;
        let lines: [&[u8]; SIDE] = std::array::from_fn(|ky| match window.input(0, row.y, ky, height) {
            Some(iy) => &data[iy * width * stride..][..width * stride],
            None => &outside[..width * stride],
        });
        let flip = I::splat16(if R::UNSIGNED { 0 } else { 0x8080 });
        let zero = I::splat16(u16::from_le_bytes([self.zeros.input; 2]));
        for (column, to) in columns.chunks_exact_mut(COLUMN).enumerate() {
            let ix = column.checked_sub(window.pad[1]).filter(|&ix| ix < width);
            // SAFETY: 16 channels from `c` on of each line at `ix`; 64 bytes.
            unsafe {
                let taps = match ix {
                    Some(ix) => lines.map(|line| {
                        debug_assert!(ix * stride + c + BLOCK <= line.len());
                        I::load(line.as_ptr().add(ix * stride + c))
                    }),
                    None => [zero; SIDE],
                };
                let [a, b, last] = taps.map(|tap| if R::UNSIGNED { tap } else { I::xor(tap, flip) });
                for (i, pair, rest) in [
                    (0, I::zip_low8(a, b), I::zip_low8(last, last)),
                    (32, I::zip_high8(a, b), I::zip_high8(last, last)),
                ] {
                    I::store(to.as_mut_ptr().add(i), I::zip_low16(pair, rest));
                    I::store(to.as_mut_ptr().add(i + 16), I::zip_high16(pair, rest));
                }
            }
        }
    }
}
