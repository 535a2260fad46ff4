//! GLM-4 (GLM Team 2024, 2025): norms before and after each part, gate and up in one product, a rotation of
//! part of each head.

use super::{Builder, LanguageModel, NormKind, Sandwich, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let rope = b.rope(RopePairing::Adjacent)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = Sandwich {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(rope))?,
            attn_post_norm: b.norm(i, "post_attention_norm")?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.fused_mlp(i, Activation::Silu)?),
            ffn_post_norm: b.norm(i, "post_ffw_norm")?,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
