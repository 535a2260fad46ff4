//! TQ2_0: 256 ternary codes of 2 bits with one f16 scale; `w = d * (q - 1)`, 2.0625 bits per
//! weight.
//!
//! ```text
//! block: qs (64 bytes: byte 32 h + l holds elements 128 h + 32 j + l at bits 2 j, j = 0..4)
//!      | d (f16)
//! ```
//! Source: ggml-common.h, `block_tq2_0`; gguf-py, `quants.py`.

use super::blocks::{encode_blocks, f16_at, put_f16};
use super::superblock::{LEN, SuperBlock, decode, join_pairs, split_pairs};
use super::{Codec, KernelForm, SuperForm, search, ternary};

/// Bytes per block.
pub const BYTES: usize = 66;
/// What is subtracted from a code.
pub const OFFSET: u8 = 1;
/// Bits per code.
pub const BITS: u32 = 2;

const FORM: SuperForm =
    SuperForm { bits: BITS, offset: OFFSET, sub_len: 256, has_min: false, block_bytes: BYTES, decompose };

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: None,
    kernel: KernelForm::Super(FORM),
};

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_pairs(&block[..64], &mut out.codes);
    ternary::one_scale(f16_at(block, 64), out);
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    decode::<BYTES>(bytes, out, OFFSET, decompose);
}

fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| {
        let (d, codes) = ternary::round(x);
        compose(d, &codes, block);
    });
}

fn compose(d: f32, codes: &[u8; LEN], block: &mut [u8; BYTES]) {
    join_pairs(codes, &mut block[..64]);
    put_f16(block, 64, d);
}

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize, dequantize), |x, w, block| {
        let (d, codes) = search::ternary(x, w);
        compose(d, &codes, block);
    });
}
