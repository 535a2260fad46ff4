//! Granite 3 (IBM 2024): LLaMA with scales on embedding, scores, residual branches and logits.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::{Error, Result};
use crate::layers::{Activation, Heads, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    b.refuse_experts()?;
    // 0 stands for no scale of its own.
    let scale = |b: &Builder, key: &str| Ok::<_, Error>(b.reader.number(key)?.filter(|&s| s != 0.0));
    let heads = b.heads();
    let heads = Heads { scale: scale(&b, "attention.scale")?.unwrap_or(heads.scale), ..heads };
    let residual_scale = scale(&b, "residual_scale")?.unwrap_or(1.0);
    b.embedding_scale = scale(&b, "embedding_scale")?.unwrap_or(1.0);
    b.logit_scale = match b.reader.number("logit_scale")? {
        Some(divisor) if divisor != 0.0 => 1.0 / divisor,
        _ => return Err(b.reader.bad("logit_scale", "must be there and not 0")),
    };
    let rope = b.rope(RopePairing::Adjacent)?;
    // The key that elsewhere tells of fine-tuning switches the rotation here.
    let rotates = b.reader.bool("rope.scaling.finetuned")?.unwrap_or(true);
    let rope = rotates.then_some(rope);
    for i in 0..b.config.n_layer {
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, rope)?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            residual_scale,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
