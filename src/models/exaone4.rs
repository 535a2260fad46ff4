//! EXAONE 4.0 (LG AI Research 2025, arXiv 2507.11407): norms after each part and on each head's queries
//! and keys. The 32B model, and it alone, has a window and the rotation in three of four layers and
//! neither in the fourth.

use super::{Builder, LanguageModel, NormKind, PostNorm, Weights, hparams::Windows};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Heads, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let windows = match b.config.n_layer {
        64 => {
            let window = b.reader.optional_dim("attention.sliding_window")?.unwrap_or(4096);
            Some(Windows::with(&b.reader, 64, window, 4)?)
        }
        _ => None,
    };
    let rope = b.rope(RopePairing::Halves)?;
    for i in 0..b.config.n_layer {
        let heads = Heads { window: Windows::of(windows.as_ref(), i), ..b.heads() };
        let rope = (windows.is_none() || heads.window > 0).then_some(rope);
        let layer = PostNorm {
            attention: Attention { qk_norm: Some(b.head_norms(i)?), ..b.attention(i, heads, rope)? },
            attn_post_norm: b.norm(i, "post_attention_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            ffn_post_norm: b.norm(i, "post_ffw_norm")?,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
