//! A layer of a vision transformer, put together from whatever its file has of one.

use crate::error::{Code, Error, Result};
use crate::kernels::attention::KvCache;
use crate::kernels::vecmath;
use crate::layers::{
    Activation, Attention, Heads, LayerNorm, Linear, Mlp, Norm, QkNorm, Qkv, RelativeBias, Up,
};
use crate::layers::{I, Workspace};
use crate::models::Weights;

/// What all layers of a tower have in common.
#[derive(Clone, Copy)]
pub struct EncoderSpec {
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Heads.
    pub n_head: usize,
    /// Added to the variance in norms.
    pub eps: f32,
    /// Of the feed-forward layers.
    pub activation: Activation,
    /// Whether every token sees every other, not only those before it.
    pub bidirectional: bool,
    /// The rotation of queries and keys.
    pub rope: Option<usize>,
}

/// The halves of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// The first.
    Attention,
    /// The second.
    Mlp,
}

/// `x += s1 * A(norm1(x))`, then `x += s2 * F(norm2(x))`, where s1 and s2 scale each channel (LayerScale,
/// Touvron et al. 2021, "Going deeper with image transformers", section 2) or are absent.
pub struct EncoderBlock {
    norm1: Norm,
    attention: Attention,
    scale1: Option<Vec<f32>>,
    norm2: Norm,
    mlp: Mlp,
    scale2: Option<Vec<f32>>,
    /// Of how many first tokens products take twice the bits of their inputs.
    n_fine: usize,
}

impl EncoderBlock {
    /// Takes the tensors `stem.*`.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn build(weights: &mut Weights, stem: &str, spec: &EncoderSpec) -> Result<Self> {
        let EncoderSpec { n_embd, .. } = *spec;
        let name = |part: &str| format!("{stem}.{part}");
        Ok(EncoderBlock {
            norm1: norm(weights, &name("norm1"), n_embd, spec.eps)?,
            attention: attention(weights, &name("attn"), spec)?,
            scale1: weights.optional_values(&name("ls1.gamma"), n_embd)?,
            norm2: norm(weights, &name("norm2"), n_embd, spec.eps)?,
            mlp: mlp(weights, &name("mlp"), spec)?,
            scale2: weights.optional_values(&name("ls2.gamma"), n_embd)?,
            n_fine: 0,
        })
    }

    /// Has all products take twice the bits of their inputs in the first `n` tokens, unless the weights are coarse. All
    /// tokens for the first layer of a picture, where what is rounded costs DeiT-Tiny about as much as in all others together,
    /// and for these the tokens that are read off at last (`docs/quantization.md`).
    pub fn set_fine(&mut self, n: usize) {
        self.n_fine = if self.qkv().weight.packing().is_coarse() { 0 } else { n };
    }

    /// Whether products take twice the bits of the inputs of all tokens.
    pub fn is_fine(&self) -> bool {
        self.n_fine == usize::MAX
    }

    /// Has the attention add a bias to its scores.
    pub fn set_bias(&mut self, bias: RelativeBias) {
        self.attention.bias = Some(bias);
    }

    /// Whether queries, keys and values come from integer products.
    pub fn has_codes(&self) -> bool {
        self.qkv().weight.packing().is_integer()
    }

    /// The products of queries, keys and values, or that of queries.
    fn qkv(&self) -> &Linear {
        match &self.attention.qkv {
            Qkv::Fused(qkv) => qkv,
            Qkv::Separate(parts) => &parts[0],
        }
    }

    /// Updates the residual stream `w.x`.
    pub fn forward(&self, w: &mut Workspace, kv: &mut KvCache) {
        self.forward_half(Half::Attention, w, kv);
        self.forward_half(Half::Mlp, w, kv);
    }

    /// Updates the residual stream by one half.
    pub fn forward_half(&self, half: Half, w: &mut Workspace, kv: &mut KvCache) {
        w.act.set_twice(self.n_fine);
        self.read(half, w);
        match half {
            Half::Attention => self.attention.forward(w, kv),
            Half::Mlp => self.mlp.forward(w),
        }
        add_scaled(w, self.scale(half));
        w.act.set_twice(0);
    }

    /// Has `w.act` be what the first products of a half read.
    pub fn read(&self, half: Half, w: &mut Workspace) {
        w.input_norm(match half {
            Half::Attention => &self.norm1,
            Half::Mlp => &self.norm2,
        });
    }

    /// What the channels of a half's output are multiplied with.
    pub fn scale(&self, half: Half) -> Option<&[f32]> {
        match half {
            Half::Attention => self.scale1.as_deref(),
            Half::Mlp => self.scale2.as_deref(),
        }
    }

    /// The products of a half: those that read the normalised residual stream, and the one that adds to it.
    pub fn products_mut(&mut self, half: Half) -> (&mut [Linear], &mut Linear) {
        match half {
            Half::Attention => {
                let first = match &mut self.attention.qkv {
                    Qkv::Fused(qkv) => std::slice::from_mut(qkv),
                    Qkv::Separate(parts) => parts.as_mut_slice(),
                };
                (first, &mut self.attention.output)
            }
            Half::Mlp => {
                let first = match &mut self.mlp.up {
                    Up::Plain(up) | Up::Fused(up) => std::slice::from_mut(up),
                    Up::Gated(both) => both.as_mut_slice(),
                };
                (first, &mut self.mlp.down)
            }
        }
    }
}

fn add_scaled(w: &mut Workspace, scale: Option<&[f32]>) {
    if let Some(scale) = scale {
        w.out.chunks_exact_mut(scale.len()).for_each(|row| vecmath::mul::<I>(row, scale));
    }
    w.add_out();
}

/// Layer norm `stem`, with or without bias.
pub fn norm(weights: &mut Weights, stem: &str, n: usize, eps: f32) -> Result<Norm> {
    let weight = weights.values(&format!("{stem}.weight"), n)?;
    let bias = weights.optional_values(&format!("{stem}.bias"), n)?;
    Ok(Norm::Layer(LayerNorm { weight, bias: bias.unwrap_or_else(|| vec![0.0; n]), eps }))
}

/// The same, where the file has it.
pub fn optional_norm(weights: &mut Weights, stem: &str, n: usize, eps: f32) -> Result<Option<Norm>> {
    if weights.has(&format!("{stem}.weight")) { norm(weights, stem, n, eps).map(Some) } else { Ok(None) }
}

/// The attention `stem`, over all tokens.
pub fn attention(weights: &mut Weights, stem: &str, spec: &EncoderSpec) -> Result<Attention> {
    let EncoderSpec { n_embd, n_head, eps, bidirectional, rope, .. } = *spec;
    let name = |part: &str| format!("{stem}.{part}");
    let head_dim = n_embd / n_head;
    let qkv = if weights.has(&name("qkv.weight")) {
        let mut qkv = weights.linear(&name("qkv"), 3 * n_embd, n_embd)?;
        // BEiT and EVA keep the biases apart, and have none for the keys.
        let q = weights.optional_values(&name("q_bias"), n_embd)?;
        let k = weights.optional_values(&name("k_bias"), n_embd)?;
        let v = weights.optional_values(&name("v_bias"), n_embd)?;
        if qkv.bias.is_none() && (q.is_some() || v.is_some()) {
            let zeros = || vec![0.0; n_embd];
            let parts = [q, k, v].map(|bias| bias.unwrap_or_else(zeros));
            qkv.bias = Some(parts.concat());
        }
        Qkv::Fused(qkv)
    } else {
        let mut part = |p: &str| weights.linear(&name(p), n_embd, n_embd);
        Qkv::Separate(Box::new([part("q")?, part("k")?, part("v")?]))
    };
    let q_norm = optional_norm(weights, &name("q_norm"), head_dim, eps)?;
    let k_norm = optional_norm(weights, &name("k_norm"), head_dim, eps)?;
    let qk_norm = match (q_norm, k_norm) {
        (Some(q), Some(k)) => Some(QkNorm { q, k, after_rope: false }),
        (None, None) => None,
        _ => {
            let rule = "queries are normalised and keys are not, or the reverse";
            return Err(Error::new(Code::MissingTensor, rule).tensor(name("q_norm.weight")));
        }
    };
    let heads = Heads {
        n_head,
        n_head_kv: n_head,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        softcap: 0.0,
        window: 0,
        bidirectional,
    };
    Ok(Attention {
        heads,
        qkv,
        clamp: None,
        qk_norm,
        rope,
        bias: None,
        sub_norm: optional_norm(weights, &name("norm"), n_embd, eps)?,
        output: weights.linear(&name("proj"), n_embd, n_embd)?,
    })
}

/// The feed-forward layer `stem`: two products, or three with a gate (Shazeer 2020), of which the first two may
/// be in one matrix.
pub fn mlp(weights: &mut Weights, stem: &str, spec: &EncoderSpec) -> Result<Mlp> {
    let EncoderSpec { n_embd, eps, activation, .. } = *spec;
    let (mut fc1, mut fc2) = (format!("{stem}.fc1"), format!("{stem}.fc2"));
    let shape = |weights: &Weights, stem: &str| match weights.shape(&format!("{stem}.weight")) {
        Some([n, k]) => Some((*n, *k)),
        _ => None,
    };
    // Some GGUF files have the two the other way round.
    let is_down = |(n, k)| n == n_embd && k != n_embd;
    if shape(weights, &fc1).is_some_and(is_down) && shape(weights, &fc2).is_some() {
        std::mem::swap(&mut fc1, &mut fc2);
    }
    let n_ff = shape(weights, &fc2).map_or(4 * n_embd, |(_, k)| k);
    let gate = format!("{stem}.gate");
    let (up, activation) = if weights.has(&format!("{gate}.weight")) {
        let both = [weights.linear(&gate, n_ff, n_embd)?, weights.linear(&fc1, n_ff, n_embd)?];
        (Up::Gated(Box::new(both)), activation)
    } else if shape(weights, &fc1).is_some_and(|(n, _)| n == 2 * n_ff) {
        (Up::Fused(weights.linear(&fc1, 2 * n_ff, n_embd)?), activation)
    } else {
        (Up::Plain(weights.linear(&fc1, n_ff, n_embd)?), activation)
    };
    let activation = match &up {
        // SwiGLU in every published model with a gate, whatever their configs say of the activation.
        Up::Gated(_) | Up::Fused(_) => Activation::Silu,
        Up::Plain(_) => activation,
    };
    let sub_norm = optional_norm(weights, &format!("{stem}.norm"), n_ff, eps)?;
    Ok(Mlp { up, activation, sub_norm, down: weights.linear(&fc2, n_embd, n_ff)? })
}

/// `stem` as `[n, k]`, where the file has it; n from its shape.
pub fn optional_linear(weights: &mut Weights, stem: &str, k: usize) -> Result<Option<Linear>> {
    let name = format!("{stem}.weight");
    match weights.shape(&name) {
        None => Ok(None),
        Some([n, ..]) if *n > 0 => {
            let n = *n;
            weights.linear(stem, n, k).map(Some)
        }
        Some(_) => Err(Error::new(Code::ShapeMismatch, "no rows").tensor(name)),
    }
}

/// Layers of `stem.0`, `stem.1` and so on: as many as there are names for.
///
/// # Errors
/// `MissingTensor` where there is none, or far too many.
pub fn n_layer(weights: &Weights, stem: &str) -> Result<usize> {
    let last = weights
        .names()
        .filter_map(|name| name.strip_prefix(stem)?.strip_prefix('.')?.split('.').next()?.parse().ok())
        .max();
    match last.map_or(0, |i: usize| i.saturating_add(1)) {
        n @ 1..=1024 => Ok(n),
        _ => {
            let first = format!("{stem}.0.norm1.weight");
            Err(Error::new(Code::MissingTensor, "no transformer blocks").tensor(first))
        }
    }
}
