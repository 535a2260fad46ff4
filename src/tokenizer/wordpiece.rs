//! WordPiece (`tokenizer.ggml.model` = "bert"): text is normalized and cut into words, and each word is
//! covered from left to right by the longest tokens. The vocabulary marks the start of a word with U+2581.
//!
//! Source: J. Devlin et al., "BERT", NAACL 2019, and its released tokenizer for the normalization; in one
//! point the result is llama.cpp's, which replaces a character by the first of its decomposition.

use super::spm::SPACE;
use super::trie::Trie;
use super::unicode::{Class, base, class, is_space, syllable_rest};
use super::vocab::{Vocab, as_invalid};
use crate::container::Metadata;
use crate::error::Result;

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";

/// What becomes of text before it is cut into pieces.
#[derive(Clone, Copy)]
pub(super) struct Normalizer {
    /// Letters become lower case.
    pub lowercase: bool,
    /// Accents are taken off.
    pub strip_accents: bool,
    /// A Hangul syllable becomes all of its letters. llama.cpp keeps the first.
    pub whole_syllables: bool,
}

impl Normalizer {
    /// That of the released BERT models, "uncased" ones with `lowercase`.
    pub fn of_bert(lowercase: bool) -> Normalizer {
        Normalizer { lowercase, strip_accents: lowercase, whole_syllables: true }
    }
}

/// Encoder of one WordPiece vocabulary.
pub(super) struct WordPiece {
    trie: Trie,
    unk: Option<u32>,
    normalizer: Normalizer,
    /// Longer words are unknown.
    max_chars: Option<usize>,
}

impl WordPiece {
    /// Reads the normalizer's switches: both are on unless the metadata says otherwise.
    pub fn read(meta: &Metadata, vocab: &Vocab, unk: Option<u32>) -> Result<WordPiece> {
        let lowercase = meta.bool(LOWERCASE).map_err(as_invalid)?.unwrap_or(true);
        let strip_accents = meta.bool(STRIP_ACCENTS).map_err(as_invalid)?.unwrap_or(lowercase);
        let normalizer = Normalizer { lowercase, strip_accents, whole_syllables: false };
        Ok(WordPiece::new(vocab, unk, normalizer, None))
    }

    /// An encoder of this vocabulary.
    pub fn new(
        vocab: &Vocab,
        unk: Option<u32>,
        normalizer: Normalizer,
        max_chars: Option<usize>,
    ) -> WordPiece {
        let mut trie = Trie::new();
        for id in 0..vocab.len() as u32 {
            if !vocab.text(id).is_empty() {
                trie.insert(vocab.text(id), id);
            }
        }
        WordPiece { trie, unk, normalizer, max_chars }
    }

    /// Appends the ids of `text`. A word that tokens cannot cover becomes the unknown token.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut word = String::from(SPACE);
        for c in text.chars() {
            let whole = c;
            let c = if self.normalizer.strip_accents { base(c) } else { c };
            if is_space(c) {
                self.flush(&mut word, out);
                continue;
            }
            let class = class(c);
            let dropped = class == Class::Control || class == Class::Mark && self.normalizer.strip_accents;
            if dropped || c == '\0' || c == char::REPLACEMENT_CHARACTER {
                continue;
            }
            let alone = class == Class::Punctuation || class == Class::Symbol && c < '\x7f' || is_chinese(c);
            if alone {
                self.flush(&mut word, out);
            }
            word.push(if self.normalizer.lowercase { lower(c) } else { c });
            if self.normalizer.strip_accents && self.normalizer.whole_syllables {
                word.extend(syllable_rest(whole));
            }
            if alone {
                self.flush(&mut word, out);
            }
        }
        self.flush(&mut word, out);
    }

    /// Appends the ids of a word and empties it to the mark of a word's start.
    fn flush(&self, word: &mut String, out: &mut Vec<u32>) {
        if word.len() == SPACE.len() {
            return;
        }
        let before = out.len();
        if self.max_chars.is_some_and(|max| word.chars().count() > max + 1) {
            out.extend(self.unk);
            word.truncate(SPACE.len());
            return;
        }
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            match self.trie.longest(rest) {
                Some((id, len)) => {
                    out.push(id);
                    rest = &rest[len..];
                }
                None => {
                    out.truncate(before);
                    out.extend(self.unk);
                    break;
                }
            }
        }
        word.truncate(SPACE.len());
    }
}

/// The first character of the lower case.
fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// CJK ideographs, each a word of its own.
fn is_chinese(c: char) -> bool {
    const RANGES: &[(u32, u32)] = &[
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2A6DF),
        (0x2A700, 0x2B73F),
        (0x2B740, 0x2B81F),
        // Not 0x2B820: so in the implementations that trained the models.
        (0x2B920, 0x2CEAF),
        (0xF900, 0xFAFF),
        (0x2F800, 0x2FA1F),
    ];
    RANGES.iter().any(|&(low, high)| (low..=high).contains(&u32::from(c)))
}
