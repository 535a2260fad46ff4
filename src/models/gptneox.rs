//! GPT-NeoX (Black et al. 2022) and Pythia: LayerNorm, attention and feed-forward layer side by side or
//! one after the other, a rotation of part of each head.

use super::{Builder, LanguageModel, NormKind, Parallel, PreNorm, Weights};
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
    let is_parallel = b.reader.bool("use_parallel_residual")?;
    let is_parallel =
        is_parallel.ok_or_else(|| b.reader.bad("use_parallel_residual", "required key is missing"))?;
    for i in 0..b.config.n_layer {
        let attn_norm = b.norm(i, "attn_norm")?;
        let attention = b.attention(i, heads, Some(rope))?;
        let ffn_norm = b.norm(i, "ffn_norm")?;
        let ffn = Box::new(b.mlp(i, Activation::Gelu)?);
        b.layers.push(match is_parallel {
            true => Box::new(Parallel { attn_norm, attention, ffn_norm: Some(ffn_norm), ffn }),
            false => Box::new(PreNorm { attn_norm, attention, ffn_norm, ffn, residual_scale: 1.0 }),
        });
    }
    b.finish()
}
