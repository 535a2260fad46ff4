//! IQ4_NL and IQ4_XS: 4-bit codes that stand for sixteen levels, closer together near zero.
//!
//! ```text
//! IQ4_NL, 4.5 bits per weight, w = d * LEVELS[q]:
//! block of 32: d (f16) | qs (16 bytes: low nibble element i, high nibble element i + 16)
//!
//! IQ4_XS, 4.25 bits per weight, sub-blocks of 32, w = d * (s - 32) * LEVELS[q]:
//! block of 256: d (f16) | scales_h (u16: bits 2 j, 2 j + 1 are bits 4-5 of s of sub-block j)
//!      | scales_l (4 bytes: bits 0-3 of s of sub-blocks 2 j (low nibble) and 2 j + 1)
//!      | qs (128 bytes: 16 per sub-block, as in IQ4_NL)
//! ```
//! Source: ggml-common.h, `block_iq4_nl`, `block_iq4_xs`, `kvalues_iq4nl`; gguf-py, `quants.py`.

use super::blocks::{
    GROUP, encode_blocks, extreme, f16_at, inverse, nearest_f16, put_f16, scaled_codes, u16_at, unpack_blocks,
};
use super::superblock::LEN;
use super::{Codec, KernelForm};

/// Bytes per IQ4_NL block.
pub const IQ4_NL_BYTES: usize = 18;
/// Bytes per IQ4_XS block.
pub const IQ4_XS_BYTES: usize = 136;
/// What each code stands for.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) const IQ4_NL: Codec =
    Codec { dequantize: dequantize_nl, quantize: Some(quantize_nl), kernel: KernelForm::I8(unpack_nl) };
pub(super) const IQ4_XS: Codec =
    Codec { dequantize: dequantize_xs, quantize: None, kernel: KernelForm::I8(unpack_xs) };

/// 32 elements from 16 bytes.
fn split_levels(qs: &[u8], codes: &mut [u8]) {
    for (i, &q) in qs.iter().enumerate() {
        codes[i] = LEVELS[usize::from(q & 15)] as u8;
        codes[i + 16] = LEVELS[usize::from(q >> 4)] as u8;
    }
}

fn unpack_nl_block(block: &[u8; IQ4_NL_BYTES], codes: &mut [u8; GROUP], scales: &mut [f32]) {
    scales.fill(f16_at(block, 0));
    split_levels(&block[2..], codes);
}

fn unpack_xs_block(block: &[u8; IQ4_XS_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let (d, high) = (f16_at(block, 0), u16_at(block, 2));
    for (j, (codes, scale)) in codes.chunks_exact_mut(GROUP).zip(scales).enumerate() {
        let low = u16::from(block[4 + j / 2] >> (j % 2 * 4) & 15);
        let s = low | (high >> (2 * j) & 3) << 4;
        *scale = d * (f32::from(s) - 32.0);
        split_levels(&block[8 + 16 * j..][..16], codes);
    }
}

fn unpack_nl(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_nl_block);
}

fn unpack_xs(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_xs_block);
}

fn dequantize_nl(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_nl_block);
}

fn dequantize_xs(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_xs_block);
}

/// The value of largest magnitude maps to the outermost level, -127.
fn quantize_nl(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; GROUP], block: &mut [u8; IQ4_NL_BYTES]| {
        let d = nearest_f16(extreme(x) / f32::from(LEVELS[0]));
        let inv = inverse(d);
        put_f16(block, 0, d);
        for i in 0..16 {
            block[2 + i] = nearest_level(x[i] * inv) | nearest_level(x[i + 16] * inv) << 4;
        }
    });
}

/// The code of the level nearest to `v`.
fn nearest_level(v: f32) -> u8 {
    let middle = |pair: &[i8]| (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
    LEVELS.windows(2).filter(|pair| v > middle(pair)).count() as u8
}
