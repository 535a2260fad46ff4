//! TQ1_0: 256 ternary digits, five to a byte, with one f16 scale; `w = d * (q - 1)`, 1.6875
//! bits per weight.
//!
//! A byte holds a number t in base 3 as the fraction `ceil(t * 256 / 243) / 256`, first element
//! in the highest digit: multiplied by 3^k modulo 256, the byte shows digit k in its top third.
//!
//! ```text
//! block: qs (48 bytes: byte l < 32 holds elements 32 k + l, k = 0..5;
//!            byte 32 + l holds elements 160 + 16 k + l)
//!      | qh (4 bytes: byte l holds elements 240 + 4 k + l, k = 0..4)
//!      | d (f16)
//! ```
//! Source: ggml-common.h, `block_tq1_0`; gguf-py, `quants.py`.

use super::blocks::{encode_blocks, f16_at, put_f16};
use super::superblock::{LEN, SuperBlock, decode};
use super::{Codec, KernelForm, SuperForm, search, ternary};

/// Bytes per block.
pub const BYTES: usize = 54;
/// What is subtracted from a code.
pub const OFFSET: u8 = 1;
/// Bits per code once taken out of base 3.
pub const BITS: u32 = 2;

/// Runs of bytes: first byte, number of bytes, digits per byte, first element.
const RUNS: [(usize, usize, usize, usize); 3] = [(0, 32, 5, 0), (32, 16, 5, 160), (48, 4, 4, 240)];
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

const FORM: SuperForm =
    SuperForm { bits: BITS, offset: OFFSET, sub_len: 256, has_min: false, block_bytes: BYTES, decompose };

pub(super) const CODEC: Codec = Codec {
    dequantize,
    quantize: Some(quantize),
    search: Some(search),
    grid: None,
    kernel: KernelForm::Super(FORM),
};

/// Splits one block into integers.
pub fn decompose(block: &[u8], out: &mut SuperBlock) {
    split_digits(block, &mut out.codes);
    ternary::one_scale(f16_at(block, 52), out);
}

fn split_digits(block: &[u8], codes: &mut [u8; LEN]) {
    for (from, width, digits, to) in RUNS {
        for (k, power) in POWERS[..digits].iter().enumerate() {
            for l in 0..width {
                let fraction = block[from + l].wrapping_mul(*power);
                codes[to + k * width + l] = ((u16::from(fraction) * 3) >> 8) as u8;
            }
        }
    }
}

fn join_digits(codes: &[u8; LEN], block: &mut [u8]) {
    for (from, width, digits, to) in RUNS {
        for l in 0..width {
            let digit = |k: usize| u32::from(codes[to + k * width + l]) * u32::from(POWERS[4 - k]);
            let number: u32 = (0..digits).map(digit).sum();
            block[from + l] = (number * 256).div_ceil(243) as u8;
        }
    }
}

fn dequantize(bytes: &[u8], out: &mut [f32]) {
    decode::<BYTES>(bytes, out, OFFSET, decompose);
}

fn quantize(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| {
        let (d, codes) = ternary::round(x);
        compose(d, &codes, block);
    });
}

fn compose(d: f32, codes: &[u8; LEN], block: &mut [u8; BYTES]) {
    join_digits(codes, block);
    put_f16(block, 52, d);
}

fn search(values: &[f32], weights: &[f32], out: &mut [u8]) {
    search::search_blocks(values, weights, out, (quantize, dequantize), |x, w, block| {
        let (d, codes) = search::ternary(x, w);
        compose(d, &codes, block);
    });
}
