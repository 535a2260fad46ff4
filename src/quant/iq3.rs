//! IQ3_XXS and IQ3_S: codebook entries of eight magnitudes, with signs, sub-blocks of 32.
//!
//! Every four elements are one codebook entry g (256 in IQ3_XXS, 512 in IQ3_S) with a sign
//! each; `w = d * (2 s + 1) / 4 * g` in IQ3_XXS, `w = d * (2 s + 1) * g` in IQ3_S. Seven stored
//! sign bits stand for eight: the number of minus signs is even.
//!
//! ```text
//! IQ3_XXS, 3.0625 bits per weight:
//! block: d (f16) | qs (64 bytes: entry i)
//!      | 8 x u32 (bits 7 i .. 7 i + 6 signs of elements 32 j + 8 i .., bits 28-31 s)
//!
//! IQ3_S, 3.4375 bits per weight:
//! block: d (f16) | qs (64 bytes: low 8 bits of entry i)
//!      | qh (8 bytes: bit i of byte j is bit 8 of entry 8 j + i)
//!      | signs (32 bytes: bit b of byte i is the sign of element 8 i + b)
//!      | scales (4 bytes: s of sub-blocks 2 j (low nibble) and 2 j + 1)
//! ```
//! Source: ggml-common.h, `block_iq3_xxs`, `block_iq3_s`; gguf-py, `quants.py`.

use super::blocks::{GROUP, f16_at, scaled_codes, u32_at, unpack_blocks};
use super::grids::{self, even_signs, levels4, with_sign};
use super::superblock::LEN;
use super::{Codec, KernelForm};

/// Bytes per IQ3_XXS block.
pub const IQ3_XXS_BYTES: usize = 98;
/// Bytes per IQ3_S block.
pub const IQ3_S_BYTES: usize = 110;

const XXS_LEVELS: [u8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const S_LEVELS: [u8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];

pub(super) const IQ3_XXS: Codec = Codec {
    dequantize: dequantize_xxs,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_xxs),
};
pub(super) const IQ3_S: Codec = Codec {
    dequantize: dequantize_s,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_s),
};

/// Two entries with their signs, as signed codes.
fn entries(words: [u16; 2], levels: &[u8; 8], signs: u8) -> [u8; 8] {
    let words = words.map(|word| levels4(word, levels));
    std::array::from_fn(|i| with_sign(words[i / 4][i % 4], signs, i))
}

fn unpack_xxs_block(block: &[u8; IQ3_XXS_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let d = f16_at(block, 0);
    for (j, (codes, scale)) in codes.chunks_exact_mut(GROUP).zip(scales).enumerate() {
        let packed = u32_at(block, 66 + 4 * j);
        *scale = d * 0.25 * (2 * (packed >> 28) + 1) as f32;
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let at = 2 + 8 * j + 2 * i;
            let words = [block[at], block[at + 1]].map(|index| grids::IQ3_XXS[usize::from(index)]);
            codes.copy_from_slice(&entries(words, &XXS_LEVELS, even_signs(packed >> (7 * i))));
        }
    }
}

fn unpack_s_block(block: &[u8; IQ3_S_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let d = f16_at(block, 0);
    for (j, scale) in scales.iter_mut().enumerate() {
        let s = block[106 + j / 2] >> (j % 2 * 4) & 15;
        *scale = d * f32::from(2 * s + 1);
    }
    let word = |i: usize| {
        let high = usize::from(block[66 + i / 8] >> (i % 8) & 1);
        grids::IQ3_S[usize::from(block[2 + i]) | high << 8]
    };
    for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
        codes.copy_from_slice(&entries([word(2 * i), word(2 * i + 1)], &S_LEVELS, block[74 + i]));
    }
}

fn unpack_xxs(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_xxs_block);
}

fn unpack_s(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_s_block);
}

fn dequantize_xxs(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_xxs_block);
}

fn dequantize_s(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_s_block);
}
