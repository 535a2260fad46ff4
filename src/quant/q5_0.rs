//! Q5_0: 32 codes of 5 bits with one f16 scale; `w = d * (q - 16)`, 5.5 bits per weight.
//!
//! ```text
//! block: d (f16) | qh (u32: bit i is bit 4 of element i)
//!      | qs (16 bytes: bits 0-3; low nibble element i, high nibble element i + 16)
//! ```
//! Source: ggml-common.h, `block_q5_0`; gguf-py, `quants.py`.

use super::blocks::{
    GROUP, encode_blocks, extreme, f16_at, inverse, nearest_f16, put_f16, scaled_codes, u32_at, unpack_halves,
};
use super::minimum::{add_fifth_bits, fifth_bits, join_nibbles, split_nibbles};
use super::search::{self, Linear, codes, symmetric};
use super::{Codec, GridRule, KernelForm};
use half::f16;

/// Bytes per block.
pub const BYTES: usize = 22;
/// What is subtracted from a code.
pub const OFFSET: u8 = 16;

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: Some(GRID),
    kernel: KernelForm::I8Half(unpack),
};

/// Splits one block into its codes, `w = d * (code - OFFSET)`; returns d.
pub fn decompose(block: &[u8], codes: &mut [u8; GROUP]) -> f32 {
    split_nibbles(&block[6..], codes);
    add_fifth_bits(u32_at(block, 2), codes);
    f16_at(block, 0)
}

fn unpack_block(block: &[u8; BYTES], codes: &mut [u8; GROUP], scales: &mut [f32]) {
    scales.fill(decompose(block, codes));
    codes.iter_mut().for_each(|code| *code = code.wrapping_sub(OFFSET));
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]) {
    unpack_halves(blocks, codes, scales, unpack_block);
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_block);
}

/// The value of largest magnitude maps to code 0, so that the side with the extreme gets the
/// extra level.
fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; GROUP], block: &mut [u8; BYTES]| {
        let d = nearest_f16(extreme(x) / -f32::from(OFFSET));
        let inv = inverse(d);
        let codes = x.map(|v| ((v * inv).round() + f32::from(OFFSET)).clamp(0.0, 31.0) as u8);
        compose(d, &codes, block);
    });
}

fn compose(d: f32, codes: &[u8; GROUP], block: &mut [u8; BYTES]) {
    put_f16(block, 0, d);
    block[2..6].copy_from_slice(&fifth_bits(codes).to_le_bytes());
    join_nibbles(codes, &mut block[6..]);
}

/// Levels for the value of largest magnitude to begin with.
const STARTS: [f32; 20] = [
    -16.0, -15.7, -15.4, -15.1, -14.8, -14.4, -14.0, -13.5, -16.4, -16.8, 15.0, 14.7, 14.4, 14.1, 13.8, 13.4,
    13.0, 12.5, 15.4, 15.8,
];

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    const LEVELS: Linear = Linear { lo: -16.0, hi: 15.0 };
    search::search_blocks(values, weights, out, (quantize, dequantize), |x, w, block| {
        let d = nearest_f16(symmetric(x, w, LEVELS, &STARTS).0);
        compose(d, &codes(x, d, LEVELS).map(|level| (level + 16.0) as u8), block);
    });
}

const GRID: GridRule = GridRule {
    read: |block, grid| grid.set_uniform(GROUP, f16_at(block, 0), 0.0, (16.0, 31.0)),
    write: |grid, block| {
        let d = f16_at(block, 0);
        if let (Some(codes), Some(block)) = (grid.codes.first_chunk(), block.as_mut_array()) {
            compose(d, codes, block);
        }
    },
};
