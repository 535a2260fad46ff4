//! Attention in which every query meets every key, with a bias of each pair and the weights to be looked at:
//! for windows of a picture, relative positions and attention maps. Longer sequences without these go through
//! [`crate::kernels::attention`].

use super::{Heads, I};
use crate::kernels::vecmath;
use std::sync::Arc;

/// A bias of each pair of positions, by their relative place, and of each head (Liu et al. 2021, "Swin
/// Transformer", eq. 4; Bao et al. 2022, "BEiT").
#[derive(Clone)]
pub struct RelativeBias {
    /// `[n_head, n_relative]`.
    table: Vec<f32>,
    /// `[n_query, n_key]`: which of the relative places a pair is.
    index: Arc<[u32]>,
}

impl RelativeBias {
    /// A bias by a table as files hold it, `[n_relative, n_head]`; entries of `index` are below `n_relative`.
    ///
    /// # Panics
    /// Where `n_head` is 0 or an index is not below `n_relative`.
    pub fn new(table: &[f32], n_head: usize, index: Arc<[u32]>) -> Self {
        let n_relative = table.len() / n_head;
        assert!(index.iter().all(|&i| (i as usize) < n_relative), "an index outside of the table");
        let by_head = |i: usize| table[i % n_relative * n_head + i / n_relative];
        RelativeBias { table: (0..n_relative * n_head).map(by_head).collect(), index }
    }

    /// Adds the bias of query `i` to its scores.
    fn add(&self, head: usize, n_head: usize, i: usize, scores: &mut [f32]) {
        let n_relative = self.table.len() / n_head;
        let table = &self.table[head * n_relative..][..n_relative];
        let index = &self.index[i * scores.len()..][..scores.len()];
        scores.iter_mut().zip(index).for_each(|(s, &at)| *s += table[at as usize]);
    }

    /// Pairs that it knows.
    pub fn n_pair(&self) -> usize {
        self.index.len()
    }
}

/// What is added to the scores of a sequence.
#[derive(Clone, Copy, Default)]
pub struct ScoreBias<'a> {
    /// By relative place.
    pub relative: Option<&'a RelativeBias>,
    /// `[n_query, n_key]`, for all heads.
    pub mask: Option<&'a [f32]>,
}

/// `out = softmax(q . k * scale + bias) . v` of one sequence: `q` and `out` are `[n_query, n_head, head_dim]`, `k`
/// and `v` `[n_key, n_head, head_dim]`. Where the heads are not bidirectional, query i sees keys `0 ..= i`. The
/// weights, `[n_head, n_query, n_key]`, are appended to `map`.
pub fn dense_attention(
    [q, k, v]: [&[f32]; 3],
    heads: &Heads,
    bias: ScoreBias,
    mut map: Option<&mut Vec<f32>>,
    out: &mut [f32],
) {
    let Heads { n_head, head_dim: d, scale, bidirectional, .. } = *heads;
    let width = n_head * d;
    let n_key = k.len() / width;
    let mut keys = vec![0f32; d * n_key];
    let mut scores = vec![0f32; n_key];
    for head in 0..n_head {
        for (j, k) in k.chunks_exact(width).enumerate() {
            for (i, &x) in k[head * d..][..d].iter().enumerate() {
                keys[i * n_key + j] = x * scale;
            }
        }
        for (i, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            scores.fill(0.0);
            for (&x, keys) in q[head * d..][..d].iter().zip(keys.chunks_exact(n_key)) {
                add_scaled(&mut scores, x, keys);
            }
            if let Some(relative) = bias.relative {
                relative.add(head, n_head, i, &mut scores);
            }
            if let Some(mask) = bias.mask {
                vecmath::add::<I>(&mut scores, &mask[i * n_key..][..n_key]);
            }
            let seen = if bidirectional { n_key } else { n_key.min(i + 1) };
            vecmath::softmax::<I>(&mut scores[..seen]);
            scores[seen..].fill(0.0);
            let out = &mut out[head * d..][..d];
            out.fill(0.0);
            for (&weight, v) in scores[..seen].iter().zip(v.chunks_exact(width)) {
                add_scaled(out, weight, &v[head * d..][..d]);
            }
            if let Some(map) = map.as_deref_mut() {
                map.extend_from_slice(&scores);
            }
        }
    }
}

/// `y += a * x`.
fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_decides_and_the_map_tells() {
        let heads = Heads {
            n_head: 2,
            n_head_kv: 2,
            head_dim: 1,
            scale: 1.0,
            softcap: 0.0,
            window: 0,
            bidirectional: true,
        };
        let (zeros, v) = ([0f32; 4], [1.0, 10.0, 3.0, 30.0]);
        // Head 0 looks at the other position only, head 1 at both alike.
        let relative = RelativeBias::new(&[-80.0, 0.0, 0.0, 0.0], 2, [0, 1, 1, 0].into());
        let (mut map, mut out) = (Vec::new(), [0f32; 4]);
        let bias = ScoreBias { relative: Some(&relative), mask: None };
        dense_attention([&zeros, &zeros, &v], &heads, bias, Some(&mut map), &mut out);
        assert_eq!(out, [3.0, 20.0, 1.0, 20.0]);
        assert_eq!(map[4..], [0.5; 4]);
        let causal = Heads { bidirectional: false, ..heads };
        dense_attention([&zeros, &zeros, &v], &causal, ScoreBias::default(), None, &mut out);
        assert_eq!(out, [1.0, 10.0, 2.0, 20.0]);
    }
}
