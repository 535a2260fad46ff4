//! Q4_K: 256 codes of 4 bits, 8 sub-blocks of 32 with 6-bit scales and 6-bit mins;
//! `w = d * scale * q - dmin * min`, 4.5 bits per weight.
//!
//! ```text
//! block: d (f16) | dmin (f16)
//!      | scales (12 bytes, see `split_scales`)
//!      | qs (128 bytes: byte 32 c + l holds elements 64 c + l (low nibble) and 64 c + 32 + l)
//! ```
//! Source: ggml-common.h, `block_q4_K`; gguf-py, `quants.py`.

use super::blocks::{f16_at, put_f16};
use super::k_quant::{KQuant, codec};
use super::search::{MinForm, super_min};
use super::superblock::{LEN, SuperBlock};
use super::{Codec, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 144;
/// What is subtracted from a code.
pub const OFFSET: u8 = 0;
/// Bits per code.
pub const BITS: u32 = 4;

pub(super) const CODEC: Codec = codec::<Q4K, BYTES>();

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_scales(&block[4..16], out);
    split_nibbles(&block[16..], &mut out.codes);
    out.d = f16_at(block, 0);
    out.dmin = f16_at(block, 2);
}

/// The 6-bit scales and mins of Q4_K and Q5_K.
///
/// ```text
/// byte      i: bits 0-5 scale i, bits 6-7 bits 4-5 of scale 4 + i   (i = 0..4)
/// byte  4 + i: bits 0-5 min i,   bits 6-7 bits 4-5 of min 4 + i
/// byte  8 + i: low nibble bits 0-3 of scale 4 + i, high nibble bits 0-3 of min 4 + i
/// ```
pub(super) fn split_scales(packed: &[u8], out: &mut SuperBlock) {
    for i in 0..4 {
        let (scale, min, low) = (packed[i], packed[4 + i], packed[8 + i]);
        out.scales[2 * i..][..2].fill(i16::from(scale & 63));
        out.mins[2 * i..][..2].fill(i16::from(min & 63));
        out.scales[8 + 2 * i..][..2].fill(i16::from(low & 15 | scale >> 6 << 4));
        out.mins[8 + 2 * i..][..2].fill(i16::from(low >> 4 | min >> 6 << 4));
    }
}

/// The inverse of [`split_scales`].
pub(super) fn join_scales(parts: &SuperBlock, packed: &mut [u8]) {
    for i in 0..4 {
        let [scale, min] = [&parts.scales, &parts.mins].map(|v| (v[2 * i] as u8, v[8 + 2 * i] as u8));
        packed[i] = scale.0 | scale.1 >> 4 << 6;
        packed[4 + i] = min.0 | min.1 >> 4 << 6;
        packed[8 + i] = scale.1 & 15 | min.1 << 4;
    }
}

/// Low four bits of the codes of Q4_K and Q5_K.
pub(super) fn split_nibbles(qs: &[u8], codes: &mut [u8; LEN]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
    }
}

/// The inverse of [`split_nibbles`].
pub(super) fn join_nibbles(codes: &[u8; LEN], qs: &mut [u8]) {
    for (i, q) in qs.iter_mut().enumerate() {
        let first = i / 32 * 64 + i % 32;
        *q = codes[first] & 15 | codes[first + 32] << 4;
    }
}

/// The type, for [`codec`].
struct Q4K;

impl KQuant<BYTES> for Q4K {
    const FORM: SuperForm =
        SuperForm { bits: BITS, offset: OFFSET, sub_len: 32, has_min: true, block_bytes: BYTES, decompose };

    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
        join_scales(parts, &mut block[4..16]);
        join_nibbles(&parts.codes, &mut block[16..]);
        put_f16(block, 0, parts.d);
        put_f16(block, 2, parts.dmin);
    }

    fn round(x: &[f32; LEN]) -> SuperBlock {
        SuperBlock::round_with_min(x, 32, 15, 63)
    }

    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock {
        super_min::<32>(x, w, MinForm { max_code: 15.0, max_scale: 63.0, tops: &[63.0, 58.0] })
    }
}
