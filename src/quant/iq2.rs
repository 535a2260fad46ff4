//! IQ2_XXS, IQ2_XS and IQ2_S: codebook entries of the magnitudes 8, 25 and 43, with signs.
//!
//! Every eight elements are one codebook entry g with a sign each; `w = d * (2 s + 1) / 8 * g`.
//! IQ2_XXS has 256 entries, IQ2_XS 512, IQ2_S 1024. Seven stored sign bits stand for eight: the
//! number of minus signs is even.
//!
//! ```text
//! IQ2_XXS, 2.0625 bits per weight, sub-blocks of 32:
//! block: d (f16) | 8 times: 4 entries (1 byte each), u32 (bits 7 i .. 7 i + 6 signs of entry i,
//!        bits 28-31 s)
//!
//! IQ2_XS, 2.3125 bits per weight, sub-blocks of 16:
//! block: d (f16) | qs (32 x u16: bits 0-8 entry, bits 9-15 signs)
//!      | scales (8 bytes: s of sub-blocks 2 j (low nibble) and 2 j + 1)
//!
//! IQ2_S, 2.5625 bits per weight, sub-blocks of 16:
//! block: d (f16) | qs (32 bytes: low 8 bits of entry i)
//!      | signs (32 bytes: bit b of byte i is the sign of element 8 i + b)
//!      | qh (8 bytes: bits 2 i, 2 i + 1 of byte j are bits 8-9 of entry 4 j + i)
//!      | scales (8 bytes, as in IQ2_XS)
//! ```
//! Source: ggml-common.h, `block_iq2_xxs`, `block_iq2_xs`, `block_iq2_s`; gguf-py, `quants.py`.

use super::blocks::{GROUP, f16_at, scaled_codes, u16_at, u32_at, unpack_blocks};
use super::grids::{self, even_signs, levels8, with_sign};
use super::superblock::{LEN, SuperBlock, decode};
use super::{Codec, KernelForm};

/// Bytes per IQ2_XXS block.
pub const IQ2_XXS_BYTES: usize = 66;
/// Bytes per IQ2_XS block.
pub const IQ2_XS_BYTES: usize = 74;
/// Bytes per IQ2_S block.
pub const IQ2_S_BYTES: usize = 82;
/// What is subtracted from a code of [`decompose_iq2_xs`] and [`decompose_iq2_s`].
pub const OFFSET: u8 = 64;
/// Bits per code of [`decompose_iq2_xs`] and [`decompose_iq2_s`].
pub const BITS: u32 = 7;

/// The fourth is not used by any entry.
const LEVELS: [u8; 4] = [8, 25, 43, 0];

pub(super) const IQ2_XXS: Codec = Codec {
    dequantize: dequantize_xxs,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_xxs),
};
pub(super) const IQ2_XS: Codec =
    Codec { dequantize: dequantize_xs, quantize: None, search: None, grid: None, kernel: KernelForm::ViaI8 };
pub(super) const IQ2_S: Codec =
    Codec { dequantize: dequantize_s, quantize: None, search: None, grid: None, kernel: KernelForm::ViaI8 };

/// One entry with its signs, as signed codes.
fn entry(word: u16, signs: u8) -> [u8; 8] {
    let levels = levels8(word, &LEVELS);
    std::array::from_fn(|i| with_sign(levels[i], signs, i))
}

fn unpack_xxs_block(block: &[u8; IQ2_XXS_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let d = f16_at(block, 0);
    for (j, (codes, scale)) in codes.chunks_exact_mut(GROUP).zip(scales).enumerate() {
        let entries = &block[2 + 8 * j..][..4];
        let packed = u32_at(block, 6 + 8 * j);
        *scale = d * 0.125 * (2 * (packed >> 28) + 1) as f32;
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let word = grids::IQ2_XXS[usize::from(entries[i])];
            codes.copy_from_slice(&entry(word, even_signs(packed >> (7 * i))));
        }
    }
}

fn unpack_xxs(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_xxs_block);
}

fn dequantize_xxs(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_xxs_block);
}

/// Splits one IQ2_XS block into integers.
pub fn decompose_iq2_xs(block: &[u8], out: &mut SuperBlock) {
    for (i, codes) in out.codes.chunks_exact_mut(8).enumerate() {
        let q = u16_at(block, 2 + 2 * i);
        let word = grids::IQ2_XS[usize::from(q & 511)];
        codes.copy_from_slice(&entry(word, even_signs(u32::from(q >> 9))).map(with_offset));
    }
    put_scales(f16_at(block, 0), &block[66..], out);
}

/// Splits one IQ2_S block into integers.
pub fn decompose_iq2_s(block: &[u8], out: &mut SuperBlock) {
    for (i, codes) in out.codes.chunks_exact_mut(8).enumerate() {
        let high = block[66 + i / 4] >> (i % 4 * 2) & 3;
        let word = grids::IQ2_S[usize::from(block[2 + i]) | usize::from(high) << 8];
        codes.copy_from_slice(&entry(word, block[34 + i]).map(with_offset));
    }
    put_scales(f16_at(block, 0), &block[74..], out);
}

fn with_offset(code: u8) -> u8 {
    code.wrapping_add(OFFSET)
}

fn put_scales(d: f32, packed: &[u8], out: &mut SuperBlock) {
    for (j, scale) in out.scales.iter_mut().enumerate() {
        *scale = i16::from(packed[j / 2] >> (j % 2 * 4) & 15) * 2 + 1;
    }
    out.mins = [0; 16];
    out.d = d * 0.125;
    out.dmin = 0.0;
}

fn dequantize_xs(bytes: &[u8], out: &mut [f32]) {
    decode::<IQ2_XS_BYTES>(bytes, out, OFFSET, decompose_iq2_xs);
}

fn dequantize_s(bytes: &[u8], out: &mut [f32]) {
    decode::<IQ2_S_BYTES>(bytes, out, OFFSET, decompose_iq2_s);
}
