//! Gemma 2 (Gemma Team 2024, arXiv 2408.00118): norms before and after each part, soft caps on scores
//! and logits, a window in every other layer.

use super::{
    Builder, LanguageModel, NormKind, Sandwich, Weights,
    hparams::{self, Windows},
};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Heads, RopePairing, RopeParams};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    b.embedding_scale = (b.config.n_embd as f32).sqrt();
    b.logit_softcap = b.reader.positive("final_logit_softcapping", 30.0)?;
    let window = b.reader.optional_dim("attention.sliding_window")?.unwrap_or(4096);
    let windows = Windows::with(&b.reader, b.config.n_layer, window, 2)?;
    let global = hparams::rope(&b.reader, &b.config, RopePairing::Halves)?;
    let base = b.reader.positive("rope.freq_base_swa", global.base)?;
    let ropes = [b.rope_with(&global)?, b.rope_with(&RopeParams { base, ..global })?];
    // The 27B model scales by the width of a head before it was narrowed.
    let scaled_by =
        if b.config.n_layer == 46 { b.config.n_embd / b.config.n_head } else { b.config.head_dim };
    let softcap = b.reader.positive("attn_logit_softcapping", 50.0)?;
    let heads = Heads { scale: 1.0 / (scaled_by as f32).sqrt(), softcap, ..b.heads() };
    for i in 0..b.config.n_layer {
        let is_local = windows.is_local[i];
        let heads = Heads { window: if is_local { window } else { 0 }, ..heads };
        let layer = Sandwich {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(ropes[usize::from(is_local)]))?,
            attn_post_norm: b.norm(i, "post_attention_norm")?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(b.gated_mlp(i, Activation::Gelu)?),
            ffn_post_norm: b.norm(i, "post_ffw_norm")?,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
