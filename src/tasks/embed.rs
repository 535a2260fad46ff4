//! Texts to vectors, and documents to scores against a query.

use super::generate::PROMPT_CHUNK;
use super::{ModelInfo, TextModel};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::layers::Mode;
use crate::models::{Encoder, Pooling};
use crate::tokenizer::Tokenizer;
use serde::Deserialize;

/// How to embed. Every field may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EmbedOptions {
    /// `"mean"`, `"cls"` (first token), `"last"`, `"none"` (each token's vector, one after the other) or
    /// `"rank"` (the scores of a classification head); by default what the file says. Where it says
    /// nothing, encoders take the mean and language models the last token.
    pub pooling: Option<String>,
    /// Scale vectors to length 1. Scores are never scaled.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions { pooling: None, normalize: true }
    }
}

impl EmbedOptions {
    /// Judges the options without a model.
    ///
    /// # Errors
    /// [`Code::BadArgument`] naming the option.
    pub fn check(&self) -> Result<()> {
        self.pooling(Pooling::Mean).map(|_| ())
    }

    /// The pooling asked for, or `default`.
    ///
    /// # Errors
    /// [`Code::BadArgument`] naming the option.
    pub fn pooling(&self, default: Pooling) -> Result<Pooling> {
        let Some(name) = &self.pooling else { return Ok(default) };
        Pooling::from_name(name).ok_or_else(|| {
            let known: Vec<_> = Pooling::NAMES.iter().map(|(name, _)| *name).collect();
            bad("pooling", format!("{name:?} is not known; known: {}", known.join(", ")))
        })
    }
}

fn bad(key: &str, rule: impl Into<String>) -> Error {
    Error::new(Code::BadArgument, rule).key(key)
}

/// `vector` as the options want it, where all of it is numbers. Without pooling each token has its own length.
fn finished(mut vector: Vec<f32>, n_embd: usize, pooling: Pooling, normalize: bool) -> Result<Vec<f32>> {
    if vector.iter().any(|x| !x.is_finite()) {
        return Err(Error::new(Code::NumericFault, "the model computed NaN or infinity"));
    }
    let width = if pooling == Pooling::None { n_embd } else { vector.len().max(1) };
    if normalize && pooling != Pooling::Rank {
        for row in vector.chunks_exact_mut(width) {
            let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
    }
    Ok(vector)
}

/// A loaded encoder: it makes vectors of texts and writes none.
pub struct EncoderModel {
    model: Encoder,
    tokenizer: Tokenizer,
    mode: Mode,
    info: ModelInfo,
}

impl EncoderModel {
    pub(super) fn new(
        model: Encoder,
        metadata: &Metadata,
        n_ctx: usize,
        mode: Mode,
        mut info: ModelInfo,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_gguf(metadata)?;
        let config = model.config();
        if tokenizer.n_vocab() > config.n_vocab {
            let what =
                format!("{} tokens, but the embedding has {} rows", tokenizer.n_vocab(), config.n_vocab);
            return Err(Error::new(Code::TokenizerInvalid, what).key("tokenizer.ggml.tokens"));
        }
        info.kind = "encoder";
        info.context_length = n_ctx;
        info.n_output = if config.pooling == Pooling::Rank { config.n_score } else { config.n_embd };
        info.pooling = Some(config.pooling.name());
        Ok(EncoderModel { model, tokenizer, mode, info })
    }

    /// Facts about the model; [`ModelInfo::backend`] is what computes at this moment.
    pub fn info(&self) -> ModelInfo {
        self.info.with_backend(self.mode)
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The vector of a text, between the special tokens that the model wants.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::ContextOverflow`], [`Code::OutOfMemory`], [`Code::NumericFault`].
    pub fn embed(&mut self, text: &str, options: &EmbedOptions) -> Result<Vec<f32>> {
        let tokens = self.tokenizer.encode(text, true, false)?;
        self.embed_tokens(&tokens, options)
    }

    /// The vector of tokens, as they are.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn embed_tokens(&mut self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>> {
        let pooling = options.pooling(self.model.config().pooling)?;
        if pooling == Pooling::Rank && self.model.config().n_score == 0 {
            return Err(bad("pooling", "the model has no classification head to rank with"));
        }
        let vector = self.pooled(tokens, tokens.len(), pooling)?;
        finished(vector, self.model.config().n_embd, pooling, options.normalize)
    }

    /// How well each document answers the query: the first score of the classification head, higher is
    /// better; not a probability. Where the model knows token types, documents are of the second.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where the model has no classification head, or there is no document; else as
    /// [`Self::embed`].
    pub fn rerank(&mut self, query: &str, documents: &[&str]) -> Result<Vec<f32>> {
        if self.model.config().n_score == 0 {
            return Err(bad("query", "the model has no classification head to rank with"));
        }
        if documents.is_empty() {
            return Err(bad("documents", "there is no document"));
        }
        documents.iter().map(|document| self.score(query, document)).collect()
    }

    fn score(&mut self, query: &str, document: &str) -> Result<f32> {
        let (tokens, second) = self.tokenizer.encode_pair(query, document)?;
        let scores = finished(self.pooled(&tokens, second, Pooling::Rank)?, 1, Pooling::Rank, false)?;
        scores.first().copied().ok_or_else(|| bad("query", "the classification head has no output"))
    }

    fn pooled(&mut self, tokens: &[u32], second: usize, pooling: Pooling) -> Result<Vec<f32>> {
        check_tokens(tokens, self.model.config().n_vocab)?;
        let n_ctx = self.info.context_length;
        if tokens.len() > n_ctx {
            let what = format!("{} tokens do not fit a context of {n_ctx}", tokens.len());
            return Err(Error::new(Code::ContextOverflow, what).key("tokens"));
        }
        self.model.hidden(tokens, second, self.mode)?;
        Ok(self.model.pool(pooling, self.mode))
    }
}

fn check_tokens(tokens: &[u32], n_vocab: usize) -> Result<()> {
    if tokens.is_empty() {
        return Err(bad("tokens", "no tokens"));
    }
    match tokens.iter().find(|&&t| t as usize >= n_vocab) {
        Some(t) => Err(bad("tokens", format!("token {t} is not below {n_vocab}"))),
        None => Ok(()),
    }
}

/// A model that makes vectors of texts, whatever else it does.
pub enum Embedder {
    /// An encoder.
    Encoder(Box<EncoderModel>),
    /// A language model.
    Text(Box<TextModel>),
}

impl Embedder {
    /// Facts about the model.
    pub fn info(&self) -> ModelInfo {
        match self {
            Embedder::Encoder(model) => model.info(),
            Embedder::Text(model) => model.info(),
        }
    }

    /// The tokens of a text, with those that the model wants around it.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a text beyond the tokenizer's limit.
    pub fn tokenize(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Embedder::Encoder(model) => model.tokenizer().encode(text, true, false),
            Embedder::Text(model) => model.tokenize(text, true, false),
        }
    }

    /// The vector of tokens, as they are.
    ///
    /// # Errors
    /// As [`EncoderModel::embed`].
    pub fn embed_tokens(&mut self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>> {
        match self {
            Embedder::Encoder(model) => model.embed_tokens(tokens, options),
            Embedder::Text(model) => model.embed_tokens(tokens, options),
        }
    }
}

impl TextModel {
    /// The vector of a text: of the states before the output product. What the context held is forgotten.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::ContextOverflow`], [`Code::NumericFault`].
    pub fn embed(&mut self, text: &str, options: &EmbedOptions) -> Result<Vec<f32>> {
        let tokens = self.tokenizer().encode(text, true, false)?;
        self.embed_tokens(&tokens, options)
    }

    /// The vector of tokens, as they are.
    ///
    /// # Errors
    /// As [`Self::embed`].
    pub fn embed_tokens(&mut self, tokens: &[u32], options: &EmbedOptions) -> Result<Vec<f32>> {
        let pooling = options.pooling(self.pooling())?;
        if pooling == Pooling::Rank {
            return Err(bad("pooling", "a language model has no classification head to rank with"));
        }
        self.check_context(tokens)?;
        self.forget();
        let mut hidden = Vec::new();
        for chunk in tokens.chunks(PROMPT_CHUNK) {
            hidden.extend_from_slice(self.hidden(chunk));
        }
        let n_embd = hidden.len() / tokens.len();
        finished(pooling.apply(&hidden, n_embd), n_embd, pooling, options.normalize)
    }
}
