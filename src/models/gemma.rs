//! Gemma (Gemma Team 2024): RMSNorm, GeGLU, and an embedding scaled by sqrt(n_embd) that is also the
//! output matrix. Norm weights are stored with their 1 added.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    b.embedding_scale = (b.config.n_embd as f32).sqrt();
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(rope))?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Gelu)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
