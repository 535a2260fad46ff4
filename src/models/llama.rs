//! LLaMA (Touvron et al. 2023): pre-norm decoder with RMSNorm, rotary embedding, grouped
//! query attention (Ainslie et al. 2023) and SwiGLU (Shazeer 2020).

use super::config::Reader;
use super::{Context, ContextParams, KvContext, LanguageModel, TextConfig, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::kernels::act::Activations;
use crate::kernels::attention::{KvCache, Mask, Query, Scratch, attention};
use crate::kernels::{matmul, vecmath};
use crate::layers::{I, Linear, Mode, RmsNorm, Rope, RopePairing};
use crate::repack::PackedWeights;

struct Layer {
    attn_norm: RmsNorm,
    attn_q: Linear,
    attn_k: Linear,
    attn_v: Linear,
    attn_output: Linear,
    ffn_norm: RmsNorm,
    ffn_gate: Linear,
    ffn_up: Linear,
    ffn_down: Linear,
}

struct Llama {
    config: TextConfig,
    rope: Rope,
    token_embd: PackedWeights,
    layers: Vec<Layer>,
    output_norm: RmsNorm,
    /// Absent where the embedding is also the output matrix.
    output: Option<PackedWeights>,
    buffers: Buffers,
}

/// Kept between calls; sizes are `[n_tokens, width]`.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    act: Activations,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    attention: Scratch,
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let reader = Reader::new(metadata, arch);
    let config = read_config(&reader, weights)?;
    let TextConfig { n_embd, n_ff, n_vocab, head_dim, .. } = config;
    // On 32-bit targets two allowed dimensions may overflow.
    let width = |n_head: usize| {
        n_head
            .checked_mul(head_dim)
            .ok_or_else(|| reader.bad("attention.key_length", format!("{n_head} heads of {head_dim}")))
    };
    let (n_q, n_kv) = (width(config.n_head)?, width(config.n_head_kv)?);
    let eps = reader.positive("attention.layer_norm_rms_epsilon", 1e-5)?;
    let rope = read_rope(&reader, weights, head_dim)?;
    let mut layers = Vec::new();
    for i in 0..config.n_layer {
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = |w: &mut Weights, part: &str| {
            Ok::<_, crate::Error>(RmsNorm { weight: w.values(&name(part), n_embd)?, eps })
        };
        layers.push(Layer {
            attn_norm: norm(weights, "attn_norm.weight")?,
            attn_q: weights.linear(&name("attn_q"), n_q, n_embd)?,
            attn_k: weights.linear(&name("attn_k"), n_kv, n_embd)?,
            attn_v: weights.linear(&name("attn_v"), n_kv, n_embd)?,
            attn_output: weights.linear(&name("attn_output"), n_embd, n_q)?,
            ffn_norm: norm(weights, "ffn_norm.weight")?,
            ffn_gate: weights.linear(&name("ffn_gate"), n_ff, n_embd)?,
            ffn_up: weights.linear(&name("ffn_up"), n_ff, n_embd)?,
            ffn_down: weights.linear(&name("ffn_down"), n_embd, n_ff)?,
        });
    }
    let token_embd = weights.matrix("token_embd.weight", n_vocab, n_embd)?;
    let output_norm = RmsNorm { weight: weights.values("output_norm.weight", n_embd)?, eps };
    let output = if weights.has("output.weight") {
        Some(weights.matrix("output.weight", n_vocab, n_embd)?)
    } else {
        None
    };
    let buffers = Buffers::default();
    Ok(Box::new(Llama { config, rope, token_embd, layers, output_norm, output, buffers }))
}

fn read_config(reader: &Reader, weights: &Weights) -> Result<TextConfig> {
    let n_embd = reader.dim("embedding_length")?;
    let n_layer = reader.n_layer()?;
    let n_head = reader.dim("attention.head_count")?;
    let n_head_kv = reader.optional_dim("attention.head_count_kv")?.unwrap_or(n_head);
    if n_head_kv > n_head || !n_head.is_multiple_of(n_head_kv) {
        return Err(
            reader.bad("attention.head_count_kv", format!("{n_head_kv} does not divide {n_head} heads"))
        );
    }
    let head_dim = match reader.optional_dim("attention.key_length")? {
        Some(d) => d,
        None if n_embd.is_multiple_of(n_head) => n_embd / n_head,
        None => return Err(reader.bad("attention.head_count", format!("{n_head} does not divide {n_embd}"))),
    };
    if reader.optional_dim("attention.value_length")?.is_some_and(|d| d != head_dim) {
        return Err(reader.bad("attention.value_length", "differs from the key length: not supported"));
    }
    if reader.optional_dim("expert_count").is_ok_and(|n| n.is_some()) {
        return Err(reader.bad("expert_count", "mixture-of-experts models are not supported"));
    }
    // The vocabulary is what the embedding holds; a metadata count may be stale.
    let n_vocab = weights.shape("token_embd.weight").and_then(|s| s.first().copied()).unwrap_or(1);
    Ok(TextConfig {
        n_embd,
        n_layer,
        n_head,
        n_head_kv,
        head_dim,
        n_ff: reader.dim("feed_forward_length")?,
        n_vocab,
        n_ctx_train: reader.dim("context_length")?,
    })
}

fn read_rope(reader: &Reader, weights: &mut Weights, head_dim: usize) -> Result<Rope> {
    let n_rot = reader.optional_dim("rope.dimension_count")?.unwrap_or(head_dim);
    if n_rot % 2 != 0 || n_rot > head_dim {
        return Err(
            reader.bad("rope.dimension_count", format!("{n_rot} is odd or above the head size {head_dim}"))
        );
    }
    let base = reader.positive("rope.freq_base", 10_000.0)?;
    let scale = match reader.str("rope.scaling.type")? {
        None | Some("none") => 1.0,
        Some("linear") => 1.0 / reader.positive("rope.scaling.factor", 1.0)?,
        Some(other) => {
            return Err(reader.bad("rope.scaling.type", format!("scaling {other:?} is not supported")));
        }
    };
    let factors = weights.optional_values("rope_freqs.weight", n_rot / 2)?.unwrap_or_default();
    Ok(Rope::new(RopePairing::Adjacent, n_rot, base, scale, &factors))
}

impl LanguageModel for Llama {
    fn config(&self) -> &TextConfig {
        &self.config
    }

    fn new_context(&self, params: &ContextParams) -> Result<Box<dyn Context>> {
        let c = &self.config;
        let shapes = std::iter::repeat_n((c.n_head_kv, c.head_dim), c.n_layer);
        Ok(Box::new(KvContext::new(params, shapes)?))
    }

    fn forward(
        &mut self,
        context: &mut dyn Context,
        tokens: &[u32],
        n_out: usize,
        mode: Mode,
        logits: &mut Vec<f32>,
    ) {
        let context = KvContext::of(context);
        let TextConfig { n_embd, n_vocab, .. } = self.config;
        let (m, first_pos) = (tokens.len(), context.n_tokens);
        self.rope.prepare(first_pos, m);
        let b = &mut self.buffers;
        b.x.resize(m * n_embd, 0.0);
        for (x, &token) in b.x.chunks_exact_mut(n_embd).zip(tokens) {
            self.token_embd.row(token as usize, x);
        }
        for (layer, kv) in self.layers.iter().zip(&mut context.kv) {
            layer.attend(&self.config, &self.rope, kv, first_pos, m, mode, b);
            layer.feed_forward(self.config.n_ff, m, mode, b);
        }
        context.n_tokens += m;
        // Only the rows that are asked for pass through the largest matrix.
        self.output_norm.forward(&b.x[(m - n_out) * n_embd..], b.act.fill(n_out, n_embd, mode.is_integer()));
        logits.resize(n_out * n_vocab, 0.0);
        if n_out > 0 {
            matmul(&mut b.act, self.output.as_ref().unwrap_or(&self.token_embd), logits);
        }
    }
}

impl Layer {
    /// `x += W_o attention(rope(W_q h), rope(W_k h), W_v h)` with `h = norm(x)`.
    #[allow(clippy::too_many_arguments)] // the forward pass's own variables
    fn attend(
        &self,
        config: &TextConfig,
        rope: &Rope,
        kv: &mut KvCache,
        first_pos: usize,
        m: usize,
        mode: Mode,
        b: &mut Buffers,
    ) {
        let TextConfig { n_embd, n_head, n_head_kv, head_dim, .. } = *config;
        let (n_q, n_kv) = (n_head * head_dim, n_head_kv * head_dim);
        self.attn_norm.forward(&b.x, b.act.fill(m, n_embd, mode.is_integer()));
        b.q.resize(m * n_q, 0.0);
        b.k.resize(m * n_kv, 0.0);
        b.v.resize(m * n_kv, 0.0);
        let qkv = [&self.attn_q, &self.attn_k, &self.attn_v];
        Linear::forward_all(qkv, &mut b.act, [&mut b.q, &mut b.k, &mut b.v]);
        rope.rotate(&mut b.q, n_head, head_dim);
        rope.rotate(&mut b.k, n_head_kv, head_dim);
        for (i, (k, v)) in b.k.chunks_exact(n_kv).zip(b.v.chunks_exact(n_kv)).enumerate() {
            kv.store(first_pos + i, k, v);
        }
        let query = Query::plain(n_head, head_dim, Mask::Causal { first_pos });
        attention::<I>(&b.q, &query, kv, &mut b.attention, b.act.fill(m, n_q, mode.is_integer()));
        b.out.resize(m * n_embd, 0.0);
        self.attn_output.forward(&mut b.act, &mut b.out);
        vecmath::add::<I>(&mut b.x, &b.out);
    }

    /// `x += W_down (silu(W_gate h) * W_up h)` with `h = norm(x)`.
    fn feed_forward(&self, n_ff: usize, m: usize, mode: Mode, b: &mut Buffers) {
        let n_embd = self.ffn_norm.weight.len();
        self.ffn_norm.forward(&b.x, b.act.fill(m, n_embd, mode.is_integer()));
        b.gate.resize(m * n_ff, 0.0);
        b.up.resize(m * n_ff, 0.0);
        Linear::forward_all([&self.ffn_gate, &self.ffn_up], &mut b.act, [&mut b.gate, &mut b.up]);
        vecmath::silu_mul::<I>(&mut b.gate, &b.up);
        b.act.fill(m, n_ff, mode.is_integer()).copy_from_slice(&b.gate);
        b.out.resize(m * n_embd, 0.0);
        self.ffn_down.forward(&mut b.act, &mut b.out);
        vecmath::add::<I>(&mut b.x, &b.out);
    }
}
