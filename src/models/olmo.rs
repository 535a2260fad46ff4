//! OLMo (Groeneveld et al. 2024): LayerNorm without weights; queries, keys and values may be clamped.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let clamp = b.reader.number("attention.clamp_kqv")?.filter(|&limit| limit > 0.0);
    let rope = b.rope(RopePairing::Adjacent)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = PreNorm {
            attn_norm: b.plain_norm(),
            attention: Attention { clamp, ..b.attention(i, heads, Some(rope))? },
            ffn_norm: b.plain_norm(),
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish_with(|b| Ok(b.plain_norm()))
}
