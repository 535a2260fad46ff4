//! GPT-2 (Radford et al. 2019): learned positions, LayerNorm, a fused product for queries, keys and
//! values, GELU.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::Activation;

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let (n_ctx, n_embd) = (b.config.n_ctx_train, b.config.n_embd);
    b.position_embd = Some(b.weights.table("position_embd.weight", n_ctx, n_embd)?);
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, None)?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.mlp(i, Activation::Gelu)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
