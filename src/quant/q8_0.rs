//! Q8_0: 32 signed bytes with one f16 scale; `w = d * qs[i]`, 8.5 bits per weight.
//!
//! ```text
//! block: d (f16, 2 bytes) | qs (32 x i8)
//! ```
//! Source: ggml-common.h, `block_q8_0`.

use super::blocks::{nearest_f16, put_f16};
use super::search::{self, Linear, codes, symmetric};
use super::{Codec, GridRule, KernelForm};
use half::f16;

/// Block geometry of Q8_0.
pub struct Q8_0;

impl Q8_0 {
    /// Elements per block.
    pub const BLOCK_LEN: usize = 32;
    /// Bytes per block.
    pub const BLOCK_BYTES: usize = 34;
}

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: Some(GRID),
    kernel: KernelForm::I8Half(unpack),
};

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.chunks_exact(Q8_0::BLOCK_BYTES).zip(out.chunks_exact_mut(Q8_0::BLOCK_LEN)) {
        let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
        for (o, &q) in out.iter_mut().zip(&block[2..]) {
            *o = d * f32::from(q as i8);
        }
    }
}

fn quantize(values: &[f32], out: &mut [u8]) {
    for (block, x) in out.chunks_exact_mut(Q8_0::BLOCK_BYTES).zip(values.chunks_exact(Q8_0::BLOCK_LEN)) {
        let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let d = amax / 127.0;
        let inv = if d > 0.0 { 1.0 / d } else { 0.0 };
        put_f16(block, 0, nearest_f16(d));
        for (q, &v) in block[2..].iter_mut().zip(x) {
            *q = (v * inv).round().clamp(-127.0, 127.0) as i8 as u8;
        }
    }
}

fn unpack(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]) {
    let blocks = blocks.chunks_exact(Q8_0::BLOCK_BYTES);
    for ((block, codes), scale) in blocks.zip(codes.chunks_exact_mut(Q8_0::BLOCK_LEN)).zip(scales) {
        *scale = f16::from_le_bytes([block[0], block[1]]);
        codes.copy_from_slice(&block[2..]);
    }
}

/// Scales about the one that maps the largest magnitude to 127.
fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    const STARTS: [f32; 7] = [127.0, 126.75, 126.5, 126.25, 126.0, 127.25, 127.5];
    const LEVELS: Linear = Linear { lo: -127.0, hi: 127.0 };
    search::search_blocks(
        values,
        weights,
        out,
        (quantize, dequantize),
        |x, w, block: &mut [u8; Q8_0::BLOCK_BYTES]| {
            let d = nearest_f16(symmetric(x, w, LEVELS, &STARTS).0);
            put_f16(block, 0, d);
            for (q, level) in block[2..].iter_mut().zip(codes::<{ Q8_0::BLOCK_LEN }>(x, d, LEVELS)) {
                *q = level as i8 as u8;
            }
        },
    );
}

const GRID: GridRule = GridRule {
    read: |block, grid| {
        grid.set_uniform(
            Q8_0::BLOCK_LEN,
            f16::from_le_bytes([block[0], block[1]]).to_f32(),
            0.0,
            (127.0, 254.0),
        );
    },
    write: |grid, block| {
        for (q, code) in block[2..].iter_mut().zip(grid.codes) {
            *q = code.wrapping_sub(127);
        }
    },
};
