//! Typed reads from a request's JSON; every error names the field.

use crate::error::{Code, Error, Result};
use crate::tasks::GenerateOptions;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// A `BadArgument` about a field.
pub(super) fn bad(key: &str, message: impl Into<String>) -> Error {
    Error::new(Code::BadArgument, message).key(key)
}

/// The fields of a request. Unknown ones are ignored, as OpenAI's clients send many; `null` is as good as none.
pub(super) struct Fields(pub(super) Map<String, Value>);

/// Options of a generation: their names here, and in [`GenerateOptions`].
const OPTIONS: [(&str, &str); 26] = [
    ("temperature", "temperature"),
    ("dynatemp_range", "dynatempRange"),
    ("dynatemp_exponent", "dynatempExponent"),
    ("top_k", "topK"),
    ("top_p", "topP"),
    ("min_p", "minP"),
    ("typical_p", "typicalP"),
    ("top_n_sigma", "topNSigma"),
    ("xtc_probability", "xtcProbability"),
    ("xtc_threshold", "xtcThreshold"),
    ("repeat_penalty", "repeatPenalty"),
    ("repeat_last_n", "repeatLastN"),
    ("presence_penalty", "presencePenalty"),
    ("frequency_penalty", "frequencyPenalty"),
    ("logit_bias", "logitBias"),
    ("dry_multiplier", "dryMultiplier"),
    ("dry_base", "dryBase"),
    ("dry_allowed_length", "dryAllowedLength"),
    ("dry_penalty_last_n", "dryPenaltyLastN"),
    ("mirostat", "mirostat"),
    ("mirostat_tau", "mirostatTau"),
    ("mirostat_eta", "mirostatEta"),
    ("ignore_eos", "ignoreEos"),
    ("grammar", "grammar"),
    ("context_shift", "contextShift"),
    ("n_keep", "nKeep"),
];

impl Fields {
    /// Reads the body of a request.
    pub(super) fn read(body: &[u8]) -> Result<Fields> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Fields(map)),
            Ok(_) => Err(Error::new(Code::BadArgument, "the body is no JSON object")),
            Err(error) => {
                Err(Error::new(Code::BadArgument, format!("the body is not JSON: {error}")).source(error))
            }
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A field of some type.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let read = |value: &Value| {
            T::deserialize(value).map_err(|error| bad(key, format!("{key}: {error}")).source(error))
        };
        self.value(key).map(read).transpose()
    }

    /// One text, or a list of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        match self.value(key) {
            Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
            _ => self.get(key),
        }
    }

    /// How many answers.
    pub(super) fn n(&self) -> Result<usize> {
        const MAX: usize = 32;
        match self.get("n")?.unwrap_or(1) {
            n @ 1..=MAX => Ok(n),
            n => Err(bad("n", format!("n must be from 1 to {MAX}, not {n}"))),
        }
    }

    /// The options of a generation, without those that differ between the endpoints. `max_tokens` is what holds where
    /// the request has none.
    pub(super) fn options(&self, max_tokens: usize) -> Result<GenerateOptions> {
        let mut given = Map::new();
        for (key, name) in OPTIONS {
            if let Some(value) = self.value(key) {
                // Each by itself, so that an error can name it.
                serde_json::from_value::<GenerateOptions>(json!({ name: value }))
                    .map_err(|error| bad(key, format!("{key}: {error}")).source(error))?;
                given.insert(name.to_string(), value.clone());
            }
        }
        let mut options: GenerateOptions = serde_json::from_value(Value::Object(given))
            .map_err(|error| Error::new(Code::BadArgument, error.to_string()).source(error))?;
        options.sampler.seed = self.get("seed")?;
        options.stop = self.texts("stop")?.unwrap_or_default();
        let limit = self.get("max_completion_tokens")?;
        options.max_tokens = limit.or(self.get("max_tokens")?).unwrap_or(max_tokens);
        Ok(options)
    }
}
