//! Rows of a tensor as they arrive: decoded, changed, encoded, and what that cost.

use super::{Target, Transform};
use crate::error::{Code, Error, Result};
use crate::kernels::parallel;
use crate::quant::{Codec, Format};

/// Work of encoding a weight, in the bytes that a product reads in the same time.
const ENCODE_WORK: usize = 1000;

/// Bytes of f32 that are decoded at a time, about.
pub const BATCH: usize = 1 << 20;

/// Decodes `bytes`, whole blocks, and refuses or clears NaN and infinities.
///
/// # Errors
/// [`Code::NonFiniteWeight`] unless `clear`; the place is counted from `first`.
pub fn decode(
    codec: &Codec,
    format: &Format,
    bytes: &[u8],
    first: u64,
    clear: bool,
) -> Result<(Vec<f32>, u64)> {
    let mut values = vec![0f32; bytes.len() / format.block_bytes * format.block_len];
    (codec.dequantize)(bytes, &mut values);
    let mut cleared = 0;
    for (i, v) in values.iter_mut().enumerate().filter(|(_, v)| !v.is_finite()) {
        if !clear {
            let what = format!("weight {v} (element {}) cannot be quantized", first + i as u64);
            return Err(Error::new(Code::NonFiniteWeight, what));
        }
        *v = 0.0;
        cleared += 1;
    }
    Ok((values, cleared))
}

impl Target {
    /// The values of the whole tensor after its transform; `[rows, columns]` is the shape before it.
    pub fn transformed(&self, values: Vec<f32>, (rows, columns): (usize, usize)) -> Vec<f32> {
        let moved = |from: &dyn Fn(usize) -> usize| {
            let mut out = Vec::with_capacity(values.len());
            (0..rows).for_each(|row| out.extend_from_slice(&values[from(row) * columns..][..columns]));
            out
        };
        match self.transform {
            Transform::None => values,
            Transform::AddOne => values.iter().map(|v| v + 1.0).collect(),
            Transform::Interleave { n_head } => {
                let d = rows / n_head;
                moved(&|row| row / d * d + row % 2 * (d / 2) + row % d / 2)
            }
            Transform::SplitHeads { n_head } => {
                let d = rows / n_head / 3;
                moved(&|row| (row % (n_head * d) / d * 3 + row / (n_head * d)) * d + row % d)
            }
            Transform::Transpose => {
                let mut out = Vec::with_capacity(values.len());
                (0..columns).for_each(|c| out.extend((0..rows).map(|r| values[r * columns + c])));
                out
            }
        }
    }
}

/// Encodes rows of `k` values, shared among threads; `weights` are those of one row.
pub fn encode(
    values: &[f32],
    weights: &[f32],
    k: usize,
    format: &Format,
    codec: &Codec,
    plain: bool,
) -> Vec<u8> {
    let row_bytes = k / format.block_len * format.block_bytes;
    let mut blocks = vec![0u8; values.len() / k * row_bytes];
    parallel::chunks(&mut blocks, row_bytes, ENCODE_WORK, &|first, blocks| {
        let first_row = first / row_bytes;
        for (i, row) in blocks.chunks_exact_mut(row_bytes).enumerate() {
            let x = &values[(first_row + i) * k..][..k];
            match codec.quantize {
                Some(quantize) if plain => quantize(x, row),
                _ => {
                    codec.encode(x, weights, row);
                }
            }
        }
    });
    blocks
}

/// What rounding took from values.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loss {
    /// Sum of squares of the values, each counted as often as its column's weight says.
    pub power: f64,
    /// Sum of squares of the differences, counted likewise.
    pub error: f64,
    /// Largest difference.
    pub max: f32,
}

impl Loss {
    /// Adds what the blocks lost of `values`.
    pub fn add(&mut self, values: &[f32], weights: &[f32], blocks: &[u8], codec: &Codec) {
        let k = weights.len();
        let row_bytes = blocks.len() / (values.len() / k).max(1);
        let mut rows = vec![(0f64, 0f64, 0f32); values.len() / k];
        parallel::chunks(&mut rows, 1, k * 20, &|first, rows| {
            let mut back = vec![0f32; k];
            for (i, row) in rows.iter_mut().enumerate() {
                (codec.dequantize)(&blocks[(first + i) * row_bytes..][..row_bytes], &mut back);
                for ((x, b), w) in values[(first + i) * k..][..k].iter().zip(&back).zip(weights) {
                    let off = x - b;
                    row.0 += f64::from(*w) * f64::from(*x) * f64::from(*x);
                    row.1 += f64::from(*w) * f64::from(off) * f64::from(off);
                    row.2 = row.2.max(off.abs());
                }
            }
        });
        for (power, error, max) in rows {
            self.power += power;
            self.error += error;
            self.max = self.max.max(max);
        }
    }

    /// The share of the power that is lost.
    pub fn relative(&self) -> f64 {
        if self.power > 0.0 { self.error / self.power } else { 0.0 }
    }

    /// Signal to noise ratio in dB; `None` where nothing is lost.
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.error > 0.0 && self.power > 0.0).then(|| 10.0 * libm::log10(self.power / self.error))
    }
}
