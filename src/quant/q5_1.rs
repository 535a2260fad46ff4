//! Q5_1: 32 codes of 5 bits with an f16 scale and an f16 minimum; `w = d * q + m`, 6 bits per
//! weight.
//!
//! ```text
//! block: d (f16) | m (f16) | qh (u32: bit i is bit 4 of element i)
//!      | qs (16 bytes: bits 0-3; low nibble element i, high nibble element i + 16)
//! ```
//! Source: ggml-common.h, `block_q5_1`; gguf-py, `quants.py`.

use super::blocks::{GROUP, encode_blocks, f16_at, put_f16, u32_at, unpack_blocks};
use super::{Codec, GridRule, KernelForm, minimum, search};

/// Bytes per block.
pub const BYTES: usize = 24;

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: Some(GRID),
    kernel: KernelForm::I8(unpack),
};

/// Splits one block into its codes; returns (d, m).
pub fn decompose(block: &[u8], codes: &mut [u8; GROUP]) -> (f32, f32) {
    minimum::split_nibbles(&block[8..], codes);
    minimum::add_fifth_bits(u32_at(block, 4), codes);
    (f16_at(block, 0), f16_at(block, 2))
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, |block: &[u8; BYTES], codes, scales| {
        let (d, m) = decompose(block, codes);
        scales.fill(minimum::to_signed(d, m, codes));
    });
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    minimum::decode::<BYTES>(bytes, out, decompose);
}

fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; GROUP], block: &mut [u8; BYTES]| {
        let (d, m, codes) = minimum::round(x, 31);
        compose(d, m, &codes, block);
    });
}

fn compose(d: f32, m: f32, codes: &[u8; GROUP], block: &mut [u8; BYTES]) {
    put_f16(block, 0, d);
    put_f16(block, 2, m);
    block[4..8].copy_from_slice(&minimum::fifth_bits(codes).to_le_bytes());
    minimum::join_nibbles(codes, &mut block[8..]);
}

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize, dequantize), |x, w, block| {
        let (d, m, codes) = minimum::search(x, w, 31);
        compose(d, m, &codes, block);
    });
}

const GRID: GridRule = GridRule {
    read: |block, grid| grid.set_uniform(GROUP, f16_at(block, 0), f16_at(block, 2), (0.0, 31.0)),
    write: |grid, block| {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        if let (Some(codes), Some(block)) = (grid.codes.first_chunk(), block.as_mut_array()) {
            compose(d, m, codes, block);
        }
    },
};
