//! Q6_K: 256 codes of 6 bits, 16 sub-blocks of 16 with signed 8-bit scales;
//! `w = d * scale * (q - 32)`, 6.5625 bits per weight.
//!
//! ```text
//! block: ql (128 bytes: bits 0-3; byte 64 h + 32 p + l holds elements 128 h + 32 p + l (low
//!        nibble) and 128 h + 64 + 32 p + l, p = 0..2)
//!      | qh (64 bytes: bits 4-5; byte 32 h + l holds elements 128 h + 32 j + l at bits 2 j)
//!      | scales (16 x i8) | d (f16)
//! ```
//! Source: ggml-common.h, `block_q6_K`; gguf-py, `quants.py`.

use super::blocks::{f16_at, put_f16};
use super::k_quant::{KQuant, codec};
use super::search::{Linear, SignedForm, super_signed};
use super::superblock::{LEN, SuperBlock, join_pairs, split_pairs};
use super::{Codec, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 210;
/// What is subtracted from a code.
pub const OFFSET: u8 = 32;
/// Bits per code.
pub const BITS: u32 = 6;

pub(super) const CODEC: Codec = codec::<Q6K, BYTES>();

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_pairs(&block[128..192], &mut out.codes);
    for (i, code) in out.codes.iter_mut().enumerate() {
        let (byte, shift) = low_place(i);
        *code = *code << 4 | block[byte] >> shift & 15;
    }
    for (scale, &byte) in out.scales.iter_mut().zip(&block[192..208]) {
        *scale = i16::from(byte as i8);
    }
    out.mins = [0; 16];
    out.d = f16_at(block, 208);
    out.dmin = 0.0;
}

/// Byte and shift of the low four bits of element `i`.
fn low_place(i: usize) -> (usize, usize) {
    (i / 128 * 64 + i % 64, i / 64 % 2 * 4)
}

/// The type, for [`codec`].
struct Q6K;

impl KQuant<BYTES> for Q6K {
    const FORM: SuperForm =
        SuperForm { bits: BITS, offset: OFFSET, sub_len: 16, has_min: false, block_bytes: BYTES, decompose };

    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
        block.fill(0);
        for (i, code) in parts.codes.iter().enumerate() {
            let (byte, shift) = low_place(i);
            block[byte] |= (code & 15) << shift;
        }
        join_pairs(&parts.codes.map(|code| code >> 4), &mut block[128..192]);
        for (byte, scale) in block[192..208].iter_mut().zip(&parts.scales) {
            *byte = *scale as i8 as u8;
        }
        put_f16(block, 208, parts.d);
    }

    fn round(x: &[f32; LEN]) -> SuperBlock {
        SuperBlock::round_signed(x, OFFSET, 128)
    }

    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock {
        const SIGNED: SignedForm<Linear> = SignedForm {
            levels: Linear { lo: -32.0, hi: 31.0 },
            starts: &[
                -32.0, -31.5, -31.0, -30.5, -30.0, -29.0, -32.5, 31.0, 30.5, 30.0, 29.5, 29.0, 28.0, 31.5,
            ],
            tops: &[-128.0, 127.0, -120.0],
            range: (-128.0, 127.0),
        };
        super_signed::<16, _>(x, w, SIGNED).rounded(x, OFFSET)
    }
}
