//! BERT (Devlin et al. 2019, arXiv 1810.04805): learned positions, token types, norms after each residual sum,
//! GELU; with a classification head where the file has one (cross-encoders).

use super::block::attend;
use super::encoder::{Encoder, Head};
use super::{Block, Builder, FeedForward, Memory, NormKind, Weights};
use crate::container::Metadata;
use crate::error::Result;
use crate::layers::{Activation, Attention, Norm, Workspace};

/// `x = norm(x + A(x))`, then `x = norm(x + F(x))`.
pub(super) struct BertLayer {
    attention: Attention,
    attn_output_norm: Norm,
    ffn: Box<dyn FeedForward>,
    layer_output_norm: Norm,
}

impl BertLayer {
    pub(super) fn build(
        b: &mut Builder,
        i: usize,
        attention: Attention,
        ffn: impl FeedForward + 'static,
    ) -> Result<Self> {
        Ok(BertLayer {
            attention,
            attn_output_norm: b.norm(i, "attn_output_norm")?,
            ffn: Box::new(ffn),
            layer_output_norm: b.norm(i, "layer_output_norm")?,
        })
    }
}

impl Block for BertLayer {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        w.input_plain();
        attend(&self.attention, w, memory);
        w.add_out();
        w.norm_x(&self.attn_output_norm);
        w.input_plain();
        self.ffn.forward(w);
        w.add_out();
        w.norm_x(&self.layer_output_norm);
    }
}

/// Reads hyperparameters and takes the tensors.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn build(metadata: &Metadata, arch: &str, weights: &mut Weights) -> Result<Encoder> {
    let mut b = Builder::new(metadata, arch, weights, NormKind::Layer)?;
    let (n_ctx, n_embd) = (b.config.n_ctx_train, b.config.n_embd);
    b.position_embd = Some(b.weights.table("position_embd.weight", n_ctx, n_embd)?);
    b.embd_norm = Some(b.norm_of("token_embd_norm", n_embd)?);
    let heads = b.encoder_heads();
    for i in 0..b.config.n_layer {
        let attention = b.attention(i, heads, None)?;
        let mlp = b.mlp(i, Activation::Gelu)?;
        let layer = BertLayer::build(&mut b, i, attention, mlp)?;
        b.layers.push(Box::new(layer));
    }
    let head = Head::build(&mut b, None, false)?;
    b.finish_encoder(None, head)
}
