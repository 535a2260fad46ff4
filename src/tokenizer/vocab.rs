//! The vocabulary: texts, scores and kinds of all tokens, with look-up by text.

use crate::container::{Array, Metadata, StrArray};
use crate::error::{Code, Error, Result};

/// Key of the token texts.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// Key of the token scores.
pub(super) const SCORES: &str = "tokenizer.ggml.scores";
/// Key of the token kinds.
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";

/// What a token is: a set of these bits. A token with none of them (an undefined type) stands for no text.
pub(super) mod attr {
    /// Stands for text that is not in the vocabulary.
    pub const UNKNOWN: u8 = 1;
    /// A placeholder that training never saw.
    pub const UNUSED: u8 = 2;
    /// A piece of text.
    pub const NORMAL: u8 = 4;
    /// Steers the model and is no text (beginning, end, roles of a chat).
    pub const CONTROL: u8 = 8;
    /// Added text that is matched before anything else.
    pub const USER_DEFINED: u8 = 16;
    /// One byte, written `<0xXX>`.
    pub const BYTE: u8 = 32;
    /// White space before the token belongs to it.
    pub const LSTRIP: u8 = 64;
    /// White space after the token belongs to it.
    pub const RSTRIP: u8 = 128;
}

/// An error that names the metadata key at fault.
pub(super) fn invalid(key: &str, message: impl Into<String>) -> Error {
    Error::new(Code::TokenizerInvalid, message).key(key)
}

/// Turns the error of a metadata getter into one about the tokenizer.
pub(super) fn as_invalid(mut error: Error) -> Error {
    error.code = Code::TokenizerInvalid;
    error
}

/// Texts, scores and kinds of the tokens, by id.
pub(super) struct Vocab {
    texts: StrArray,
    scores: Vec<f32>,
    attrs: Vec<u8>,
    index: Index,
    /// The longest text in bytes: no longer string can be a token.
    pub max_text_len: usize,
}

impl Vocab {
    /// Reads and checks `tokens`, `scores` (all 0 when absent) and `token_type` (all normal when absent).
    pub fn read(meta: &Metadata) -> Result<Vocab> {
        let texts = match meta.array(TOKENS).map_err(as_invalid)? {
            Some(Array::Str(texts)) => texts.clone(),
            Some(_) => return Err(invalid(TOKENS, "expected an array of strings")),
            None => return Err(invalid(TOKENS, "the file has no tokens")),
        };
        let scores = read_scores(meta, texts.len())?;
        let attrs = read_attrs(meta, texts.len())?;
        Vocab::new(texts, scores, attrs)
    }

    /// A vocabulary of `texts`; `scores` and `attrs` have one entry for each.
    pub fn new(texts: StrArray, scores: Vec<f32>, attrs: Vec<u8>) -> Result<Vocab> {
        if texts.is_empty() {
            return Err(invalid(TOKENS, "there is not a single token"));
        }
        if texts.len() > u32::MAX as usize / 4 {
            return Err(invalid(TOKENS, "too many tokens"));
        }
        let added = attr::CONTROL | attr::USER_DEFINED;
        for (id, text) in texts.iter().enumerate() {
            if text.is_empty() && attrs[id] & added != 0 {
                return Err(invalid(TOKENS, format!("added token {id} has no text")));
            }
            if attrs[id] & attr::BYTE != 0 && byte_of(text).is_none() {
                return Err(invalid(TOKENS, format!("byte token {id} is not written <0xXX>")));
            }
        }
        let index = Index::new(&texts)?;
        let max_text_len = texts.iter().map(<[u8]>::len).max().unwrap_or(0);
        Ok(Vocab { texts, scores, attrs, index, max_text_len })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of token `id` as the file has it; empty for an id outside the vocabulary.
    pub fn text(&self, id: u32) -> &[u8] {
        self.texts.get(id as usize).unwrap_or_default()
    }

    /// The id of `text`.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        if text.len() > self.max_text_len { None } else { self.index.find(&self.texts, text) }
    }

    /// The score of token `id`; never NaN.
    pub fn score(&self, id: u32) -> f32 {
        self.scores[id as usize]
    }

    /// The bits of token `id`.
    pub fn attr(&self, id: u32) -> u8 {
        self.attrs[id as usize]
    }

    /// Sets and clears bits of token `id`.
    pub fn change_attr(&mut self, id: u32, set: u8, clear: u8) {
        let attr = &mut self.attrs[id as usize];
        *attr = (*attr & !clear) | set;
    }

    /// The id of each byte: its `<0xXX>` token, else the token of that one byte, else `unk`.
    pub fn byte_ids(&self, unk: Option<u32>) -> Result<[u32; 256]> {
        let mut ids = [0; 256];
        for (byte, slot) in ids.iter_mut().enumerate() {
            let found = self.id(format!("<0x{byte:02X}>").as_bytes()).or_else(|| self.id(&[byte as u8]));
            *slot = found.or(unk).ok_or_else(|| {
                invalid(TOKENS, format!("byte 0x{byte:02X} has no token and there is no unknown token"))
            })?;
        }
        Ok(ids)
    }
}

/// The byte that a token `<0xXX>` stands for.
pub(super) fn byte_of(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let [high, low] = digits else { return None };
    let digit = |c: u8| (c as char).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

fn read_scores(meta: &Metadata, n_tokens: usize) -> Result<Vec<f32>> {
    let mut scores = match meta.array(SCORES).map_err(as_invalid)? {
        None => return Ok(vec![0.0; n_tokens]),
        Some(Array::F32(scores)) => scores.clone(),
        Some(Array::I64(scores)) => scores.iter().map(|&s| s as f32).collect(),
        Some(_) => return Err(invalid(SCORES, "expected an array of f32 or i32")),
    };
    if scores.len() < n_tokens {
        return Err(invalid(SCORES, format!("{} scores for {n_tokens} tokens", scores.len())));
    }
    scores.truncate(n_tokens);
    match scores.iter().position(|s| s.is_nan()) {
        Some(id) => Err(invalid(SCORES, format!("the score of token {id} is not a number"))),
        None => Ok(scores),
    }
}

fn read_attrs(meta: &Metadata, n_tokens: usize) -> Result<Vec<u8>> {
    let types = match meta.array(TOKEN_TYPE).map_err(as_invalid)? {
        None => return Ok(vec![attr::NORMAL; n_tokens]),
        Some(Array::I64(types)) => types,
        Some(_) => return Err(invalid(TOKEN_TYPE, "expected an array of i32")),
    };
    if types.len() < n_tokens {
        return Err(invalid(TOKEN_TYPE, format!("{} types for {n_tokens} tokens", types.len())));
    }
    let attr_of = |&id: &i64| match id {
        1 => attr::NORMAL,
        2 => attr::UNKNOWN,
        3 => attr::CONTROL,
        4 => attr::USER_DEFINED,
        5 => attr::UNUSED,
        6 => attr::BYTE,
        _ => 0,
    };
    Ok(types[..n_tokens].iter().map(attr_of).collect())
}

/// A hash table from text to id with open addressing: 4 bytes a slot and no copy of the texts,
/// where a `HashMap` of owned strings costs some 60 bytes a token.
struct Index {
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;
/// At a load of one half or less, honest texts stay far below this; texts made to collide are refused
/// instead of making every look-up slow.
const MAX_PROBES: usize = 256;

impl Index {
    fn new(texts: &StrArray) -> Result<Index> {
        let mut slots = vec![EMPTY; (texts.len() * 2).next_power_of_two()];
        let mask = slots.len() - 1;
        for (id, text) in texts.iter().enumerate() {
            // An empty text can never be matched, and a file may have several.
            if text.is_empty() {
                continue;
            }
            let mut slot = hash(text) as usize & mask;
            let mut n_probes = 0;
            while slots[slot] != EMPTY {
                let other = slots[slot];
                if texts.get(other as usize) == Some(text) {
                    let shown = String::from_utf8_lossy(text);
                    return Err(invalid(TOKENS, format!("tokens {other} and {id} are both {shown:?}")));
                }
                n_probes += 1;
                if n_probes > MAX_PROBES {
                    return Err(invalid(TOKENS, "too many tokens have the same hash"));
                }
                slot = (slot + 1) & mask;
            }
            slots[slot] = id as u32;
        }
        Ok(Index { slots })
    }

    fn find(&self, texts: &StrArray, text: &[u8]) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(text) as usize & mask;
        while self.slots[slot] != EMPTY {
            let id = self.slots[slot];
            if texts.get(id as usize) == Some(text) {
                return Some(id);
            }
            slot = (slot + 1) & mask;
        }
        None
    }
}

/// Odd, with bits spread evenly: the fractional part of the golden ratio.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Multiply and fold, eight bytes at a time: token texts are short, and SipHash would dominate encoding.
pub(super) fn hash(text: &[u8]) -> u64 {
    let mut state = !(text.len() as u64);
    for chunk in text.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let product = u128::from(state ^ u64::from_le_bytes(word)) * u128::from(MULTIPLIER);
        state = product as u64 ^ (product >> 64) as u64 ^ 0x2545_F491_4F6C_DD1D;
    }
    state ^ (state >> 29)
}
