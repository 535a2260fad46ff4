//! Nomic BERT (Nussbaum et al. 2024, arXiv 2402.01613, section 3): BERT with rotary positions, SwiGLU and no
//! biases in the products.

use super::bert::BertLayer;
use super::encoder::Encoder;
use super::{Builder, NormKind, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, RopePairing};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Encoder> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let n_embd = b.config.n_embd;
    b.embd_norm = Some(b.norm_of("token_embd_norm", n_embd)?);
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.encoder_heads();
    for i in 0..b.config.n_layer {
        let attention = b.attention(i, heads, Some(rope))?;
        let mlp = match b.weights.has(&format!("blk.{i}.ffn_gate.weight")) {
            true => b.gated_mlp(i, Activation::Silu)?,
            false => b.mlp(i, Activation::Gelu)?,
        };
        let layer = BertLayer::build(&mut b, i, attention, mlp)?;
        b.layers.push(Box::new(layer));
    }
    b.finish_encoder(None, None)
}
