//! The text towers of CLIP and SigLIP: a transformer over tokens, of which one is the text's vector.

use super::block::{EncoderBlock, EncoderSpec, n_layer, norm};
use super::vit::{activation, product};
use super::{Config, TextTower};
use crate::error::{Code, Error, Result};
use crate::kernels::attention::{KvCache, KvType};
use crate::kernels::vecmath;
use crate::layers::{Activation, Batch, I, Linear, Mode, Norm, Workspace};
use crate::models::Weights;
use crate::repack::PackedWeights;

/// How a family's texts are read.
pub struct TextSpec {
    /// Whether a token sees those after it.
    pub bidirectional: bool,
    /// Activation where the config names none.
    pub activation: Activation,
    /// The token that fills texts up to their full length, for families whose texts always have it.
    pub pad: Option<u32>,
    /// Stem of the last product.
    pub projection: &'static str,
    /// See [`TextTower::is_sigmoid`].
    pub is_sigmoid: bool,
}

/// A text tower.
pub struct TextEncoder {
    token_embedding: PackedWeights,
    /// `[n_ctx, n_embd]`.
    positions: Vec<f32>,
    blocks: Vec<EncoderBlock>,
    norm: Norm,
    projection: Option<Linear>,
    spec: EncoderSpec,
    pad: Option<u32>,
    scale_and_bias: (f32, f32),
    is_sigmoid: bool,
    n_ctx: usize,
    work: Workspace,
    kv: KvCache,
}

/// Longest text that a file may claim, in tokens.
const MAX_TOKENS: usize = 4096;

impl TextEncoder {
    /// Takes `text.*`, the last product and the scale; `None` where the file has no text tower.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`, `OutOfMemory`.
    pub fn build(
        config: &Config,
        weights: &mut Weights,
        how: &TextSpec,
        n_out: usize,
    ) -> Result<Option<Self>> {
        let Some(shape) = weights.shape("text.token_embedding.weight") else { return Ok(None) };
        let &[n_vocab, n_embd] = shape else {
            let rule = format!("shape {shape:?}, expected [n_vocab, n_embd]");
            return Err(Error::new(Code::ShapeMismatch, rule).tensor("text.token_embedding.weight"));
        };
        let section = config.section("text_config");
        let n_head = section.dim("num_attention_heads")?.unwrap_or((n_embd / 64).max(1));
        if n_embd == 0 || n_vocab == 0 || !n_embd.is_multiple_of(n_head) {
            return Err(section.bad("num_attention_heads", format!("{n_head} does not divide {n_embd}")));
        }
        let spec = EncoderSpec {
            n_embd,
            n_head,
            eps: section.positive("layer_norm_eps", if how.is_sigmoid { 1e-6 } else { 1e-5 })?,
            activation: activation(&section, how.activation)?,
            bidirectional: how.bidirectional,
            rope: None,
        };
        let n_ctx = weights.shape("text.pos_embed").map_or(0, |s| s.iter().product::<usize>() / n_embd);
        if n_ctx > MAX_TOKENS {
            return Err(Error::new(Code::ShapeMismatch, "too many positions").tensor("text.pos_embed"));
        }
        let n_layer = n_layer(weights, "text.blocks")?;
        let blocks = (0..n_layer)
            .map(|i| EncoderBlock::build(weights, &format!("text.blocks.{i}"), &spec))
            .collect::<Result<Vec<_>>>()?;
        let projection = match weights.has(&format!("{}.weight", how.projection)) {
            true => Some(weights.linear(how.projection, n_out, n_embd)?),
            false if n_embd == n_out => None,
            false => {
                let rule = "the architecture needs this tensor";
                return Err(
                    Error::new(Code::MissingTensor, rule).tensor(format!("{}.weight", how.projection))
                );
            }
        };
        let number =
            |weights: &mut Weights, name: &str, default: f32| match weights.optional_values(name, 1)? {
                Some(v) if v[0].is_finite() => Ok(v[0]),
                Some(v) => Err(Error::new(Code::NonFiniteWeight, format!("is {}", v[0])).tensor(name)),
                None => Ok(default),
            };
        // Files hold the logarithm; CLIP begins with 1 / 0.07 and is held below 100.
        let log_scale = number(weights, "logit_scale", 100f32.ln())?;
        let bias = number(weights, "logit_bias", 0.0)?;
        for name in ["text.position_ids", "text.embeddings.position_ids"] {
            weights.ignore(name);
        }
        Ok(Some(TextEncoder {
            token_embedding: weights.matrix("text.token_embedding.weight", n_vocab, n_embd)?,
            positions: weights.values("text.pos_embed", n_ctx.max(1) * n_embd)?,
            norm: norm(weights, "text.norm", n_embd, spec.eps)?,
            blocks,
            projection,
            pad: how.pad.map(|pad| section.token("pad_token_id").unwrap_or(pad)),
            scale_and_bias: (libm::expf(log_scale), bias),
            is_sigmoid: how.is_sigmoid,
            kv: KvCache::new(KvType::F32, n_head, n_embd / n_head, n_ctx)?,
            n_ctx,
            spec,
            work: Workspace::default(),
        }))
    }
}

impl TextTower for TextEncoder {
    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn n_vocab(&self) -> usize {
        self.token_embedding.n()
    }

    /// The last token's vector: CLIP's texts end with the token that is read, SigLIP reads the last of the full
    /// length.
    fn embed(&mut self, tokens: &[u32], mode: Mode) -> Result<Vec<f32>> {
        let n_embd = self.spec.n_embd;
        let n_filled = if self.pad.is_some() { self.n_ctx } else { tokens.len() };
        let pad = self.pad.unwrap_or_default().min(self.n_vocab() as u32 - 1);
        let w = &mut self.work;
        w.begin(Batch { m: n_filled, first_pos: 0, n_ctx: n_filled, mode }, n_embd);
        for (i, x) in w.x.chunks_exact_mut(n_embd).enumerate() {
            let token = tokens.get(i).copied().unwrap_or(pad);
            self.token_embedding.row(token as usize, x);
        }
        vecmath::add::<I>(&mut w.x, &self.positions);
        for block in &self.blocks {
            block.forward(w, &mut self.kv);
        }
        let mut last = w.x[w.x.len() - n_embd..].to_vec();
        self.norm.in_place(&mut last, &mut w.scratch);
        Ok(match &self.projection {
            Some(projection) => product(projection, &last, &mut w.act),
            None => last,
        })
    }

    fn scale_and_bias(&self) -> (f32, f32) {
        self.scale_and_bias
    }

    fn is_sigmoid(&self) -> bool {
        self.is_sigmoid
    }
}
