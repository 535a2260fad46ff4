//! OLMoE (Muennighoff et al. 2024, arXiv 2409.02060): LLaMA with norms over all queries and keys, and 64
//! experts of which 8 work, with their shares as the router's softmax gives them.

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
    for i in 0..b.config.n_layer {
        let mut attention = b.attention(i, heads, Some(rope))?;
        attention.qk_norm = Some(b.full_norms(i)?);
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.moe(i, b.config.n_ff, false)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
