//! Convolutions with the fixed scales of a quantized file: codes in, codes out.
//!
//! ```text
//! out[i, j] = clamp(round(scale[j] * (bias[j] + sum over k of (a[i, k] - zero_a) * (w[j, k] - zero_w)))) + zero_out
//! ```
//! Sums are exact; the one rounding is to nearest, ties to even, of a product in f32, as XNNPACK rounds. Activations are
//! bytes from layer to layer. Where an engine multiplies bytes four at a time in full, matrices are multiplied as they
//! lie, and zero points are put right afterwards ([`Dense::forward_bytes`]); others take pairs of halves less their zero
//! points ([`Dense::forward`]), or bytes in pairs ([`Dense::forward_pairs`]), with the same sums.
//!
//! Source: Jacob et al. 2017 (arXiv 1712.05877), section 2.

mod bytes;
mod columns;
mod depthwise;
mod gather;
mod halves;
mod pairs;
mod pixels;
mod requantize;
mod sum;

pub use depthwise::Depthwise;
pub use pixels::interleave;
pub use requantize::Requantize;
pub use sum::Weighted;

use super::isa::Isa;
use super::parallel::{self, Shared};
use super::pool;
use super::window::Window;
use crate::repack::Packing;
use pairs::Pairs;
use std::ops::Range;
use std::sync::OnceLock;

/// Outputs of a strip.
pub const STRIP: usize = 8;
/// Bytes of activations that stay in the first-level cache beside a strip of weights.
const BLOCK_BYTES: usize = 24 * 1024;
/// Most rows of a block.
const MAX_ROWS: usize = 240;
/// Least rows of a block that is smaller so that all threads have work: whole tiles of both kinds.
const LEAST_ROWS: usize = 20;
/// Blocks of rows and outputs per thread, where there are several.
const ITEMS_PER_THREAD: usize = 6;
/// Least strips that several threads share: rows are read anew for each part of them.
const LEAST_STRIPS: usize = 4;

/// The zero points of a layer: what its codes of 0 stand for.
#[derive(Clone, Copy, Debug)]
pub struct Zeros {
    /// Of its weights.
    pub weights: i8,
    /// Of what it reads.
    pub input: u8,
}

/// A feature map, `[height, width, stride]`, of whose `stride` channels the last may count for nothing.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    /// The codes.
    pub data: &'a [u8],
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels that count.
    pub channels: usize,
    /// Channels from pixel to pixel.
    pub stride: usize,
}

/// A convolution that mixes channels, or a linear layer: a matrix `[n, k]` with `k` = taps x channels.
pub struct Dense {
    n: usize,
    k: usize,
    zeros: Zeros,
    /// Strips of 8 outputs: for each four k, 8 times the four codes of an output.
    codes: Vec<u8>,
    /// Of the codes of each output; padded as they are.
    sums: Vec<i32>,
    /// The codes once more, where the engine multiplies pairs.
    pairs: OnceLock<Pairs>,
    requantize: Requantize,
}

/// Multiplies some strips with rows of a block.
type Block = fn(&Dense, Rows, Range<usize>, &mut Vec<u8>, &Shared<u8>);

/// Consecutive rows of inputs, `stride` apart, and the number of the first.
#[derive(Clone, Copy)]
struct Rows<'a> {
    a: &'a [u8],
    stride: usize,
    first: usize,
    n: usize,
}

impl Rows<'_> {
    /// Where `N` rows from `first` on begin; the last stands in for those beyond.
    #[inline(always)]
    fn starts<const N: usize>(&self, first: usize) -> [*const u8; N] {
        let row = |r: usize| self.a.as_ptr().wrapping_add(r * self.stride);
        match first + N <= self.n {
            true => std::array::from_fn(|r| row(first + r)),
            false => std::array::from_fn(|r| row((first + r).min(self.n - 1))),
        }
    }
}

/// How a product is cut for the threads: blocks of rows, and parts of the strips.
struct Cut {
    block: usize,
    groups: usize,
}

impl Cut {
    /// Of `m` rows of `k` bytes and `n_strips` strips.
    fn new(m: usize, k: usize, n_strips: usize) -> Self {
        let whole = (BLOCK_BYTES / k).clamp(LEAST_ROWS, MAX_ROWS);
        let n_items = match pool::threads() {
            1 => 1,
            threads => ITEMS_PER_THREAD * threads,
        };
        let block = whole.min((m / n_items).max(LEAST_ROWS)).next_multiple_of(LEAST_ROWS);
        let groups = n_items.div_ceil(m.div_ceil(block).max(1)).min(n_strips / LEAST_STRIPS);
        Cut { block, groups: groups.max(1) }
    }
}

impl Dense {
    /// Packs `codes` `[n, k]`, whose rows are in the order rows, columns, channels of taps.
    ///
    /// # Panics
    /// Where the lengths do not agree: a bug in the caller.
    pub fn new(codes: &[i8], k: usize, zeros: Zeros, mut requantize: Requantize) -> Self {
        let n = codes.len() / k.max(1);
        assert!(k > 0 && codes.len() == n * k && requantize.bias.len() == n.next_multiple_of(STRIP));
        let padded_k = k.next_multiple_of(4);
        let mut packed = vec![zeros.weights as u8; n.next_multiple_of(STRIP) * padded_k];
        for (j, row) in codes.chunks_exact(k).enumerate() {
            let strip = &mut packed[j / STRIP * STRIP * padded_k..][..STRIP * padded_k];
            for (i, &code) in row.iter().enumerate() {
                strip[i / 4 * 4 * STRIP + j % STRIP * 4 + i % 4] = code as u8;
            }
        }
        let zero = i32::from(zeros.weights);
        let n_padding = (padded_k - k) as i32 * zero;
        let mut sums = vec![padded_k as i32 * zero; n.next_multiple_of(STRIP)];
        for (sum, row) in sums.iter_mut().zip(codes.chunks_exact(k)) {
            *sum = row.iter().map(|&code| i32::from(code)).sum::<i32>() + n_padding;
        }
        let reach =
            |row: &[i8]| row.iter().map(|&code| 255 * (i64::from(code) - i64::from(zero)).abs()).sum();
        requantize.set_reach(&codes.chunks_exact(k).map(reach).collect::<Vec<_>>());
        super::hold(Packing::I8);
        Dense { n, k, zeros, codes: packed, sums, pairs: OnceLock::new(), requantize }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs of an output: taps x channels.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of the packed codes.
    pub fn n_bytes(&self) -> usize {
        self.codes.len()
    }

    fn padded_k(&self) -> usize {
        self.k.next_multiple_of(4)
    }

    /// The codes of a strip.
    fn strip(&self, strip: usize) -> &[u8] {
        &self.codes[strip * STRIP * self.padded_k()..][..STRIP * self.padded_k()]
    }

    /// What is added to the products of a strip's outputs, whatever the row, where an input's code less its zero point
    /// is what is multiplied and `low`.
    fn start(&self, strip: usize, low: i32) -> [i32; STRIP] {
        let zeros = i32::from(self.zeros.weights).wrapping_mul(self.padded_k() as i32);
        std::array::from_fn(|j| {
            let j = strip * STRIP + j;
            self.requantize.bias[j].wrapping_add(low.wrapping_mul(self.sums[j].wrapping_sub(zeros)))
        })
    }

    /// Convolves `input`; `out` is `[height, width, n padded to 8]` of the output.
    ///
    /// # Panics
    /// Where the shapes do not agree: a bug in the caller.
    pub fn forward<I: Isa>(&self, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        self.forward_by(Self::halves_block::<I>, input, window, out_width, out);
    }

    fn forward_by(&self, by: Block, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        assert_eq!(self.k, window.n_taps() * input.channels, "weights and map disagree");
        assert_eq!(input.data.len(), input.height * input.width * input.stride);
        let padded_n = self.n.next_multiple_of(STRIP);
        let m = out.len() / padded_n;
        assert!(out.len() == m * padded_n && m.is_multiple_of(out_width.max(1)));
        let is_same_size = m == input.height * input.width && out_width == input.width;
        let direct = window.is_point() && is_same_size && input.stride >= self.padded_k();
        let n_strips = padded_n / STRIP;
        let Cut { block, groups } = Cut::new(m, self.padded_k(), n_strips);
        let out = Shared::new(out);
        let work = block * self.padded_k() * n_strips.div_ceil(groups) * STRIP;
        parallel::ranges(m.div_ceil(block) * groups, work, &|items| {
            let (mut gathered, mut scratch) = (Vec::new(), Vec::new());
            let mut held = usize::MAX;
            for item in items {
                let first = item / groups * block;
                let n = block.min(m - first);
                let strip = |group: usize| group * n_strips / groups;
                let strips = strip(item % groups)..strip(item % groups + 1);
                let rows = if direct {
                    Rows { a: &input.data[first * input.stride..], stride: input.stride, first, n }
                } else {
                    if held != first {
                        gather::rows(
                            input,
                            self.zeros.input,
                            window,
                            out_width,
                            first..first + n,
                            &mut gathered,
                        );
                        held = first;
                    }
                    Rows { a: &gathered, stride: self.padded_k(), first, n }
                };
                by(self, rows, strips, &mut scratch, &out);
            }
        });
    }
}
