//! Falcon (Almazrouei et al. 2023): LayerNorm, attention and feed-forward layer side by side on one norm
//! (7B) or two (40B), one or few key heads.

use super::{Builder, LanguageModel, NormKind, Parallel, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let norm = b.norm(i, "attn_norm")?;
        let has_second = b.weights.has(&format!("blk.{i}.attn_norm_2.weight"));
        // The second norm is the attention's.
        let (attn_norm, ffn_norm) =
            if has_second { (b.norm(i, "attn_norm_2")?, Some(norm)) } else { (norm, None) };
        let attention = b.attention(i, heads, Some(rope))?;
        let ffn = Box::new(b.mlp(i, Activation::Gelu)?);
        b.layers.push(Box::new(Parallel { attn_norm, attention, ffn_norm, ffn }));
    }
    b.finish()
}
