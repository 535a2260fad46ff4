//! Blocks of 256 with unsigned integer sub-scales and minima: Q2_K, Q4_K, Q5_K.

use super::affine::affine;
use super::{sum, whole};
use crate::quant::blocks::{inverse, nearest_f16};
use crate::quant::superblock::{LEN, SuperBlock};

/// What a type allows.
#[derive(Clone, Copy)]
pub struct MinForm<'a> {
    /// Largest code.
    pub max_code: f32,
    /// Largest sub-scale and minimum.
    pub max_scale: f32,
    /// Integers that the largest sub-scale becomes at first.
    pub tops: &'a [f32],
}

/// One sub-block under a scale and a minimum.
#[derive(Clone, Copy, Default)]
struct Sub {
    scale: f32,
    min: f32,
    q: f32,
    qq: f32,
    xq: f32,
    error: f32,
}

/// The block of least squared error that the search finds; sub-blocks of `W`.
pub fn super_min<const W: usize>(x: &[f32; LEN], w: &[f32; LEN], form: MinForm) -> SuperBlock {
    let (subs, weights) = (x.as_chunks::<W>().0, w.as_chunks::<W>().0);
    let (mut steps, mut floors) = ([0f32; 16], [0f32; 16]);
    for (j, (x, w)) in subs.iter().zip(weights).enumerate() {
        let fit = affine(x, w, form.max_code, true);
        (steps[j], floors[j]) = (fit.d, -fit.m);
    }
    let largest = |v: &[f32; 16]| v.iter().fold(0f32, |m, &v| m.max(v));
    let (top_step, top_floor) = (largest(&steps), largest(&floors));
    let mut best = (f32::INFINITY, 0.0, 0.0, [Sub::default(); 16]);
    for top in form.tops {
        let (mut d, mut dmin) = (nearest_f16(top_step / top), nearest_f16(top_floor / form.max_scale));
        for _ in 0..3 {
            let chosen = choose(subs, weights, (&steps, &floors), (d, dmin), form);
            let error = chosen[..subs.len()].iter().fold(0f32, |sum, sub| sum + sub.error);
            if error < best.0 {
                best = (error, d, dmin, chosen);
            }
            let (next_d, next_dmin) = refit(subs, weights, &chosen, (d, dmin));
            if (next_d, next_dmin) == (d, dmin) {
                break;
            }
            (d, dmin) = (next_d, next_dmin);
        }
    }
    finish::<W>(x, &best, form)
}

fn finish<const W: usize>(x: &[f32; LEN], best: &(f32, f32, f32, [Sub; 16]), form: MinForm) -> SuperBlock {
    let &(_, d, dmin, subs) = best;
    let mut out = SuperBlock { d, dmin, ..SuperBlock::default() };
    for j in 0..16 {
        let sub = subs[j * 16 / W];
        out.scales[j] = sub.scale as i16;
        out.mins[j] = sub.min as i16;
    }
    out.round_codes(x, 0, form.max_code as u8);
    out
}

/// The best integers near the wanted scales and minima.
fn choose<const W: usize>(
    subs: &[[f32; W]],
    weights: &[[f32; W]],
    wanted: (&[f32; 16], &[f32; 16]),
    (d, dmin): (f32, f32),
    form: MinForm,
) -> [Sub; 16] {
    let (inv_d, inv_dmin) = (inverse(d), inverse(dmin));
    let level = |v: f32| v.round().clamp(0.0, form.max_scale);
    let mut chosen = [Sub::default(); 16];
    for (j, (x, w)) in subs.iter().zip(weights).enumerate() {
        let sum_w = sum::<W>(|i| w[i]);
        let sum_x = sum::<W>(|i| w[i] * x[i]);
        let near = level(wanted.0[j] * inv_d);
        let first_min = level(wanted.1[j] * inv_dmin);
        let mut best = Sub { error: f32::INFINITY, ..Sub::default() };
        for step in [0.0, -1.0, 1.0] {
            let scale = near + step;
            if scale < 0.0 || scale > form.max_scale {
                continue;
            }
            let first = measure(x, w, (d, dmin), scale, first_min, form.max_code);
            // The minimum that suits the codes; with it the codes may change once more.
            let centred = if sum_w > 0.0 { (d * scale * first.q - sum_x) / sum_w } else { 0.0 };
            let min = level(centred * inv_dmin);
            for sub in [first]
                .into_iter()
                .chain((min != first_min).then(|| measure(x, w, (d, dmin), scale, min, form.max_code)))
            {
                if sub.error < best.error {
                    best = sub;
                }
            }
        }
        chosen[j] = best;
    }
    chosen
}

/// Error and moments of one sub-block.
#[inline(always)]
fn measure<const W: usize>(
    x: &[f32; W],
    w: &[f32; W],
    (d, dmin): (f32, f32),
    scale: f32,
    min: f32,
    max_code: f32,
) -> Sub {
    let (step, floor) = (d * scale, dmin * min);
    let inv = inverse(step);
    let mut q = [0f32; W];
    for (q, x) in q.iter_mut().zip(x) {
        *q = whole(((x + floor) * inv).clamp(0.0, max_code));
    }
    Sub {
        scale,
        min,
        q: sum::<W>(|i| w[i] * q[i]),
        qq: sum::<W>(|i| w[i] * q[i] * q[i]),
        xq: sum::<W>(|i| w[i] * x[i] * q[i]),
        error: sum::<W>(|i| {
            let off = x[i] - (step * q[i] - floor);
            w[i] * off * off
        }),
    }
}

/// The scales of scales and minima of least squared error for the codes at hand.
fn refit<const W: usize>(
    subs: &[[f32; W]],
    weights: &[[f32; W]],
    chosen: &[Sub; 16],
    (d, dmin): (f32, f32),
) -> (f32, f32) {
    let (mut aa, mut ab, mut bb, mut xa, mut xb) = (0f32, 0f32, 0f32, 0f32, 0f32);
    for ((x, w), sub) in subs.iter().zip(weights).zip(chosen) {
        aa += sub.scale * sub.scale * sub.qq;
        ab += sub.scale * sub.min * sub.q;
        bb += sub.min * sub.min * sum::<W>(|i| w[i]);
        xa += sub.scale * sub.xq;
        xb += sub.min * sum::<W>(|i| w[i] * x[i]);
    }
    let det = aa * bb - ab * ab;
    if det > 1e-6 * aa * bb && det.is_finite() {
        let (new_d, new_dmin) = ((xa * bb - xb * ab) / det, (xa * ab - xb * aa) / det);
        if new_d > 0.0 && new_dmin >= 0.0 {
            return (nearest_f16(new_d), nearest_f16(new_dmin));
        }
    }
    let alone = if aa > 0.0 { (xa + dmin * ab) / aa } else { d };
    (nearest_f16(if alone > 0.0 { alone } else { d }), dmin)
}
