//! Convolutions with the fixed scales of a quantized file: integers in, integers out.
//!
//! ```text
//! out[i, j] = clamp(round(scale[j] * (bias[j] + sum over k of a[i, k] * (w[j, k] - zero))))
//! ```
//! Activations and outputs have their zero points subtracted and are held as i16 (they are within
//! +-255): padding is then zero, and products need no correction. Sums are exact; the one rounding is
//! to nearest, ties to even, of a product in f32, as XNNPACK rounds. Where an engine multiplies bytes four at a time
//! in full, matrices do so, with the same sums ([`Dense::forward_bytes`]).
//!
//! Source: Jacob et al. 2017 (arXiv 1712.05877), section 2.

mod bytes;

use super::isa::Isa;
use super::parallel::{self, Shared};
use super::pool;
use super::window::Window;
use crate::repack::Packing;
use std::ops::Range;

/// Outputs of a strip.
pub const STRIP: usize = 8;
/// Rows that meet a panel together.
const ROWS: usize = 4;
/// Bytes of activations that stay in the first-level cache beside a panel.
const BLOCK_BYTES: usize = 24 * 1024;

/// What turns sums into outputs.
pub struct Requantize {
    /// Added to sums; padded to whole strips.
    bias: Vec<i32>,
    /// Multiplies sums; padded.
    scale: Vec<f32>,
    /// Least and largest output.
    clamp: [f32; 2],
}

impl Requantize {
    /// `bias` and `scale` of each output, and the least and largest output.
    pub fn new(bias: &[i32], scale: &[f32], clamp: [i32; 2]) -> Self {
        let padded = bias.len().next_multiple_of(STRIP);
        let (mut bias, mut scale) = (bias.to_vec(), scale.to_vec());
        bias.resize(padded, 0);
        scale.resize(padded, 0.0);
        Requantize { bias, scale, clamp: clamp.map(|c| c as f32) }
    }

    /// The outputs of eight sums, from output `first` on.
    ///
    /// # Safety
    /// `first + 8` is within the padded outputs; 8 of `out` are writable.
    #[inline(always)]
    unsafe fn store<I: Isa>(&self, first: usize, sums: [I::V; 2], out: *mut i16) {
        let [low, high] = self.clamp.map(I::fsplat);
        // SAFETY: the caller's.
        unsafe {
            let scale = self.scale.as_ptr().add(first);
            let round = |sum, scale| I::round(I::fmax(I::fmin(I::fmul(I::to_float(sum), scale), high), low));
            let [a, b] = [round(sums[0], I::fload(scale)), round(sums[1], I::fload(scale.add(4)))];
            I::store(out.cast(), I::narrow16(a, b));
        }
    }
}

/// A feature map, `[height, width, stride]`, of whose `stride` channels the last may be zeros.
#[derive(Clone, Copy)]
pub struct Map<'a> {
    /// The centred values.
    pub data: &'a [i16],
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
    /// Subtracted from the codes.
    zero: i16,
    /// Strips of 8 outputs: for each two k, 8 pairs of codes.
    codes: Vec<u8>,
    /// Of the codes of each output; padded as they are.
    sums: Vec<i32>,
    /// Subtracted from the codes of the input.
    input_zero: i8,
    requantize: Requantize,
}

/// Multiplies some strips with rows of a block ([`Dense::block`]).
type Block = fn(&Dense, Rows, Range<usize>, &mut Scratch, &Shared<i16>);

/// Consecutive rows of inputs, `stride` apart, and the number of the first.
#[derive(Clone, Copy)]
struct Rows<'a> {
    a: &'a [i16],
    stride: usize,
    first: usize,
    n: usize,
}

impl Dense {
    /// Packs `codes` `[n, k]`, whose rows are in the order rows, columns, channels of taps; the zero points are those of
    /// the codes and of the input's.
    ///
    /// # Panics
    /// Where the lengths do not agree: a bug in the caller.
    pub fn new(codes: &[i8], k: usize, [zero, input_zero]: [i8; 2], requantize: Requantize) -> Self {
        let n = codes.len() / k.max(1);
        assert!(k > 0 && codes.len() == n * k && requantize.bias.len() == n.next_multiple_of(STRIP));
        let padded_k = k.next_multiple_of(4);
        let mut packed = vec![zero as u8; n.next_multiple_of(STRIP) * padded_k];
        for (j, row) in codes.chunks_exact(k).enumerate() {
            let strip = &mut packed[j / STRIP * STRIP * padded_k..][..STRIP * padded_k];
            for (i, &code) in row.iter().enumerate() {
                strip[i / 2 * 2 * STRIP + j % STRIP * 2 + i % 2] = code as u8;
            }
        }
        let n_padding = (padded_k - k) as i32 * i32::from(zero);
        let mut sums = vec![padded_k as i32 * i32::from(zero); n.next_multiple_of(STRIP)];
        for (sum, row) in sums.iter_mut().zip(codes.chunks_exact(k)) {
            *sum = row.iter().map(|&code| i32::from(code)).sum::<i32>() + n_padding;
        }
        super::hold(Packing::I8);
        Dense { n, k, zero: zero.into(), codes: packed, sums, input_zero, requantize }
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

    /// Convolves `input`; `out` is `[height, width, n padded to 8]` of the output.
    ///
    /// # Panics
    /// Where the shapes do not agree: a bug in the caller.
    pub fn forward<I: Isa>(&self, input: Map, window: &Window, out_width: usize, out: &mut [i16]) {
        self.forward_by(Self::block::<I>, input, window, out_width, out);
    }

    fn forward_by(&self, by: Block, input: Map, window: &Window, out_width: usize, out: &mut [i16]) {
        assert_eq!(self.k, window.n_taps() * input.channels, "weights and map disagree");
        assert_eq!(input.data.len(), input.height * input.width * input.stride);
        let padded_n = self.n.next_multiple_of(STRIP);
        let m = out.len() / padded_n;
        assert!(out.len() == m * padded_n && m.is_multiple_of(out_width.max(1)));
        let is_same_size = m == input.height * input.width && out_width == input.width;
        let direct = window.is_point() && is_same_size && input.stride >= self.padded_k();
        let block = (BLOCK_BYTES / 2 / self.padded_k()).clamp(32, 256) / ROWS * ROWS;
        let (n_blocks, n_strips) = (m.div_ceil(block), padded_n / STRIP);
        // Few rows are cut by outputs; else each part makes its panels anew, which many rows pay for.
        let groups = match pool::threads() {
            threads if threads > 1 && direct && n_blocks < 8 => n_strips.min(4 * threads),
            _ => 1,
        };
        let out = Shared::new(out);
        let work = block * self.padded_k() * n_strips.div_ceil(groups) * STRIP;
        parallel::ranges(n_blocks * groups, work, &|items| {
            let mut scratch = Scratch::default();
            for item in items {
                let rows = item / groups * block..(item / groups * block + block).min(m);
                let strip = |group: usize| group * n_strips / groups;
                let strips = strip(item % groups)..strip(item % groups + 1);
                let (first, n) = (rows.start, rows.len());
                if direct {
                    let (a, stride) = (&input.data[first * input.stride..], input.stride);
                    by(self, Rows { a, stride, first, n }, strips, &mut scratch, &out);
                } else {
                    let (mut gathered, stride) = (std::mem::take(&mut scratch.rows), self.padded_k());
                    gather(input, window, out_width, rows, stride, &mut gathered);
                    by(self, Rows { a: &gathered, stride, first, n }, strips, &mut scratch, &out);
                    scratch.rows = gathered;
                }
            }
        });
    }

    /// Some strips of the outputs of `rows`.
    fn block<I: Isa>(&self, rows: Rows, strips: Range<usize>, scratch: &mut Scratch, out: &Shared<i16>) {
        let padded_n = self.n.next_multiple_of(STRIP);
        let Rows { a, stride, n: n_rows, .. } = rows;
        let panel = &mut scratch.panel;
        assert!(a.len() >= (n_rows - 1) * stride + self.padded_k());
        panel.resize(self.padded_k() * STRIP, 0);
        let pairs = std::hint::black_box(self.padded_k() / 2);
        for strip in strips {
            self.unpack::<I>(strip, panel);
            // SAFETY: the bias is padded to whole strips.
            let bias = unsafe {
                let p = self.requantize.bias.as_ptr().add(strip * STRIP);
                [I::load(p.cast()), I::load(p.add(4).cast())]
            };
            for first in (0..n_rows).step_by(ROWS) {
                // SAFETY: rows are within `a` (asserted), the last stands in for those beyond; the panel holds
                // `pairs`; these columns of these rows are this part's alone.
                unsafe {
                    let row = |r: usize| a.as_ptr().add((first + r).min(n_rows - 1) * stride);
                    let sums = tile::<I>(panel.as_ptr(), std::array::from_fn(row), pairs, bias);
                    for (r, sums) in sums.into_iter().enumerate().take(n_rows - first) {
                        let at = (rows.first + first + r) * padded_n + strip * STRIP;
                        let to = out.part(at..at + STRIP);
                        self.requantize.store::<I>(strip * STRIP, sums, to.as_mut_ptr());
                    }
                }
            }
        }
    }

    /// The codes of a strip as i16, less their zero point.
    fn unpack<I: Isa>(&self, strip: usize, panel: &mut [i16]) {
        let codes = &self.codes[strip * STRIP * self.padded_k()..][..STRIP * self.padded_k()];
        let zero = I::splat16(self.zero as u16);
        for (from, to) in codes.chunks_exact(8).zip(panel.chunks_exact_mut(8)) {
            // SAFETY: 8 bytes, 8 halves.
            unsafe { I::store(to.as_mut_ptr().cast(), I::sub16(I::load8x8(from.as_ptr()), zero)) }
        }
    }
}

#[derive(Default)]
struct Scratch {
    rows: Vec<i16>,
    panel: Vec<i16>,
    bytes: bytes::Scratch,
}

/// Four rows times 8 columns.
///
/// # Safety
/// `2 * pairs` of each row and `16 * pairs` of the panel are readable.
#[inline(always)]
unsafe fn tile<I: Isa>(
    panel: *const i16,
    rows: [*const i16; ROWS],
    pairs: usize,
    bias: [I::V; 2],
) -> [[I::V; 2]; ROWS] {
    let mut sums = [bias; ROWS];
    let (mut w, mut rows) = (panel, rows);
    for _ in 0..pairs {
        // SAFETY: the caller's.
        unsafe {
            let columns = [I::load(w.cast()), I::load(w.add(8).cast())];
            for (sums, row) in sums.iter_mut().zip(&mut rows) {
                let a = I::load32_splat(row.cast());
                sums[0] = I::add32(sums[0], I::dot16(columns[0], a));
                sums[1] = I::add32(sums[1], I::dot16(columns[1], a));
                *row = row.add(2);
            }
            w = w.add(16);
        }
    }
    sums
}

/// The taps of some outputs as rows of `padded_k`, zeros after the last.
fn gather(
    input: Map,
    window: &Window,
    out_width: usize,
    outputs: Range<usize>,
    padded_k: usize,
    to: &mut Vec<i16>,
) {
    to.clear();
    to.resize(outputs.len() * padded_k, 0);
    let c = input.channels;
    for (row, output) in to.chunks_exact_mut(padded_k).zip(outputs) {
        let (y, x) = (output / out_width, output % out_width);
        for ky in 0..window.size[0] {
            let Some(iy) = window.input(0, y, ky, input.height) else { continue };
            for kx in 0..window.size[1] {
                let Some(ix) = window.input(1, x, kx, input.width) else { continue };
                let tap = ky * window.size[1] + kx;
                let from = &input.data[(iy * input.width + ix) * input.stride..][..c];
                // A loop: runs are short, and copying by call costs more.
                row[tap * c..][..c].iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    }
}

/// A convolution of each channel by itself.
pub struct Depthwise {
    channels: usize,
    /// For each two taps and 8 channels, 16 weights less their zero point: channel by channel, the
    /// first tap's, then the second's (or zero).
    weights: Vec<i16>,
    n_taps: usize,
    requantize: Requantize,
}

impl Depthwise {
    /// Packs `codes` `[taps, channels]`.
    ///
    /// # Panics
    /// Where the lengths do not agree: a bug in the caller.
    pub fn new(codes: &[i8], channels: usize, zero: i8, requantize: Requantize) -> Self {
        let n_taps = codes.len() / channels.max(1);
        assert!(channels > 0 && codes.len() == n_taps * channels);
        assert_eq!(requantize.bias.len(), channels.next_multiple_of(STRIP));
        let stride = channels.next_multiple_of(STRIP);
        let mut weights = vec![0; n_taps.next_multiple_of(2) * stride];
        for (tap, row) in codes.chunks_exact(channels).enumerate() {
            for (c, &code) in row.iter().enumerate() {
                weights[tap / 2 * 2 * stride + c * 2 + tap % 2] = i16::from(code) - i16::from(zero);
            }
        }
        Depthwise { channels, weights, n_taps, requantize }
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
        self.weights.len() * 2
    }

    /// Convolves `input`; `out` is `[height, out_width, channels padded to 8]`.
    ///
    /// # Panics
    /// Where the shapes do not agree: a bug in the caller.
    pub fn forward<I: Isa>(&self, input: Map, window: &Window, out_width: usize, out: &mut [i16]) {
        let stride = self.channels.next_multiple_of(STRIP);
        assert!(self.n_taps == window.n_taps() && input.channels == self.channels && input.stride == stride);
        assert_eq!(input.data.len(), input.height * input.width * stride);
        let height = out.len() / (out_width * stride).max(1);
        assert_eq!(out.len(), height * out_width * stride);
        let zeros = vec![0i16; stride];
        let out = Shared::new(out);
        // A multiplication takes about as long as 8 in a matrix product.
        let work = out_width * stride * self.n_taps * 8;
        parallel::ranges(height, work, &|ys| {
            let mut taps = vec![zeros.as_ptr(); self.n_taps.next_multiple_of(2)];
            for y in ys {
                for x in 0..out_width {
                    for (tap, to) in taps.iter_mut().take(self.n_taps).enumerate() {
                        let iy = window.input(0, y, tap / window.size[1], input.height);
                        let ix = window.input(1, x, tap % window.size[1], input.width);
                        *to = match (iy, ix) {
                            (Some(iy), Some(ix)) => input.data[(iy * input.width + ix) * stride..].as_ptr(),
                            _ => zeros.as_ptr(),
                        };
                    }
                    let at = (y * out_width + x) * stride;
                    // SAFETY: a row of outputs is one part's; each tap has `stride` channels.
                    unsafe { self.pixel::<I>(&taps, out.part(at..at + stride)) };
                }
            }
        });
    }

    /// All channels of one output.
    ///
    /// # Safety
    /// `out.len()` of each tap are readable; that is the padded number of channels.
    #[inline(always)]
    unsafe fn pixel<I: Isa>(&self, taps: &[*const i16], out: &mut [i16]) {
        let stride = out.len();
        for c in (0..stride).step_by(STRIP) {
            // SAFETY: the bias is as long as `out`; weights are `[tap pairs][stride][2]`.
            unsafe {
                let bias = self.requantize.bias.as_ptr().add(c);
                let mut sums = [I::load(bias.cast()), I::load(bias.add(4).cast())];
                let mut w = self.weights.as_ptr().add(2 * c);
                for pair in taps.chunks_exact(2) {
                    let (a, b) = (I::load(pair[0].add(c).cast()), I::load(pair[1].add(c).cast()));
                    let low = I::dot16(I::zip_low16(a, b), I::load(w.cast()));
                    let high = I::dot16(I::zip_high16(a, b), I::load(w.add(8).cast()));
                    sums = [I::add32(sums[0], low), I::add32(sums[1], high)];
                    w = w.wrapping_add(2 * stride);
                }
                self.requantize.store::<I>(c, sums, out.as_mut_ptr().add(c));
            }
        }
    }
}
