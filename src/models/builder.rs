//! Takes from a file, under the names that GGUF gives them, the parts that decoders are made of.

use super::config::Reader;
use super::decoder::{Decoder, Output};
use super::{Block, LanguageModel, TextConfig, Weights, hparams};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::layers::{
    Activation, Attention, Heads, LayerNorm, Mlp, Moe, Norm, QkNorm, Qkv, RmsNorm, Rope, RopePairing,
    RopeParams, Up, Workspace,
};

/// Which norm an architecture uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square.
    Rms,
    /// Mean and variance, with or without bias.
    Layer,
}

/// A decoder under construction.
pub struct Builder<'a> {
    /// The hyperparameters.
    pub reader: Reader<'a>,
    /// The tensors.
    pub weights: &'a mut Weights,
    /// The dimensions.
    pub config: TextConfig,
    /// The layers so far.
    pub layers: Vec<Box<dyn Block>>,
    /// Multiplies the embedding.
    pub embedding_scale: f32,
    /// Multiplies the logits.
    pub logit_scale: f32,
    /// Caps the logits; 0 for no cap.
    pub logit_softcap: f32,
    /// `[n_ctx_train, n_embd]`, added to the embedding.
    pub position_embd: Option<Vec<f32>>,
    /// Follows the embedding.
    pub embd_norm: Option<Norm>,
    norm: NormKind,
    eps: f32,
    pub(super) ropes: Vec<Rope>,
}

impl<'a> Builder<'a> {
    /// Reads the dimensions.
    ///
    /// # Errors
    /// `BadConfig` naming the key.
    pub fn new(
        metadata: &'a Metadata,
        arch: &'a str,
        weights: &'a mut Weights,
        norm: NormKind,
    ) -> Result<Self> {
        let config = hparams::text_config(&Reader::new(metadata, arch), weights)?;
        Builder::with_config(metadata, arch, weights, norm, config)
    }

    /// A builder with dimensions that the architecture reads in its own way.
    ///
    /// # Errors
    /// `BadConfig` naming the key.
    pub fn with_config(
        metadata: &'a Metadata,
        arch: &'a str,
        weights: &'a mut Weights,
        norm: NormKind,
        config: TextConfig,
    ) -> Result<Self> {
        let reader = Reader::new(metadata, arch);
        let eps = match norm {
            NormKind::Rms => reader.positive("attention.layer_norm_rms_epsilon", 1e-5)?,
            NormKind::Layer => reader.positive("attention.layer_norm_epsilon", 1e-5)?,
        };
        Ok(Builder {
            reader,
            weights,
            config,
            layers: Vec::new(),
            embedding_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: 0.0,
            position_embd: None,
            embd_norm: None,
            norm,
            eps,
            ropes: Vec::new(),
        })
    }

    /// What norms add to the variance.
    pub fn eps(&self) -> f32 {
        self.eps
    }

    /// Refuses a mixture of experts, for architectures that have none here.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn refuse_experts(&self) -> Result<()> {
        match self.reader.optional_dim("expert_count") {
            Ok(Some(_)) => {
                Err(self.reader.bad("expert_count", "mixture-of-experts models are not supported"))
            }
            _ => Ok(()),
        }
    }

    /// Norm `blk.i.part` over the residual stream.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn norm(&mut self, i: usize, part: &str) -> Result<Norm> {
        self.norm_of(&format!("blk.{i}.{part}"), self.config.n_embd)
    }

    /// Norm `stem` over `n` values.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn norm_of(&mut self, stem: &str, n: usize) -> Result<Norm> {
        let eps = self.eps;
        let weight = self.weights.values(&format!("{stem}.weight"), n)?;
        Ok(match self.norm {
            NormKind::Rms => Norm::Rms(RmsNorm { weight, eps }),
            NormKind::Layer => {
                let bias = self.weights.optional_values(&format!("{stem}.bias"), n)?;
                Norm::Layer(LayerNorm { weight, bias: bias.unwrap_or_else(|| vec![0.0; n]), eps })
            }
        })
    }

    /// A norm over the residual stream without weights.
    pub fn plain_norm(&self) -> Norm {
        let (n, eps) = (self.config.n_embd, self.eps);
        match self.norm {
            NormKind::Rms => Norm::Rms(RmsNorm { weight: vec![1.0; n], eps }),
            NormKind::Layer => Norm::Layer(LayerNorm { weight: vec![1.0; n], bias: vec![0.0; n], eps }),
        }
    }

    /// Heads that see all before them, with scores times `1 / sqrt(head_dim)`.
    pub fn heads(&self) -> Heads {
        let TextConfig { n_head, n_head_kv, head_dim, .. } = self.config;
        Heads {
            n_head,
            n_head_kv,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: 0.0,
            window: 0,
            bidirectional: false,
        }
    }

    /// The attention of layer `i`: `attn_qkv`, or `attn_q`, `attn_k` and `attn_v`; and `attn_output`.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn attention(&mut self, i: usize, heads: Heads, rope: Option<usize>) -> Result<Attention> {
        let name = |part: &str| format!("blk.{i}.{part}");
        let n_embd = self.config.n_embd;
        let (n_q, n_kv) = (heads.n_head * heads.head_dim, heads.n_head_kv * heads.head_dim);
        let qkv = if self.weights.has(&name("attn_qkv.weight")) {
            Qkv::Fused(self.weights.linear(&name("attn_qkv"), n_q + 2 * n_kv, n_embd)?)
        } else {
            Qkv::Separate(Box::new([
                self.weights.linear(&name("attn_q"), n_q, n_embd)?,
                self.weights.linear(&name("attn_k"), n_kv, n_embd)?,
                self.weights.linear(&name("attn_v"), n_kv, n_embd)?,
            ]))
        };
        let output = self.weights.linear(&name("attn_output"), n_embd, n_q)?;
        Ok(Attention { heads, qkv, clamp: None, qk_norm: None, rope, bias: None, sub_norm: None, output })
    }

    /// Norms `attn_q_norm` and `attn_k_norm` of layer `i`, each head by itself.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn head_norms(&mut self, i: usize) -> Result<QkNorm> {
        let n = self.config.head_dim;
        Ok(QkNorm {
            q: self.norm_of(&format!("blk.{i}.attn_q_norm"), n)?,
            k: self.norm_of(&format!("blk.{i}.attn_k_norm"), n)?,
            after_rope: false,
        })
    }

    /// Norms `attn_q_norm` and `attn_k_norm` of layer `i` over all heads.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn full_norms(&mut self, i: usize) -> Result<QkNorm> {
        let TextConfig { n_head, n_head_kv, head_dim, .. } = self.config;
        Ok(QkNorm {
            q: self.norm_of(&format!("blk.{i}.attn_q_norm"), n_head * head_dim)?,
            k: self.norm_of(&format!("blk.{i}.attn_k_norm"), n_head_kv * head_dim)?,
            after_rope: false,
        })
    }

    /// Layer norms `attn_q_norm` and `attn_k_norm` of layer `i` with weights of their own per
    /// head, where the file has them.
    ///
    /// # Errors
    /// `ShapeMismatch`.
    pub fn per_head_norms(&mut self, i: usize) -> Result<Option<QkNorm>> {
        let TextConfig { n_head, n_head_kv, head_dim, .. } = self.config;
        let mut norms =
            [n_head, n_head_kv].into_iter().zip(["attn_q_norm", "attn_k_norm"]).map(|(n, part)| {
                let name = format!("blk.{i}.{part}.weight");
                if !self.weights.has(&name) {
                    return Ok(None);
                }
                let weights = self.weights.table(&name, n, head_dim)?;
                let (bias, eps) = (vec![0.0; head_dim], self.eps);
                let norm = |w: &[f32]| LayerNorm { weight: w.to_vec(), bias: bias.clone(), eps };
                Ok(Some(Norm::PerHead(weights.chunks_exact(head_dim).map(norm).collect())))
            });
        let (q, k) = (norms.next().transpose()?.flatten(), norms.next().transpose()?.flatten());
        Ok(q.zip(k).map(|(q, k)| QkNorm { q, k, after_rope: false }))
    }

    /// `ffn_up` and `ffn_down` of layer `i`.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn mlp(&mut self, i: usize, activation: Activation) -> Result<Mlp> {
        let TextConfig { n_ff, n_embd, .. } = self.config;
        let up = Up::Plain(self.weights.linear(&format!("blk.{i}.ffn_up"), n_ff, n_embd)?);
        self.down(i, up, activation)
    }

    /// `ffn_gate`, `ffn_up` and `ffn_down` of layer `i`.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn gated_mlp(&mut self, i: usize, activation: Activation) -> Result<Mlp> {
        let TextConfig { n_ff, n_embd, .. } = self.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        let gate = self.weights.linear(&name("ffn_gate"), n_ff, n_embd)?;
        let up = self.weights.linear(&name("ffn_up"), n_ff, n_embd)?;
        self.down(i, Up::Gated(Box::new([gate, up])), activation)
    }

    /// `ffn_up`, which holds gate and up, and `ffn_down` of layer `i`.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn fused_mlp(&mut self, i: usize, activation: Activation) -> Result<Mlp> {
        let TextConfig { n_ff, n_embd, .. } = self.config;
        let up = Up::Fused(self.weights.linear(&format!("blk.{i}.ffn_up"), 2 * n_ff, n_embd)?);
        self.down(i, up, activation)
    }

    fn down(&mut self, i: usize, up: Up, activation: Activation) -> Result<Mlp> {
        let TextConfig { n_ff, n_embd, .. } = self.config;
        let down = self.weights.linear(&format!("blk.{i}.ffn_down"), n_embd, n_ff)?;
        Ok(Mlp { up, activation, sub_norm: None, down })
    }

    /// The router and the experts of layer `i`, `n_ff` wide, with SiLU: `ffn_gate_inp`,
    /// `ffn_gate_exps`, `ffn_up_exps`, `ffn_down_exps`. With `normalize` the shares of the
    /// experts in use sum to one.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn moe(&mut self, i: usize, n_ff: usize, normalize: bool) -> Result<Moe> {
        let n_expert = self.reader.dim("expert_count")?;
        let n_used = self.n_expert_used()?;
        let n_embd = self.config.n_embd;
        let name = |part: &str| format!("blk.{i}.{part}");
        Ok(Moe {
            router: self.weights.linear(&name("ffn_gate_inp"), n_expert, n_embd)?,
            gate: self.weights.experts(&name("ffn_gate_exps.weight"), n_expert, n_ff, n_embd)?,
            up: self.weights.experts(&name("ffn_up_exps.weight"), n_expert, n_ff, n_embd)?,
            down: self.weights.experts(&name("ffn_down_exps.weight"), n_expert, n_embd, n_ff)?,
            activation: Activation::Silu,
            n_used,
            normalize,
            shared: None,
        })
    }

    /// Experts that work on a token.
    ///
    /// # Errors
    /// `BadConfig` where that is none, or more than there are.
    pub fn n_expert_used(&self) -> Result<usize> {
        let n_expert = self.reader.dim("expert_count")?;
        let n_used = self.reader.dim("expert_used_count")?;
        if n_used > n_expert {
            return Err(self.reader.bad("expert_used_count", format!("{n_used} of {n_expert} experts")));
        }
        Ok(n_used)
    }

    /// `ffn_gate_shexp`, `ffn_up_shexp` and `ffn_down_shexp` of layer `i`, `n_ff` wide.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn shared_expert(&mut self, i: usize, n_ff: usize) -> Result<Mlp> {
        let n_embd = self.config.n_embd;
        let name = |part: &str| format!("blk.{i}.{part}");
        let gate = self.weights.linear(&name("ffn_gate_shexp"), n_ff, n_embd)?;
        let up = self.weights.linear(&name("ffn_up_shexp"), n_ff, n_embd)?;
        let down = self.weights.linear(&name("ffn_down_shexp"), n_embd, n_ff)?;
        Ok(Mlp { up: Up::Gated(Box::new([gate, up])), activation: Activation::Silu, sub_norm: None, down })
    }

    /// The rotation that the metadata describe, with the factors of `rope_freqs`, or of
    /// `rope_factors_short` and `_long`, where the file has them.
    ///
    /// # Errors
    /// `BadConfig`, `ShapeMismatch`.
    pub fn rope(&mut self, pairing: RopePairing) -> Result<usize> {
        let params = hparams::rope(&self.reader, &self.config, pairing)?;
        self.rope_with(&params)
    }

    /// As [`Self::rope`], with these parameters instead of those of the metadata.
    ///
    /// # Errors
    /// `BadConfig`, `ShapeMismatch`.
    pub fn rope_with(&mut self, params: &RopeParams) -> Result<usize> {
        let n = params.n_rot / 2;
        let factors = self.rope_factors("rope_freqs.weight", n)?;
        let short = self.rope_factors("rope_factors_short.weight", n)?;
        let long = self.rope_factors("rope_factors_long.weight", n)?;
        let rope = match (factors, long) {
            (None, Some(long)) => {
                let n_ctx = hparams::original_context(&self.reader, &self.config)?;
                Rope::new(params, &short.unwrap_or_default()).with_long(params, n_ctx, &long)
            }
            (factors, _) => Rope::new(params, &factors.or(short).unwrap_or_default()),
        };
        Ok(self.add_rope(rope))
    }

    /// A rotation with its own base, neither scaled nor with factors, as layers with a window use.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn plain_rope(&mut self, pairing: RopePairing, base: f32) -> Result<usize> {
        let params = hparams::rope(&self.reader, &self.config, pairing)?;
        let params = RopeParams { base, scale: 1.0, yarn: None, magnitude: 1.0, ..params };
        Ok(self.add_rope(Rope::new(&params, &[])))
    }

    /// Divisors of `n` frequencies, where the file has them.
    fn rope_factors(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        let factors = self.weights.optional_values(name, n)?;
        match factors.iter().flatten().find(|f| !f.is_finite() || **f <= 0.0) {
            Some(f) => {
                let rule = format!("{f} is no factor of a frequency");
                Err(Error::new(Code::NonFiniteWeight, rule).tensor(name))
            }
            None => Ok(factors),
        }
    }

    fn add_rope(&mut self, rope: Rope) -> usize {
        self.ropes.push(rope);
        self.ropes.len() - 1
    }

    /// Takes embedding and output, and gives the model.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn finish(self) -> Result<Box<dyn LanguageModel>> {
        let name = "output_norm";
        let n_embd = self.config.n_embd;
        self.finish_with(|b| b.norm_of(name, n_embd))
    }

    /// As [`Self::finish`], with a norm before the output that `norm` makes.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn finish_with(
        mut self,
        norm: impl FnOnce(&mut Self) -> Result<Norm>,
    ) -> Result<Box<dyn LanguageModel>> {
        let TextConfig { n_vocab, n_embd, .. } = self.config;
        let token_embd = self.weights.matrix("token_embd.weight", n_vocab, n_embd)?;
        let output_norm = norm(&mut self)?;
        let output = if self.weights.has("output.weight") {
            Output::Own(self.weights.linear("output", n_vocab, n_embd)?)
        } else {
            Output::Tied(self.weights.optional_values("output.bias", n_vocab)?)
        };
        Ok(Box::new(Decoder {
            config: self.config,
            token_embd,
            embedding_scale: self.embedding_scale,
            position_embd: self.position_embd,
            embd_norm: self.embd_norm,
            layers: self.layers,
            output_norm,
            output,
            logit_scale: self.logit_scale,
            logit_softcap: self.logit_softcap,
            work: Workspace::new(self.ropes),
        }))
    }
}
