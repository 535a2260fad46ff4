//! Blocks of 256 weights in integers: what the K-quants, the ternary types and the codebook
//! types with 16-wide sub-blocks have in common.

use super::blocks::{extreme, inverse, nearest_f16, range};

/// Elements of a super-block.
pub const LEN: usize = 256;

/// One block in parts:
/// `w[i] = d * scales[i / 16] * (codes[i] - OFFSET) - dmin * mins[i / 16]`, evaluated from left
/// to right in f32 this is what the type defines. `OFFSET` is a constant of the type. Types
/// with sub-blocks of 32 repeat their scales and mins.
#[derive(Clone, Debug, PartialEq)]
pub struct SuperBlock {
    /// Unsigned codes in element order.
    pub codes: [u8; LEN],
    /// Integer scales, one per 16 elements.
    pub scales: [i16; 16],
    /// Integer minima, one per 16 elements; 0 for types without.
    pub mins: [i16; 16],
    /// Scale of the scales.
    pub d: f32,
    /// Scale of the minima.
    pub dmin: f32,
}

impl Default for SuperBlock {
    fn default() -> Self {
        SuperBlock { codes: [0; LEN], scales: [0; 16], mins: [0; 16], d: 0.0, dmin: 0.0 }
    }
}

impl SuperBlock {
    /// The block's weights.
    pub fn values(&self, offset: u8, out: &mut [f32]) {
        let groups = self.codes.chunks_exact(16).zip(out.chunks_exact_mut(16));
        for (j, (codes, out)) in groups.enumerate() {
            let scale = self.d * f32::from(self.scales[j]);
            let min = self.dmin * f32::from(self.mins[j]);
            for (o, &code) in out.iter_mut().zip(codes) {
                *o = scale * f32::from(i16::from(code) - i16::from(offset)) - min;
            }
        }
    }

    /// Rounds `x` to codes `0 ..= max_code` between each sub-block's extremes (0 included),
    /// with unsigned scales and mins up to `max_scale`; sub-blocks hold `width` elements.
    pub(super) fn round_with_min(x: &[f32; LEN], width: usize, max_code: u8, max_scale: i16) -> Self {
        let mut steps = [0f32; 16];
        let mut floors = [0f32; 16];
        for (j, x) in x.chunks_exact(width).enumerate() {
            let (lo, hi) = range(x);
            floors[j] = -lo.min(0.0);
            // Two quotients: the difference of two large values may not be finite.
            steps[j] = hi.max(0.0) / f32::from(max_code) + floors[j] / f32::from(max_code);
        }
        let top = |v: &[f32]| nearest_f16(extreme(v) / f32::from(max_scale));
        let mut out = SuperBlock { d: top(&steps), dmin: top(&floors), ..Self::default() };
        let (inv_d, inv_dmin) = (inverse(out.d), inverse(out.dmin));
        let level = |v: f32| v.round().clamp(0.0, f32::from(max_scale)) as i16;
        for j in 0..16 {
            let sub = j * 16 / width;
            out.scales[j] = level(steps[sub] * inv_d);
            out.mins[j] = level(floors[sub] * inv_dmin);
        }
        out.round_codes(x, 0, max_code);
        out
    }

    /// Rounds `x` to codes `0 ..= 2 * offset - 1`, the extreme of each 16 near code 0, with
    /// signed scales from `-max_scale` to `max_scale - 1`.
    pub(super) fn round_signed(x: &[f32; LEN], offset: u8, max_scale: i16) -> Self {
        let mut steps = [0f32; 16];
        for (step, x) in steps.iter_mut().zip(x.chunks_exact(16)) {
            *step = extreme(x) / -f32::from(offset);
        }
        let mut out =
            SuperBlock { d: nearest_f16(extreme(&steps) / -f32::from(max_scale)), ..Self::default() };
        let inv = inverse(out.d);
        for (scale, step) in out.scales.iter_mut().zip(&steps) {
            *scale = (step * inv).round().clamp(-f32::from(max_scale), f32::from(max_scale - 1)) as i16;
        }
        out.round_codes(x, offset, 2 * offset - 1);
        out
    }

    /// The nearest codes under the scales and mins that are set.
    pub(super) fn round_codes(&mut self, x: &[f32; LEN], offset: u8, max_code: u8) {
        for (j, (x, codes)) in x.chunks_exact(16).zip(self.codes.chunks_exact_mut(16)).enumerate() {
            let inv = inverse(self.d * f32::from(self.scales[j]));
            let min = self.dmin * f32::from(self.mins[j]);
            for (code, v) in codes.iter_mut().zip(x) {
                let level = ((v + min) * inv).round() + f32::from(offset);
                *code = level.clamp(0.0, f32::from(max_code)) as u8;
            }
        }
    }
}

/// Decodes blocks of `BYTES` bytes through `decompose`.
pub(super) fn decode<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    offset: u8,
    decompose: fn(&[u8], &mut SuperBlock),
) {
    let mut parts = SuperBlock::default();
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        decompose(block, &mut parts);
        parts.values(offset, out);
    }
}

/// The four 2-bit fields of each of 64 bytes, in the order that Q2_K, Q3_K and TQ2_0 share:
/// byte `32 h + l` holds elements `128 h + 32 j + l` at bits `2 j`.
pub(super) fn split_pairs(qs: &[u8], codes: &mut [u8; LEN]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
    }
}

/// The inverse of [`split_pairs`]; `codes` below 4, or their low two bits.
pub(super) fn join_pairs(codes: &[u8; LEN], qs: &mut [u8]) {
    qs.fill(0);
    for (i, code) in codes.iter().enumerate() {
        qs[i / 128 * 32 + i % 32] |= (code & 3) << (i / 32 % 4 * 2);
    }
}
