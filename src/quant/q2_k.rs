//! Q2_K: 256 codes of 2 bits, 16 sub-blocks of 16 with 4-bit scales and 4-bit mins;
//! `w = d * scale * q - dmin * min`, 2.625 bits per weight.
//!
//! ```text
//! block: scales (16 bytes: low nibble scale, high nibble min of sub-block i)
//!      | qs (64 bytes: byte 32 h + l holds elements 128 h + 32 j + l at bits 2 j, j = 0..4)
//!      | d (f16) | dmin (f16)
//! ```
//! Source: ggml-common.h, `block_q2_K`; gguf-py, `quants.py`.

use super::blocks::{f16_at, put_f16};
use super::k_quant::{KQuant, codec};
use super::search::{MinForm, super_min};
use super::superblock::{LEN, SuperBlock, join_pairs, split_pairs};
use super::{Codec, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 84;
/// What is subtracted from a code.
pub const OFFSET: u8 = 0;
/// Bits per code.
pub const BITS: u32 = 2;

pub(super) const CODEC: Codec = codec::<Q2K, BYTES>();

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    for (j, &pair) in block[..16].iter().enumerate() {
        out.scales[j] = i16::from(pair & 15);
        out.mins[j] = i16::from(pair >> 4);
    }
    split_pairs(&block[16..80], &mut out.codes);
    out.d = f16_at(block, 80);
    out.dmin = f16_at(block, 82);
}

/// The type, for [`codec`].
struct Q2K;

impl KQuant<BYTES> for Q2K {
    const FORM: SuperForm =
        SuperForm { bits: BITS, offset: OFFSET, sub_len: 16, has_min: true, block_bytes: BYTES, decompose };

    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
        for (byte, (scale, min)) in block.iter_mut().zip(parts.scales.iter().zip(&parts.mins)) {
            *byte = *scale as u8 | (*min as u8) << 4;
        }
        join_pairs(&parts.codes, &mut block[16..80]);
        put_f16(block, 80, parts.d);
        put_f16(block, 82, parts.dmin);
    }

    fn round(x: &[f32; LEN]) -> SuperBlock {
        SuperBlock::round_with_min(x, 16, 3, 15)
    }

    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock {
        super_min::<16>(x, w, MinForm { max_code: 3.0, max_scale: 15.0, tops: &[15.0, 13.0] })
    }
}
