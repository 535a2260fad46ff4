//! What the two ternary types share.

use super::blocks::{extreme, inverse, nearest_f16};
use super::superblock::{LEN, SuperBlock};

/// The scale (largest magnitude, as f16) and the codes 0, 1, 2 for -1, 0, 1.
pub(super) fn round(x: &[f32; LEN]) -> (f32, [u8; LEN]) {
    let amax = extreme(x).abs();
    let d = nearest_f16(amax);
    // Weights too small for an f16 scale are zeros, and so are their codes.
    let inv = if d == 0.0 { 0.0 } else { inverse(amax) };
    (d, x.map(|v| ((v * inv).round().clamp(-1.0, 1.0) + 1.0) as u8))
}

/// Sets everything but the codes for a block with one scale.
pub(super) fn one_scale(d: f32, out: &mut SuperBlock) {
    out.scales = [1; 16];
    out.mins = [0; 16];
    out.d = d;
    out.dmin = 0.0;
}
