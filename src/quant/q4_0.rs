//! Q4_0: 32 codes of 4 bits with one f16 scale; `w = d * (q - 8)`, 4.5 bits per weight.
//!
//! ```text
//! block: d (f16, 2 bytes) | qs (16 bytes: low nibble element i, high nibble element i + 16)
//! ```
//! Source: ggml-common.h, `block_q4_0`.

use super::blocks::{nearest_f16, put_f16};
use super::search::{self, Linear, codes, symmetric};
use super::{Codec, GridRule, KernelForm};
use half::f16;

/// Block geometry of Q4_0.
pub struct Q4_0;

impl Q4_0 {
    /// Elements per block.
    pub const BLOCK_LEN: usize = 32;
    /// Bytes per block.
    pub const BLOCK_BYTES: usize = 18;
}

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: Some(GRID),
    kernel: KernelForm::U4(unpack),
};

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(Q4_0::BLOCK_BYTES).zip(out.chunks_exact_mut(Q4_0::BLOCK_LEN)) {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (i, &q) in block[2..].iter().enumerate() {
            out[i] = d * (f32::from(q & 15) - 8.0);
            out[i + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    }
}

/// The value of largest magnitude maps to code 0, so that the side with the extreme gets
/// the extra level.
fn quantize(values: &[f32], out: &mut [u8]) {
    for (block, x) in out.chunks_exact_mut(Q4_0::BLOCK_BYTES).zip(values.chunks_exact(Q4_0::BLOCK_LEN)) {
        let extreme = x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
        let d = extreme / -8.0;
        let inv = if d != 0.0 { 1.0 / d } else { 0.0 };
        put_f16(block, 0, nearest_f16(d));
        let code = |v: f32| (v * inv + 8.5).clamp(0.0, 15.0) as u8;
        for i in 0..16 {
            block[2 + i] = code(x[i]) | code(x[i + 16]) << 4;
        }
    }
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]) {
    let blocks = blocks.chunks_exact(Q4_0::BLOCK_BYTES);
    for ((block, codes), scale) in blocks.zip(codes.chunks_exact_mut(Q4_0::BLOCK_LEN)).zip(scales) {
        *scale = f16::from_le_bytes([block[0], block[1]]);
        let (low, high) = codes.split_at_mut(Q4_0::BLOCK_LEN / 2);
        for ((low, high), &q) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = q & 15;
            *high = q >> 4;
        }
    }
}

/// Levels for the value of largest magnitude to begin with: either end of the codes, short of it and beyond.
const STARTS: [f32; 26] = [
    -8.0, -7.8, -7.6, -7.4, -7.2, -7.0, -6.8, -6.5, -6.2, -5.8, -8.3, -8.6, -9.0, 7.0, 6.8, 6.6, 6.4, 6.2,
    6.0, 5.7, 5.4, 7.2, 7.4, 7.7, 8.0, 8.4,
];

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    const LEVELS: Linear = Linear { lo: -8.0, hi: 7.0 };
    search::search_blocks(
        values,
        weights,
        out,
        (quantize, dequantize),
        |x, w, block: &mut [u8; Q4_0::BLOCK_BYTES]| {
            let d = nearest_f16(symmetric(x, w, LEVELS, &STARTS).0);
            put_f16(block, 0, d);
            let codes = codes::<{ Q4_0::BLOCK_LEN }>(x, d, LEVELS).map(|level| (level + 8.0) as u8);
            for i in 0..16 {
                block[2 + i] = codes[i] | codes[i + 16] << 4;
            }
        },
    );
}

const GRID: GridRule = GridRule {
    read: |block, grid| {
        grid.set_uniform(
            Q4_0::BLOCK_LEN,
            f16::from_le_bytes([block[0], block[1]]).to_f32(),
            0.0,
            (8.0, 15.0),
        );
    },
    write: |grid, block| {
        for i in 0..16 {
            block[2 + i] = grid.codes[i] | grid.codes[i + 16] << 4;
        }
    },
};
