//! How many threads are worth while here: tried with a product like those of decoding.

use super::act::Activations;
use super::{matmul, pool};
use crate::error::Result;
use crate::quant::DType;
use crate::repack::{PackedWeights, Packer};

/// More threads have to be faster than fewer by this factor.
const WORTH: f64 = 1.1;
/// Rounds of which the fastest counts; other work on the machine only ever slows one.
const ROUNDS: usize = 7;

/// Measures with `max` threads, half of them, a quarter and so on, and keeps the smallest number than
/// which no larger one is much faster. `now_ms` is a clock in milliseconds.
///
/// # Errors
/// `OutOfMemory`.
pub fn choose_threads(max: usize, now_ms: &dyn Fn() -> f64) -> Result<usize> {
    pool::calibrate(now_ms);
    let w = weights()?;
    let mut act = Activations::default();
    act.fill(1, w.k(), true).fill(1.0);
    let mut out = vec![0f32; w.n()];
    let mut chosen = (1, f64::INFINITY);
    let candidates = std::iter::successors(Some(max), |n| (*n > 1).then(|| n.div_ceil(2)));
    let mut candidates: Vec<usize> = candidates.collect();
    candidates.reverse();
    for n in candidates {
        let n = pool::set_threads(n);
        let ms = (0..ROUNDS).map(|_| round(&mut act, &w, &mut out, now_ms)).fold(f64::INFINITY, f64::min);
        if ms * WORTH < chosen.1 {
            chosen = (n, ms);
        }
    }
    Ok(pool::set_threads(chosen.0))
}

/// 288 KiB of 4-bit weights: some 20 microseconds for one thread.
fn weights() -> Result<PackedWeights> {
    const N: usize = 512;
    const K: usize = 1024;
    let mut block = [0x88; 18];
    block[..2].copy_from_slice(&half::f16::ONE.to_le_bytes());
    let mut packer = Packer::new(DType::Q4_0, DType::Q4_0, N, K)?;
    packer.push(&block.repeat(N * K / 32))?;
    packer.finish()
}

/// Milliseconds per product, over as many as take half a millisecond; bounded, for clocks that
/// stand still.
fn round(act: &mut Activations, w: &PackedWeights, out: &mut [f32], now_ms: &dyn Fn() -> f64) -> f64 {
    let start = now_ms();
    for n in 1..=1000 {
        matmul(act, w, out);
        let passed = now_ms() - start;
        if passed >= 0.5 {
            return passed / f64::from(n);
        }
    }
    f64::INFINITY
}
