//! Gemma 3 (Gemma Team 2025, arXiv 2503.19786): Gemma 2 with norms on queries and keys instead of soft
//! caps, and five layers with a window and a rotation of their own to each global one.

use super::{Builder, LanguageModel, NormKind, Sandwich, Weights, hparams::Windows};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Heads, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    b.embedding_scale = (b.config.n_embd as f32).sqrt();
    b.logit_softcap = b.reader.number("final_logit_softcapping")?.unwrap_or(0.0);
    let windows = Windows::read(&b.reader, b.config.n_layer, 6)?;
    let local_base = b.reader.positive("rope.freq_base_swa", 10_000.0)?;
    let global = b.rope(RopePairing::Halves)?;
    let local = b.plain_rope(RopePairing::Halves, local_base)?;
    // The 27B model scales by the width of a head before it was narrowed.
    let scaled_by =
        if b.config.n_layer == 62 { b.config.n_embd / b.config.n_head } else { b.config.head_dim };
    let heads = Heads { scale: 1.0 / (scaled_by as f32).sqrt(), ..b.heads() };
    for i in 0..b.config.n_layer {
        let heads = Heads { window: Windows::of(windows.as_ref(), i), ..heads };
        let rope = if heads.window > 0 { local } else { global };
        let layer = Sandwich {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: Attention { qk_norm: Some(b.head_norms(i)?), ..b.attention(i, heads, Some(rope))? },
            attn_post_norm: b.norm(i, "post_attention_norm")?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Gelu)?),
            ffn_post_norm: b.norm(i, "post_ffw_norm")?,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
