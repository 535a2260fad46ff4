//! RWKV-7 "Goose" (Peng et al. 2025, arXiv 2503.14456): token shift, a matrix state per head that is
//! written by a generalized delta rule, and squared-ReLU channel mixing. The state has a fixed
//! size, so a context costs the same however long it is.

use super::config::Reader;
use super::{Block, Builder, LanguageModel, Memory, NormKind, TextConfig, Weights};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::kernels::act::Activations;
use crate::kernels::{matmul, vecmath};
use crate::layers::{I, LayerNorm, Linear, Norm, Wkv, Workspace, wkv7_step};
use crate::repack::PackedWeights;
use std::cell::RefCell;
use std::rc::Rc;

/// Added to the variance of a head's output (64 times the published 1e-5).
const GROUP_NORM_EPS: f32 = 64e-5;
/// The decay is `exp(-e^-0.5 sigmoid(w))`, so that a step keeps at least 0.545 of the state.
const DECAY_SCALE: f32 = -0.606_530_66;

/// `base + up(f(down(x)))`, of low rank between.
struct LowRank {
    down: PackedWeights,
    up: PackedWeights,
    /// `[n_embd]`; empty where there is none.
    base: Vec<f32>,
}

struct TimeMix {
    /// Shares of the token before in the inputs of r, w, k, v, a, g: `[6, n_embd]` (5 without g).
    lerp: Vec<f32>,
    receptance: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    decay: LowRank,
    /// In-context learning rate.
    iclr: LowRank,
    /// How much of the first layer's value is mixed in; absent in the first layer.
    value_residual: Option<LowRank>,
    gate: Option<LowRank>,
    /// `[n_embd]` each.
    k_k: Vec<f32>,
    k_a: Vec<f32>,
    r_k: Vec<f32>,
    /// Norm per head.
    ln: LayerNorm,
}

struct ChannelMix {
    lerp: Vec<f32>,
    key: Linear,
    value: Linear,
}

struct Layer {
    n_embd: usize,
    head_dim: usize,
    attn_norm: Norm,
    time_mix: TimeMix,
    attn_norm_2: Norm,
    channel_mix: ChannelMix,
    /// The same for all layers: the first layer's values go to all others.
    buffers: Rc<RefCell<Buffers>>,
}

/// Kept between calls; sizes are `[n_tokens, n_embd]`.
#[derive(Default)]
struct Buffers {
    /// Hidden row of the low-rank products and of the channel mixing.
    hidden: Activations,
    /// The normalized input, and its distance to the token before.
    h: Vec<f32>,
    dx: Vec<f32>,
    r: Vec<f32>,
    w: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    v_first: Vec<f32>,
    a: Vec<f32>,
    g: Vec<f32>,
    /// Removal keys, negated.
    kk: Vec<f32>,
    out: Vec<f32>,
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let reader = Reader::new(metadata, arch);
    let n_embd = reader.dim("embedding_length")?;
    let head_dim = reader.dim("wkv.head_size")?;
    if !n_embd.is_multiple_of(head_dim) {
        return Err(reader.bad("wkv.head_size", format!("{head_dim} does not divide {n_embd}")));
    }
    if n_embd.checked_mul(head_dim + 2).is_none() {
        return Err(reader.bad("wkv.head_size", format!("a state of {n_embd} x {head_dim}")));
    }
    let n_head = n_embd / head_dim;
    let config = TextConfig {
        n_embd,
        n_layer: reader.n_layer()?,
        n_head,
        n_head_kv: n_head,
        head_dim,
        n_ff: reader.dim("feed_forward_length")?,
        n_vocab: weights.n_vocab(),
        n_ctx_train: usize::MAX,
    };
    let mut b = Builder::with_config(metadata, arch, weights, NormKind::Layer, config)?;
    b.embd_norm = Some(b.norm_of("token_embd_norm", n_embd)?);
    let buffers = Rc::default();
    for i in 0..b.config.n_layer {
        let layer = Layer::build(&mut b, i, &buffers)?;
        b.layers.push(Box::new(layer));
    }
    b.finish()
}

impl LowRank {
    /// `STEM1.weight` `[rank, n_embd]`, `STEM2.weight` `[n_embd, rank]` and, with a base, `STEM0.weight`.
    fn build(weights: &mut Weights, stem: &str, n_embd: usize, has_base: bool) -> Result<Self> {
        let down = format!("{stem}1.weight");
        let rank = weights.shape(&down).and_then(|s| s.first().copied());
        let missing = || Error::new(Code::MissingTensor, "the architecture needs this tensor").tensor(&down);
        let rank = rank.ok_or_else(missing)?;
        Ok(LowRank {
            down: weights.matrix(&down, rank, n_embd)?,
            up: weights.matrix(&format!("{stem}2.weight"), n_embd, rank)?,
            base: match has_base {
                true => weights.values(&format!("{stem}0.weight"), n_embd)?,
                false => Vec::new(),
            },
        })
    }

    /// `out = base + up(f(down(act)))`; all `[m, n_embd]`.
    fn forward(&self, act: &mut Activations, f: fn(&mut [f32]), hidden: &mut Activations, out: &mut [f32]) {
        let integer = act.is_integer();
        let inner = hidden.fill(act.m(), self.down.n(), integer);
        matmul(act, &self.down, inner);
        f(inner);
        matmul(hidden, &self.up, out);
        if !self.base.is_empty() {
            out.chunks_exact_mut(self.base.len()).for_each(|row| vecmath::add::<I>(row, &self.base));
        }
    }
}

impl Layer {
    fn build(b: &mut Builder, i: usize, buffers: &Rc<RefCell<Buffers>>) -> Result<Self> {
        let TextConfig { n_embd, n_ff, head_dim, .. } = b.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        Ok(Layer {
            n_embd,
            head_dim,
            attn_norm: b.norm(i, "attn_norm")?,
            time_mix: TimeMix::build(b.weights, i, n_embd)?,
            attn_norm_2: b.norm(i, "attn_norm_2")?,
            channel_mix: ChannelMix {
                lerp: b.weights.values(&name("channel_mix_lerp_k.weight"), n_embd)?,
                key: b.weights.linear(&name("channel_mix_key"), n_ff, n_embd)?,
                value: b.weights.linear(&name("channel_mix_value"), n_embd, n_ff)?,
            },
            buffers: Rc::clone(buffers),
        })
    }
}

impl Block for Layer {
    /// Two shifted tokens, then `[n_head, head_dim, head_dim]`.
    fn state_len(&self) -> usize {
        self.n_embd * (2 + self.head_dim)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        let b = &mut *self.buffers.borrow_mut();
        let (shifts, wkv) = memory.state.split_at_mut(2 * self.n_embd);
        let (time, channel) = shifts.split_at_mut(self.n_embd);
        shift(&self.attn_norm, time, w, b);
        self.time_mix.forward(self.head_dim, wkv, w, b);
        w.add_out();
        shift(&self.attn_norm_2, channel, w, b);
        self.channel_mix.forward(w, b);
        w.add_out();
    }
}

/// `h = norm(x)` and `dx`, what the token before has more; `last` is the token before the first,
/// then the last.
fn shift(norm: &Norm, last: &mut [f32], w: &Workspace, b: &mut Buffers) {
    let n = last.len();
    b.h.resize(w.x.len(), 0.0);
    norm.forward(&w.x, &mut b.h);
    b.dx.resize(w.x.len(), 0.0);
    for (t, dx) in b.dx.chunks_exact_mut(n).enumerate() {
        let before = if t == 0 { &*last } else { &b.h[(t - 1) * n..][..n] };
        dx.iter_mut().zip(before).zip(&b.h[t * n..]).for_each(|((dx, before), h)| *dx = before - h);
    }
    last.copy_from_slice(&b.h[b.h.len() - n..]);
}

/// The next input is `h + dx * lerp`: part of the token before.
fn lerped(lerp: &[f32], w: &mut Workspace, b: &Buffers) {
    let n = lerp.len();
    let to = w.fill(n);
    for ((to, h), dx) in to.chunks_exact_mut(n).zip(b.h.chunks_exact(n)).zip(b.dx.chunks_exact(n)) {
        for (i, to) in to.iter_mut().enumerate() {
            *to = h[i] + dx[i] * lerp[i];
        }
    }
}

impl TimeMix {
    fn build(weights: &mut Weights, i: usize, n_embd: usize) -> Result<Self> {
        let mix = |part: &str| format!("blk.{i}.time_mix_{part}");
        let has_gate = weights.has(&mix("g1.weight"));
        let n_lerp = if has_gate { 6 } else { 5 };
        let square = |w: &mut Weights, part: &str| w.linear(&mix(part), n_embd, n_embd);
        let low =
            |w: &mut Weights, part: &str, has_base: bool| LowRank::build(w, &mix(part), n_embd, has_base);
        if i == 0 {
            // Files carry a value residual for the first layer too, which has nothing to mix in.
            ["v0", "v1", "v2"].iter().for_each(|part| weights.ignore(&mix(&format!("{part}.weight"))));
        }
        Ok(TimeMix {
            lerp: weights.values(&mix("lerp_fused.weight"), n_embd.saturating_mul(n_lerp))?,
            receptance: square(weights, "receptance")?,
            key: square(weights, "key")?,
            value: square(weights, "value")?,
            output: square(weights, "output")?,
            decay: low(weights, "w", true)?,
            iclr: low(weights, "a", true)?,
            value_residual: if i > 0 { Some(low(weights, "v", true)?) } else { None },
            gate: if has_gate { Some(low(weights, "g", false)?) } else { None },
            k_k: weights.values(&mix("k_k.weight"), n_embd)?,
            k_a: weights.values(&mix("k_a.weight"), n_embd)?,
            r_k: weights.values(&mix("r_k.weight"), n_embd)?,
            ln: weights.layer_norm(&mix("ln"), n_embd, GROUP_NORM_EPS)?,
        })
    }

    /// Section 3 of the paper: r, w, k, v, a, g of each token, the recurrence, and the output.
    fn forward(&self, head_dim: usize, state: &mut [f32], w: &mut Workspace, b: &mut Buffers) {
        let n_embd = self.k_k.len();
        for buffer in [&mut b.r, &mut b.w, &mut b.k, &mut b.v, &mut b.a, &mut b.g, &mut b.kk, &mut b.out] {
            buffer.resize(w.x.len(), 0.0);
        }
        let lerp = |i: usize| &self.lerp[i * n_embd..][..n_embd];
        lerped(lerp(0), w, b);
        self.receptance.forward(&mut w.act, &mut b.r);
        lerped(lerp(1), w, b);
        self.decay.forward(&mut w.act, vecmath::tanh::<I>, &mut b.hidden, &mut b.w);
        lerped(lerp(2), w, b);
        self.key.forward(&mut w.act, &mut b.k);
        lerped(lerp(3), w, b);
        self.value.forward(&mut w.act, &mut b.v);
        match &self.value_residual {
            None => b.v_first.clone_from(&b.v),
            Some(residual) => {
                residual.forward(&mut w.act, |_| (), &mut b.hidden, &mut b.out);
                vecmath::sigmoid::<I>(&mut b.out);
                for ((v, first), share) in b.v.iter_mut().zip(&b.v_first).zip(&b.out) {
                    *v += (first - *v) * share;
                }
            }
        }
        lerped(lerp(4), w, b);
        self.iclr.forward(&mut w.act, |_| (), &mut b.hidden, &mut b.a);
        vecmath::sigmoid::<I>(&mut b.a);
        if let Some(gate) = &self.gate {
            lerped(lerp(5), w, b);
            gate.forward(&mut w.act, vecmath::sigmoid::<I>, &mut b.hidden, &mut b.g);
        }
        self.recur(head_dim, state, b);
        let to = w.fill(n_embd);
        to.copy_from_slice(&b.h);
        if self.gate.is_some() {
            vecmath::mul::<I>(to, &b.g);
        }
        w.out.resize(w.x.len(), 0.0);
        self.output.forward(&mut w.act, &mut w.out);
    }

    /// Runs the state over all tokens; the normalized outputs go to `h`, which nobody needs any more.
    fn recur(&self, head_dim: usize, state: &mut [f32], b: &mut Buffers) {
        let n_embd = self.k_k.len();
        vecmath::sigmoid::<I>(&mut b.w);
        b.w.iter_mut().for_each(|w| *w *= DECAY_SCALE);
        vecmath::exp_all::<I>(&mut b.w);
        for t in 0..b.h.len() / n_embd {
            for first in (0..n_embd).step_by(head_dim) {
                let head = t * n_embd + first..t * n_embd + first + head_dim;
                let of_head = first..first + head_dim;
                let (k, a) = (&mut b.k[head.clone()], &mut b.a[head.clone()]);
                let kk = &mut b.kk[head.clone()];
                removal_key(k, &self.k_k[of_head.clone()], kk);
                for (i, (k, a)) in k.iter_mut().zip(a.iter_mut()).enumerate() {
                    *k *= 1.0 + (*a - 1.0) * self.k_a[first + i];
                    *a *= -kk[i];
                }
                let (r, v, out) = (&b.r[head.clone()], &b.v[head.clone()], &mut b.out[head.clone()]);
                let step = Wkv { r, w: &b.w[head.clone()], k, v, a: kk, b: a };
                wkv7_step(&mut state[first * head_dim..][..head_dim * head_dim], &step, out);
                let (weight, bias) = (&self.ln.weight[of_head.clone()], &self.ln.bias[of_head.clone()]);
                vecmath::layer_norm::<I>(out, weight, bias, self.ln.eps, &mut b.h[head.clone()]);
                let bonus: f32 =
                    r.iter().zip(&*k).zip(&self.r_k[of_head]).map(|((r, k), r_k)| r * k * r_k).sum();
                b.h[head].iter_mut().zip(v).for_each(|(h, v)| *h += bonus * v);
            }
        }
    }
}

/// `kk = -k * k_k / |k * k_k|` of one head.
fn removal_key(k: &[f32], k_k: &[f32], kk: &mut [f32]) {
    kk.iter_mut().zip(k).zip(k_k).for_each(|((kk, k), k_k)| *kk = k * k_k);
    let square: f32 = kk.iter().map(|x| x * x).sum();
    let scale = -1.0 / square.sqrt().max(1e-12);
    kk.iter_mut().for_each(|x| *x *= scale);
}

impl ChannelMix {
    /// `w.out = W_v relu(W_k lerp(h))^2`.
    fn forward(&self, w: &mut Workspace, b: &mut Buffers) {
        lerped(&self.lerp, w, b);
        let hidden = b.hidden.fill(w.m, self.key.n(), w.mode.is_integer());
        self.key.forward(&mut w.act, hidden);
        vecmath::relu_squared::<I>(hidden);
        w.out.resize(w.x.len(), 0.0);
        self.value.forward(&mut b.hidden, &mut w.out);
    }
}
