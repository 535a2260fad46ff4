//! OLMo 2 (OLMo Team 2024, arXiv 2501.00656): norms after each part and over all queries and keys; and
//! OLMo 3, which adds layers with a window and an unscaled rotation.

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
    let windows = Windows::read(&b.reader, b.config.n_layer, 4)?;
    let base = b.reader.positive("rope.freq_base", 10_000.0)?;
    let global = b.rope(RopePairing::Halves)?;
    let local = b.plain_rope(RopePairing::Halves, base)?;
    for i in 0..b.config.n_layer {
        let heads = Heads { window: Windows::of(windows.as_ref(), i), ..b.heads() };
        let rope = if heads.window > 0 { local } else { global };
        let layer = PostNorm {
            attention: Attention { qk_norm: Some(b.full_norms(i)?), ..b.attention(i, heads, Some(rope))? },
            attn_post_norm: b.norm(i, "post_attention_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            ffn_post_norm: b.norm(i, "post_ffw_norm")?,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
