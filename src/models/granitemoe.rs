//! Granite 3 MoE (IBM 2024, "Granite 3.0 Language Models"): LLaMA with experts and with scales of the embedding,
//! the residual branches, the scores and the logits, as in maximal update parametrization.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{RopePairing, SharedExpert};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    // The architecture uses this key as a switch.
    let rope = match b.reader.bool("rope.scaling.finetuned")? {
        Some(false) => None,
        _ => Some(b.rope(RopePairing::Adjacent)?),
    };
    let mut heads = b.heads();
    heads.scale = b.reader.positive("attention.scale", heads.scale)?;
    b.embedding_scale = b.reader.positive("embedding_scale", 1.0)?;
    b.logit_scale = 1.0 / b.reader.positive("logit_scale", 1.0)?;
    let residual_scale = b.reader.positive("residual_scale", 1.0)?;
    let n_shared = b.reader.optional_dim("expert_shared_feed_forward_length")?;
    for i in 0..b.config.n_layer {
        let mut moe = b.moe(i, b.config.n_ff, true)?;
        if let Some(n_shared) = n_shared {
            moe.shared = Some(SharedExpert { mlp: b.shared_expert(i, n_shared)?, gate: None });
        }
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, rope)?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(moe),
            residual_scale,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
