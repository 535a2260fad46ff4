//! The kinds of tokenizer that `tokenizer.ggml.model` can name: one row each.

use super::vocab::{as_invalid, invalid};
use crate::container::Metadata;
use crate::error::Result;

/// Key of the tokenizer's kind.
pub(super) const MODEL: &str = "tokenizer.ggml.model";
/// Key of the pre-tokenizer's name.
pub(super) const PRE: &str = "tokenizer.ggml.pre";

/// How text becomes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// Merges by score.
    Spm,
}

/// A kind of tokenizer and what holds where its metadata says nothing.
pub(super) struct Kind {
    pub model: &'static str,
    pub algorithm: Algorithm,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub sep: Option<u32>,
    pub add_bos: bool,
    pub add_sep: bool,
    pub add_space_prefix: bool,
    /// Whether decoding removes the space before punctuation.
    pub clean_spaces: bool,
}

const KINDS: &[Kind] = &[Kind {
    model: "llama",
    algorithm: Algorithm::Spm,
    bos: Some(1),
    eos: Some(2),
    unk: Some(0),
    sep: None,
    add_bos: true,
    add_sep: false,
    add_space_prefix: true,
    clean_spaces: false,
}];

impl Kind {
    /// The kind that the metadata names.
    pub fn read(meta: &Metadata) -> Result<&'static Kind> {
        let Some(model) = meta.str(MODEL).map_err(as_invalid)? else {
            return Err(invalid(MODEL, "the file has no tokenizer"));
        };
        KINDS.iter().find(|kind| kind.model == model).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|kind| kind.model).collect();
            invalid(MODEL, format!("unknown tokenizer {model:?}; known are {}", known.join(", ")))
        })
    }
}
