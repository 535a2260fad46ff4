//! Q1_0: 128 signs with one f16 scale; `w = d` for a set bit and `-d` for a clear one, 1.125
//! bits per weight.
//!
//! ```text
//! block: d (f16) | qs (16 bytes: element 8 i + b is bit b of byte i)
//! ```
//! Source: ggml-common.h, `block_q1_0`.

use super::blocks::{encode_blocks, f16_at, nearest_f16, put_f16, scaled_codes, unpack_blocks};
use super::search;
use super::{Codec, KernelForm};

/// Elements per block.
pub const LEN: usize = 128;
/// Bytes per block.
pub const BYTES: usize = 18;

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: None,
    kernel: KernelForm::Bits(unpack),
};

/// Splits one block into its signs, `w[i] = d * (2 * bits[i] - 1)`; returns d.
pub fn decompose(block: &[u8], bits: &mut [u8; LEN]) -> f32 {
    for (i, bit) in bits.iter_mut().enumerate() {
        *bit = block[2 + i / 8] >> (i % 8) & 1;
    }
    f16_at(block, 0)
}

fn unpack_block(block: &[u8; BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    scales.fill(decompose(block, codes));
    codes.iter_mut().for_each(|code| *code = (*code * 2).wrapping_sub(1));
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_block);
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_block);
}

/// The mean magnitude is the scale of least squared error.
fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| {
        compose(x, x.iter().map(|v| v.abs() / LEN as f32).sum(), block);
    });
}

fn compose(x: &[f32; LEN], d: f32, block: &mut [u8; BYTES]) {
    put_f16(block, 0, nearest_f16(d));
    for (byte, x) in block[2..].iter_mut().zip(x.chunks_exact(8)) {
        *byte = x.iter().enumerate().fold(0, |byte, (b, &v)| byte | u8::from(v >= 0.0) << b);
    }
}

/// The weighted mean.
fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize, dequantize), |x: &[f32; LEN], w, block| {
        let (sum, total) =
            x.iter().zip(w).fold((0f32, 0f32), |(sum, total), (v, w)| (sum + w * v.abs(), total + w));
        compose(x, sum / total, block);
    });
}
