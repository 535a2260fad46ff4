//! The kinds of tokenizer that `tokenizer.ggml.model` can name: one row each.

use super::pretokenize::{self, PreTokenizer};
use super::vocab::{as_invalid, invalid};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};

/// Key of the tokenizer's kind.
pub(super) const MODEL: &str = "tokenizer.ggml.model";
/// Key of the pre-tokenizer's name.
pub(super) const PRE: &str = "tokenizer.ggml.pre";

/// How text becomes tokens.
#[derive(Clone, Copy)]
pub(super) enum Algorithm {
    /// Merges by score.
    Spm,
    /// Merges by rank, of bytes.
    Bpe(&'static PreTokenizer),
    /// Longest tokens first, word by word.
    WordPiece,
    /// Longest tokens first, of bytes.
    Rwkv,
    /// The highest sum of scores.
    Unigram,
}

/// A kind of tokenizer and what holds where its metadata says nothing.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    model: &'static str,
    pub algorithm: Algorithm,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub sep: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_space_prefix: bool,
    /// Whether decoding removes the space before punctuation.
    pub clean_spaces: bool,
}

/// Nothing added, no token that goes without saying.
const PLAIN: Kind = Kind {
    model: "",
    algorithm: Algorithm::Spm,
    bos: None,
    eos: None,
    unk: None,
    sep: None,
    add_bos: false,
    add_eos: false,
    add_space_prefix: false,
    clean_spaces: false,
};

const BPE: &str = "gpt2";

fn kinds() -> [Kind; 5] {
    let (spm, wordpiece) = (Algorithm::Spm, Algorithm::WordPiece);
    let llama = Kind { model: "llama", algorithm: spm, bos: Some(1), eos: Some(2), unk: Some(0), ..PLAIN };
    let bert =
        Kind { model: "bert", algorithm: wordpiece, bos: Some(101), sep: Some(102), unk: Some(100), ..PLAIN };
    [
        Kind { add_bos: true, add_space_prefix: true, ..llama },
        Kind { model: BPE, ..PLAIN },
        Kind { add_bos: true, clean_spaces: true, ..bert },
        Kind { model: "rwkv", algorithm: Algorithm::Rwkv, ..PLAIN },
        Kind {
            model: "t5",
            algorithm: Algorithm::Unigram,
            eos: Some(1),
            unk: Some(2),
            add_eos: true,
            ..PLAIN
        },
    ]
}

impl Kind {
    /// The kind that the metadata names.
    pub fn read(meta: &Metadata) -> Result<Kind> {
        let Some(model) = meta.str(MODEL).map_err(as_invalid)? else {
            return Err(invalid(MODEL, "the file has no tokenizer"));
        };
        let kinds = kinds();
        let Some(kind) = kinds.iter().find(|kind| kind.model == model) else {
            let known = kinds.map(|kind| kind.model).join(", ");
            return Err(invalid(MODEL, format!("unknown tokenizer {model:?}; known are {known}")));
        };
        if kind.model != BPE {
            return Ok(*kind);
        }
        let name = meta.str(PRE).map_err(as_invalid)?.unwrap_or("default");
        let Some(pre) = pretokenize::find(name) else {
            let message = format!("unknown pre-tokenizer {name:?}; known are {}", pretokenize::names());
            return Err(Error::new(Code::UnsupportedPreTokenizer, message).key(PRE));
        };
        let algorithm = Algorithm::Bpe(pre);
        Ok(Kind { algorithm, add_bos: pre.add_bos, clean_spaces: pre.clean_spaces, ..*kind })
    }
}
