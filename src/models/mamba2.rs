//! Mamba-2 (Dao and Gu 2024, arXiv 2405.21060): layers of gated state spaces and no attention. The
//! state has a fixed size, so a context costs the same however long it is.

use super::config::Reader;
use super::{Block, Builder, LanguageModel, Memory, NormKind, TextConfig, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::kernels::vecmath;
use crate::layers::{CausalConv, I, Linear, Norm, RmsNorm, Workspace, selective_step};

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
    dims: Dims,
    attn_norm: Norm,
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

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let reader = Reader::new(metadata, arch);
    let dims = read_dims(&reader)?;
    let config = TextConfig {
        n_embd: reader.dim("embedding_length")?,
        n_layer: reader.n_layer()?,
        n_head: dims.n_head,
        n_head_kv: 0,
        head_dim: dims.head_dim,
        n_ff: 0,
        n_vocab: weights.n_vocab(),
        n_ctx_train: usize::MAX,
    };
    let mut b = Builder::with_config(metadata, arch, weights, NormKind::Rms, config)?;
    let n_tap = b.reader.dim("ssm.conv_kernel")?;
    for i in 0..b.config.n_layer {
        let layer = Layer::build(&mut b, i, n_tap, dims)?;
        b.layers.push(Box::new(layer));
    }
    b.finish()
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
    fn build(b: &mut Builder, i: usize, n_tap: usize, dims: Dims) -> Result<Self> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let Dims { d_inner, n_head, n_group, conv_dim, d_in, .. } = dims;
        let n_embd = b.config.n_embd;
        let eps = b.eps();
        let attn_norm = b.norm(i, "attn_norm")?;
        let weights = &mut *b.weights;
        let taps = weights.table(&name("ssm_conv1d.weight"), conv_dim, n_tap)?;
        let bias = weights.values(&name("ssm_conv1d.bias"), conv_dim)?;
        let norms = weights.values(&name("ssm_norm.weight"), d_inner)?;
        let norms = norms.chunks_exact(d_inner / n_group);
        Ok(Layer {
            dims,
            attn_norm,
            ssm_in: weights.linear(&name("ssm_in"), d_in, n_embd)?,
            ssm_conv1d: CausalConv::new(&taps, Some(bias), conv_dim),
            ssm_dt: weights.values(&name("ssm_dt.bias"), n_head)?,
            ssm_a: weights.values(&name("ssm_a"), n_head)?,
            ssm_d: weights.values(&name("ssm_d"), n_head)?,
            ssm_norm: norms.map(|w| RmsNorm { weight: w.to_vec(), eps }).collect(),
            ssm_out: weights.linear(&name("ssm_out"), n_embd, d_inner)?,
        })
    }

    /// One token: per head `h = exp(dt A) h + dt B x`, `y = C h + D x`, with `dt = softplus(dt + bias)`.
    fn scan(&self, xbc: &[f32], dt: &[f32], state: &mut [f32], y: &mut [f32]) {
        let Dims { d_inner, n_head, head_dim, d_state, n_group, .. } = self.dims;
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

impl Block for Layer {
    /// The convolution's memory, then `[n_head, head_dim, d_state]`.
    fn state_len(&self) -> usize {
        self.ssm_conv1d.state_len() + self.dims.d_inner * self.dims.d_state
    }

    /// `x += W_out norm(y * silu(z))` with `z, xBC, dt = W_in norm(x)` and `y = SSM(silu(conv(xBC)), dt)`.
    fn forward(&self, w: &mut Workspace, memory: Memory) {
        let Dims { d_inner, n_group, conv_dim, d_in, .. } = self.dims;
        let (conv_state, ssm_state) = memory.state.split_at_mut(self.ssm_conv1d.state_len());
        w.input_norm(&self.attn_norm);
        w.qkv.resize(w.m * d_in, 0.0);
        self.ssm_in.forward(&mut w.act, &mut w.qkv);
        let xbc = &mut w.k;
        xbc.resize(w.m * conv_dim, 0.0);
        for (xbc, all) in xbc.chunks_exact_mut(conv_dim).zip(w.qkv.chunks_exact(d_in)) {
            xbc.copy_from_slice(&all[d_inner..][..conv_dim]);
        }
        self.ssm_conv1d.forward(xbc, conv_state, &mut w.scratch);
        vecmath::silu::<I>(xbc);
        w.v.resize(w.m * d_inner, 0.0);
        let steps = xbc.chunks_exact(conv_dim).zip(w.qkv.chunks_exact(d_in));
        for ((xbc, all), y) in steps.zip(w.v.chunks_exact_mut(d_inner)) {
            self.scan(xbc, &all[d_inner + conv_dim..], ssm_state, y);
        }
        let inner = w.act.fill(w.m, d_inner, w.mode.is_integer());
        let rows = w.v.chunks_exact(d_inner).zip(w.qkv.chunks_exact_mut(d_in));
        for ((y, all), inner) in rows.zip(inner.chunks_exact_mut(d_inner)) {
            let z = &mut all[..d_inner];
            vecmath::silu_mul::<I>(z, y);
            let group = d_inner / n_group;
            let groups = z.chunks_exact(group).zip(inner.chunks_exact_mut(group));
            self.ssm_norm.iter().zip(groups).for_each(|(norm, (z, inner))| norm.forward(z, inner));
        }
        w.out.resize(w.x.len(), 0.0);
        self.ssm_out.forward(&mut w.act, &mut w.out);
        w.add_out();
    }
}
