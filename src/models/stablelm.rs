//! StableLM (Stability AI 2023, 2024): LayerNorm, SwiGLU, a rotation of part of each head. The 12B model
//! has norms on queries and keys with weights per head, and attention and feed-forward layer side by
//! side on one norm.

use super::{Builder, LanguageModel, NormKind, Parallel, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let attn_norm = b.norm(i, "attn_norm")?;
        let qk_norm = b.per_head_norms(i)?;
        let attention = Attention { qk_norm, ..b.attention(i, heads, Some(rope))? };
        let ffn = Box::new(b.gated_mlp(i, Activation::Silu)?);
        if b.weights.has(&format!("blk.{i}.ffn_norm.weight")) {
            let ffn_norm = b.norm(i, "ffn_norm")?;
            let layer = PreNorm { attn_norm, attention, ffn_norm, ffn, residual_scale: 1.0 };
            b.layers.push(Box::new(layer));
        } else {
            b.layers.push(Box::new(Parallel { attn_norm, attention, ffn_norm: None, ffn }));
        }
    }
    b.finish()
}
