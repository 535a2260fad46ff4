//! BitNet b1.58 (Ma et al. 2024, arXiv 2402.17764): ternary weights, with a norm before the last product
//! of each part.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Mlp, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    let (n_q, n_ff) = (b.config.n_head * b.config.head_dim, b.config.n_ff);
    for i in 0..b.config.n_layer {
        let attn_sub_norm = b.norm_of(&format!("blk.{i}.attn_sub_norm"), n_q)?;
        let ffn_sub_norm = b.norm_of(&format!("blk.{i}.ffn_sub_norm"), n_ff)?;
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: Attention { sub_norm: Some(attn_sub_norm), ..b.attention(i, heads, Some(rope))? },
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(Mlp { sub_norm: Some(ffn_sub_norm), ..b.gated_mlp(i, Activation::Silu)? }),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
