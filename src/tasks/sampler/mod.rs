//! Chooses the next token from logits, as llama.cpp's chain of samplers does.
//!
//! All arithmetic that decides is f64 built from additions, multiplications and functions of this crate and
//! of `libm`, so a seed gives the same tokens natively and in WebAssembly.
//!
//! What makes it quick over a long vocabulary: penalties change a few logits in place, one pass
//! ([`Survey`]) finds the highest logit of each block, and the first stage that takes tokens out reads only
//! the blocks that can hold one that stays.

mod bias;
mod candidates;
mod dry;
mod exp;
mod logprobs;
mod params;
mod penalties;
mod random;
mod stage;
mod truncate;

pub use bias::{Biased, LogitBias};
pub use logprobs::{Logprobs, TokenLogprob};
pub use params::SamplerParams;
pub use stage::Stage;

use crate::error::{Code, Error, Result};
use crate::kernels::scan::Survey;
use crate::tokenizer::Tokenizer;
use candidates::Candidates;
use dry::{Breakers, Dry};
use params::bad;
use penalties::{Logits, Penalties};
use random::{Pcg32, SEQUENCE};
use std::hash::{BuildHasher, RandomState};

/// Draws tokens. Its buffers are reused: no allocation after the first token of a vocabulary.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: SamplerParams,
    stages: Vec<Stage>,
    bias: Vec<(u32, f32)>,
    seed: u64,
    random: Pcg32,
    survey: Survey,
    candidates: Candidates,
    penalties: Penalties,
    dry: Dry,
    /// Mirostat's limit of surprise in bits.
    mu: f64,
}

impl Sampler {
    /// A sampler at the start of its random sequence, without the texts that need a tokenizer: repetitions
    /// then have no breakers.
    ///
    /// # Errors
    /// `BadArgument` as [`SamplerParams::validate`]; for a bias on a text.
    pub fn new(params: SamplerParams) -> Result<Sampler> {
        Sampler::build(params, None)
    }

    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// `BadArgument` as [`SamplerParams::validate`]; for a bias on a token outside the vocabulary.
    pub fn with_tokenizer(params: SamplerParams, tokenizer: &Tokenizer) -> Result<Sampler> {
        Sampler::build(params, Some(tokenizer))
    }

    fn build(params: SamplerParams, tokenizer: Option<&Tokenizer>) -> Result<Sampler> {
        params.validate()?;
        let mut dry = Dry::default();
        if let Some(tokenizer) = tokenizer.filter(|_| !Dry::is_off(&params)) {
            dry.breakers = Breakers::new(&params.dry_sequence_breakers, tokenizer)?;
        }
        let seed = params.seed.map_or_else(random_seed, |seed| seed as u64);
        Ok(Sampler {
            stages: active(&params)?,
            bias: params.logit_bias.resolve(tokenizer)?,
            seed,
            random: Pcg32::new(seed, SEQUENCE),
            survey: Survey::default(),
            candidates: Candidates::default(),
            penalties: Penalties::default(),
            dry,
            mu: 2.0 * f64::from(params.mirostat_tau),
            params,
        })
    }

    /// The seed of the random sequence: the one that was given, or the one that was made up.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Chooses a token.
    ///
    /// `logits` `[n_vocab]` are changed by bias and penalties; -infinity rules a token out. `history` holds
    /// the tokens so far, the last one last; ids outside the vocabulary are passed over.
    ///
    /// # Errors
    /// `NumericFault` if a logit is NaN or +infinity or all are -infinity; `BadArgument` if there is none.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32> {
        if logits.is_empty() || logits.len() > u32::MAX as usize {
            return Err(bad("logits", format!("cannot choose among {} logits", logits.len())));
        }
        self.add_bias(logits)?;
        let n_edits = self.stages.iter().take_while(|s| matches!(s, Stage::Penalties | Stage::Dry)).count();
        for i in 0..n_edits {
            self.edit(self.stages[i], history, &mut Logits::Row(logits));
        }
        let (best, highest) = self.survey(logits)?;
        if self.is_greedy(n_edits) {
            return Ok(best as u32);
        }
        let n_done = self.gather(n_edits, logits, highest);
        for i in n_done..self.stages.len() {
            self.apply(self.stages[i], history);
        }
        Ok(if self.params.mirostat == 2 { self.draw_mirostat() } else { self.draw() })
    }

    fn add_bias(&self, logits: &mut [f32]) -> Result<()> {
        for &(id, bias) in &self.bias {
            let n_vocab = logits.len();
            let Some(logit) = logits.get_mut(id as usize) else {
                return Err(bad("logitBias", format!("token {id} is outside the vocabulary of {n_vocab}")));
            };
            if bias == f32::NEG_INFINITY && !logit.is_nan() {
                *logit = bias;
            } else if logit.is_finite() {
                *logit = (*logit + bias).clamp(f32::MIN, f32::MAX);
            }
        }
        Ok(())
    }

    /// The highest logit and where it is.
    fn survey(&mut self, logits: &[f32]) -> Result<(usize, f32)> {
        if !self.survey.take(logits) {
            let id = logits.iter().position(|x| x.is_nan() || *x == f32::INFINITY).unwrap_or(0);
            return Err(Error::new(Code::NumericFault, format!("the logit of token {id} is {}", logits[id])));
        }
        match self.survey.highest(logits) {
            Some((at, highest)) if highest > f32::NEG_INFINITY => Ok((at, highest)),
            _ => Err(Error::new(Code::NumericFault, "every token is ruled out")),
        }
    }

    /// Whether the stages from `first` on can only leave the highest logit.
    fn is_greedy(&self, first: usize) -> bool {
        let p = &self.params;
        let rest = &self.stages[first..];
        let temperature = rest.iter().position(|&stage| stage == Stage::Temperature);
        p.temperature == 0.0
            && p.dynatemp_range == 0.0
            && temperature.is_some_and(|at| rest[..at].iter().all(|stage| stage.keeps_the_highest()))
    }

    /// Fills the candidates with at least what the stage `first` leaves; gives the stage to go on with.
    fn gather(&mut self, first: usize, logits: &[f32], highest: f32) -> usize {
        let p = &self.params;
        let (threshold, next) = match self.stages.get(first) {
            Some(Stage::TopK) => {
                let k = usize::try_from(p.top_k).unwrap_or(usize::MAX);
                self.candidates.gather_top(logits, &self.survey, k);
                return first;
            }
            Some(Stage::TopNSigma) => {
                (truncate::sigma_threshold(logits.iter().copied(), highest, p.top_n_sigma), first + 1)
            }
            // The stage itself judges exactly: this is only not to read what it would take out.
            Some(Stage::MinP) => {
                let threshold = f64::from(highest) + libm::log(f64::from(p.min_p));
                ((threshold - 1e-3 * (1.0 + threshold.abs())) as f32, first)
            }
            _ => (f32::MIN, first),
        };
        self.candidates.gather(logits, &self.survey, threshold);
        next
    }

    fn edit(&mut self, stage: Stage, history: &[u32], logits: &mut Logits) {
        match stage {
            Stage::Penalties => self.penalties.apply(&self.params, history, logits),
            _ => self.dry.apply(&self.params, history, logits),
        }
    }

    fn apply(&mut self, stage: Stage, history: &[u32]) {
        let p = &self.params;
        let left = &mut self.candidates;
        match stage {
            Stage::Penalties => self.penalties.apply(p, history, &mut Logits::Left(left)),
            Stage::Dry => self.dry.apply(p, history, &mut Logits::Left(left)),
            Stage::TopNSigma => left.top_n_sigma(p.top_n_sigma),
            Stage::TopK => left.keep_top(usize::try_from(p.top_k).unwrap_or(usize::MAX)),
            Stage::TypicalP => left.typical_p(f64::from(p.typical_p)),
            Stage::TopP => left.top_p(f64::from(p.top_p)),
            Stage::MinP => left.min_p(f64::from(p.min_p)),
            Stage::Xtc => {
                if left.list.len() > 1 && self.random.unit() < f64::from(p.xtc_probability) {
                    left.xtc(f64::from(p.xtc_threshold));
                }
            }
            Stage::Temperature if p.dynatemp_range > 0.0 => left.dynamic_temperature(
                f64::from(p.temperature),
                f64::from(p.dynatemp_range),
                f64::from(p.dynatemp_exponent),
            ),
            Stage::Temperature => left.fixed_temperature(f64::from(p.temperature)),
        }
    }

    /// Draws a candidate in proportion to its weight.
    fn draw(&mut self) -> u32 {
        let total = self.candidates.weigh();
        let mut left = self.random.unit() * total;
        let mut heaviest = &self.candidates.list[0];
        for candidate in &self.candidates.list {
            if left < candidate.weight {
                return candidate.id;
            }
            left -= candidate.weight;
            if candidate.weight > heaviest.weight {
                heaviest = candidate;
            }
        }
        // Rounding can leave a little.
        heaviest.id
    }

    /// Draws among the candidates whose surprise is at most mu, and moves mu by how far the surprise of the
    /// drawn one is from the target.
    /// Source: S. Basu et al., "Mirostat: A Neural Text Decoding Algorithm that Directly Controls
    /// Perplexity", with the choice by surprise that its authors call version 2.
    fn draw_mirostat(&mut self) -> u32 {
        let wanted = libm::exp2(-self.mu) * self.candidates.weigh();
        self.candidates.keep(|c| c.weight >= wanted);
        let total = self.candidates.weigh();
        let id = self.draw();
        let weight = self.candidates.list.iter().find(|c| c.id == id).map_or(total, |c| c.weight);
        let error = -libm::log2(weight / total) - f64::from(self.params.mirostat_tau);
        self.mu -= f64::from(self.params.mirostat_eta) * error;
        id
    }
}

/// The stages that do something.
fn active(p: &SamplerParams) -> Result<Vec<Stage>> {
    if p.mirostat == 2 {
        return Ok(vec![Stage::Temperature]);
    }
    let mut stages = Stage::parse(&p.samplers)?;
    stages.retain(|stage| match stage {
        Stage::Penalties => !Penalties::is_off(p),
        Stage::Dry => !Dry::is_off(p),
        Stage::TopNSigma => p.top_n_sigma > 0.0,
        Stage::TopK => p.top_k > 0,
        Stage::TypicalP => p.typical_p < 1.0,
        Stage::TopP => p.top_p < 1.0,
        Stage::MinP => p.min_p > 0.0,
        Stage::Xtc => p.xtc_probability > 0.0 && p.xtc_threshold <= 0.5,
        Stage::Temperature => p.temperature != 1.0 || p.dynatemp_range > 0.0,
    });
    Ok(stages)
}

/// A seed that differs each time, below 2^32 so that it is easily written down.
///
/// In WebAssembly the standard library has no source of randomness: callers there give a seed.
fn random_seed() -> u64 {
    RandomState::new().hash_one(0u8) >> 32
}

#[cfg(test)]
mod tests;
