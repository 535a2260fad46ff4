//! Special tokens: the ids that the metadata names, and those known by their text.

use super::kind::{Algorithm, Kind};
use super::vocab::{Vocab, as_invalid, attr, invalid};
use crate::container::{Metadata, Value};
use crate::error::Result;

/// Ids of the special tokens and what is added to a text.
pub(super) struct Specials {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub sep: Option<u32>,
    pub add_bos: bool,
    pub add_eos: bool,
    pub add_sep: bool,
    /// Whether a separator stands between two texts, beside what ends the first.
    pub sep_between: bool,
    /// Tokens that end a generation, ascending.
    pub end_of_generation: Vec<u32>,
}

const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const CLS: &str = "tokenizer.ggml.cls_token_id";
// The misspelling is part of the format.
const SEP: &str = "tokenizer.ggml.seperator_token_id";

const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_SEP: &str = "tokenizer.ggml.add_sep_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// Texts that end a generation in whatever vocabulary they occur.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "[e~[",
];

/// A role of fill-in-the-middle prompts: its metadata keys, the texts it is known by, whether it ends a generation.
type FillRole = (&'static [&'static str], &'static [&'static str], bool);

const FILL_ROLES: &[FillRole] = &[
    (
        &["tokenizer.ggml.prefix_token_id", "tokenizer.ggml.fim_pre_token_id"],
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
            "<PRE>",
            "\u{2581}<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        false,
    ),
    (
        &["tokenizer.ggml.suffix_token_id", "tokenizer.ggml.fim_suf_token_id"],
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
            "<SUF>",
            "\u{2581}<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        false,
    ),
    (
        &["tokenizer.ggml.middle_token_id", "tokenizer.ggml.fim_mid_token_id"],
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
            "<MID>",
            "\u{2581}<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        false,
    ),
    (
        &["tokenizer.ggml.fim_pad_token_id"],
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        true,
    ),
    (
        &["tokenizer.ggml.fim_rep_token_id"],
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        true,
    ),
    (&["tokenizer.ggml.fim_sep_token_id"], &["<|file_sep|>"], true),
];

/// Channel marks of one chat format: part of the text that people see.
const VISIBLE_TEXTS: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

impl Specials {
    /// Reads the ids and switches, and corrects the kinds of tokens that are known by their text.
    pub fn read(meta: &Metadata, kind: &Kind, vocab: &mut Vocab) -> Result<Specials> {
        let bos = named_id(meta, BOS, vocab)?.or(named_id(meta, CLS, vocab)?);
        let named = |key, default: Option<u32>| -> Result<Option<u32>> {
            Ok(named_id(meta, key, vocab)?.unwrap_or(default.filter(|&id| (id as usize) < vocab.len())))
        };
        let bos = match bos {
            Some(bos) => bos,
            None => named(BOS, kind.bos)?,
        };
        let (eos, unk, sep) = (named(EOS, kind.eos)?, named(UNK, kind.unk)?, named(SEP, kind.sep)?);
        let mut ends: Vec<u32> = [eos, named(EOT, None)?, named(EOM, None)?].into_iter().flatten().collect();
        ends.extend(mark_fill_tokens(meta, vocab));
        let end_of_generation = mark_known_texts(ends, vocab);
        let switch = |key, default| Ok(meta.bool(key).map_err(as_invalid)?.unwrap_or(default));
        // Word pieces always stand between the same two tokens.
        let framed = matches!(kind.algorithm, Algorithm::WordPiece);
        let specials = Specials {
            bos,
            eos,
            unk,
            sep,
            add_bos: framed || switch(ADD_BOS, kind.add_bos)?,
            add_eos: !framed && switch(ADD_EOS, kind.add_eos)?,
            add_sep: framed,
            sep_between: !framed && switch(ADD_SEP, false)?,
            end_of_generation,
        };
        specials.check()?;
        set_strip(meta, vocab)?;
        Ok(specials)
    }

    fn check(&self) -> Result<()> {
        let wanted = [
            (self.add_bos, self.bos, BOS, ADD_BOS),
            (self.add_eos, self.eos, EOS, ADD_EOS),
            (self.add_sep, self.sep, SEP, "this kind of tokenizer"),
        ];
        for (add, id, id_key, add_key) in wanted {
            if add && id.is_none() {
                return Err(invalid(id_key, format!("{add_key} asks for a token that is not named")));
            }
        }
        Ok(())
    }
}

/// The id under `key`: `None` if absent, `Some(None)` if the file says that there is no such token
/// (-1, also as u32).
fn named_id(meta: &Metadata, key: &str, vocab: &Vocab) -> Result<Option<Option<u32>>> {
    let id = match meta.get(key) {
        None => return Ok(None),
        Some(Value::U64(id)) if *id == u64::from(u32::MAX) => return Ok(Some(None)),
        Some(Value::I64(-1)) => return Ok(Some(None)),
        Some(Value::U64(id)) => i64::try_from(*id).unwrap_or(i64::MAX),
        Some(Value::I64(id)) => *id,
        Some(_) => return Err(invalid(key, "expected an integer")),
    };
    if id < 0 || id >= vocab.len() as i64 {
        return Err(invalid(key, format!("token {id} is outside the vocabulary of {}", vocab.len())));
    }
    Ok(Some(Some(id as u32)))
}

/// Marks the tokens of fill-in-the-middle prompts as control tokens; gives those that end a generation.
/// Ids that are out of range are passed over: nothing else depends on them.
fn mark_fill_tokens(meta: &Metadata, vocab: &mut Vocab) -> Vec<u32> {
    let mut ends = Vec::new();
    for (keys, texts, ends_generation) in FILL_ROLES {
        let mut id = keys.iter().find_map(|key| named_id(meta, key, vocab).ok()??);
        if id.is_none() {
            id = texts.iter().filter_map(|text| vocab.id(text.as_bytes())).min();
            if let Some(id) = id {
                vocab.change_attr(id, attr::CONTROL, 0);
            }
        }
        ends.extend(id.filter(|_| *ends_generation));
    }
    ends
}

/// Corrects the kinds of tokens that are known by their text; gives all that end a generation, ascending.
pub(super) fn mark_known_texts(mut ends: Vec<u32>, vocab: &mut Vocab) -> Vec<u32> {
    for text in END_TEXTS {
        if let Some(id) = vocab.id(text.as_bytes()) {
            vocab.change_attr(id, attr::CONTROL, 0);
            ends.push(id);
        }
    }
    for text in VISIBLE_TEXTS {
        if let Some(id) = vocab.id(text.as_bytes()) {
            vocab.change_attr(id, attr::USER_DEFINED, !0);
        }
    }
    ends.sort_unstable();
    ends.dedup();
    keep_real_ends(ends, vocab)
}

/// Two chat formats use a text that ends others' generations in the middle of a reply.
fn keep_real_ends(mut ends: Vec<u32>, vocab: &mut Vocab) -> Vec<u32> {
    let find = |text: &str| vocab.id(text.as_bytes()).filter(|id| ends.contains(id));
    let has = |text: &str| find(text).is_some();
    let call = has("<|call|>") || has("<|calls|>");
    let end = find("<|end|>").filter(|_| call && (has("<|return|>") || has("<|flush|>")));
    let sentence = find("</s>").filter(|_| has("<|tool_response>"));
    ends.retain(|&id| Some(id) != end && Some(id) != sentence);
    if let Some(id) = end {
        vocab.change_attr(id, attr::USER_DEFINED, !0);
    }
    if let Some(id) = sentence {
        vocab.change_attr(id, attr::NORMAL, !0);
    }
    ends
}

/// GGUF has no field for the white space that a special token takes with it: it goes by the model's name.
fn set_strip(meta: &Metadata, vocab: &mut Vocab) -> Result<()> {
    let text = |key| Ok(meta.str(key).map_err(as_invalid)?.unwrap_or_default().to_ascii_lowercase());
    let (name, arch, pre) = (text("general.name")?, text("general.architecture")?, text(super::kind::PRE)?);
    let any = |text: &str, parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let mut strip = |text: &str, set, clear| {
        if let Some(id) = vocab.id(text.as_bytes()) {
            vocab.change_attr(id, set, clear);
        }
    };
    if any(&pre, &["jina-v2-de", "jina-v2-es", "jina-v2-code"])
        || any(&arch, &["nomic-bert-moe", "jina-bert-v3"])
    {
        strip("<mask>", attr::LSTRIP, 0);
    } else if any(&name, &["phi-3", "phi3"]) {
        strip("</s>", attr::RSTRIP, 0);
        let special = attr::CONTROL | attr::USER_DEFINED | attr::UNKNOWN;
        for id in 0..vocab.len() as u32 {
            let kept = [&b"<unk>"[..], b"<s>", b"<|endoftext|>"].contains(&vocab.text(id));
            if vocab.attr(id) & special != 0 && !kept {
                vocab.change_attr(id, attr::RSTRIP, 0);
            }
        }
    } else if any(&name, &["modern-bert"]) {
        strip("[MASK]", attr::LSTRIP, 0);
    }
    Ok(())
}
