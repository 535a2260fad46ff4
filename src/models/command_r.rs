//! Command R (Cohere 2024): LayerNorm without bias, attention and feed-forward layer side by side, scaled
//! logits; the larger model has norms on queries and keys with weights per head.

use super::{Builder, LanguageModel, NormKind, Parallel, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    b.logit_scale = b.reader.number("logit_scale")?.filter(|&s| s != 0.0).unwrap_or(1.0);
    let rope = b.rope(RopePairing::Adjacent)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = Parallel {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: Attention { qk_norm: b.per_head_norms(i)?, ..b.attention(i, heads, Some(rope))? },
            ffn_norm: None,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
