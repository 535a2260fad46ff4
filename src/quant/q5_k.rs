//! Q5_K: 256 codes of 5 bits, 8 sub-blocks of 32 with 6-bit scales and 6-bit mins;
//! `w = d * scale * q - dmin * min`, 5.5 bits per weight.
//!
//! ```text
//! block: d (f16) | dmin (f16)
//!      | scales (12 bytes, as in Q4_K)
//!      | qh (32 bytes: bit 4 of element 32 b + l is bit b of byte l)
//!      | qs (128 bytes: bits 0-3, as in Q4_K)
//! ```
//! Source: ggml-common.h, `block_q5_K`; gguf-py, `quants.py`.

use super::blocks::{encode_blocks, f16_at, put_f16};
use super::q4_k::{join_nibbles, join_scales, split_nibbles, split_scales};
use super::search::{self, MinForm, super_min};
use super::superblock::{LEN, SuperBlock, decode};
use super::{Codec, GridRule, KernelForm, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 176;
/// What is subtracted from a code.
pub const OFFSET: u8 = 0;
/// Bits per code.
pub const BITS: u32 = 5;

const FORM: SuperForm =
    SuperForm { bits: BITS, offset: OFFSET, sub_len: 32, has_min: true, block_bytes: BYTES, decompose };

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: Some(GRID),
    kernel: KernelForm::Super(FORM),
};

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_scales(&block[4..16], out);
    split_nibbles(&block[48..], &mut out.codes);
    for (i, code) in out.codes.iter_mut().enumerate() {
        *code |= (block[16 + i % 32] >> (i / 32) & 1) << 4;
    }
    out.d = f16_at(block, 0);
    out.dmin = f16_at(block, 2);
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    decode::<BYTES>(bytes, out, OFFSET, decompose);
}

fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| {
        compose(&SuperBlock::round_with_min(x, 32, 31, 63), block);
    });
}

fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
    join_scales(parts, &mut block[4..16]);
    block[16..48].fill(0);
    for (i, code) in parts.codes.iter().enumerate() {
        block[16 + i % 32] |= (code >> 4) << (i / 32);
    }
    join_nibbles(&parts.codes, &mut block[48..]);
    put_f16(block, 0, parts.d);
    put_f16(block, 2, parts.dmin);
}

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    const FORM: MinForm = MinForm { max_code: 31.0, max_scale: 63.0, tops: &[63.0, 58.0] };
    search::search_blocks(values, weights, out, (quantize, dequantize), |x, w, block| {
        compose(&super_min::<32>(x, w, FORM), block);
    });
}

const GRID: GridRule = GridRule {
    read: |block, grid| {
        let mut parts = SuperBlock::default();
        decompose(block, &mut parts);
        grid.set_super(&parts, OFFSET, 31);
    },
    write: |grid, block| {
        let mut parts = SuperBlock::default();
        decompose(block, &mut parts);
        parts.codes = grid.codes;
        if let Some(block) = block.as_mut_array() {
            compose(&parts, block);
        }
    },
};
