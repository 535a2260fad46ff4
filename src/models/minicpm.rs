//! MiniCPM (Hu et al. 2024, arXiv 2404.06395): LLaMA with scales on embedding, residual branches and logits,
//! known from the depth and width where the file does not state them.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::{Error, Result};
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    b.refuse_experts()?;
    let scale = |b: &Builder, key: &str, default: f32| match b.reader.number(key)? {
        Some(0.0) => Ok::<_, Error>(1.0),
        scale => Ok(scale.unwrap_or(default)),
    };
    let (n_layer, n_embd) = (b.config.n_layer as f32, b.config.n_embd as f32);
    let residual_scale = scale(&b, "residual_scale", 1.4 / n_layer.sqrt())?;
    b.embedding_scale = scale(&b, "embedding_scale", 12.0)?;
    b.logit_scale = 1.0 / scale(&b, "logit_scale", 256.0 / n_embd)?;
    let rope = b.rope(RopePairing::Adjacent)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(rope))?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            residual_scale,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
