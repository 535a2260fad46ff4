//! Recurrences over a matrix state: selective state spaces and generalized delta rules.

/// Sums are formed in this many parts, so that they become vector operations.
const LANES: usize = 8;

/// Adds `f` over both slices in [`LANES`] parts.
#[inline(always)]
fn fold(a: &mut [f32], mut f: impl FnMut(usize, &mut f32) -> f32) -> f32 {
    let mut parts = [0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for (block, a) in a[..whole].chunks_exact_mut(LANES).enumerate() {
        for (i, a) in a.iter_mut().enumerate() {
            parts[i] += f(block * LANES + i, a);
        }
    }
    for (i, a) in a.iter_mut().enumerate().skip(whole) {
        parts[0] += f(i, a);
    }
    parts.iter().sum()
}

/// One step of one channel of a selective state space (Dao and Gu 2024, Mamba-2, eq. 1, discretized):
/// `h = decay * h + x * b`, and gives `c . h`. `h`, `b` and `c` are `[d_state]`.
pub fn selective_step(h: &mut [f32], decay: f32, x: f32, b: &[f32], c: &[f32]) -> f32 {
    let (b, c) = (&b[..h.len()], &c[..h.len()]);
    fold(h, |i, h| {
        *h = decay * *h + x * b[i];
        *h * c[i]
    })
}

/// The vectors of one head and one token that a WKV-7 step takes, `[head_size]` each.
pub struct Wkv<'a> {
    /// Receptance: how the state is read.
    pub r: &'a [f32],
    /// Decay in 0 ..= 1.
    pub w: &'a [f32],
    /// Key.
    pub k: &'a [f32],
    /// Value.
    pub v: &'a [f32],
    /// Where the state is removed: the negated, normalized removal key.
    pub a: &'a [f32],
    /// How much comes back there: the removal key times the in-context learning rate.
    pub b: &'a [f32],
}

/// One step of one head (Peng et al. 2025, RWKV-7, eq. 16): with the rows of S being values,
/// `S = S diag(w) + (S a) b^T + v k^T`, then `out = S r`. `state` is `[head_size, head_size]`.
pub fn wkv7_step(state: &mut [f32], step: &Wkv, out: &mut [f32]) {
    let n = out.len();
    let [r, w, k, a, b] = [step.r, step.w, step.k, step.a, step.b].map(|x| &x[..n]);
    for ((row, out), &v) in state.chunks_exact_mut(n).zip(out).zip(step.v) {
        let removed = fold(row, |i, s| *s * a[i]);
        *out = fold(row, |i, s| {
            *s = *s * w[i] + removed * b[i] + v * k[i];
            *s * r[i]
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Wkv, selective_step, wkv7_step};

    fn series(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 31) % 101) as f32 / 101.0 - 0.5).collect()
    }

    #[test]
    fn a_selective_step_is_its_formula() {
        let (h, b, c) = (series(19, 1), series(19, 2), series(19, 3));
        let mut next = h.clone();
        let y = selective_step(&mut next, 0.75, 2.0, &b, &c);
        let want: Vec<f32> = h.iter().zip(&b).map(|(h, b)| 0.75 * h + 2.0 * b).collect();
        assert_eq!(next, want);
        let sum: f64 = want.iter().zip(&c).map(|(h, c)| f64::from(*h) * f64::from(*c)).sum();
        assert!((f64::from(y) - sum).abs() < 1e-6, "{y} {sum}");
    }

    #[test]
    fn a_wkv_step_is_its_formula() {
        const N: usize = 11;
        let [r, w, k, v, a, b] = [1, 2, 3, 4, 5, 6].map(|seed| series(N, seed));
        let state = series(N * N, 7);
        let (mut next, mut out) = (state.clone(), [0f32; N]);
        wkv7_step(&mut next, &Wkv { r: &r, w: &w, k: &k, v: &v, a: &a, b: &b }, &mut out);
        for i in 0..N {
            let row = &state[i * N..][..N];
            let removed: f32 = row.iter().zip(&a).map(|(s, a)| s * a).sum();
            let want: Vec<f32> = (0..N).map(|j| row[j] * w[j] + removed * b[j] + v[i] * k[j]).collect();
            for (got, want) in next[i * N..][..N].iter().zip(&want) {
                assert!((got - want).abs() < 1e-6, "{got} {want}");
            }
            let read: f32 = want.iter().zip(&r).map(|(s, r)| s * r).sum();
            assert!((out[i] - read).abs() < 1e-6, "{} {read}", out[i]);
        }
    }
}
