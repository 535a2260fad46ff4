//! One scale: `x ~ d * level`.

use super::levels::Levels;
use super::sum;
use crate::quant::blocks::{extreme, inverse};

/// `(sum w x level, sum w level^2)` where the levels are those nearest to `x * inv`.
#[inline(always)]
pub fn moments<const N: usize>(x: &[f32; N], w: &[f32; N], inv: f32, levels: impl Levels) -> (f32, f32) {
    let mut near = [0f32; N];
    for (near, x) in near.iter_mut().zip(x) {
        *near = levels.nearest(x * inv);
    }
    (sum::<N>(|i| w[i] * x[i] * near[i]), sum::<N>(|i| w[i] * near[i] * near[i]))
}

/// The scale of least squared error that starting from `starts` finds: each start `t` is a scale that maps
/// the value of largest magnitude to level `t`. Returns the scale and what it takes off the error of zeros.
pub fn symmetric<const N: usize>(
    x: &[f32; N],
    w: &[f32; N],
    levels: impl Levels,
    starts: &[f32],
) -> (f32, f32) {
    let extreme = extreme(x);
    if extreme == 0.0 {
        return (0.0, 0.0);
    }
    let mut best = (0.0, 0.0);
    for t in starts {
        improve(&mut best, moments(x, w, t / extreme, levels));
    }
    // No weight on anything but zeros.
    if best.1 == 0.0 {
        return (extreme / starts[0], 0.0);
    }
    for _ in 0..6 {
        let found = moments(x, w, inverse(best.0), levels);
        if !improve(&mut best, found) {
            break;
        }
    }
    best
}

/// Takes the least-squares scale for these moments if it is better; whether it is.
#[inline(always)]
fn improve(best: &mut (f32, f32), (xq, qq): (f32, f32)) -> bool {
    // Compared as products: a quotient only for what is taken.
    let is_better = qq > 0.0 && xq * xq > best.1 * qq;
    if is_better {
        *best = (xq / qq, xq * xq / qq);
    }
    is_better
}

/// The weighted squared error under the scale `d`.
#[inline(always)]
pub fn error<const N: usize>(x: &[f32; N], w: &[f32; N], d: f32, levels: impl Levels) -> f32 {
    let inv = inverse(d);
    sum::<N>(|i| {
        let off = x[i] - d * levels.nearest(x[i] * inv);
        w[i] * off * off
    })
}

/// The one of `scales` with the least error.
pub fn best_of<const N: usize>(x: &[f32; N], w: &[f32; N], levels: impl Levels, scales: &[f32]) -> f32 {
    let mut best = (scales[0], error(x, w, scales[0], levels));
    for &d in &scales[1..] {
        let e = error(x, w, d, levels);
        if e < best.1 {
            best = (d, e);
        }
    }
    best.0
}

/// The levels nearest to `x / d`.
pub fn codes<const N: usize>(x: &[f32; N], d: f32, levels: impl Levels) -> [f32; N] {
    let inv = inverse(d);
    x.map(|v| levels.nearest(v * inv))
}
