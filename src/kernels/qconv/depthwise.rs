//! Convolutions of each channel by itself, two taps at a time: their channels interleaved meet interleaved weights in one
//! product of halves.

use super::columns::{BLOCK, Columns};
use super::requantize::Rounding;
use super::{Map, Requantize, STRIP, Window, Zeros};
use crate::kernels::isa::Isa;
use crate::kernels::parallel::{self, Shared};
use crate::kernels::pool;
use std::ops::Range;

/// Channels that several threads share, at least: a cache line.
const LEAST_CHANNELS: usize = 64;
/// Parts of the output per thread.
const ITEMS_PER_THREAD: usize = 8;
/// Pairs of taps of the most common window, 3 x 3.
const PAIRS: usize = 5;

/// A convolution of each channel by itself.
pub struct Depthwise {
    channels: usize,
    pub(super) zeros: Zeros,
    /// For each 8 channels and two taps, 16 weights less their zero point: channel by channel, the
    /// first tap's, then the second's (or zero).
    weights: Vec<i16>,
    n_taps: usize,
    pub(super) columns: Columns,
    /// Its bias has the zero point of the input in it.
    pub(super) requantize: Requantize,
}

impl Depthwise {
    /// Packs `codes` `[taps, channels]`.
    ///
    /// # Panics
    /// Where the lengths do not agree: a bug in the caller.
    pub fn new(codes: &[i8], channels: usize, zeros: Zeros, mut requantize: Requantize) -> Self {
        let n_taps = codes.len() / channels.max(1);
        assert!(channels > 0 && codes.len() == n_taps * channels);
        assert_eq!(requantize.bias.len(), channels.next_multiple_of(STRIP));
        let stride = channels.next_multiple_of(STRIP);
        let (mut weights, pairs) = (vec![0; n_taps.next_multiple_of(2) * stride], n_taps.div_ceil(2));
        let mut reach = vec![0; channels];
        for (tap, row) in codes.chunks_exact(channels).enumerate() {
            for (c, &code) in row.iter().enumerate() {
                let weight = i16::from(code) - i16::from(zeros.weights);
                weights[(c / STRIP * pairs + tap / 2) * 2 * STRIP + c % STRIP * 2 + tap % 2] = weight;
                reach[c] += 255 * i64::from(weight).abs();
            }
        }
        requantize.set_reach(&reach);
        for row in codes.chunks_exact(channels) {
            for (bias, &code) in requantize.bias.iter_mut().zip(row) {
                let weight = i32::from(code) - i32::from(zeros.weights);
                *bias = bias.wrapping_sub(i32::from(zeros.input) * weight);
            }
        }
        let weight = |tap: usize, c: usize| i16::from(codes[tap * channels + c]) - i16::from(zeros.weights);
        let columns = Columns::new(if n_taps == 9 { channels } else { 0 }, weight);
        Depthwise { channels, zeros, weights, n_taps, columns, requantize }
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Taps.
    pub fn n_taps(&self) -> usize {
        self.n_taps
    }

    /// Bytes of the weights in memory.
    pub fn n_bytes(&self) -> usize {
        self.weights.len() * 2 + self.columns.n_bytes()
    }

    /// Convolves `input`; `out` is `[height, out_width, channels padded to 8]`.
    ///
    /// # Panics
    /// Where the shapes do not agree: a bug in the caller.
    pub fn forward<I: Isa>(&self, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
        self.forward_by(Self::row::<I>, input, window, out_width, out);
    }

    pub(super) fn forward_by(
        &self,
        by: fn(&Self, &Row, Range<usize>, &mut Scratch),
        input: Map,
        window: &Window,
        out_width: usize,
        out: &mut [u8],
    ) {
        let stride = self.channels.next_multiple_of(STRIP);
        assert!(self.n_taps == window.n_taps() && input.channels == self.channels && input.stride == stride);
        assert_eq!(input.data.len(), input.height * input.width * stride);
        let height = out.len() / (out_width * stride).max(1);
        assert_eq!(out.len(), height * out_width * stride);
        let outside = vec![self.zeros.input; input.width * stride];
        let groups = match pool::threads() {
            1 => 1,
            threads => {
                (ITEMS_PER_THREAD * threads).div_ceil(height.max(1)).min(stride / LEAST_CHANNELS).max(1)
            }
        };
        let (out, outside) = (&Shared::new(out), &outside[..]);
        // A multiplication takes about as long as 8 in a matrix product.
        let work = out_width * stride.div_ceil(groups) * self.n_taps * 8;
        parallel::ranges(height * groups, work, &|items| {
            let mut scratch = Scratch::default();
            for item in items {
                let channel = |group: usize| match group == groups {
                    true => stride,
                    false => group * (stride / BLOCK) / groups * BLOCK,
                };
                let channels = channel(item % groups)..channel(item % groups + 1);
                let row = Row { input, window, outside, y: item / groups, out_width, out };
                by(self, &row, channels, &mut scratch);
            }
        });
    }

    /// Some channels of a row of the output.
    pub(super) fn row<I: Isa>(&self, row: &Row, channels: Range<usize>, scratch: &mut Scratch) {
        let Row { input, window, outside, y, out_width, out } = *row;
        let taps = &mut scratch.taps;
        let inside = inside(window, input.width, out_width);
        let (step, rounding) = (window.stride[1] * input.stride, self.requantize.rounding::<I>());
        let mut x = 0;
        while x < out_width {
            let n = if inside.start == x { inside.len().max(1) } else { 1 };
            let tap = |tap: usize| {
                // Of an odd number the last one's second half, whose weights are zeros, is the last once more.
                let tap = tap.min(self.n_taps - 1);
                let iy = window.input(0, y, tap / window.size[1], input.height);
                let ix = window.input(1, x, tap % window.size[1], input.width);
                match (iy, ix) {
                    (Some(iy), Some(ix)) => input.data[(iy * input.width + ix) * input.stride..].as_ptr(),
                    (None, Some(ix)) => outside[ix * input.stride..].as_ptr(),
                    (_, None) => outside.as_ptr(),
                }
            };
            taps.clear();
            taps.extend((0..self.n_taps.div_ceil(2)).map(|pair| [tap(2 * pair), tap(2 * pair + 1)]));
            for i in x..x + n {
                let at = (y * out_width + i) * input.stride;
                assert!(at + input.stride <= out.len());
                // SAFETY: taps are within the map, or `outside`, for each of the `n`; these channels of these
                // outputs are this part's alone.
                unsafe {
                    let out = out.start(at..at + input.stride);
                    // That the most common number is known has the loop over it unrolled.
                    match <&[Pair; PAIRS]>::try_from(&**taps) {
                        Ok(taps) => self.pixel::<I>(taps, channels.clone(), &rounding, out),
                        Err(_) => self.pixel::<I>(taps, channels.clone(), &rounding, out),
                    }
                }
                taps.iter_mut().flatten().for_each(|tap| *tap = tap.wrapping_add(step));
            }
            x += n;
        }
    }

    /// Some channels of an output.
    ///
    /// # Safety
    /// They are readable of each tap and writable at `out`.
    #[inline(always)]
    unsafe fn pixel<I: Isa>(
        &self,
        taps: &[Pair],
        channels: Range<usize>,
        rounding: &Rounding<I>,
        out: *mut u8,
    ) {
        let weights = |c: usize, pair: usize| {
            // SAFETY: there are such for all channels, padded, and all pairs.
            unsafe { self.weights.as_ptr().add((c / STRIP * taps.len() + pair) * 2 * STRIP) }
        };
        let mut c = channels.start;
        // SAFETY: the caller's.
        unsafe {
            while c + 2 * STRIP <= channels.end {
                let mut sums = [self.requantize.bias::<I>(c), self.requantize.bias::<I>(c + STRIP)];
                for (pair, &[a, b]) in taps.iter().enumerate() {
                    let (a, b) = (I::load(a.add(c)), I::load(b.add(c)));
                    add::<I>(&mut sums[0], I::zip_low8(a, b), weights(c, pair));
                    add::<I>(&mut sums[1], I::zip_high8(a, b), weights(c + STRIP, pair));
                }
                rounding.store(sums[0], self.requantize.scale::<I>(c), out.add(c));
                rounding.store(sums[1], self.requantize.scale::<I>(c + STRIP), out.add(c + STRIP));
                c += 2 * STRIP;
            }
            if c < channels.end {
                let mut sums = self.requantize.bias::<I>(c);
                for (pair, &[a, b]) in taps.iter().enumerate() {
                    add::<I>(
                        &mut sums,
                        I::zip_low8(I::load64(a.add(c)), I::load64(b.add(c))),
                        weights(c, pair),
                    );
                }
                rounding.store(sums, self.requantize.scale::<I>(c), out.add(c));
            }
        }
    }
}

/// A row of the output.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) input: Map<'a>,
    pub(super) window: &'a Window,
    /// What stands for rows outside of the map.
    pub(super) outside: &'a [u8],
    pub(super) y: usize,
    pub(super) out_width: usize,
    pub(super) out: &'a Shared<'a, u8>,
}

/// Buffers of a part.
#[derive(Default)]
pub(super) struct Scratch {
    taps: Vec<Pair>,
    pub(super) columns: Vec<u8>,
}

/// Two taps of an output.
type Pair = [*const u8; 2];

/// Adds the products of eight channels of two taps, interleaved.
///
/// # Safety
/// 16 weights are readable.
#[inline(always)]
unsafe fn add<I: Isa>(sums: &mut [I::V; 2], both: I::V, weights: *const i16) {
    // SAFETY: the caller's.
    let weights = unsafe { [I::load(weights.cast()), I::load(weights.add(STRIP).cast())] };
    sums[0] = I::add32(sums[0], I::dot16(I::extend_low8(both), weights[0]));
    sums[1] = I::add32(sums[1], I::dot16(I::extend_high8(both), weights[1]));
}

/// The outputs of a row whose taps are all within a map of that width.
fn inside(window: &Window, width: usize, out_width: usize) -> Range<usize> {
    let (pad, stride) = (window.pad[1], window.stride[1]);
    let start = pad.div_ceil(stride).min(out_width);
    // The last tap of output x is input x * stride + extent - 1 - pad.
    let end = (width + pad).checked_sub(window.extent(1)).map_or(0, |last| last / stride + 1).min(out_width);
    start..end.max(start)
}
