//! What is added to the logits of some tokens.

use super::params::{NOT_WHOLE, bad};
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which tokens a bias is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Biased {
    /// The token of this id.
    Id(i64),
    /// Not a whole number: `validate` names it.
    Number(f64),
    /// Every token of this text, as the tokenizer cuts it.
    Text(String),
}

/// What is added to the logits of some tokens before anything else; -infinity rules a token out.
///
/// Written as OpenAI does, an object from token ids to numbers, or as llama.cpp's server does, a list of
/// `[id or text, number or false]`, where `false` is -infinity.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LogitBias(pub Vec<(Biased, f32)>);

impl LogitBias {
    /// Biases for tokens by id.
    pub fn of_ids(biases: impl IntoIterator<Item = (i64, f32)>) -> Self {
        LogitBias(biases.into_iter().map(|(id, bias)| (Biased::Id(id), bias)).collect())
    }

    pub(super) fn validate(&self) -> Result<()> {
        for (token, bias) in &self.0 {
            if bias.is_nan() || *bias == f32::INFINITY {
                let what = format!("the bias of {} must be a number below infinity, not {bias}", show(token));
                return Err(bad("logitBias", what));
            }
            if !matches!(token, Biased::Id(0..) | Biased::Text(_)) {
                return Err(bad("logitBias", format!("{} is no token id", show(token))));
            }
        }
        Ok(())
    }

    /// The biases by token id, texts cut into tokens; biases of one token add up.
    ///
    /// # Errors
    /// `BadArgument` for an id outside the vocabulary, or for a text where there is no tokenizer.
    pub(super) fn resolve(&self, tokenizer: Option<&Tokenizer>) -> Result<Vec<(u32, f32)>> {
        let mut biases = Vec::new();
        for (token, bias) in &self.0 {
            match (token, tokenizer) {
                (Biased::Text(text), Some(tokenizer)) => {
                    biases.extend(tokenizer.encode(text, false, false)?.into_iter().map(|id| (id, *bias)));
                }
                (Biased::Id(id), _) => {
                    let known = u32::try_from(*id).ok();
                    let known = known.filter(|&id| tokenizer.is_none_or(|t| (id as usize) < t.n_vocab()));
                    let id = known
                        .ok_or_else(|| bad("logitBias", format!("token {id} is outside the vocabulary")))?;
                    biases.push((id, *bias));
                }
                _ => return Err(bad("logitBias", format!("{} needs a tokenizer", show(token)))),
            }
        }
        Ok(biases)
    }
}

fn show(token: &Biased) -> String {
    match token {
        Biased::Id(NOT_WHOLE) => "what is not a whole number".into(),
        Biased::Id(id) => format!("token {id}"),
        Biased::Number(number) => format!("token {number}"),
        Biased::Text(text) => format!("text {text:?}"),
    }
}

/// A number, or `false` for -infinity.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Switch(bool),
    Number(f64),
}

impl Amount {
    fn value(self) -> f32 {
        match self {
            Amount::Switch(false) => f32::NEG_INFINITY,
            // `true` says nothing: NaN is what `validate` refuses.
            Amount::Switch(true) => f32::NAN,
            Amount::Number(number) => number as f32,
        }
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = LogitBias;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object from token ids to numbers, or a list of [id or text, number or false]")
    }

    fn visit_unit<E>(self) -> std::result::Result<LogitBias, E> {
        Ok(LogitBias::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<LogitBias, A::Error> {
        let mut biases = Vec::new();
        while let Some((key, amount)) = map.next_entry::<String, Amount>()? {
            let token = key.parse().map_or(Biased::Text(key), Biased::Id);
            biases.push((token, amount.value()));
        }
        Ok(LogitBias(biases))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<LogitBias, A::Error> {
        let mut biases = Vec::new();
        while let Some((token, amount)) = list.next_element::<(Biased, Amount)>()? {
            let token = match token {
                Biased::Number(number) if number.trunc() == number && number.abs() < 9e15 => {
                    Biased::Id(number as i64)
                }
                other => other,
            };
            biases.push((token, amount.value()));
        }
        Ok(LogitBias(biases))
    }
}

impl<'de> Deserialize<'de> for LogitBias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let map: LogitBias = serde_json::from_str(r#"{"5": -3, "7": false, "cat": 1.5}"#).unwrap();
        let want =
            [(Biased::Id(5), -3.0), (Biased::Id(7), f32::NEG_INFINITY), (Biased::Text("cat".into()), 1.5)];
        assert_eq!(map.0, want);
        let list: LogitBias = serde_json::from_str(r#"[[5, -3], [7.0, false], ["cat", 1.5]]"#).unwrap();
        assert_eq!(list.0, want);
        assert_eq!(serde_json::from_str::<LogitBias>("null").unwrap(), LogitBias::default());
    }

    #[test]
    fn a05_what_is_no_token_or_no_number_is_refused() {
        for json in [r#"[[1.5, 1]]"#, r#"[[-1, 1]]"#, r#"[[1, true]]"#, r#"{"-2": 1}"#] {
            let bias: LogitBias = serde_json::from_str(json).unwrap();
            assert_eq!(bias.validate().unwrap_err().key.as_deref(), Some("logitBias"), "{json}");
        }
        let far = LogitBias::of_ids([(1 << 40, 1.0)]);
        assert_eq!(far.resolve(None).unwrap_err().key.as_deref(), Some("logitBias"));
        let text = LogitBias(vec![(Biased::Text("a".into()), 1.0)]);
        assert!(text.resolve(None).unwrap_err().message.contains("needs a tokenizer"));
    }
}
