//! Convolutions of each channel by itself, in f32.

use super::isa::Isa;
use super::window::Window;

/// Row `y` of the output, `[width, channels]`, of a map `[height, width, channels]`. `weights` are
/// `[taps, channels]`. Taps are summed in their order, so that results do not depend on the instruction set.
///
/// # Panics
/// Where the lengths do not agree: a bug in the caller.
pub fn row<I: Isa>(
    input: &[f32],
    [height, width, channels]: [usize; 3],
    weights: &[f32],
    window: &Window,
    y: usize,
    out: &mut [f32],
) {
    assert_eq!(input.len(), height * width * channels);
    assert_eq!(weights.len(), window.n_taps() * channels);
    let mut taps: Vec<(&[f32], &[f32])> = Vec::with_capacity(window.n_taps());
    for (x, out) in out.chunks_exact_mut(channels).enumerate() {
        taps.clear();
        for ky in 0..window.size[0] {
            let Some(iy) = window.input(0, y, ky, height) else { continue };
            for kx in 0..window.size[1] {
                let Some(ix) = window.input(1, x, kx, width) else { continue };
                let tap = ky * window.size[1] + kx;
                taps.push((
                    &input[(iy * width + ix) * channels..][..channels],
                    &weights[tap * channels..][..channels],
                ));
            }
        }
        pixel::<I>(&taps, out);
    }
}

fn pixel<I: Isa>(taps: &[(&[f32], &[f32])], out: &mut [f32]) {
    let whole = out.len() / 8 * 8;
    for c in (0..whole).step_by(8) {
        let mut sums = [I::fsplat(0.0); 2];
        for (x, w) in taps {
            let (x, w) = (&x[c..c + 8], &w[c..c + 8]);
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: 8 floats each.
                let product =
                    unsafe { I::fmul(I::fload(x.as_ptr().add(4 * i)), I::fload(w.as_ptr().add(4 * i))) };
                *sum = I::fadd(*sum, product);
            }
        }
        let to = &mut out[c..c + 8];
        // SAFETY: 8 floats.
        unsafe {
            I::fstore(to.as_mut_ptr(), sums[0]);
            I::fstore(to.as_mut_ptr().add(4), sums[1]);
        }
    }
    for (c, out) in out.iter_mut().enumerate().skip(whole) {
        *out = taps.iter().fold(0.0, |sum, (x, w)| sum + x[c] * w[c]);
    }
}
