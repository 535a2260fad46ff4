//! Q2_0: 64 codes of 2 bits with one f16 scale; `w = d * (q - 1)`, 2.25 bits per weight.
//!
//! ```text
//! block: d (f16) | qs (16 bytes: element 4 i + b is bits 2 b and 2 b + 1 of byte i)
//! ```
//! Source: ggml-common.h, `block_q2_0`; ggml-quants.c, `dequantize_row_q2_0`.

use super::blocks::{f16_at, unpack_halves};
use super::{Codec, KernelForm};
use half::f16;

/// Elements per block.
pub const LEN: usize = 64;
/// Bytes per block.
pub const BYTES: usize = 18;
/// What is subtracted from a code.
pub const OFFSET: u8 = 1;

/// The kernels hold the codes in 4 bits.
pub(super) const CODEC: Codec =
    Codec { dequantize, quantize: None, search: None, grid: None, kernel: KernelForm::U4(unpack) };

/// Splits one block into its codes, `w[i] = d * (codes[i] - 1)`; returns d.
pub fn decompose(block: &[u8], codes: &mut [u8; LEN]) -> f32 {
    for (i, code) in codes.iter_mut().enumerate() {
        *code = block[2 + i / 4] >> (i % 4 * 2) & 3;
    }
    f16_at(block, 0)
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]) {
    unpack_halves(blocks, codes, scales, |block: &[u8; BYTES], codes: &mut [u8; LEN], scales| {
        scales.fill(decompose(block, codes));
        codes.iter_mut().for_each(|code| *code += 8 - OFFSET);
    });
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    let mut codes = [0; LEN];
    for (block, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(LEN)) {
        let d = decompose(block, &mut codes);
        out.iter_mut().zip(codes).for_each(|(o, code)| *o = d * (f32::from(code) - f32::from(OFFSET)));
    }
}
