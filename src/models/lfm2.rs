//! LFM2 (Liquid AI 2025, "LFM2 Technical Report", arXiv 2511.23404, section 2): gated short convolutions in
//! most layers, grouped query attention with normed queries and keys in the others.

use super::config::Reader;
use super::{Block, Builder, LanguageModel, Memory, NormKind, PreNorm, TextConfig, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::kernels::vecmath;
use crate::layers::{Activation, CausalConv, I, Linear, Mlp, Norm, RopePairing, Workspace};

/// `x += W_out (c * conv(b * v))` with `b, c, v = W_in norm(x)`, then the feed-forward layer.
struct ShortConv {
    norm: Norm,
    /// `[3 * n_embd, n_embd]`.
    in_proj: Linear,
    conv: CausalConv,
    out_proj: Linear,
    ffn_norm: Norm,
    ffn: Mlp,
}

impl Block for ShortConv {
    fn state_len(&self) -> usize {
        self.conv.state_len()
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        let n = self.out_proj.n();
        w.input_norm(&self.norm);
        w.qkv.resize(w.m * 3 * n, 0.0);
        self.in_proj.forward(&mut w.act, &mut w.qkv);
        w.v.resize(w.m * n, 0.0);
        for (bcv, v) in w.qkv.chunks_exact(3 * n).zip(w.v.chunks_exact_mut(n)) {
            v.copy_from_slice(&bcv[2 * n..]);
            vecmath::mul::<I>(v, &bcv[..n]);
        }
        self.conv.forward(&mut w.v, memory.state, &mut w.scratch);
        let input = w.act.fill(w.m, n, w.mode.is_integer());
        input.copy_from_slice(&w.v);
        for (bcv, input) in w.qkv.chunks_exact(3 * n).zip(input.chunks_exact_mut(n)) {
            vecmath::mul::<I>(input, &bcv[n..2 * n]);
        }
        w.out.resize(w.m * n, 0.0);
        self.out_proj.forward(&mut w.act, &mut w.out);
        w.add_out();
    }

    fn forward_rest(&self, w: &mut Workspace) {
        w.input_norm(&self.ffn_norm);
        self.ffn.forward(w);
        w.add_out();
    }
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let (config, n_head_kv) = read_config(&Reader::new(metadata, arch), weights)?;
    let n_embd = config.n_embd;
    let mut b = Builder::with_config(metadata, arch, weights, NormKind::Rms, config)?;
    let n_tap = b.reader.dim("shortconv.l_cache")?;
    let rope = b.rope(RopePairing::Halves)?;
    for (i, n_head_kv) in n_head_kv.into_iter().enumerate() {
        let norm = b.norm(i, "attn_norm")?;
        let ffn_norm = b.norm(i, "ffn_norm")?;
        let ffn = b.gated_mlp(i, Activation::Silu)?;
        if n_head_kv == 0 {
            let name = |part: &str| format!("blk.{i}.shortconv.{part}");
            let taps = b.weights.table(&name("conv.weight"), n_embd, n_tap)?;
            let in_proj = b.weights.linear(&name("in_proj"), 3 * n_embd, n_embd)?;
            let out_proj = b.weights.linear(&name("out_proj"), n_embd, n_embd)?;
            let conv = CausalConv::new(&taps, None, n_embd);
            b.layers.push(Box::new(ShortConv { norm, in_proj, conv, out_proj, ffn_norm, ffn }));
        } else {
            let mut heads = b.heads();
            heads.n_head_kv = n_head_kv;
            let mut attention = b.attention(i, heads, Some(rope))?;
            attention.qk_norm = Some(b.head_norms(i)?);
            let ffn = Box::new(ffn);
            b.layers.push(Box::new(PreNorm {
                attn_norm: norm,
                attention,
                ffn_norm,
                ffn,
                residual_scale: 1.0,
            }));
        }
    }
    // The norm before the output has the name of one after the embedding in most files.
    let stem = if b.weights.has("output_norm.weight") { "output_norm" } else { "token_embd_norm" };
    b.finish_with(|b| b.norm_of(stem, n_embd))
}

/// The dimensions, and the key heads of each layer: 0 for those that convolve.
fn read_config(reader: &Reader, weights: &Weights) -> Result<(TextConfig, Vec<usize>)> {
    const KEY: &str = "attention.head_count_kv";
    let n_embd = reader.dim("embedding_length")?;
    let n_layer = reader.n_layer()?;
    let n_head = reader.dim("attention.head_count")?;
    if !n_embd.is_multiple_of(n_head) {
        return Err(reader.bad("attention.head_count", format!("{n_head} does not divide {n_embd}")));
    }
    let n_head_kv = reader.per_layer(KEY, n_layer)?;
    if let Some(n) = n_head_kv.iter().find(|&&n| n > 0 && !n_head.is_multiple_of(n)) {
        return Err(reader.bad(KEY, format!("{n} does not divide {n_head} heads")));
    }
    let config = TextConfig {
        n_embd,
        n_layer,
        n_head,
        n_head_kv: n_head_kv.iter().copied().max().unwrap_or(0),
        head_dim: n_embd / n_head,
        n_ff: reader.dim("feed_forward_length")?,
        n_vocab: weights.n_vocab(),
        n_ctx_train: reader.dim("context_length")?,
    };
    Ok((config, n_head_kv))
}
