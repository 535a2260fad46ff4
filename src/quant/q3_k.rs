//! Q3_K: 256 codes of 3 bits, 16 sub-blocks of 16 with signed 6-bit scales;
//! `w = d * scale * (q - 4)`, 3.4375 bits per weight.
//!
//! ```text
//! block: hmask (32 bytes: bit 2 of element 32 b + l is bit b of byte l)
//!      | qs (64 bytes: bits 0-1; byte 32 h + l holds elements 128 h + 32 j + l at bits 2 j)
//!      | scales (12 bytes: bytes 0-7 hold the low 4 bits of scale i (low nibble) and i + 8
//!        (high nibble); byte 8 + i holds bits 4-5 of scales i, i + 4, i + 8, i + 12 at bits
//!        0, 2, 4, 6; 32 stands for zero)
//!      | d (f16)
//! ```
//! Source: ggml-common.h, `block_q3_K`; gguf-py, `quants.py`.

use super::blocks::{f16_at, put_f16};
use super::k_quant::{KQuant, add_high_bits, codec, join_high_bits};
use super::search::{Linear, SignedForm, super_signed};
use super::superblock::{LEN, SuperBlock, join_pairs, split_pairs};
use super::{Codec, SuperForm};

/// Bytes per block.
pub const BYTES: usize = 110;
/// What is subtracted from a code.
pub const OFFSET: u8 = 4;
/// Bits per code.
pub const BITS: u32 = 3;

pub(super) const CODEC: Codec = codec::<Q3K, BYTES>();

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    let packed = &block[96..108];
    split_pairs(&block[32..96], &mut out.codes);
    add_high_bits(&block[..32], 2, &mut out.codes);
    for (j, scale) in out.scales.iter_mut().enumerate() {
        let low = packed[j % 8] >> (j / 8 * 4) & 15;
        let top = packed[8 + j % 4] >> (j / 4 * 2) & 3;
        *scale = i16::from(low | top << 4) - 32;
    }
    out.mins = [0; 16];
    out.d = f16_at(block, 108);
    out.dmin = 0.0;
}

/// The type, for [`codec`].
struct Q3K;

impl KQuant<BYTES> for Q3K {
    const FORM: SuperForm =
        SuperForm { bits: BITS, offset: OFFSET, sub_len: 16, has_min: false, block_bytes: BYTES, decompose };

    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]) {
        block.fill(0);
        join_high_bits(&parts.codes, 2, &mut block[..32]);
        join_pairs(&parts.codes, &mut block[32..96]);
        let packed = &mut block[96..108];
        for (j, scale) in parts.scales.iter().enumerate() {
            let level = (scale + 32) as u8;
            packed[j % 8] |= (level & 15) << (j / 8 * 4);
            packed[8 + j % 4] |= (level >> 4) << (j / 4 * 2);
        }
        put_f16(block, 108, parts.d);
    }

    fn round(x: &[f32; LEN]) -> SuperBlock {
        SuperBlock::round_signed(x, OFFSET, 32)
    }

    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock {
        const SIGNED: SignedForm<Linear> = SignedForm {
            levels: Linear { lo: -4.0, hi: 3.0 },
            starts: &[
                -4.0, -3.8, -3.6, -3.4, -3.2, -3.0, -2.8, -4.3, -4.6, 3.0, 2.8, 2.6, 2.4, 2.2, 3.3, 3.6,
            ],
            tops: &[-32.0, 31.0, -30.0, 29.0, -27.0],
            range: (-32.0, 31.0),
        };
        super_signed::<16, _>(x, w, SIGNED).rounded(x, OFFSET)
    }
}
