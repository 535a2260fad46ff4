//! MXFP4 and NVFP4: 4-bit floats (1 sign, 2 exponent, 1 mantissa bit) under a shared scale.
//!
//! The levels are doubled to be whole numbers, and the scales halved.
//!
//! ```text
//! MXFP4, 4.25 bits per weight, w = 2^(e - 128) * LEVELS[q]:
//! block of 32: e (1 byte) | qs (16 bytes: low nibble element i, high nibble element i + 16)
//!
//! NVFP4, 4.5 bits per weight, sub-blocks of 16, w = s / 2 * LEVELS[q]:
//! block of 64: scales (4 bytes: unsigned float s of sub-block j, 4 exponent bits with bias 7,
//!        3 mantissa bits; bit 7 is ignored; 0x7f stands for 0)
//!      | qs (32 bytes: 8 per sub-block, low nibble element i, high nibble element i + 8)
//! ```
//! Source: ggml-common.h, `block_mxfp4`, `block_nvfp4`, `kvalues_mxfp4`; gguf-py, `quants.py`;
//! OCP Microscaling Formats (MX) 1.0, section 5.

use super::blocks::{GROUP, encode_blocks, extreme, merge_scales, scaled_codes, unpack_blocks};
use super::search::{self, Fp4, best_of};
use super::{Codec, KernelForm};

/// Bytes per MXFP4 block.
pub const MXFP4_BYTES: usize = 17;
/// Elements per NVFP4 block.
pub const NVFP4_LEN: usize = 64;
/// Bytes per NVFP4 block.
pub const NVFP4_BYTES: usize = 36;
/// What each code stands for, doubled.
pub const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

pub(super) const MXFP4: Codec = Codec {
    dequantize: dequantize_mxfp4,
    quantize: Some(quantize_mxfp4),
    search: Some(search_mxfp4),
    grid: None,
    kernel: KernelForm::I8(unpack_mxfp4),
};
pub(super) const NVFP4: Codec = Codec {
    dequantize: dequantize_nvfp4,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_nvfp4),
};

/// 2^(e - 128). The lowest two are subnormal; there is no NaN.
fn power_scale(e: u8) -> f32 {
    match e {
        0..2 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits((u32::from(e) - 1) << 23),
    }
}

/// Half of an unsigned 8-bit float.
fn half_float8(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    match (byte, exponent) {
        (0x7F, _) => 0.0,
        (_, 0) => mantissa * power(-10),
        _ => (1.0 + mantissa / 8.0) * power(exponent - 8),
    }
}

fn unpack_mxfp4_block(block: &[u8; MXFP4_BYTES], codes: &mut [u8; GROUP], scales: &mut [f32]) {
    scales.fill(power_scale(block[0]));
    for (i, &q) in block[1..].iter().enumerate() {
        codes[i] = LEVELS[usize::from(q & 15)] as u8;
        codes[i + 16] = LEVELS[usize::from(q >> 4)] as u8;
    }
}

fn unpack_mxfp4(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_mxfp4_block);
}

fn dequantize_mxfp4(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_mxfp4_block);
}

/// Splits one NVFP4 block: signed codes, and one scale per 16, `w = scale * code`.
pub fn decompose_nvfp4(block: &[u8], codes: &mut [i8; NVFP4_LEN], scales: &mut [f32; 4]) {
    for (j, codes) in codes.chunks_exact_mut(16).enumerate() {
        scales[j] = half_float8(block[j]);
        for (i, &q) in block[4 + 8 * j..][..8].iter().enumerate() {
            codes[i] = LEVELS[usize::from(q & 15)];
            codes[i + 8] = LEVELS[usize::from(q >> 4)];
        }
    }
}

/// Two sub-blocks share a scale in this form, which is exact for most pairs of scales.
fn unpack_nvfp4(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, |block: &[u8; NVFP4_BYTES], codes: &mut [u8; NVFP4_LEN], scales| {
        let (mut levels, mut own) = ([0; NVFP4_LEN], [0.0; 4]);
        decompose_nvfp4(block, &mut levels, &mut own);
        for (i, (group, scale)) in codes.as_chunks_mut::<GROUP>().0.iter_mut().zip(scales).enumerate() {
            *group = std::array::from_fn(|k| levels[i * GROUP + k] as u8);
            *scale = merge_scales([own[2 * i], own[2 * i + 1]], group);
        }
    });
}

fn dequantize_nvfp4(bytes: &[u8], out: &mut [f32]) {
    let (mut codes, mut scales) = ([0; NVFP4_LEN], [0.0; 4]);
    for (block, out) in bytes.chunks_exact(NVFP4_BYTES).zip(out.chunks_exact_mut(NVFP4_LEN)) {
        decompose_nvfp4(block, &mut codes, &mut scales);
        for (i, (o, &code)) in out.iter_mut().zip(&codes).enumerate() {
            *o = scales[i / 16] * f32::from(code);
        }
    }
}

/// The scale is the power of two that puts the largest magnitude between levels 8 and 16, as
/// the MX specification recommends; what lies beyond 12 saturates.
fn quantize_mxfp4(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; GROUP], block: &mut [u8; MXFP4_BYTES]| {
        compose_mxfp4(x, recommended_exponent(x), block);
    });
}

fn recommended_exponent(x: &[f32]) -> u8 {
    (extreme(x).abs().to_bits() >> 23).saturating_sub(2) as u8
}

fn compose_mxfp4(x: &[f32; GROUP], exponent: u8, block: &mut [u8; MXFP4_BYTES]) {
    block[0] = exponent;
    // A power of two: the quotient is exact. It may be infinite only where the value is
    // beyond every level.
    let d = power_scale(exponent);
    for i in 0..16 {
        block[1 + i] = nearest_level(x[i] / d) | nearest_level(x[i + 16] / d) << 4;
    }
}

/// One of the powers of two about the recommended one.
fn search_mxfp4(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize_mxfp4, dequantize_mxfp4), |x, w, block| {
        let near = recommended_exponent(x);
        let exponents = [near, near.saturating_sub(1), near.saturating_add(1).min(254)];
        let d = best_of(x, w, Fp4, &exponents.map(power_scale));
        let found = exponents.into_iter().find(|&e| power_scale(e) == d);
        compose_mxfp4(x, found.unwrap_or(near), block);
    });
}

/// The code of the level nearest to `v`; the lower of two equally near ones.
fn nearest_level(v: f32) -> u8 {
    let middle = |pair: &[i8]| (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
    let code = LEVELS[..8].windows(2).filter(|pair| v.abs() > middle(pair)).count() as u8;
    if v < 0.0 && code > 0 { code + 8 } else { code }
}
