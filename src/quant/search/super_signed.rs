//! Blocks of 256 with signed integer sub-scales: Q3_K, Q6_K, IQ4_XS.

use super::levels::Levels;
use super::scale::{moments, symmetric};
use crate::quant::blocks::{extreme, inverse, nearest_f16};
use crate::quant::superblock::{LEN, SuperBlock};

/// A block's scale and its sub-scales; of 16 as many as there are sub-blocks.
#[derive(Clone, Copy)]
pub struct Signed {
    pub d: f32,
    pub scales: [i16; 16],
}

impl Signed {
    /// The nearest codes under these scales.
    pub fn rounded(&self, x: &[f32; LEN], offset: u8) -> SuperBlock {
        let mut parts = SuperBlock { d: self.d, scales: self.scales, ..SuperBlock::default() };
        parts.round_codes(x, offset, 2 * offset - 1);
        parts
    }
}

/// How a type divides its block.
#[derive(Clone, Copy)]
pub struct SignedForm<'a, L> {
    pub levels: L,
    /// Levels that the extreme of a sub-block is mapped to at first.
    pub starts: &'a [f32],
    /// Integers that the largest sub-scale becomes at first.
    pub tops: &'a [f32],
    /// Least and largest sub-scale.
    pub range: (f32, f32),
}

/// The scales of least squared error that the search finds; sub-blocks of `W`.
pub fn super_signed<const W: usize, L: Levels>(
    x: &[f32; LEN],
    w: &[f32; LEN],
    form: SignedForm<L>,
) -> Signed {
    let (subs, weights) = (x.as_chunks::<W>().0, w.as_chunks::<W>().0);
    let mut steps = [0f32; 16];
    for (step, (x, w)) in steps.iter_mut().zip(subs.iter().zip(weights)) {
        *step = symmetric(x, w, form.levels, form.starts).0;
    }
    let largest = extreme(&steps);
    let mut best = (Signed { d: 0.0, scales: [0; 16] }, 0.0);
    for top in form.tops {
        let mut d = nearest_f16(largest / top);
        for _ in 0..3 {
            if d == 0.0 {
                break;
            }
            let (found, gain, better_d) = choose(subs, weights, &steps, d, form);
            if gain > best.1 {
                best = (found, gain);
            }
            let next = nearest_f16(better_d);
            if next == d {
                break;
            }
            d = next;
        }
    }
    best.0
}

/// The best sub-scales under `d`, what they take off the error of zeros, and the d of least squared error for
/// the codes that they give.
fn choose<const W: usize, L: Levels>(
    subs: &[[f32; W]],
    weights: &[[f32; W]],
    steps: &[f32; 16],
    d: f32,
    form: SignedForm<L>,
) -> (Signed, f32, f32) {
    let (lo, hi) = form.range;
    let mut out = Signed { d, scales: [0; 16] };
    let (mut gain, mut xa, mut aa) = (0f32, 0f32, 0f32);
    for (j, (x, w)) in subs.iter().zip(weights).enumerate() {
        let near = (steps[j] / d).round();
        let mut best = (0.0, 0.0, 0.0, 0.0);
        for s in [near - 1.0, near, near + 1.0] {
            let s = s.clamp(lo, hi);
            let c = d * s;
            let (xq, qq) = moments(x, w, inverse(c), form.levels);
            let gain = c * (2.0 * xq - c * qq);
            if gain > best.0 {
                best = (gain, s, xq, qq);
            }
        }
        let (sub_gain, s, xq, qq) = best;
        out.scales[j] = s as i16;
        gain += sub_gain;
        xa += s * xq;
        aa += s * s * qq;
    }
    (out, gain, if aa > 0.0 { xa / aa } else { d })
}
