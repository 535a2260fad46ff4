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

use super::blocks::{f16_at, put_f16};
use super::k_quant::{KQuant, add_high_bits, codec, join_high_bits};
use super::q4_k::{join_nibbles, join_scales, split_nibbles, split_scales};
use super::search::{MinForm, super_min};
use super::superblock::{LEN, SuperBlock};
use super::{Codec, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 176;
/// What is subtracted from a code.
pub const OFFSET: u8 = 0;
/// Bits per code.
pub const BITS: u32 = 5;

pub(super) const CODEC: Codec = codec::<Q5K, BYTES>();

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_scales(&block[4..16], out);
    split_nibbles(&block[48..], &mut out.codes);
    add_high_bits(&block[16..48], 4, &mut out.codes);
    out.d = f16_at(block, 0);
    out.dmin = f16_at(block, 2);
}

/// The type, for [`codec`].
struct Q5K;

impl KQuant<BYTES> for Q5K {
    const FORM: SuperForm =
        SuperForm { bits: BITS, offset: OFFSET, sub_len: 32, has_min: true, block_bytes: BYTES, decompose };

    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
        join_scales(parts, &mut block[4..16]);
        join_high_bits(&parts.codes, 4, &mut block[16..48]);
        join_nibbles(&parts.codes, &mut block[48..]);
        put_f16(block, 0, parts.d);
        put_f16(block, 2, parts.dmin);
    }

    fn round(x: &[f32; LEN]) -> SuperBlock {
        SuperBlock::round_with_min(x, 32, 31, 63)
    }

    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock {
        super_min::<32>(x, w, MinForm { max_code: 31.0, max_scale: 63.0, tops: &[63.0, 58.0] })
    }
}
