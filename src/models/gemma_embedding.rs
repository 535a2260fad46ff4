//! EmbeddingGemma (Schechter Vera et al. 2025, arXiv 2509.20354): Gemma 3 as an encoder, in which all tokens see
//! each other, most layers within a window.

use super::encoder::Encoder;
use super::hparams::Windows;
use super::{Builder, NormKind, Sandwich, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Heads, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Encoder> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let (n_embd, n_layer) = (b.config.n_embd, b.config.n_layer);
    b.embedding_scale = (n_embd as f32).sqrt();
    let windows = Windows::read(&b.reader, n_layer, 6)?;
    let local_base = b.reader.positive("rope.freq_base_swa", 10_000.0)?;
    let global = b.rope(RopePairing::Halves)?;
    let local = b.plain_rope(RopePairing::Halves, local_base)?;
    for i in 0..n_layer {
        let heads = Heads { window: Windows::of(windows.as_ref(), i), ..b.encoder_heads() };
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
    let output_norm = b.norm_of("output_norm", n_embd)?;
    b.finish_encoder(Some(output_norm), None)
}
