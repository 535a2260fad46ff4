//! The layers of a network whose activations are quantized as its file says. Values are codes, bytes, with a scale and
//! a zero point per map.

use super::I;
use crate::kernels::parallel::{self, work};
use crate::kernels::qconv::{Dense, Depthwise, Map, Weighted, interleave};
use crate::kernels::window::Window;
use crate::kernels::{convolve, convolve_each};

/// [`Dense::forward`] on the path chosen for 8-bit codes.
pub fn dense(layer: &Dense, input: Map, window: &Window, width: usize, out: &mut [u8]) {
    convolve(layer, input, window, width, out);
}

/// [`Depthwise::forward`] on the path chosen for 8-bit codes.
pub fn depthwise(layer: &Depthwise, input: Map, window: &Window, width: usize, out: &mut [u8]) {
    convolve_each(layer, input, window, width, out);
}

/// Pixels `[channels, n]` to codes `[n, stride]`, with that scale and zero point.
///
/// # Panics
/// Where there are more channels than `stride`: a bug in the caller.
pub fn quantize(pixels: &[f32], n: usize, scale: f32, zero: u8, stride: usize, out: &mut [u8]) {
    let (low, high) = (-f32::from(zero), 255.0 - f32::from(zero));
    let inverse = 1.0 / scale;
    assert!(pixels.len() <= n * stride && out.len() == n * stride);
    parallel::chunks(out, stride * PIXELS, work::ADD, &|first, out| {
        if stride == 3 && pixels.len() == 3 * n {
            let plane = |c: usize| &pixels[c * n..][first / stride..n];
            return interleave::<I>([plane(0), plane(1), plane(2)], inverse, zero, out);
        }
        out.fill(zero);
        for (c, plane) in pixels.chunks_exact(n).enumerate() {
            for (to, x) in out.chunks_exact_mut(stride).zip(&plane[first / stride..]) {
                to[c] = code(nearest((x * inverse).max(low).min(high)), zero);
            }
        }
    });
}

/// Pixels that are rounded together.
const PIXELS: usize = 224;

/// The code of a value less its zero point that is within the clamp.
fn code(centred: i32, zero: u8) -> u8 {
    (centred + i32::from(zero)) as u8
}

/// Rounds to nearest, ties to even; |x| < 2^22. Adding 1.5 * 2^23 leaves the integer in the low bits.
fn nearest(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i32
}

/// What a map's codes mean beside its scale, and which of them an operator gives.
#[derive(Clone, Copy, Debug)]
pub struct Codes {
    /// The code of 0.
    pub zero: u8,
    /// The least and largest code.
    pub clamp: [u8; 2],
}

impl Codes {
    fn centred(self) -> [i32; 2] {
        self.clamp.map(|c| i32::from(c) - i32::from(self.zero))
    }
}

/// The sum of two maps in integers: `(a * multiplier_a + b * multiplier_b) >> shift`, rounded; the larger
/// multiplier has 21 bits. As XNNPACK's addition of 8-bit codes.
pub struct Sum {
    multipliers: [i32; 2],
    shift: u32,
}

impl Sum {
    /// The sum of maps with these scales, in the scale of the output.
    pub fn new(scale_a: f32, scale_b: f32, scale_out: f32) -> Self {
        let ratios = [scale_a / scale_out, scale_b / scale_out];
        let largest = ratios[0].max(ratios[1]);
        let exponent = (largest.to_bits() >> 23) as i32 - 127;
        let shift = (20 - exponent).clamp(1, 31);
        let factor = libm::ldexp(1.0, shift);
        let multiplier = |r: f32| (f64::from(r) * factor).round_ties_even().min(f64::from(1 << 21)) as i32;
        Sum { multipliers: ratios.map(multiplier), shift: shift as u32 }
    }

    /// `out = clamp(a + b)`, of maps with these zero points.
    pub fn forward(&self, [a, b]: [&[u8]; 2], zeros: [u8; 2], codes: Codes, out: &mut [u8]) {
        let by = self.multipliers;
        // Sums of centred values fit, whatever is passed on the way.
        let less = |sum: i32, i: usize| sum.wrapping_sub(by[i].wrapping_mul(zeros[i].into()));
        let start = less(less(1 << (self.shift - 1), 0), 1);
        let Codes { zero, clamp } = codes;
        let weighted = Weighted { by, start, shift: self.shift, zero, clamp };
        parallel::chunks(out, 1, work::ADD, &|first, out| {
            let n = out.len();
            weighted.add::<I>(&a[first..][..n], &b[first..][..n], out);
        });
    }
}

fn round(x: f32, codes: Codes) -> u8 {
    let [low, high] = codes.centred();
    code(nearest(x.max(low as f32).min(high as f32)), codes.zero)
}

/// The taps of an output that are within the map.
fn taps<'a>(input: Map<'a>, window: &Window, y: usize, x: usize) -> impl Iterator<Item = &'a [u8]> {
    let window = *window;
    (0..window.n_taps()).filter_map(move |tap| {
        let iy = window.input(0, y, tap / window.size[1], input.height)?;
        let ix = window.input(1, x, tap % window.size[1], input.width)?;
        Some(&input.data[(iy * input.width + ix) * input.stride..][..input.stride])
    })
}

/// `scale` times the mean of the taps within the map, whose zero point is `zero`.
pub fn average(
    input: Map,
    zero: u8,
    window: &Window,
    scale: f32,
    codes: Codes,
    width: usize,
    out: &mut [u8],
) {
    let mut sums = vec![0i32; input.stride];
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        sums.fill(0);
        let mut n = 0;
        for tap in taps(input, window, i / width, i % width) {
            sums.iter_mut().zip(tap).for_each(|(sum, v)| *sum += i32::from(*v));
            n += 1;
        }
        let (scale, zeros) = (scale / n.max(1) as f32, n * i32::from(zero));
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = round((sum - zeros) as f32 * scale, codes));
    }
}

/// The largest of the taps within the map.
pub fn max(input: Map, zero: u8, window: &Window, codes: Codes, width: usize, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        out.fill(0);
        for tap in taps(input, window, i / width, i % width) {
            out.iter_mut().zip(tap).for_each(|(out, &v)| *out = v.max(*out));
        }
        out.iter_mut().for_each(|out| *out = moved(*out, zero, codes));
    }
}

/// The map with zeros around it.
pub fn pad(input: Map, zero: u8, before: [usize; 2], codes: Codes, width: usize, out: &mut [u8]) {
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        let inside = |at: usize, axis: usize, len: usize| at.checked_sub(before[axis]).filter(|&at| at < len);
        match (inside(i / width, 0, input.height), inside(i % width, 1, input.width)) {
            (Some(y), Some(x)) => {
                let from = &input.data[(y * input.width + x) * input.stride..][..input.stride];
                out.iter_mut().zip(from).for_each(|(out, &v)| *out = moved(v, zero, codes));
            }
            _ => out.fill(codes.zero),
        }
    }
}

/// A code with the zero point `zero` in the same scale.
fn moved(v: u8, zero: u8, codes: Codes) -> u8 {
    let [low, high] = codes.centred();
    code((i32::from(v) - i32::from(zero)).max(low).min(high), codes.zero)
}

/// The same values under another scale.
pub fn rescale(input: &[u8], zero: u8, scale: f32, codes: Codes, out: &mut [u8]) {
    let of_code = |v: usize| round((v as f32 - f32::from(zero)) * scale, codes);
    let table: [u8; 256] = std::array::from_fn(of_code);
    // Between signed and unsigned codes nothing changes.
    let is_same = table.iter().enumerate().all(|(code, &to)| code == usize::from(to));
    parallel::chunks(out, 1, work::ADD, &|first, out| {
        let input = &input[first..][..out.len()];
        match is_same {
            true => out.copy_from_slice(input),
            false => out.iter_mut().zip(input).for_each(|(out, &v)| *out = table[usize::from(v)]),
        }
    });
}
