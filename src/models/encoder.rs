//! What encoders have in common: embedding, a stack of layers in which all tokens see each other, and how
//! their vectors become one.

use super::config::Reader;
use super::{Block, Builder, Memory, TextConfig};
use crate::error::Result;
use crate::kernels::act::Activations;
use crate::kernels::attention::{KvCache, KvType};
use crate::kernels::vecmath;
use crate::layers::{Activation, Batch, I, Linear, Mode, Norm, Workspace};
use crate::repack::PackedWeights;

/// How the vectors of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// They do not: each token keeps its own.
    None,
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
    /// That of the last token.
    Last,
    /// What the classification head makes of the first token (or, in ModernBERT, of the mean).
    Rank,
}

impl Pooling {
    /// The poolings by name, in the order of their numbers in GGUF files.
    pub const NAMES: [(&str, Pooling); 5] = [
        ("none", Pooling::None),
        ("mean", Pooling::Mean),
        ("cls", Pooling::Cls),
        ("last", Pooling::Last),
        ("rank", Pooling::Rank),
    ];

    /// `pooling_type` of the metadata, or `default`.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn read(reader: &Reader, default: Pooling) -> Result<Self> {
        const KEY: &str = "pooling_type";
        match reader.number(KEY)? {
            None => Ok(default),
            Some(id) => match Pooling::NAMES.iter().enumerate().find(|(i, _)| *i as f32 == id) {
                Some((_, (_, pooling))) => Ok(*pooling),
                None => Err(reader.bad(KEY, format!("pooling {id} is not known"))),
            },
        }
    }

    /// The pooling of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Pooling::NAMES.iter().find(|(known, _)| *known == name).map(|(_, pooling)| *pooling)
    }

    /// As [`Self::from_name`] takes it.
    pub fn name(self) -> &'static str {
        Pooling::NAMES.iter().find(|(_, pooling)| *pooling == self).map_or("", |(name, _)| name)
    }

    /// One vector `[n_embd]` of at least one token's `[n_tokens, n_embd]`. Without pooling, all of them.
    pub fn apply(self, hidden: &[f32], n_embd: usize) -> Vec<f32> {
        match self {
            Pooling::None => hidden.to_vec(),
            Pooling::Cls | Pooling::Rank => hidden[..n_embd].to_vec(),
            Pooling::Last => hidden[hidden.len() - n_embd..].to_vec(),
            Pooling::Mean => {
                let mut sum = vec![0f32; n_embd];
                hidden.chunks_exact(n_embd).for_each(|row| vecmath::add::<I>(&mut sum, row));
                let n = (hidden.len() / n_embd) as f32;
                sum.iter_mut().for_each(|x| *x /= n);
                sum
            }
        }
    }
}

/// What callers need to know of an encoder.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Width of the tokens' vectors.
    pub n_embd: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Context length in training.
    pub n_ctx_train: usize,
    /// How the file says that vectors become one.
    pub pooling: Pooling,
    /// Scores that the classification head gives; 0 where there is no head.
    pub n_score: usize,
}

/// A classification head: `W_out norm(f(W h + b)) + b_out`, any part of which may be absent.
pub struct Head {
    /// W and b.
    pub dense: Option<Linear>,
    /// f; tanh where there is none.
    pub activation: Option<Activation>,
    /// The norm.
    pub norm: Option<Norm>,
    /// W_out and b_out.
    pub output: Option<Linear>,
    /// Whether it reads the mean of all tokens rather than the first.
    pub of_mean: bool,
}

impl Head {
    /// `cls`, `cls.norm` and `cls.output` of a file, or `None` where it has neither the first nor the last.
    ///
    /// # Errors
    /// `ShapeMismatch`.
    pub fn build(b: &mut Builder, activation: Option<Activation>, of_mean: bool) -> Result<Option<Head>> {
        let n_embd = b.config.n_embd;
        let linear = |b: &mut Builder, stem: &str| match b.weights.shape(&format!("{stem}.weight")) {
            None => Ok(None),
            Some(shape) => {
                let n = shape.first().copied().unwrap_or(1);
                b.weights.linear(stem, n, n_embd).map(Some)
            }
        };
        let dense = linear(b, "cls")?;
        let output = linear(b, "cls.output")?;
        if dense.is_none() && output.is_none() {
            return Ok(None);
        }
        let norm = match b.weights.has("cls.norm.weight") {
            true => Some(b.norm_of("cls.norm", n_embd)?),
            false => None,
        };
        let follows = norm.is_some() || output.is_some();
        if let Some(dense) = dense.as_ref().filter(|d| follows && d.n() != n_embd) {
            return Err(b.reader.bad("classifier", format!("{} values where {n_embd} are read", dense.n())));
        }
        Ok(Some(Head { dense, activation, norm, output, of_mean }))
    }

    /// Scores that it gives.
    fn n_score(&self) -> usize {
        self.output.as_ref().or(self.dense.as_ref()).map_or(0, Linear::n)
    }

    /// The scores of a vector.
    fn forward(
        &self,
        mut x: Vec<f32>,
        mode: Mode,
        act: &mut Activations,
        scratch: &mut Vec<f32>,
    ) -> Vec<f32> {
        if let Some(dense) = &self.dense {
            x = product(dense, &x, mode, act);
            match self.activation {
                Some(activation) => activation.apply(&mut x),
                None => vecmath::tanh::<I>(&mut x),
            }
        }
        if let Some(norm) = &self.norm {
            norm.in_place(&mut x, scratch);
        }
        match &self.output {
            Some(output) => product(output, &x, mode, act),
            None => x,
        }
    }
}

fn product(linear: &Linear, x: &[f32], mode: Mode, act: &mut Activations) -> Vec<f32> {
    act.fill(1, x.len(), mode.is_integer()).copy_from_slice(x);
    let mut out = vec![0f32; linear.n()];
    linear.forward(act, &mut out);
    out
}

/// An encoder: `h = norm(layers(embedding(tokens)))`.
pub struct Encoder {
    pub(super) config: EncoderConfig,
    pub(super) token_embd: PackedWeights,
    /// Multiplies the embedding.
    pub(super) embedding_scale: f32,
    /// `[n_ctx_train, n_embd]`, added to the embedding.
    pub(super) position_embd: Option<Vec<f32>>,
    /// `[n_token_types, n_embd]`, added to the embedding; empty where there are none.
    pub(super) token_types: Vec<f32>,
    /// Follows the embedding.
    pub(super) embd_norm: Option<Norm>,
    pub(super) layers: Vec<Box<dyn Block>>,
    pub(super) output_norm: Option<Norm>,
    pub(super) head: Option<Head>,
    /// Products that follow the pooling.
    pub(super) projection: Vec<Linear>,
    pub(super) work: Workspace,
    /// Keys and values of the layer at work; all layers have the same shape.
    pub(super) kv: Option<KvCache>,
}

impl Encoder {
    /// Its dimensions.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The vectors `[n_tokens, n_embd]` of `tokens`, of which those from `second` on are of a second
    /// text. Ids are below `n_vocab`; there are at most `n_ctx_train` of them.
    ///
    /// # Errors
    /// [`crate::error::Code::OutOfMemory`].
    pub fn hidden(&mut self, tokens: &[u32], second: usize, mode: Mode) -> Result<&[f32]> {
        self.reserve(tokens.len())?;
        let batch = Batch { m: tokens.len(), first_pos: 0, n_ctx: tokens.len(), mode };
        self.work.begin(batch, self.config.n_embd);
        self.embed(tokens, second);
        for layer in &self.layers {
            layer.forward(&mut self.work, Memory { kv: self.kv.as_mut(), state: &mut [] });
            layer.forward_rest(&mut self.work);
        }
        if let Some(norm) = &self.output_norm {
            self.work.norm_x(norm);
        }
        Ok(&self.work.x)
    }

    /// One vector of the tokens' as [`Self::hidden`] gave them: pooled and projected, or the scores.
    pub fn pool(&mut self, pooling: Pooling, mode: Mode) -> Vec<f32> {
        let Workspace { x, act, scratch, .. } = &mut self.work;
        let n_embd = self.config.n_embd;
        match (pooling, &self.head) {
            (Pooling::None, _) => x.clone(),
            (Pooling::Rank, Some(head)) => {
                let read = if head.of_mean { Pooling::Mean } else { Pooling::Cls };
                head.forward(read.apply(x, n_embd), mode, act, scratch)
            }
            _ => self
                .projection
                .iter()
                .fold(pooling.apply(x, n_embd), |x, linear| product(linear, &x, mode, act)),
        }
    }

    /// Room for the keys and values of `m` tokens.
    fn reserve(&mut self, m: usize) -> Result<()> {
        if self.kv.as_ref().is_some_and(|kv| kv.n_ctx() >= m) {
            return Ok(());
        }
        let shape = self.layers.first().and_then(|layer| layer.kv_shape());
        if let Some((n_head_kv, head_dim)) = shape {
            self.kv = Some(KvCache::new(KvType::F32, n_head_kv, head_dim, m)?);
        }
        Ok(())
    }

    fn embed(&mut self, tokens: &[u32], second: usize) {
        let n_embd = self.config.n_embd;
        let second_type = self.token_types.len().min(2 * n_embd).saturating_sub(n_embd);
        for (i, (x, &token)) in self.work.x.chunks_exact_mut(n_embd).zip(tokens).enumerate() {
            self.token_embd.row(token as usize, x);
            if !self.token_types.is_empty() {
                let from = if i < second { 0 } else { second_type };
                vecmath::add::<I>(x, &self.token_types[from..][..n_embd]);
            }
        }
        if self.embedding_scale != 1.0 {
            self.work.x.iter_mut().for_each(|x| *x *= self.embedding_scale);
        }
        if let Some(positions) = &self.position_embd {
            vecmath::add::<I>(&mut self.work.x, positions);
        }
        if let Some(norm) = &self.embd_norm {
            self.work.norm_x(norm);
        }
    }
}

impl Builder<'_> {
    /// Takes what an encoder has beside its layers, and gives the model.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn finish_encoder(self, output_norm: Option<Norm>, head: Option<Head>) -> Result<Encoder> {
        let TextConfig { n_vocab, n_embd, n_ctx_train, .. } = self.config;
        let pooling = Pooling::read(&self.reader, Pooling::Mean)?;
        if pooling == Pooling::Rank && head.is_none() {
            return Err(self.reader.bad("pooling_type", "rank, but the file has no classification head"));
        }
        let n_score = head.as_ref().map_or(0, Head::n_score);
        let token_types = match self.weights.shape("token_types.weight") {
            None => Vec::new(),
            Some(shape) => {
                let n = shape.first().copied().unwrap_or(1);
                self.weights.table("token_types.weight", n, n_embd)?
            }
        };
        let mut projection = Vec::new();
        let mut width = n_embd;
        for stem in ["dense_2", "dense_3"] {
            if let Some(shape) = self.weights.shape(&format!("{stem}.weight")) {
                let n = shape.first().copied().unwrap_or(1);
                projection.push(self.weights.linear(stem, n, width)?);
                width = n;
            }
        }
        let token_embd = self.weights.matrix("token_embd.weight", n_vocab, n_embd)?;
        Ok(Encoder {
            config: EncoderConfig { n_embd, n_vocab, n_ctx_train, pooling, n_score },
            token_embd,
            embedding_scale: self.embedding_scale,
            position_embd: self.position_embd,
            token_types,
            embd_norm: self.embd_norm,
            layers: self.layers,
            output_norm,
            head,
            projection,
            work: Workspace::new(self.ropes),
            kv: None,
        })
    }

    /// Heads in which all tokens see each other.
    pub fn encoder_heads(&self) -> crate::layers::Heads {
        crate::layers::Heads { bidirectional: true, ..self.heads() }
    }
}
