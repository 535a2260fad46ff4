//! Mamba-2 (Dao and Gu 2024, arXiv 2405.21060): layers of gated state spaces and no attention. The
//! state has a fixed size, so a context costs the same however long it is.

use super::config::Reader;
use super::recurrent::{LayerMemory, RecurrentContext};
use super::{Context, ContextParams, LanguageModel, TextConfig, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::kernels::act::Activations;
use crate::kernels::{matmul, vecmath};
use crate::layers::{CausalConv, I, Linear, Mode, RmsNorm, selective_step};
use crate::repack::PackedWeights;

/// Dimensions of a layer's state space.
#[derive(Clone, Copy)]
struct Dims {
    /// Channels, `n_head` times `head_dim`.
    d_inner: usize,
    n_head: usize,
    head_dim: usize,
    /// State per channel.
    d_state: usize,
    /// Groups of heads that share B and C.
    n_group: usize,
    /// Channels that are convolved: x, B, C.
    conv_dim: usize,
    /// Width of the input projection: z, x, B, C, dt.
    d_in: usize,
}

struct Layer {
    attn_norm: RmsNorm,
    ssm_in: Linear,
    ssm_conv1d: CausalConv,
    /// Added to dt, `[n_head]`.
    ssm_dt: Vec<f32>,
    /// Negative, `[n_head]`.
    ssm_a: Vec<f32>,
    /// The part of x that passes by the state, `[n_head]`.
    ssm_d: Vec<f32>,
    /// `[n_group]` norms over the channels of a group.
    ssm_norm: Vec<RmsNorm>,
    ssm_out: Linear,
}

struct Mamba2 {
    config: TextConfig,
    dims: Dims,
    token_embd: PackedWeights,
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    output: Option<PackedWeights>,
    buffers: Buffers,
}

/// Kept between calls; sizes are `[n_tokens, width]`.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    act: Activations,
    zxbcdt: Vec<f32>,
    xbc: Vec<f32>,
    y: Vec<f32>,
    out: Vec<f32>,
    conv: Vec<f32>,
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let reader = Reader::new(metadata, arch);
    let n_embd = reader.dim("embedding_length")?;
    let n_layer = reader.n_layer()?;
    let dims = read_dims(&reader)?;
    let eps = reader.positive("attention.layer_norm_rms_epsilon", 1e-5)?;
    let n_tap = reader.dim("ssm.conv_kernel")?;
    let layers = (0..n_layer)
        .map(|i| Layer::build(weights, i, n_embd, n_tap, &dims, eps))
        .collect::<Result<Vec<_>>>()?;
    let n_vocab = weights.n_vocab();
    let config = TextConfig {
        n_embd,
        n_layer,
        n_head: dims.n_head,
        n_head_kv: 0,
        head_dim: dims.head_dim,
        n_ff: 0,
        n_vocab,
        n_ctx_train: usize::MAX,
    };
    Ok(Box::new(Mamba2 {
        config,
        dims,
        token_embd: weights.matrix("token_embd.weight", n_vocab, n_embd)?,
        layers,
        output_norm: RmsNorm { weight: weights.values("output_norm.weight", n_embd)?, eps },
        output: weights.optional_matrix("output.weight", n_vocab, n_embd)?,
        buffers: Buffers::default(),
    }))
}

fn read_dims(reader: &Reader) -> Result<Dims> {
    let d_inner = reader.dim("ssm.inner_size")?;
    let n_head = reader.dim("ssm.time_step_rank")?;
    let d_state = reader.dim("ssm.state_size")?;
    let n_group = reader.optional_dim("ssm.group_count")?.unwrap_or(1);
    if !d_inner.is_multiple_of(n_head) {
        return Err(reader.bad("ssm.time_step_rank", format!("{n_head} heads do not divide {d_inner}")));
    }
    if !n_head.is_multiple_of(n_group) || !d_inner.is_multiple_of(n_group) {
        return Err(reader.bad("ssm.group_count", format!("{n_group} does not divide {n_head} heads")));
    }
    // On 32-bit targets allowed dimensions may overflow.
    let overflow = || reader.bad("ssm.state_size", format!("{n_group} groups of {d_state}"));
    let bc = n_group.checked_mul(d_state).and_then(|x| x.checked_mul(2)).ok_or_else(overflow)?;
    let conv_dim = bc.checked_add(d_inner).ok_or_else(overflow)?;
    let d_in = conv_dim.checked_add(d_inner + n_head).ok_or_else(overflow)?;
    d_inner.checked_mul(d_state).ok_or_else(overflow)?;
    Ok(Dims { d_inner, n_head, head_dim: d_inner / n_head, d_state, n_group, conv_dim, d_in })
}

impl Layer {
    fn build(
        weights: &mut Weights,
        i: usize,
        n_embd: usize,
        n_tap: usize,
        dims: &Dims,
        eps: f32,
    ) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let Dims { d_inner, n_head, n_group, conv_dim, d_in, .. } = *dims;
        let taps = weights.table(&name("ssm_conv1d.weight"), conv_dim, n_tap)?;
        let bias = weights.values(&name("ssm_conv1d.bias"), conv_dim)?;
        let group = d_inner / n_group;
        let norms = weights.values(&name("ssm_norm.weight"), d_inner)?;
        Ok(Layer {
            attn_norm: RmsNorm { weight: weights.values(&name("attn_norm.weight"), n_embd)?, eps },
            ssm_in: weights.linear(&name("ssm_in"), d_in, n_embd)?,
            ssm_conv1d: CausalConv::new(&taps, Some(bias), conv_dim),
            ssm_dt: weights.values(&name("ssm_dt.bias"), n_head)?,
            ssm_a: weights.values(&name("ssm_a"), n_head)?,
            ssm_d: weights.values(&name("ssm_d"), n_head)?,
            ssm_norm: norms.chunks_exact(group).map(|w| RmsNorm { weight: w.to_vec(), eps }).collect(),
            ssm_out: weights.linear(&name("ssm_out"), n_embd, d_inner)?,
        })
    }

    /// Floats of the convolution's memory and of the state `[n_head, head_dim, d_state]`.
    fn memory(&self, dims: &Dims) -> (usize, usize) {
        (self.ssm_conv1d.state_len(), dims.d_inner * dims.d_state)
    }

    /// `x += W_out norm(y * silu(z))` with `z, xBC, dt = W_in norm(x)` and `y = SSM(silu(conv(xBC)), dt)`.
    fn forward(&self, dims: &Dims, state: &mut [f32], m: usize, mode: Mode, b: &mut Buffers) {
        let Dims { d_inner, n_group, conv_dim, d_in, .. } = *dims;
        let n_embd = self.attn_norm.weight.len();
        self.attn_norm.forward(&b.x, b.act.fill(m, n_embd, mode.is_integer()));
        b.zxbcdt.resize(m * d_in, 0.0);
        self.ssm_in.forward(&mut b.act, &mut b.zxbcdt);
        let (conv_state, ssm_state) = state.split_at_mut(self.memory(dims).0);
        b.xbc.resize(m * conv_dim, 0.0);
        for (xbc, all) in b.xbc.chunks_exact_mut(conv_dim).zip(b.zxbcdt.chunks_exact(d_in)) {
            xbc.copy_from_slice(&all[d_inner..][..conv_dim]);
        }
        self.ssm_conv1d.forward(&mut b.xbc, conv_state, &mut b.conv);
        vecmath::silu::<I>(&mut b.xbc);
        b.y.resize(m * d_inner, 0.0);
        let steps = b.xbc.chunks_exact(conv_dim).zip(b.zxbcdt.chunks_exact(d_in));
        for ((xbc, all), y) in steps.zip(b.y.chunks_exact_mut(d_inner)) {
            self.scan(dims, xbc, &all[d_inner + conv_dim..], ssm_state, y);
        }
        let inner = b.act.fill(m, d_inner, mode.is_integer());
        let rows = b.y.chunks_exact(d_inner).zip(b.zxbcdt.chunks_exact_mut(d_in));
        for ((y, all), inner) in rows.zip(inner.chunks_exact_mut(d_inner)) {
            let z = &mut all[..d_inner];
            vecmath::silu_mul::<I>(z, y);
            let group = d_inner / n_group;
            let groups = z.chunks_exact(group).zip(inner.chunks_exact_mut(group));
            self.ssm_norm.iter().zip(groups).for_each(|(norm, (z, inner))| norm.forward(z, inner));
        }
        b.out.resize(m * n_embd, 0.0);
        self.ssm_out.forward(&mut b.act, &mut b.out);
        vecmath::add::<I>(&mut b.x, &b.out);
    }

    /// One token: per head `h = exp(dt A) h + dt B x`, `y = C h + D x`, with `dt = softplus(dt + bias)`.
    fn scan(&self, dims: &Dims, xbc: &[f32], dt: &[f32], state: &mut [f32], y: &mut [f32]) {
        let Dims { d_inner, n_head, head_dim, d_state, n_group, .. } = *dims;
        let (x, bc) = xbc.split_at(d_inner);
        let (b, c) = bc.split_at(n_group * d_state);
        let heads = x.chunks_exact(head_dim).zip(y.chunks_exact_mut(head_dim));
        for (head, (x, y)) in heads.enumerate() {
            let dt = softplus(dt[head] + self.ssm_dt[head]);
            let decay = libm::expf(dt * self.ssm_a[head]);
            let group = head / (n_head / n_group) * d_state;
            let (b, c) = (&b[group..][..d_state], &c[group..][..d_state]);
            let state = &mut state[head * head_dim * d_state..][..head_dim * d_state];
            for ((h, &x), y) in state.chunks_exact_mut(d_state).zip(x).zip(y) {
                *y = selective_step(h, decay, dt * x, b, c) + self.ssm_d[head] * x;
            }
        }
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}

impl LanguageModel for Mamba2 {
    fn config(&self) -> &TextConfig {
        &self.config
    }

    fn new_context(&self, params: &ContextParams) -> Result<Box<dyn Context>> {
        let memory = |layer: &Layer| {
            let (conv, ssm) = layer.memory(&self.dims);
            LayerMemory::State(conv + ssm)
        };
        Ok(Box::new(RecurrentContext::new(params, self.layers.iter().map(memory))?))
    }

    fn forward(
        &mut self,
        context: &mut dyn Context,
        tokens: &[u32],
        n_out: usize,
        mode: Mode,
        logits: &mut Vec<f32>,
    ) {
        let context = RecurrentContext::of(context);
        let TextConfig { n_embd, n_vocab, .. } = self.config;
        let m = tokens.len();
        let b = &mut self.buffers;
        b.x.resize(m * n_embd, 0.0);
        for (x, &token) in b.x.chunks_exact_mut(n_embd).zip(tokens) {
            self.token_embd.row(token as usize, x);
        }
        for (layer, state) in self.layers.iter().zip(&mut context.states) {
            layer.forward(&self.dims, state, m, mode, b);
        }
        context.n_tokens += m;
        self.output_norm.forward(&b.x[(m - n_out) * n_embd..], b.act.fill(n_out, n_embd, mode.is_integer()));
        logits.resize(n_out * n_vocab, 0.0);
        if n_out > 0 {
            matmul(&mut b.act, self.output.as_ref().unwrap_or(&self.token_embd), logits);
        }
    }
}
