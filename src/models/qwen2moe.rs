//! Qwen1.5-MoE and Qwen2-MoE (Yang et al. 2024, arXiv 2407.10671, section 2.2.2): Qwen2 with small experts
//! and a gated expert that all tokens share.

use super::{Builder, LanguageModel, NormKind, PreNorm, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{RopePairing, SharedExpert};

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Box<dyn LanguageModel>> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Rms)?;
    let rope = b.rope(RopePairing::Halves)?;
    let heads = b.heads();
    let n_ff = match b.reader.optional_dim("expert_feed_forward_length")? {
        Some(n) => n,
        None => b.config.n_ff / b.n_expert_used()?,
    };
    let n_shared = b.reader.optional_dim("expert_shared_feed_forward_length")?.unwrap_or(b.config.n_ff);
    for i in 0..b.config.n_layer {
        let mut moe = b.moe(i, n_ff, false)?;
        let gate = b.weights.values(&format!("blk.{i}.ffn_gate_inp_shexp.weight"), b.config.n_embd)?;
        moe.shared = Some(SharedExpert { mlp: b.shared_expert(i, n_shared)?, gate: Some(gate) });
        let layer = PreNorm {
            attn_norm: b.norm(i, "attn_norm")?,
            attention: b.attention(i, heads, Some(rope))?,
            ffn_norm: b.norm(i, "ffn_norm")?,
            ffn: Box::new(moe),
            residual_scale: 1.0,
        };
        b.layers.push(Box::new(layer));
    }
    b.finish()
}
