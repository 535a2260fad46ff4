//! What choosing a token asks of a long row of logits, in one pass over it.

use super::isa::{Isa, Native};
use super::vecmath;

/// Logits whose highest is kept as one number.
pub const BLOCK: usize = 64;

/// The highest logit of each block of [`BLOCK`], so that later looks need not read the row again.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    blocks: Vec<f32>,
}

impl Survey {
    /// Surveys a row, reusing the memory of the last; gives whether every logit is below +infinity
    /// (which NaN is not).
    pub fn take(&mut self, logits: &[f32]) -> bool {
        self.blocks.clear();
        self.blocks.reserve(logits.len().div_ceil(BLOCK));
        let mut below = Native::splat32(-1);
        for block in logits.chunks(BLOCK) {
            let (highest, block_below) = block_max::<Native>(block);
            self.blocks.push(highest);
            below = Native::and(below, block_below);
        }
        Native::lanes(Native::from_bits(below)).iter().all(|lane| lane.to_bits() == u32::MAX)
    }

    /// The highest logit of each block, in order.
    pub fn blocks(&self) -> &[f32] {
        &self.blocks
    }

    /// Index and value of the highest logit, of equals the first; `None` for an empty row.
    pub fn highest(&self, logits: &[f32]) -> Option<(usize, f32)> {
        let mut best = 0;
        for (i, &block) in self.blocks.iter().enumerate() {
            if block > self.blocks[best] {
                best = i;
            }
        }
        let highest = *self.blocks.get(best)?;
        let at = logits[best * BLOCK..].iter().position(|&x| x == highest)?;
        Some((best * BLOCK + at, highest))
    }

    /// Calls `take(index, logit)` in order for every logit that is at least `threshold`.
    pub fn at_least(&self, logits: &[f32], threshold: f32, mut take: impl FnMut(usize, f32)) {
        for (i, (block, &highest)) in logits.chunks(BLOCK).zip(&self.blocks).enumerate() {
            if highest < threshold {
                continue;
            }
            for (j, &logit) in block.iter().enumerate() {
                if logit >= threshold {
                    take(i * BLOCK + j, logit);
                }
            }
        }
    }
}

/// The highest of up to [`BLOCK`] numbers, and all ones in the lanes where all were below +infinity.
#[inline(always)]
fn block_max<I: Isa>(block: &[f32]) -> (f32, I::V) {
    let infinity = I::fsplat(f32::INFINITY);
    let mut highest = I::fsplat(f32::NEG_INFINITY);
    let mut below = I::splat32(-1);
    let mut take = |x: I::F| {
        highest = I::fmax(highest, x);
        below = I::and(below, I::flt(x, infinity));
    };
    let chunks = block.chunks_exact(4);
    let tail = chunks.remainder();
    for c in chunks {
        // SAFETY: 4 floats.
        take(unsafe { I::fload(c.as_ptr()) });
    }
    if !tail.is_empty() {
        let mut lanes = [f32::NEG_INFINITY; 4];
        lanes[..tail.len()].copy_from_slice(tail);
        // SAFETY: 4 floats.
        take(unsafe { I::fload(lanes.as_ptr()) });
    }
    (I::fhmax(highest), below)
}

/// ln of the sum of e^x over a row, `highest` being its highest. Relative error of the sum below 1e-6.
pub fn log_sum_exp(logits: &[f32], highest: f32) -> f64 {
    let sum: f64 = logits.chunks(1024).map(|chunk| f64::from(sum_exp::<Native>(chunk, highest))).sum();
    f64::from(highest) + libm::log(sum)
}

#[inline(always)]
fn sum_exp<I: Isa>(chunk: &[f32], highest: f32) -> f32 {
    let (exp, top) = (vecmath::Exp::<I>::new(), I::fsplat(highest));
    let mut sum = I::fsplat(0.0);
    let quads = chunk.chunks_exact(4);
    let tail = quads.remainder();
    for c in quads {
        // SAFETY: 4 floats.
        sum = I::fadd(sum, exp.of(I::fsub(unsafe { I::fload(c.as_ptr()) }, top)));
    }
    if !tail.is_empty() {
        let mut lanes = [f32::NEG_INFINITY; 4];
        lanes[..tail.len()].copy_from_slice(tail);
        // SAFETY: 4 floats.
        sum = I::fadd(sum, exp.of(I::fsub(unsafe { I::fload(lanes.as_ptr()) }, top)));
    }
    I::fsum(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919) % 1009) as f32 / 50.0 - 10.0).collect()
    }

    #[test]
    fn a_survey_finds_what_a_scan_finds() {
        for n in [1, 3, 4, 63, 64, 65, 1000, 4099] {
            let logits = row(n);
            let mut survey = Survey::default();
            assert!(survey.take(&logits));
            let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let first = logits.iter().position(|&x| x == highest).unwrap();
            assert_eq!(survey.highest(&logits), Some((first, highest)), "{n}");
            for threshold in [-20.0, 0.0, 9.0, 20.0] {
                let mut got = Vec::new();
                survey.at_least(&logits, threshold, |i, x| got.push((i, x)));
                let want: Vec<_> = logits.iter().copied().enumerate().filter(|l| l.1 >= threshold).collect();
                assert_eq!(got, want, "{n} {threshold}");
            }
        }
    }

    #[test]
    fn what_is_no_number_is_noticed_wherever_it_stands() {
        let mut survey = Survey::default();
        for at in 0..131 {
            for (bad, fine) in
                [(f32::NAN, false), (-f32::NAN, false), (f32::INFINITY, false), (f32::NEG_INFINITY, true)]
            {
                let mut logits = row(131);
                logits[at] = bad;
                assert_eq!(survey.take(&logits), fine, "{bad} at {at}");
            }
        }
    }

    #[test]
    fn the_logarithm_of_the_sum_is_close() {
        for n in [1, 5, 1024, 5000] {
            let logits = row(n);
            let exact = logits.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            let highest = logits.iter().copied().fold(f32::MIN, f32::max);
            assert!((log_sum_exp(&logits, highest) - exact).abs() < 2e-6, "{n}");
        }
    }
}
