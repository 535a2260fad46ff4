//! What Q4_1, Q5_0 and Q5_1 share: nibbles, fifth bits, and rounding between two extremes.

use super::blocks::{GROUP, inverse, nearest_f16, range};
use super::search::affine;

/// Codes from 16 bytes: low nibble element i, high nibble element i + 16.
pub(super) fn split_nibbles(qs: &[u8], codes: &mut [u8; GROUP]) {
    for (i, &q) in qs.iter().enumerate() {
        codes[i] = q & 15;
        codes[i + 16] = q >> 4;
    }
}

/// The inverse of [`split_nibbles`] for the low four bits of each code.
pub(super) fn join_nibbles(codes: &[u8; GROUP], qs: &mut [u8]) {
    for (i, q) in qs.iter_mut().enumerate() {
        *q = codes[i] & 15 | codes[i + 16] << 4;
    }
}

/// Adds bit 4 of each code.
pub(super) fn add_fifth_bits(bits: u32, codes: &mut [u8; GROUP]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((bits >> i & 1) as u8) << 4;
    }
}

/// Bit 4 of each code.
pub(super) fn fifth_bits(codes: &[u8; GROUP]) -> u32 {
    codes.iter().enumerate().fold(0, |bits, (i, code)| bits | u32::from(code >> 4) << i)
}

/// Values of blocks with a scale and a minimum.
pub(super) fn decode<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decompose: fn(&[u8], &mut [u8; GROUP]) -> (f32, f32),
) {
    let mut codes = [0; GROUP];
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(GROUP)) {
        let (d, m) = decompose(block, &mut codes);
        for (o, &code) in out.iter_mut().zip(&codes) {
            *o = d * f32::from(code) + m;
        }
    }
}

/// (d, m, codes from 0 to `max_code`) between the block's extremes.
pub(super) fn round(x: &[f32; GROUP], max_code: u8) -> (f32, f32, [u8; GROUP]) {
    let (lo, hi) = range(x);
    let levels = f32::from(max_code);
    // Two quotients: the difference of two large values may not be finite.
    let (d, m) = (nearest_f16(hi / levels - lo / levels), nearest_f16(lo));
    let inv = inverse(d);
    (d, m, x.map(|v| ((v - m) * inv).round().clamp(0.0, levels) as u8))
}

/// As [`round`] with the least weighted squared error that a search finds.
pub(super) fn search(x: &[f32; GROUP], w: &[f32; GROUP], max_code: u8) -> (f32, f32, [u8; GROUP]) {
    let levels = f32::from(max_code);
    let found = affine(x, w, levels, false);
    let (d, m) = (nearest_f16(found.d), nearest_f16(found.m));
    let inv = inverse(d);
    (d, m, x.map(|v| ((v - m) * inv).round().clamp(0.0, levels) as u8))
}

/// Signed 8-bit codes for `d * codes + m`; returns their scale. With the scale `d / j` for a
/// whole number j only m has to be rounded. Where no j rounds it well, a scale that rounds
/// every value is better: of all these the one with the least squared error is taken.
pub(super) fn to_signed(d: f32, m: f32, codes: &mut [u8; GROUP]) -> f32 {
    let top = codes.iter().copied().max().map_or(0.0, f32::from);
    let reach = m.abs().max((d * top + m).abs());
    if d == 0.0 || !reach.is_finite() || reach > 127.0 * d.abs() {
        return round_to_signed(d, m, reach, codes);
    }
    let shift = m / d;
    let limit = (127.0 * d.abs() / reach).min(127.0) as u8;
    let error = |j: f32| ((shift * j).round() / j - shift).abs();
    let better = |best: f32, j: u8| if error(f32::from(j)) < error(best) { f32::from(j) } else { best };
    let j = (1..=limit.max(1)).fold(1.0, better);
    if let Some(scale) = free_scale(d, m, codes, reach, (error(j) * d).powi(2)) {
        let inv = 1.0 / scale;
        for code in codes.iter_mut() {
            *code = ((d * f32::from(*code) + m) * inv).round().clamp(-127.0, 127.0) as i8 as u8;
        }
        return scale;
    }
    for code in codes.iter_mut() {
        *code = (j * f32::from(*code) + (shift * j).round()).clamp(-127.0, 127.0) as i8 as u8;
    }
    d / j
}

/// A scale that rounds all values with a mean squared error below `bound`, if one is found.
fn free_scale(d: f32, m: f32, codes: &[u8; GROUP], reach: f32, bound: f32) -> Option<f32> {
    const N: u8 = 8;
    let values = codes.map(|code| d * f32::from(code) + m);
    let mut best = (bound * GROUP as f32, None);
    for i in 0..N {
        // From the finest that 8 bits can reach with to one a quarter coarser.
        let scale = reach / 127.0 * (1.0 + 0.25 * f32::from(i) / f32::from(N));
        let inv = 1.0 / scale;
        let error = values.iter().map(|v| (v - (v * inv).round() * scale).powi(2)).sum();
        if inv.is_finite() && error < best.0 {
            best = (error, Some(scale));
        }
    }
    best.1
}

/// As [`to_signed`] where the block is narrow and far from zero: the largest value is code 127.
fn round_to_signed(d: f32, m: f32, reach: f32, codes: &mut [u8; GROUP]) -> f32 {
    let inv = inverse(reach);
    for code in codes.iter_mut() {
        *code = ((d * f32::from(*code) + m) * inv * 127.0).round().clamp(-127.0, 127.0) as i8 as u8;
    }
    if reach.is_finite() { reach / 127.0 } else { f32::NAN }
}
