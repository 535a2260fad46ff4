//! How tokens are chosen: every option, its domain and its default.

use super::bias::LogitBias;
use super::stage::Stage;
use crate::error::{Code, Error, Result};
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How tokens are chosen. Every field may be left out.
///
/// Names, meanings and defaults are llama.cpp's. A logit that is finite stays finite whatever is added to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SamplerParams {
    /// Divides the logits; 0 takes the most probable token that is left (of equals the one with the lowest
    /// id); up to 100. Default 0.8.
    pub temperature: f32,
    /// The temperature varies by up to this much in both directions with the entropy of what is left, but
    /// not below 0; 0 to 100. Default 0 (off).
    pub dynatemp_range: f32,
    /// The power of the normalised entropy that decides where in the range the temperature lies; 0 to 100.
    /// Default 1.
    pub dynatemp_exponent: f32,
    /// Only this many of the most probable tokens stay; 0 keeps all. Default 40.
    #[serde(deserialize_with = "whole")]
    pub top_k: i64,
    /// As few of the most probable as reach this probability together (at least one); 0 to 1. Default 0.95.
    pub top_p: f32,
    /// Tokens with at least this share of the highest probability; 0 to 1. Default 0.05.
    pub min_p: f32,
    /// As few as reach this probability together of those whose surprise is nearest to the expected one
    /// (locally typical sampling); 0 to 1. Default 1 (off).
    pub typical_p: f32,
    /// Tokens whose logit is at most this many standard deviations below the highest; 0 to 1000.
    /// Default 0 (off).
    pub top_n_sigma: f32,
    /// How probable it is that all but the least probable of the tokens that reach `xtc_threshold` are taken
    /// out; 0 to 1. Default 0 (off).
    pub xtc_probability: f32,
    /// 0 to 1; above 0.5, where two tokens cannot reach it, nothing is taken out. Default 0.1.
    pub xtc_threshold: f32,
    /// Logits of recent tokens are divided by this where positive, multiplied where not; 0.01 to 100.
    /// Default 1 (off).
    pub repeat_penalty: f32,
    /// How many of the last tokens (prompt and text) count as recent; -1 for all. Default 64.
    #[serde(deserialize_with = "whole")]
    pub repeat_last_n: i64,
    /// Taken from the logit of every recent token; -100 to 100. Default 0.
    pub presence_penalty: f32,
    /// Taken from the logit of a recent token once for each time it occurs; -100 to 100. Default 0.
    pub frequency_penalty: f32,
    /// What is added to the logits of some tokens before anything else.
    pub logit_bias: LogitBias,
    /// Strength of the penalty for tokens that would extend a repetition (DRY); 0 to 100. Default 0 (off).
    pub dry_multiplier: f32,
    /// How the penalty grows with each token of the repetition: multiplier * base^(length - allowed);
    /// 0 to 100, below 1 the penalty is off. Default 1.75.
    pub dry_base: f32,
    /// Repetitions shorter than this cost nothing. Default 2.
    #[serde(deserialize_with = "whole")]
    pub dry_allowed_length: i64,
    /// How many of the last tokens are searched for repetitions; -1 for all, 0 turns DRY off. Default -1.
    #[serde(deserialize_with = "whole")]
    pub dry_penalty_last_n: i64,
    /// Texts at which repetitions end. Default a line feed, `:`, `"`, `*`.
    pub dry_sequence_breakers: Vec<String>,
    /// 0, or 2 for Mirostat 2, which replaces all of `samplers` but the temperature. Default 0.
    #[serde(deserialize_with = "whole")]
    pub mirostat: i64,
    /// The surprise in bits that Mirostat keeps to; 0 to 100. Default 5.
    pub mirostat_tau: f32,
    /// How fast Mirostat learns; 0 to 10. Default 0.1.
    pub mirostat_eta: f32,
    /// The stages in order, by llama.cpp's names; a stage that is missing is off. Default [`Stage::ORDER`].
    pub samplers: Vec<String>,
    /// Start of the random sequence, not negative. Default `None`: another one each time.
    #[serde(deserialize_with = "optional_whole")]
    pub seed: Option<i64>,
}

impl Default for SamplerParams {
    fn default() -> Self {
        SamplerParams {
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: LogitBias::default(),
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            samplers: Stage::ORDER.iter().map(|stage| stage.name().into()).collect(),
            seed: None,
        }
    }
}

impl SamplerParams {
    /// Checks every field.
    ///
    /// # Errors
    /// `BadArgument` whose `key` is the first field outside its domain, in camel case.
    pub fn validate(&self) -> Result<()> {
        for (key, value, low, high) in [
            ("temperature", self.temperature, 0.0, 100.0),
            ("dynatempRange", self.dynatemp_range, 0.0, 100.0),
            ("dynatempExponent", self.dynatemp_exponent, 0.0, 100.0),
            ("topP", self.top_p, 0.0, 1.0),
            ("minP", self.min_p, 0.0, 1.0),
            ("typicalP", self.typical_p, 0.0, 1.0),
            ("topNSigma", self.top_n_sigma, 0.0, 1000.0),
            ("xtcProbability", self.xtc_probability, 0.0, 1.0),
            ("xtcThreshold", self.xtc_threshold, 0.0, 1.0),
            ("repeatPenalty", self.repeat_penalty, 0.01, 100.0),
            ("presencePenalty", self.presence_penalty, -100.0, 100.0),
            ("frequencyPenalty", self.frequency_penalty, -100.0, 100.0),
            ("dryMultiplier", self.dry_multiplier, 0.0, 100.0),
            ("dryBase", self.dry_base, 0.0, 100.0),
            ("mirostatTau", self.mirostat_tau, 0.0, 100.0),
            ("mirostatEta", self.mirostat_eta, 0.0, 10.0),
        ] {
            // NaN is in no range.
            if !(low..=high).contains(&value) {
                return Err(bad(key, format!("{key} must be a number from {low} to {high}, not {value}")));
            }
        }
        for (key, value, lowest) in [
            ("topK", self.top_k, 0),
            ("repeatLastN", self.repeat_last_n, -1),
            ("dryAllowedLength", self.dry_allowed_length, 0),
            ("dryPenaltyLastN", self.dry_penalty_last_n, -1),
            ("seed", self.seed.unwrap_or(0), 0),
        ] {
            if value < lowest {
                return Err(bad(key, format!("{key} must be a whole number, {lowest} or more")));
            }
        }
        if !matches!(self.mirostat, 0 | 2) {
            return Err(bad("mirostat", "mirostat must be 0 (off) or 2".into()));
        }
        Stage::parse(&self.samplers)?;
        self.logit_bias.validate()
    }

    /// How many of the last tokens `repeat_last_n` or `dry_penalty_last_n` means.
    pub(super) fn last_n(value: i64, n_history: usize) -> usize {
        usize::try_from(value).unwrap_or(usize::MAX).min(n_history)
    }
}

pub(super) fn bad(key: &str, message: String) -> Error {
    Error::new(Code::BadArgument, message).key(key)
}

/// What is not a whole number in range becomes this, so that `validate` can name the field: an error
/// of the deserializer could not.
pub(super) const NOT_WHOLE: i64 = i64::MIN;

struct Whole;

impl Visitor<'_> for Whole {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<i64, E> {
        Ok(i64::try_from(value).unwrap_or(NOT_WHOLE))
    }

    // JavaScript has only this type of number.
    fn visit_f64<E>(self, value: f64) -> std::result::Result<i64, E> {
        let exact = value.trunc() == value && value.abs() <= (1u64 << 53) as f64;
        Ok(if exact { value as i64 } else { NOT_WHOLE })
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<i64, D::Error> {
    deserializer.deserialize_any(Whole)
}

fn optional_whole<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "whole")] i64);
    Ok(Option::<Given>::deserialize(deserializer)?.map(|given| given.0))
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;
    use super::*;

    #[test]
    fn a05_a_bad_field_is_named() {
        type Change = fn(&mut SamplerParams);
        let cases: &[(&str, Change)] = &[
            ("temperature", |p| p.temperature = -1.0),
            ("temperature", |p| p.temperature = f32::NAN),
            ("temperature", |p| p.temperature = f32::INFINITY),
            ("dynatempRange", |p| p.dynatemp_range = -0.5),
            ("dynatempExponent", |p| p.dynatemp_exponent = f32::NAN),
            ("topK", |p| p.top_k = -1),
            ("topP", |p| p.top_p = 2.0),
            ("topP", |p| p.top_p = -0.1),
            ("topP", |p| p.top_p = f32::NAN),
            ("minP", |p| p.min_p = 1.5),
            ("minP", |p| p.min_p = f32::NAN),
            ("typicalP", |p| p.typical_p = 1.1),
            ("topNSigma", |p| p.top_n_sigma = -1.0),
            ("xtcProbability", |p| p.xtc_probability = 2.0),
            ("xtcThreshold", |p| p.xtc_threshold = f32::NAN),
            ("repeatPenalty", |p| p.repeat_penalty = 0.0),
            ("repeatPenalty", |p| p.repeat_penalty = f32::NAN),
            ("repeatLastN", |p| p.repeat_last_n = -2),
            ("presencePenalty", |p| p.presence_penalty = f32::NAN),
            ("frequencyPenalty", |p| p.frequency_penalty = f32::INFINITY),
            ("dryMultiplier", |p| p.dry_multiplier = -1.0),
            ("dryBase", |p| p.dry_base = f32::NAN),
            ("dryAllowedLength", |p| p.dry_allowed_length = -1),
            ("dryPenaltyLastN", |p| p.dry_penalty_last_n = -2),
            ("mirostat", |p| p.mirostat = 1),
            ("mirostat", |p| p.mirostat = -2),
            ("mirostatTau", |p| p.mirostat_tau = -1.0),
            ("mirostatEta", |p| p.mirostat_eta = f32::NAN),
            ("samplers", |p| p.samplers = vec!["top-k".into()]),
            ("samplers", |p| p.samplers = vec!["top_k".into(), "min_p".into(), "top_k".into()]),
            ("logitBias", |p| p.logit_bias = LogitBias::of_ids([(1, f32::NAN)])),
            ("logitBias", |p| p.logit_bias = LogitBias::of_ids([(1, f32::INFINITY)])),
            ("seed", |p| p.seed = Some(-1)),
        ];
        for (key, change) in cases {
            let mut params = SamplerParams::default();
            change(&mut params);
            let error = Sampler::new(params.clone()).expect_err(&format!("{params:?}"));
            assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some(*key)), "{params:?}");
        }
    }

    #[test]
    fn a05_numbers_that_are_not_whole_are_named_too() {
        for (json, key) in [
            (r#"{"topK": 3.5}"#, "topK"),
            (r#"{"topK": 1e300}"#, "topK"),
            (r#"{"repeatLastN": 0.5}"#, "repeatLastN"),
            (r#"{"dryAllowedLength": 0.5}"#, "dryAllowedLength"),
            (r#"{"mirostat": 1.5}"#, "mirostat"),
            (r#"{"seed": 1.25}"#, "seed"),
            (r#"{"seed": -1}"#, "seed"),
            (r#"{"seed": 18446744073709551616}"#, "seed"),
        ] {
            let params: SamplerParams = serde_json::from_str(json).unwrap();
            assert_eq!(params.validate().unwrap_err().key.as_deref(), Some(key), "{json}");
        }
        let params: SamplerParams = serde_json::from_str(r#"{"seed": 7.0, "topK": 5, "seed2": 1}"#).unwrap();
        assert_eq!(params, SamplerParams { seed: Some(7), top_k: 5, ..Default::default() });
        let none: SamplerParams = serde_json::from_str(r#"{"seed": null}"#).unwrap();
        assert_eq!(none, SamplerParams::default());
    }
}
