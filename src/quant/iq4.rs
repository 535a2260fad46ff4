//! IQ4_NL and IQ4_XS: 4-bit codes that stand for sixteen levels, closer together near zero.
//!
//! ```text
//! IQ4_NL, 4.5 bits per weight, w = d * LEVELS[q]:
//! block of 32: d (f16) | qs (16 bytes: low nibble element i, high nibble element i + 16)
//!
//! IQ4_XS, 4.25 bits per weight, sub-blocks of 32, w = d * (s - 32) * LEVELS[q]:
//! block of 256: d (f16) | scales_h (u16: bits 2 j, 2 j + 1 are bits 4-5 of s of sub-block j)
//!      | scales_l (4 bytes: bits 0-3 of s of sub-blocks 2 j (low nibble) and 2 j + 1)
//!      | qs (128 bytes: 16 per sub-block, as in IQ4_NL)
//! ```
//! Source: ggml-common.h, `block_iq4_nl`, `block_iq4_xs`, `kvalues_iq4nl`; gguf-py, `quants.py`.

use super::blocks::{
    GROUP, encode_blocks, extreme, f16_at, inverse, nearest_f16, put_f16, scaled_codes, u16_at,
    unpack_blocks, unpack_halves,
};
use super::search::{self, Nonlinear, SignedForm, super_signed, symmetric};
use super::superblock::LEN;
use super::{Codec, Grid, GridRule, KernelForm};
use half::f16;

/// Bytes per IQ4_NL block.
pub const IQ4_NL_BYTES: usize = 18;
/// Bytes per IQ4_XS block.
pub const IQ4_XS_BYTES: usize = 136;
/// What each code stands for.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

pub(super) const IQ4_NL: Codec = Codec {
    dequantize: dequantize_nl,
    quantize: Some(quantize_nl),
    search: Some(search_nl),
    grid: Some(GRID_NL),
    kernel: KernelForm::I8Half(unpack_nl),
};
pub(super) const IQ4_XS: Codec = Codec {
    dequantize: dequantize_xs,
    quantize: Some(quantize_xs),
    search: Some(search_xs),
    grid: Some(GRID_XS),
    kernel: KernelForm::I8(unpack_xs),
};

/// 32 elements from 16 bytes.
fn split_levels(qs: &[u8], codes: &mut [u8]) {
    for (i, &q) in qs.iter().enumerate() {
        codes[i] = LEVELS[usize::from(q & 15)] as u8;
        codes[i + 16] = LEVELS[usize::from(q >> 4)] as u8;
    }
}

fn unpack_nl_block(block: &[u8; IQ4_NL_BYTES], codes: &mut [u8; GROUP], scales: &mut [f32]) {
    scales.fill(f16_at(block, 0));
    split_levels(&block[2..], codes);
}

fn unpack_xs_block(block: &[u8; IQ4_XS_BYTES], codes: &mut [u8; LEN], scales: &mut [f32]) {
    let (d, high) = (f16_at(block, 0), u16_at(block, 2));
    for (j, (codes, scale)) in codes.chunks_exact_mut(GROUP).zip(scales).enumerate() {
        let low = u16::from(block[4 + j / 2] >> (j % 2 * 4) & 15);
        let s = low | (high >> (2 * j) & 3) << 4;
        *scale = d * (f32::from(s) - 32.0);
        split_levels(&block[8 + 16 * j..][..16], codes);
    }
}

fn unpack_nl(blocks: &[u8], codes: &mut [u8], scales: &mut [f16]) {
    unpack_halves(blocks, codes, scales, unpack_nl_block);
}

fn unpack_xs(blocks: &[u8], codes: &mut [u8], scales: &mut [f32]) {
    unpack_blocks(blocks, codes, scales, unpack_xs_block);
}

fn dequantize_nl(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_nl_block);
}

fn dequantize_xs(bytes: &[u8], out: &mut [f32]) {
    scaled_codes(bytes, out, unpack_xs_block);
}

/// The value of largest magnitude maps to the outermost level, -127.
fn quantize_nl(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; GROUP], block: &mut [u8; IQ4_NL_BYTES]| {
        compose_nl(x, nearest_f16(extreme(x) / f32::from(LEVELS[0])), block);
    });
}

fn compose_nl(x: &[f32; GROUP], d: f32, block: &mut [u8; IQ4_NL_BYTES]) {
    put_f16(block, 0, d);
    join_levels(x, inverse(d), &mut block[2..]);
}

fn join_levels(x: &[f32], inv: f32, qs: &mut [u8]) {
    for (i, q) in qs.iter_mut().enumerate() {
        *q = nearest_level(x[i] * inv) | nearest_level(x[i + 16] * inv) << 4;
    }
}

/// Levels for the value of largest magnitude to begin with.
const STARTS: [f32; 18] = [
    -127.0, -122.0, -117.0, -112.0, -106.0, -100.0, -94.0, -132.0, -138.0, 113.0, 108.0, 103.0, 98.0, 93.0,
    87.0, 118.0, 123.0, 129.0,
];

fn search_nl(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize_nl, dequantize_nl), |x, w, block| {
        compose_nl(x, nearest_f16(symmetric(x, w, Nonlinear, &STARTS).0), block);
    });
}

/// The extreme of each sub-block at the outermost level, the largest sub-scale at -32.
fn quantize_xs(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; IQ4_XS_BYTES]| {
        let mut steps = [0f32; LEN / GROUP];
        for (step, x) in steps.iter_mut().zip(x.chunks_exact(GROUP)) {
            *step = extreme(x) / f32::from(LEVELS[0]);
        }
        let d = nearest_f16(extreme(&steps) / -32.0);
        let inv = inverse(d);
        compose_xs(x, d, &steps.map(|step| (step * inv).round().clamp(-32.0, 31.0) as i16), block);
    });
}

fn compose_xs(x: &[f32; LEN], d: f32, scales: &[i16], block: &mut [u8; IQ4_XS_BYTES]) {
    block[..8].fill(0);
    put_f16(block, 0, d);
    let mut high = 0u16;
    for (j, x) in x.chunks_exact(GROUP).enumerate() {
        let s = (scales[j] + 32) as u16;
        high |= (s >> 4) << (2 * j);
        block[4 + j / 2] |= (s as u8 & 15) << (j % 2 * 4);
        join_levels(x, inverse(d * f32::from(scales[j])), &mut block[8 + 16 * j..][..16]);
    }
    block[2..4].copy_from_slice(&high.to_le_bytes());
}

fn search_xs(values: &[f32], weights: &[f32], out: &mut [u8]) {
    const FORM: SignedForm<Nonlinear> =
        SignedForm { levels: Nonlinear, starts: &STARTS, tops: &[-32.0, 31.0, -29.0], range: (-32.0, 31.0) };
    search::search_blocks(values, weights, out, (quantize_xs, dequantize_xs), |x, w, block| {
        let found = super_signed::<GROUP, _>(x, w, FORM);
        compose_xs(x, found.d, &found.scales, block);
    });
}

/// The code of the level nearest to `v`.
fn nearest_level(v: f32) -> u8 {
    let middle = |pair: &[i8]| (f32::from(pair[0]) + f32::from(pair[1])) / 2.0;
    LEVELS.windows(2).filter(|pair| v > middle(pair)).count() as u8
}

const GRID_NL: GridRule = GridRule {
    read: |block, grid| {
        grid.set_uniform(GROUP, f16_at(block, 0), 0.0, (0.0, 15.0));
        grid.levels = Some(&LEVELS);
    },
    write: |grid, block| join_codes(&grid.codes, &mut block[2..]),
};

const GRID_XS: GridRule =
    GridRule { read: read_xs, write: |grid, block| join_codes(&grid.codes, &mut block[8..]) };

fn read_xs(block: &[u8], grid: &mut Grid) {
    let (mut codes, mut scales) = ([0u8; LEN], [0f32; LEN / GROUP]);
    if let Some(block) = block.as_array() {
        unpack_xs_block(block, &mut codes, &mut scales);
    }
    grid.set_uniform(LEN, 0.0, 0.0, (0.0, 15.0));
    for (steps, scale) in grid.step.chunks_exact_mut(GROUP).zip(scales) {
        steps.fill(scale);
    }
    grid.levels = Some(&LEVELS);
}

/// 16 bytes for each 32 codes.
fn join_codes(codes: &[u8], qs: &mut [u8]) {
    for (codes, qs) in codes.chunks_exact(GROUP).zip(qs.chunks_exact_mut(16)) {
        for (i, q) in qs.iter_mut().enumerate() {
            *q = codes[i] | codes[i + 16] << 4;
        }
    }
}
