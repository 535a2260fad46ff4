//! IQ1_S and IQ1_M: ternary codebook entries, shifted by an eighth.
//!
//! Every eight elements are one of 2048 entries g of -1, 0, 1; `w = d * (2 s + 1) * (g +- 1/8)`.
//! In integers: `w = d / 8 * (2 s + 1) * (8 g +- 1)`, where nothing is rounded.
//!
//! ```text
//! IQ1_S, 1.5625 bits per weight, sub-blocks of 32:
//! block: d (f16) | qs (32 bytes: low 8 bits of entry i)
//!      | qh (8 x u16: bits 3 i .. 3 i + 2 are bits 8-10 of entry 4 j + i, bits 12-14 s,
//!        bit 15 the sign of the shift)
//!
//! IQ1_M, 1.75 bits per weight, sub-blocks of 16, one shift per entry:
//! block: qs (32 bytes: low 8 bits of entry i)
//!      | qh (16 bytes: low nibble entry 2 j, high nibble entry 2 j + 1; bits 0-2 of the nibble
//!        are bits 8-10 of the entry, bit 3 the sign of the shift)
//!      | scales (4 x u16: bits 3 i .. 3 i + 2 are s of sub-block 4 j + i; the four top nibbles,
//!        lowest first, are d as f16)
//! ```
//! Source: ggml-common.h, `block_iq1_s`, `block_iq1_m`; gguf-py, `quants.py`.

use super::blocks::{GROUP, f16_at, merge_scales, scaled_codes, u16_at, unpack_blocks};
use super::grids::{self, levels8};
use super::superblock::{LEN, SuperBlock, decode};
use super::{Codec, KernelForm};
use half::f16;

/// Bytes per IQ1_S block.
pub const IQ1_S_BYTES: usize = 50;
/// Bytes per IQ1_M block.
pub const IQ1_M_BYTES: usize = 56;
/// What is subtracted from a code of [`decompose_iq1_m`].
pub const OFFSET: u8 = 9;
/// Bits per code of [`decompose_iq1_m`].
pub const BITS: u32 = 5;

pub(super) const IQ1_S: Codec = Codec {
    dequantize: dequantize_s,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_s),
};
pub(super) const IQ1_M: Codec = Codec {
    dequantize: dequantize_m,
    quantize: None,
    search: None,
    grid: None,
    kernel: KernelForm::I8(unpack_m),
};

/// Eight times entry `index`, shifted, plus `offset`.
fn entry(index: u16, shift_down: bool, offset: i8) -> [u8; 8] {
    let shift = if shift_down { -1 } else { 1 } + offset;
    levels8(grids::IQ1[usize::from(index)], &[shift - 8, shift, shift + 8, shift]).map(|v| v as u8)
}

fn unpack_s_block(block: &[u8; IQ1_S_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let d = f16_at(block, 0);
    for (j, (codes, scale)) in codes.chunks_exact_mut(GROUP).zip(scales).enumerate() {
        let high = u16_at(block, 34 + 2 * j);
        *scale = d * 0.125 * f32::from(2 * (high >> 12 & 7) + 1);
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let index = u16::from(block[2 + 4 * j + i]) | (high >> (3 * i) & 7) << 8;
            codes.copy_from_slice(&entry(index, high >> 15 == 1, 0));
        }
    }
}

fn unpack_s(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_s_block);
}

fn dequantize_s(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_s_block);
}

/// Splits one IQ1_M block into integers.
pub fn decompose_iq1_m(block: &[u8], out: &mut SuperBlock) {
    let mut d = 0;
    for j in 0..4 {
        let packed = u16_at(block, 48 + 2 * j);
        d |= packed >> 12 << (4 * j);
        for i in 0..4 {
            out.scales[4 * j + i] = (2 * (packed >> (3 * i) & 7) + 1) as i16;
        }
    }
    for (i, codes) in out.codes.chunks_exact_mut(8).enumerate() {
        let high = block[32 + i / 2] >> (i % 2 * 4);
        let index = u16::from(block[i]) | u16::from(high & 7) << 8;
        codes.copy_from_slice(&entry(index, high & 8 != 0, OFFSET as i8));
    }
    out.mins = [0; 16];
    out.d = f16::from_bits(d).to_f32() * 0.125;
    out.dmin = 0.0;
}

/// Two sub-blocks share a scale in this form, which is exact for most pairs of scales.
fn unpack_m(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    let mut parts = SuperBlock::default();
    let blocks = blocks.chunks_exact(IQ1_M_BYTES);
    for ((block, codes), scales) in blocks.zip(codes.chunks_exact_mut(LEN)).zip(scales.chunks_exact_mut(8)) {
        decompose_iq1_m(block, &mut parts);
        for (i, (group, scale)) in codes.as_chunks_mut::<GROUP>().0.iter_mut().zip(scales).enumerate() {
            *group = std::array::from_fn(|k| parts.codes[i * GROUP + k].wrapping_sub(OFFSET));
            let own = [0, 1].map(|half| parts.d * f32::from(parts.scales[2 * i + half]));
            *scale = merge_scales(own, group);
        }
    }
}

fn dequantize_m(bytes: &[u8], out: &mut [f32]) {
    decode::<IQ1_M_BYTES>(bytes, out, OFFSET, decompose_iq1_m);
}
