//! Command R7B (Cohere 2024, arXiv 2504.00698): Command R with a window and the rotation in three of four
//! layers and neither in the fourth.

use super::{Builder, LanguageModel, NormKind, Parallel, Weights, hparams::Windows};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Heads, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    b.logit_scale = b.reader.positive("logit_scale", 1.0)?;
    let window = b.reader.dim("attention.sliding_window")?;
    let windows = Windows::with(&b.reader, b.config.n_layer, window, 4)?;
    let rope = b.rope(RopePairing::Adjacent)?;
    for i in 0..b.config.n_layer {
        let heads = Heads { window: Windows::of(Some(&windows), i), ..b.heads() };
        let rope = (heads.window > 0).then_some(rope);
        let layer = Parallel {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, rope)?,
            ffn_norm: None,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
