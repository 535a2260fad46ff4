//! Pixels to codes.

use super::Requantize;
use crate::kernels::isa::Isa;

/// Codes of pixels whose three planes have `out.len() / 3` values each, `[pixels, 3]`: `inverse` times the value, rounded
/// as [`Requantize`] does, with that zero point. Values are finite.
///
/// # Panics
/// Where a plane is too short: a bug in the caller.
pub fn interleave<I: Isa>(planes: [&[f32]; 3], inverse: f32, zero: u8, out: &mut [u8]) {
    let n = out.len() / 3;
    assert!(out.len() == 3 * n && planes.iter().all(|plane| plane.len() >= n));
    let rounding = Requantize::new(&[], &[], [0, 255], zero).rounding::<I>();
    let scale = I::fsplat(inverse);
    // From four reds, greens and blues to four pixels; the last four bytes are written over, or left out.
    let order: [u8; 16] = [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 15, 15, 15, 15];
    // SAFETY: 16 bytes.
    let order = std::hint::black_box(unsafe { I::load(order.as_ptr()) });
    for i in (0..n).step_by(4) {
        let mut four = [[0.0; 4]; 3];
        let is_whole = i + 4 <= n;
        if !is_whole {
            for (four, plane) in four.iter_mut().zip(planes) {
                four[..n - i].copy_from_slice(&plane[i..n]);
            }
        }
        // SAFETY: four values of each plane, or their copies; 16 bytes of `out` or of `last`.
        unsafe {
            let codes = std::array::from_fn(|c| {
                let values = if is_whole { planes[c].as_ptr().add(i) } else { four[c].as_ptr() };
                rounding.round(I::fmul(I::fload(values), scale))
            });
            let [red, green, blue]: [I::V; 3] = codes;
            let bytes = I::narrow8_unsigned(I::narrow16(red, green), I::narrow16(blue, blue));
            let pixels = I::lookup(bytes, order);
            if 3 * i + 16 <= out.len() {
                I::store(out.as_mut_ptr().add(3 * i), pixels);
            } else {
                let mut last = [0; 16];
                I::store(last.as_mut_ptr(), pixels);
                let rest = &mut out[3 * i..];
                let n = rest.len().min(12);
                rest[..n].copy_from_slice(&last[..n]);
            }
        }
    }
}
