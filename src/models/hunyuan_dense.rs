//! Hunyuan, dense (Tencent 2025): LLaMA with RMSNorm on each head's queries and keys after the
//! rotation, whose base may be stretched by alpha (NTK-aware scaling).

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights, hparams};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, QkNorm, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let mut params = hparams::rope(&b.reader, &b.config, RopePairing::Halves)?;
    if let Some(alpha) = b.reader.number("rope.scaling.alpha")?.filter(|&alpha| alpha > 0.0) {
        let d = b.config.head_dim as f32;
        params.base *= alpha.powf(d / (d - 2.0));
        if !params.base.is_finite() || params.base <= 0.0 {
            return Err(b
                .reader
                .bad("rope.scaling.alpha", format!("{alpha} gives a base of {}", params.base)));
        }
    }
    let rope = b.rope_with(&params)?;
    let heads = b.heads();
    for i in 0..b.config.n_layer {
        let qk_norm = QkNorm { after_rope: true, ..b.head_norms(i)? };
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: Attention { qk_norm: Some(qk_norm), ..b.attention(i, heads, Some(rope))? },
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Silu)?),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
