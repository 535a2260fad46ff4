//! TQ2_0: 256 ternary codes of 2 bits with one f16 scale; `w = d * (q - 1)`, 2.0625 bits per
//! weight.
//!
//! ```text
//! block: qs (64 bytes: byte 32 h + l holds elements 128 h + 32 j + l at bits 2 j, j = 0..4)
//!      | d (f16)
//! ```
//! Source: ggml-common.h, `block_tq2_0`; gguf-py, `quants.py`.

use super::blocks::{encode_blocks, f16_at, put_f16, scaled_codes, unpack_blocks};
use super::superblock::{LEN, SuperBlock, join_pairs, split_pairs};
use super::{Codec, KernelForm, ternary};

/// Bytes per block.
pub const BYTES: usize = 66;
/// What is subtracted from a code.
pub const OFFSET: u8 = 1;
/// Bits per code.
pub const BITS: u32 = 2;

pub(super) const CODEC: Codec =
    Codec { dequantize, quantize: Some(quantize), kernel: KernelForm::I8(unpack) };

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_pairs(&block[..64], &mut out.codes);
    ternary::one_scale(f16_at(block, 64), out);
}

fn unpack_block(block: &[u8; BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    split_pairs(&block[..64], codes);
    codes.iter_mut().for_each(|code| *code = code.wrapping_sub(OFFSET));
    scales.fill(f16_at(block, 64));
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_block);
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_block);
}

fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| {
        let (d, codes) = ternary::round(x);
        join_pairs(&codes, &mut block[..64]);
        put_f16(block, 64, d);
    });
}
