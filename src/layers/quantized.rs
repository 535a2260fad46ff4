//! The layers of a network whose activations are quantized as its file says. Values are centred: their zero points
//! are subtracted.

use super::I;
use crate::kernels::convolve;
use crate::kernels::qconv::{Dense, Depthwise, Map, STRIP};
use crate::kernels::window::Window;

/// [`Dense::forward`] on the path chosen for 8-bit codes.
pub fn dense(layer: &Dense, input: Map, window: &Window, width: usize, out: &mut [i16]) {
    convolve(layer, input, window, width, out);
}

/// [`Depthwise::forward`] with the instruction set of this build.
pub fn depthwise(layer: &Depthwise, input: Map, window: &Window, width: usize, out: &mut [i16]) {
    layer.forward::<I>(input, window, width, out);
}

/// Pixels `[channels, n]` to a map of at most [`STRIP`] channels, with that scale and clamp.
///
/// # Panics
/// Where there are more channels: a bug in the caller.
pub fn quantize(pixels: &[f32], n: usize, scale: f32, clamp: [i32; 2], out: &mut [i16]) {
    let (low, high) = (clamp[0] as f32, clamp[1] as f32);
    let inverse = 1.0 / scale;
    out.fill(0);
    assert!(pixels.len() <= n * STRIP && out.len() == n * STRIP);
    for (c, plane) in pixels.chunks_exact(n).enumerate() {
        for (to, x) in out.chunks_exact_mut(STRIP).zip(plane) {
            to[c] = nearest((x * inverse).max(low).min(high));
        }
    }
}

/// Rounds to nearest, ties to even; |x| < 2^22. Adding 1.5 * 2^23 leaves the integer in the low bits.
fn nearest(x: f32) -> i16 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits()) as i16
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

    /// `out = clamp(a + b)`.
    pub fn forward(&self, a: &[i16], b: &[i16], clamp: [i32; 2], out: &mut [i16]) {
        let [by_a, by_b] = self.multipliers;
        let half = 1 << (self.shift - 1);
        for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
            let sum = (i32::from(a) * by_a + i32::from(b) * by_b + half) >> self.shift;
            *out = sum.max(clamp[0]).min(clamp[1]) as i16;
        }
    }
}

fn round(x: f32, clamp: [i32; 2]) -> i16 {
    nearest(x.max(clamp[0] as f32).min(clamp[1] as f32))
}

/// The taps of an output that are within the map.
fn taps<'a>(input: Map<'a>, window: &Window, y: usize, x: usize) -> impl Iterator<Item = &'a [i16]> {
    let window = *window;
    (0..window.n_taps()).filter_map(move |tap| {
        let iy = window.input(0, y, tap / window.size[1], input.height)?;
        let ix = window.input(1, x, tap % window.size[1], input.width)?;
        Some(&input.data[(iy * input.width + ix) * input.stride..][..input.stride])
    })
}

/// `scale` times the mean of the taps within the map.
pub fn average(input: Map, window: &Window, scale: f32, clamp: [i32; 2], width: usize, out: &mut [i16]) {
    let mut sums = vec![0i32; input.stride];
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        sums.fill(0);
        let mut n = 0;
        for tap in taps(input, window, i / width, i % width) {
            sums.iter_mut().zip(tap).for_each(|(sum, v)| *sum += i32::from(*v));
            n += 1;
        }
        let scale = scale / n.max(1) as f32;
        out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = round(sum as f32 * scale, clamp));
    }
}

/// The largest of the taps within the map.
pub fn max(input: Map, window: &Window, clamp: [i32; 2], width: usize, out: &mut [i16]) {
    let [low, high] = clamp.map(|c| c as i16);
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        out.fill(low);
        for tap in taps(input, window, i / width, i % width) {
            out.iter_mut().zip(tap).for_each(|(out, &v)| *out = v.max(*out).min(high));
        }
    }
}

/// The map with zeros around it.
pub fn pad(input: Map, before: [usize; 2], width: usize, out: &mut [i16]) {
    for (i, out) in out.chunks_exact_mut(input.stride).enumerate() {
        let inside = |at: usize, axis: usize, len: usize| at.checked_sub(before[axis]).filter(|&at| at < len);
        match (inside(i / width, 0, input.height), inside(i % width, 1, input.width)) {
            (Some(y), Some(x)) => {
                out.copy_from_slice(&input.data[(y * input.width + x) * input.stride..][..input.stride]);
            }
            _ => out.fill(0),
        }
    }
}

/// The same values under another scale.
pub fn rescale(input: &[i16], scale: f32, clamp: [i32; 2], out: &mut [i16]) {
    out.iter_mut().zip(input).for_each(|(out, &v)| *out = round(f32::from(v) * scale, clamp));
}
