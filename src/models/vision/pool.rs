//! How the vectors of a picture's tokens become one.

use super::block::{self, EncoderSpec};
use crate::error::Result;
use crate::kernels::vecmath;
use crate::layers::{Batch, Heads, I, Linear, Mlp, Mode, Norm, ScoreBias, Workspace, dense_attention};
use crate::models::Weights;

/// The ways.
pub enum Pool {
    /// The first token.
    Token,
    /// The mean of all patches.
    Mean,
    /// The first token, then the mean of all patches: `2 * n_embd`.
    TokenAndMean,
    /// A learned query that attends to all tokens.
    Attention(Box<AttentionPool>),
}

impl Pool {
    /// One vector of tokens `x`, `[n_prefix + n_patch, n_embd]`.
    pub fn apply(&self, x: &[f32], n_prefix: usize, n_embd: usize, mode: Mode) -> Vec<f32> {
        let patches = || mean(&x[n_prefix * n_embd..], n_embd);
        match self {
            Pool::Token => x[..n_embd].to_vec(),
            Pool::Mean => patches(),
            Pool::TokenAndMean => [&x[..n_embd], &patches()].concat(),
            Pool::Attention(pool) => pool.apply(x, mode),
        }
    }

    /// How many of the first tokens are all that it reads, where that is so.
    pub fn n_first(&self) -> Option<usize> {
        matches!(self, Pool::Token).then_some(1)
    }

    /// Length of the vector.
    pub fn n_out(&self, n_embd: usize) -> usize {
        if matches!(self, Pool::TokenAndMean) { 2 * n_embd } else { n_embd }
    }
}

/// The mean of rows of `n`.
pub fn mean(x: &[f32], n: usize) -> Vec<f32> {
    let mut sum = vec![0f32; n];
    x.chunks_exact(n).for_each(|row| vecmath::add::<I>(&mut sum, row));
    let n_row = (x.len() / n).max(1) as f32;
    sum.iter_mut().for_each(|v| *v /= n_row);
    sum
}

/// The products that make the query, the keys and the values.
enum Products {
    /// `[3 * n_embd, n_embd]`, in that order.
    Fused(Linear),
    /// `[n_embd, n_embd]` for the query, `[2 * n_embd, n_embd]` for keys and values.
    Split(Box<[Linear; 2]>),
}

/// `y = W_o attention(latent, x)`, then `y + F(norm(y))` (Zhai et al. 2022, "Scaling vision transformers", section
/// 3.3; Zhai et al. 2023, SigLIP).
pub struct AttentionPool {
    /// `[n_embd]`.
    latent: Vec<f32>,
    heads: Heads,
    products: Products,
    proj: Linear,
    norm: Norm,
    mlp: Mlp,
}

impl AttentionPool {
    /// Takes `attn_pool.*`, as Hugging Face or timm arrange it.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn build(weights: &mut Weights, spec: &EncoderSpec) -> Result<Self> {
        let EncoderSpec { n_embd, n_head, eps, .. } = *spec;
        let head_dim = n_embd / n_head;
        let products = if weights.has("attn_pool.in_proj.weight") {
            Products::Fused(weights.linear("attn_pool.in_proj", 3 * n_embd, n_embd)?)
        } else {
            let q = weights.linear("attn_pool.q", n_embd, n_embd)?;
            Products::Split(Box::new([q, weights.linear("attn_pool.kv", 2 * n_embd, n_embd)?]))
        };
        Ok(AttentionPool {
            latent: weights.values("attn_pool.latent", n_embd)?,
            heads: Heads {
                n_head,
                n_head_kv: n_head,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                softcap: 0.0,
                window: 0,
                bidirectional: true,
            },
            products,
            proj: weights.linear("attn_pool.proj", n_embd, n_embd)?,
            norm: block::norm(weights, "attn_pool.norm", n_embd, eps)?,
            mlp: block::mlp(weights, "attn_pool.mlp", spec)?,
        })
    }

    fn apply(&self, x: &[f32], mode: Mode) -> Vec<f32> {
        let n_embd = self.latent.len();
        let mut w = Workspace::default();
        let mut product = |linear: &Linear, x: &[f32]| {
            let m = x.len() / n_embd;
            w.act.fill(m, n_embd, mode.is_integer()).copy_from_slice(x);
            let mut out = vec![0f32; m * linear.n()];
            linear.forward(&mut w.act, &mut out);
            out
        };
        let (query, fused, skip) = match &self.products {
            Products::Fused(all) => (product(all, &self.latent), product(all, x), n_embd),
            Products::Split(parts) => (product(&parts[0], &self.latent), product(&parts[1], x), 0),
        };
        let part = |first: usize| -> Vec<f32> {
            let rows = fused.chunks_exact(skip + 2 * n_embd);
            rows.flat_map(|row| row[first..first + n_embd].iter().copied()).collect()
        };
        let (keys, values) = (part(skip), part(skip + n_embd));
        let mut y = vec![0f32; n_embd];
        let query = &query[..n_embd];
        dense_attention([query, &keys, &values], &self.heads, ScoreBias::default(), None, &mut y);
        let y = product(&self.proj, &y);
        w.begin(Batch { m: 1, first_pos: 0, n_ctx: 1, mode }, n_embd);
        w.x.copy_from_slice(&y);
        w.input_norm(&self.norm);
        self.mlp.forward(&mut w);
        w.add_out();
        w.x
    }
}
