//! ModernBERT (Warner et al. 2024, arXiv 2412.13663, section 2.1): pre-norm, GeGLU, no biases, and of every
//! three layers two that see a window only, with a rotation of their own.

use super::block::attend;
use super::encoder::{Encoder, Head};
use super::{Block, Builder, FeedForward, Memory, NormKind, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Heads, Norm, RopePairing, Workspace};

/// `x += A(norm(x))`, then `x += F(norm(x))`; the first layer has no first norm, for one follows the embedding.
struct Layer {
    attn_norm: Option<Norm>,
    attention: Attention,
    ffn_norm: Norm,
    ffn: Box<dyn FeedForward>,
}

impl Block for Layer {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        match &self.attn_norm {
            Some(norm) => w.input_norm(norm),
            None => w.input_plain(),
        }
        attend(&self.attention, w, memory);
        w.add_out();
        w.input_norm(&self.ffn_norm);
        self.ffn.forward(w);
        w.add_out();
    }
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Encoder> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let (n_embd, n_layer) = (b.config.n_embd, b.config.n_layer);
    b.embd_norm = Some(b.norm_of("token_embd_norm", n_embd)?);
    let activation = match b.reader.str("hidden_activation")? {
        None | Some("gelu") => Activation::Gelu,
        Some("silu") => Activation::Silu,
        Some(other) => return Err(b.reader.bad("hidden_activation", format!("{other:?} is not supported"))),
    };
    let global_base = b.reader.positive("rope.freq_base", 10_000.0)?;
    let local_base = b.reader.positive("rope.freq_base_swa", global_base)?;
    let global = b.rope(RopePairing::Halves)?;
    let local = b.plain_rope(RopePairing::Halves, local_base)?;
    let window = b.reader.count("attention.sliding_window")?.unwrap_or(0);
    const PATTERN: &str = "attention.sliding_window_pattern";
    let is_local = match b.reader.bools(PATTERN, n_layer)? {
        Some(pattern) => pattern,
        None => {
            let period = b.reader.count(PATTERN)?.unwrap_or(3);
            (0..n_layer).map(|i| period == 0 || i % period != 0).collect()
        }
    };
    for (i, is_local) in is_local.into_iter().enumerate() {
        let (window, rope) = if is_local && window > 0 { (window, local) } else { (0, global) };
        let heads = Heads { window, ..b.encoder_heads() };
        let has_norm = b.weights.has(&format!("blk.{i}.attn_norm.weight"));
        let layer = Layer {
            attn_norm: if has_norm || i > 0 { Some(b.norm(i, "attn_norm")?) } else { None },
            attention: b.attention(i, heads, Some(rope))?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.fused_mlp(i, activation)?),
        };
        b.layers.push(Box::new(layer));
    }
    let output_norm = b.norm_of("output_norm", n_embd)?;
    let head = Head::build(&mut b, Some(Activation::Gelu), true)?;
    b.finish_encoder(Some(output_norm), head)
}
