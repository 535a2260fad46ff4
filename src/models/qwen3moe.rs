//! Qwen3-MoE (Yang et al. 2025, arXiv 2505.09388, section 2): Qwen3 with experts in every layer, whose shares
//! sum to one.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::RopePairing;

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    let n_ff = match b.reader.optional_dim("expert_feed_forward_length")? {
        Some(n) => n,
        None => b.config.n_ff / b.n_expert_used()?,
    };
    for i in 0..b.config.n_layer {
        let mut attention = b.attention(i, heads, Some(rope))?;
        attention.qk_norm = Some(b.head_norms(i)?);
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.moe(i, n_ff, true)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
