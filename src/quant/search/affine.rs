//! A scale and a minimum: `x ~ d * q + m`, q from 0 to `max_code`.

use super::{sum, whole};
use crate::quant::blocks::{inverse, range};

/// Sums over one group that are the same for all codes.
struct Fixed {
    w: f32,
    x: f32,
    xx: f32,
}

/// A scale and a minimum with their error.
#[derive(Clone, Copy)]
pub struct Affine {
    pub d: f32,
    pub m: f32,
    pub error: f32,
}

/// Fits of least squared error. With `no_positive_min`, m is at most 0, as the K-quants need it.
pub fn affine<const N: usize>(x: &[f32; N], w: &[f32; N], max_code: f32, no_positive_min: bool) -> Affine {
    /// By how much the codes of the first guesses overshoot `max_code`.
    const STARTS: [f32; 9] = [-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9, 1.3, 1.8];
    let (mut lo, hi) = range(x);
    if no_positive_min {
        lo = lo.min(0.0);
    }
    let fixed =
        Fixed { w: sum::<N>(|i| w[i]), x: sum::<N>(|i| w[i] * x[i]), xx: sum::<N>(|i| w[i] * x[i] * x[i]) };
    if hi <= lo {
        // A constant: d = 0 where the minimum can hold it, else one level above it.
        let (d, m) = if lo <= 0.0 || !no_positive_min { (0.0, lo) } else { (lo / max_code, 0.0) };
        return Affine { d, m, error: 0.0 };
    }
    let width = hi - lo;
    let mut best = Affine { d: width / max_code, m: lo, error: f32::INFINITY };
    for t in STARTS {
        improve(&mut best, fit(x, w, (max_code + t) / width, lo, max_code, &fixed, no_positive_min));
    }
    for _ in 0..6 {
        let found = fit(x, w, inverse(best.d), best.m, max_code, &fixed, no_positive_min);
        if !improve(&mut best, found) {
            break;
        }
    }
    best
}

fn improve(best: &mut Affine, found: Option<Affine>) -> bool {
    match found.filter(|f| f.error < best.error) {
        Some(found) => {
            *best = found;
            true
        }
        None => false,
    }
}

/// The least-squares scale and minimum for the codes `(x - m) * inv`.
#[inline(always)]
fn fit<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    inv: f32,
    m: f32,
    max_code: f32,
    fixed: &Fixed,
    no_positive_min: bool,
) -> Option<Affine> {
    let mut q = [0f32; N];
    for (q, x) in q.iter_mut().zip(x) {
        *q = whole(((x - m) * inv).clamp(0.0, max_code));
    }
    let sq = sum::<N>(|i| w[i] * q[i]);
    let sqq = sum::<N>(|i| w[i] * q[i] * q[i]);
    let sxq = sum::<N>(|i| w[i] * x[i] * q[i]);
    let det = fixed.w * sqq - sq * sq;
    if det <= 0.0 {
        return None;
    }
    let mut d = (fixed.w * sxq - fixed.x * sq) / det;
    let mut m = (sqq * fixed.x - sq * sxq) / det;
    if no_positive_min && m > 0.0 {
        (d, m) = (sxq / sqq, 0.0);
    }
    let error = fixed.xx - d * sxq - m * fixed.x;
    (d > 0.0 && error.is_finite()).then_some(Affine { d, m, error: error.max(0.0) })
}
