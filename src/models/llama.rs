//! LLaMA (Touvron et al. 2023): pre-norm decoder with RMSNorm, rotary embedding, grouped
//! query attention (Ainslie et al. 2023) and SwiGLU (Shazeer 2020); with experts whose shares sum to one, Mixtral
//! (Jiang et al. 2024, arXiv 2401.04088).

use super::{Builder, FeedForward, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let has_experts = b.reader.count("expert_count")?.is_some_and(|n| n > 0);
    let rope = b.rope(RopePairing::Adjacent)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let ffn: Box<dyn FeedForward> = match has_experts {
            true => Box::new(b.moe(i, b.config.n_ff, true)?),
            false => Box::new(b.gated_mlp(i, Activation::Silu)?),
        };
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(rope))?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn,
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
