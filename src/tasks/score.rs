//! How well a model predicts a text, and how far its predictions are from another model's.
//!
//! The text is cut into pieces; each is scored by itself, after the start token where the model has
//! one. The distributions can be recorded, and another model's compared with them: the
//! Kullback-Leibler divergence shows what a quantization did where perplexity hides it.
//!
//! A record (little-endian) is `BPLP`, then u32: version 1, n_vocab, context, number of token ids,
//! the ids; then a row per scored token: f32 ln p of the likeliest token, and n_vocab u16 that say how
//! far ln p lies below it, in steps of 24 / 65535 (what is further below counts as 24 below).

use super::TextModel;
use crate::error::{Code, Error, Result};
use serde::Serialize;

const MAGIC: &[u8; 4] = b"BPLP";
const VERSION: u32 = 1;
const RANGE: f32 = 24.0;
const STEP: f32 = RANGE / 65535.0;

/// How to score a text.
#[derive(Clone, Debug, Default)]
pub struct ScoreOptions {
    /// Tokens of a piece, start token included: 2 or more. The model's context unless given.
    pub context: Option<usize>,
    /// Keep the distributions: [`Scoring::take_record`].
    pub record: bool,
    /// A record to compare with.
    pub against: Option<Vec<u8>>,
}

/// What a scoring found. Logarithms are natural.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// Mean of -ln p over the scored tokens.
    pub nll: f64,
    /// e^nll.
    pub perplexity: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Pieces.
    pub chunks: usize,
    /// How far the record's distributions are, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
}

/// The distance between two models' distributions over the same tokens.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Divergence {
    /// Mean over tokens of the sum of `p (ln p - ln q)`, p the record's and q this model's.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Half of the tokens are below.
    pub median: f64,
    /// 99 of 100 tokens are below.
    pub p99: f64,
    /// Of the worst token.
    pub max: f64,
    /// Share of tokens at which both find the same token likeliest.
    pub same_top: f64,
    /// The record's mean of -ln p.
    pub reference_nll: f64,
    /// Of each scored token.
    pub each: Vec<f32>,
}

/// A scoring under way. Belongs to the model that started it.
pub struct Scoring {
    tokens: Vec<u32>,
    piece_len: usize,
    done: usize,
    chunks: usize,
    sum: f64,
    n_scored: usize,
    record: Option<Vec<u8>>,
    against: Option<Comparison>,
}

impl Scoring {
    /// Tokens of the text that have been scored, and all of them.
    pub fn progress(&self) -> (usize, usize) {
        (self.done, self.tokens.len())
    }

    /// What has been recorded since the last call.
    pub fn take_record(&mut self) -> Vec<u8> {
        self.record.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The result, once all is scored.
    pub fn score(&self) -> Score {
        let nll = self.sum / self.n_scored as f64;
        Score {
            nll,
            perplexity: nll.exp(),
            tokens: self.n_scored,
            chunks: self.chunks,
            divergence: self.against.as_ref().map(Comparison::divergence),
        }
    }
}

impl TextModel {
    /// Sum of -ln p (nats) of every token but the first, each given those before it, and how
    /// many there are. The context holds exactly these tokens.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::ContextOverflow`], [`Code::NumericFault`].
    pub fn nll(&mut self, tokens: &[u32]) -> Result<(f64, usize)> {
        self.check_context(tokens)?;
        let mut sum = 0f64;
        self.each_logits(tokens, 0, |i, row| {
            if let Some(&next) = tokens.get(i + 1) {
                sum -= Distribution::of(row).map_or(f64::NAN, |row| row.ln(next as usize));
            }
        });
        if !sum.is_finite() {
            return Err(numeric_fault());
        }
        Ok((sum, tokens.len() - 1))
    }

    /// Begins to score a text, tokenized without special tokens.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a context that the model does not have, a text too short to score, or
    /// a record of another text, vocabulary or context; [`Code::BadValue`] or [`Code::Truncated`]
    /// where the record is damaged.
    pub fn start_scoring(&self, text: &str, options: ScoreOptions) -> Result<Scoring> {
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        let tokens = self.tokenize(text, false, false)?;
        let n_ctx = self.n_ctx();
        let context = options.context.unwrap_or(n_ctx);
        if context < 2 || context > n_ctx {
            return bad("context", format!("{context} is not in 2 ..= {n_ctx}, the model's context"));
        }
        if tokens.len() + usize::from(self.tokenizer().bos().is_some()) < 2 {
            return bad("text", "too few tokens to score any".into());
        }
        let n_vocab = self.n_output();
        let against =
            options.against.map(|bytes| Comparison::open(bytes, n_vocab, context, &tokens)).transpose()?;
        let record = options.record.then(|| {
            let mut header = MAGIC.to_vec();
            let numbers = [VERSION, n_vocab as u32, context as u32, tokens.len() as u32];
            header.extend(numbers.iter().chain(&tokens).flat_map(|n| n.to_le_bytes()));
            header
        });
        let piece_len = context - 1;
        Ok(Scoring { tokens, piece_len, done: 0, chunks: 0, sum: 0.0, n_scored: 0, record, against })
    }

    /// Scores one piece; whether that was the last.
    ///
    /// # Errors
    /// [`Code::NumericFault`] where the model computes NaN or infinity; [`Code::Truncated`] where
    /// the record ends early.
    pub fn step_scoring(&mut self, scoring: &mut Scoring) -> Result<bool> {
        let end = (scoring.done + scoring.piece_len).min(scoring.tokens.len());
        let piece = &scoring.tokens[scoring.done..end];
        let tokens: Vec<u32> = self.tokenizer().bos().into_iter().chain(piece.iter().copied()).collect();
        let mut failure = None;
        let (mut sum, mut n_scored) = (0.0, 0);
        self.each_logits(&tokens, 0, |i, row| {
            let Some(&next) = tokens.get(i + 1) else { return };
            if failure.is_some() {
                return;
            }
            let Some(row) = Distribution::of(row) else {
                failure = Some(numeric_fault());
                return;
            };
            sum -= row.ln(next as usize);
            n_scored += 1;
            if let Some(record) = &mut scoring.record {
                row.write(record);
            }
            if let Some(against) = &mut scoring.against {
                failure = against.add(&row, next as usize).err();
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        scoring.sum += sum;
        scoring.n_scored += n_scored;
        scoring.chunks += 1;
        scoring.done = end;
        Ok(end == scoring.tokens.len())
    }
}

fn numeric_fault() -> Error {
    Error::new(Code::NumericFault, "the model computed NaN or infinity")
}

/// The distribution of one row of logits.
struct Distribution<'a> {
    logits: &'a [f32],
    top: usize,
    /// ln of the sum of e^(logit - largest).
    ln_sum: f64,
}

impl<'a> Distribution<'a> {
    /// `None` where a logit is NaN or the largest is not finite.
    fn of(logits: &'a [f32]) -> Option<Self> {
        let top = (1..logits.len()).fold(0, |top, i| if logits[i] > logits[top] { i } else { top });
        let sum: f64 = logits.iter().map(|&v| libm::exp(f64::from(v) - f64::from(logits[top]))).sum();
        (logits[top].is_finite() && sum.is_finite()).then(|| Distribution {
            logits,
            top,
            ln_sum: libm::log(sum),
        })
    }

    fn ln(&self, i: usize) -> f64 {
        f64::from(self.logits[i]) - f64::from(self.logits[self.top]) - self.ln_sum
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.extend((self.ln(self.top) as f32).to_le_bytes());
        let top = self.logits[self.top];
        to.extend(
            self.logits.iter().flat_map(|&v| (((top - v) / STEP).round().min(65535.0) as u16).to_le_bytes()),
        );
    }
}

/// A record that is being compared with.
struct Comparison {
    bytes: Vec<u8>,
    at: usize,
    divergences: Vec<f64>,
    n_same_top: usize,
    nll: f64,
}

impl Comparison {
    fn open(bytes: Vec<u8>, n_vocab: usize, context: usize, tokens: &[u32]) -> Result<Self> {
        let number = |i: usize| {
            let at = 4 + 4 * i;
            let field = bytes.get(at..at + 4).ok_or_else(|| {
                Error::new(Code::Truncated, "the record ends in its header").key("against").at(at as u64)
            })?;
            Ok::<_, Error>(u32::from_le_bytes(field.try_into().unwrap_or_default()))
        };
        let bad = |code, rule: String| Err(Error::new(code, rule).key("against"));
        if !bytes.starts_with(MAGIC) {
            return bad(Code::BadValue, "not a record of distributions".into());
        }
        if number(0)? != VERSION {
            return bad(Code::BadValue, format!("version {} of the record is not {VERSION}", number(0)?));
        }
        for (i, name, own) in
            [(1, "n_vocab", n_vocab), (2, "context", context), (3, "number of tokens", tokens.len())]
        {
            if number(i)? as usize != own {
                return bad(
                    Code::BadArgument,
                    format!("the record's {name} is {}, here it is {own}", number(i)?),
                );
            }
        }
        for (i, &token) in tokens.iter().enumerate() {
            if number(4 + i)? != token {
                return bad(Code::BadArgument, format!("the record is of another text: token {i} differs"));
            }
        }
        let at = 4 + 4 * (4 + tokens.len());
        Ok(Comparison { bytes, at, divergences: Vec::new(), n_same_top: 0, nll: 0.0 })
    }

    /// Compares the next row of the record with `model`.
    fn add(&mut self, model: &Distribution, next: usize) -> Result<()> {
        let len = 4 + 2 * model.logits.len();
        let Some(row) = self.bytes.get(self.at..self.at + len) else {
            return Err(Error::new(Code::Truncated, "the record ends early")
                .key("against")
                .at(self.at as u64));
        };
        self.at += len;
        let code = |i: usize| u16::from_le_bytes([row[4 + 2 * i], row[5 + 2 * i]]);
        let below = |i: usize| f64::from(code(i)) * f64::from(STEP);
        // The codes are rounded: their own sum makes them a distribution again.
        let ln_sum = libm::log((0..model.logits.len()).map(|i| libm::exp(-below(i))).sum());
        let mut divergence = 0.0;
        for i in 0..model.logits.len() {
            let ln_p = -below(i) - ln_sum;
            divergence += libm::exp(ln_p) * (ln_p - model.ln(i));
        }
        if !divergence.is_finite() {
            return Err(Error::new(Code::NumericFault, "a divergence is not finite").key("against"));
        }
        self.divergences.push(divergence);
        self.n_same_top += usize::from(code(model.top) == 0);
        self.nll += below(next) + ln_sum;
        Ok(())
    }

    fn divergence(&self) -> Divergence {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len() as f64;
        let mean = sorted.iter().sum::<f64>() / n;
        let variance = sorted.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let quantile =
            |share: f64| sorted.get((n * share) as usize).or(sorted.last()).copied().unwrap_or(0.0);
        Divergence {
            mean,
            standard_error: (variance / n).sqrt(),
            median: quantile(0.5),
            p99: quantile(0.99),
            max: quantile(1.0),
            same_top: self.n_same_top as f64 / n,
            reference_nll: self.nll / n,
            each: self.divergences.iter().map(|d| *d as f32).collect(),
        }
    }
}
