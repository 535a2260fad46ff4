//! Multi-head attention with grouped keys (Vaswani et al. 2017; Ainslie et al. 2023).

use super::dense::{RelativeBias, ScoreBias, dense_attention};
use super::{Linear, Norm, Rope, Workspace};
use crate::kernels::attention::{KvCache, Mask, Query, attention};
use std::ops::Range;

/// The products that make queries, keys and values.
pub enum Qkv {
    /// One matrix whose outputs are all queries, then all keys, then all values.
    Fused(Linear),
    /// A matrix each: `[n_head * head_dim, n_embd]`, and twice `[n_head_kv * head_dim, n_embd]`.
    Separate(Box<[Linear; 3]>),
}

/// Norms of queries and keys: per head, or over all heads, as their weights are long.
pub struct QkNorm {
    /// Of the queries.
    pub q: Norm,
    /// Of the keys.
    pub k: Norm,
    /// Whether they follow the rotation rather than precede it.
    pub after_rope: bool,
}

/// How the heads attend.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Scores s become `softcap * tanh(s / softcap)`; 0 for none.
    pub softcap: f32,
    /// Positions seen at most; 0 for no limit.
    pub window: usize,
    /// Every token sees every other, not just those before it.
    pub bidirectional: bool,
}

/// An attention layer.
pub struct Attention {
    /// How the heads attend.
    pub heads: Heads,
    /// Makes queries, keys and values.
    pub qkv: Qkv,
    /// Limit of the magnitude of queries, keys and values.
    pub clamp: Option<f32>,
    /// Norms of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Which of the workspace's rotations; `None` for none.
    pub rope: Option<usize>,
    /// Added to the scores by relative place; only where the whole sequence comes at once.
    pub bias: Option<RelativeBias>,
    /// Norm of the attended values, before the output product.
    pub sub_norm: Option<Norm>,
    /// `[n_embd, n_head * head_dim]`.
    pub output: Linear,
}

impl Attention {
    /// `w.out = W_o attention(rope(W_q h), rope(W_k h), W_v h)`, where `h` is `w.act`. Keys and
    /// values of the batch are added to `kv`. Only the first tokens go on where [`Workspace::first_only`] says so, and
    /// scores get no bias.
    pub fn forward(&self, w: &mut Workspace, kv: &mut KvCache) {
        let Heads { n_head, n_head_kv, head_dim, .. } = self.heads;
        let (n_q, n_kv) = (n_head * head_dim, n_head_kv * head_dim);
        self.project(w, n_q, n_kv);
        if let Some(limit) = self.clamp {
            for x in [&mut w.q, &mut w.k, &mut w.v] {
                x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
            }
        }
        self.position(w);
        let act = if self.bias.is_some() || w.map.is_some() {
            let act = w.act.fill(w.m, n_q, w.mode.is_integer());
            let bias = ScoreBias { relative: self.bias.as_ref(), mask: None };
            dense_attention([&w.q, &w.k, &w.v], &self.heads, bias, w.map.as_mut(), act);
            act
        } else {
            let n = n_q + 2 * n_kv;
            match self.is_plain(w) {
                true => kv.store(w.first_pos, &w.qkv[n_q..], &w.qkv[n_q + n_kv..], n),
                false => kv.store(w.first_pos, &w.k, &w.v, n_kv),
            }
            let query = self.query(w.first_pos, w.m);
            w.narrow();
            let act = w.act.fill(w.m, n_q, w.mode.is_integer());
            attention(&w.q, &query, kv, act);
            act
        };
        if let Some(norm) = &self.sub_norm {
            norm.in_place(act, &mut w.scratch);
        }
        w.out.resize(w.m * self.output.n(), 0.0);
        self.output.forward(&mut w.act, &mut w.out);
    }

    /// Whether rotated keys can be rotated further: not where a norm has weighed their pairs since.
    pub fn can_shift(&self) -> bool {
        self.rope.is_none() || self.qk_norm.as_ref().is_none_or(|norm| !norm.after_rope)
    }

    /// Moves the tokens at `positions` up by `n`; the rotations are prepared to turn back by as many.
    pub fn shift(&self, ropes: &[Rope], kv: &mut KvCache, positions: Range<usize>, n: usize) {
        let Heads { n_head_kv, head_dim, .. } = self.heads;
        let (mut k, mut v) = (vec![0.0; kv.n_embd()], vec![0.0; kv.n_embd()]);
        for pos in positions {
            kv.load(pos, &mut k, &mut v);
            if let Some(rope) = self.rope {
                ropes[rope].rotate(&mut k, n_head_kv, head_dim);
            }
            kv.store(pos - n, &k, &v, k.len());
        }
    }

    /// Whether keys and values go into the cache as one product with the queries gives them.
    fn is_plain(&self, w: &Workspace) -> bool {
        let is_changed = self.clamp.is_some() || self.qk_norm.is_some() || self.rope.is_some();
        matches!(self.qkv, Qkv::Fused(_)) && !is_changed && self.bias.is_none() && w.map.is_none()
    }

    /// Fills `w.q`, and `w.k` and `w.v` unless [`Self::is_plain`].
    fn project(&self, w: &mut Workspace, n_q: usize, n_kv: usize) {
        w.q.resize(w.m * n_q, 0.0);
        let is_plain = self.is_plain(w);
        if !is_plain {
            w.k.resize(w.m * n_kv, 0.0);
            w.v.resize(w.m * n_kv, 0.0);
        }
        match &self.qkv {
            Qkv::Separate(qkv) => {
                let [q, k, v] = &**qkv;
                Linear::forward_all([q, k, v], &mut w.act, [&mut w.q, &mut w.k, &mut w.v]);
            }
            Qkv::Fused(qkv) => {
                w.qkv.resize(w.m * qkv.n(), 0.0);
                qkv.forward(&mut w.act, &mut w.qkv);
                if is_plain {
                    let rows = w.qkv.chunks_exact(qkv.n());
                    return w
                        .q
                        .chunks_exact_mut(n_q)
                        .zip(rows)
                        .for_each(|(q, row)| q.copy_from_slice(&row[..n_q]));
                }
                for (i, row) in w.qkv.chunks_exact(qkv.n()).enumerate() {
                    w.q[i * n_q..][..n_q].copy_from_slice(&row[..n_q]);
                    w.k[i * n_kv..][..n_kv].copy_from_slice(&row[n_q..][..n_kv]);
                    w.v[i * n_kv..][..n_kv].copy_from_slice(&row[n_q + n_kv..][..n_kv]);
                }
            }
        }
    }

    /// Norms and rotates queries and keys.
    fn position(&self, w: &mut Workspace) {
        let Heads { n_head, n_head_kv, head_dim, .. } = self.heads;
        let norm = self.qk_norm.as_ref();
        let before = norm.filter(|n| !n.after_rope);
        let after = norm.filter(|n| n.after_rope);
        for (x, n, pick) in
            [(&mut w.q, n_head, (|n| &n.q) as fn(&QkNorm) -> &Norm), (&mut w.k, n_head_kv, |n| &n.k)]
        {
            if let Some(norm) = before {
                pick(norm).in_place(x, &mut w.scratch);
            }
            if let Some(rope) = self.rope {
                w.ropes[rope].rotate(x, n, head_dim);
            }
            if let Some(norm) = after {
                pick(norm).in_place(x, &mut w.scratch);
            }
        }
    }

    fn query(&self, first_pos: usize, m: usize) -> Query {
        let Heads { n_head, scale, softcap, window, bidirectional, .. } = self.heads;
        let mask = match bidirectional {
            true => Mask::Full { n: first_pos + m },
            false => Mask::Causal { first_pos },
        };
        Query { n_head, scale, softcap, mask, window }
    }
}
