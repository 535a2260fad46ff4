//! Unigram vocabularies (`tokenizer.ggml.model` = "t5"): of all ways to write a text in tokens the one with
//! the highest sum of scores, found by dynamic programming from left to right.
//!
//! Source: T. Kudo, "Subword regularization", ACL 2018, section 3.2; the normalization table is that of
//! SentencePiece, a double array after S. Kanda et al., "Space- and time-efficient string dictionaries", 2018.

use super::spm::SPACE;
use super::trie::{NONE, ROOT, Trie};
use super::vocab::{SCORES, Vocab, as_invalid, attr, invalid};
use crate::container::{Array, Metadata};
use crate::error::Result;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const MERGE_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
const SUFFIX_SPACE: &str = "tokenizer.ggml.treat_whitespace_as_suffix";

/// How much worse than the worst token a character without a token is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Encoder of one Unigram vocabulary.
pub(super) struct Unigram {
    trie: Trie,
    unk: Option<u32>,
    unknown_score: f64,
    charsmap: Charsmap,
    spaces: Spaces,
}

/// What happens to spaces.
#[derive(Clone, Copy)]
pub(super) struct Spaces {
    /// One is put before the text.
    pub prefix: bool,
    /// One is put after the text.
    pub suffix: bool,
    /// Several become one.
    pub merge: bool,
}

impl Unigram {
    /// Reads the normalization table and its switches (all off where absent).
    pub fn read(meta: &Metadata, vocab: &Vocab, unk: Option<u32>, add_space: bool) -> Result<Unigram> {
        let switch = |key| Ok(meta.bool(key).map_err(as_invalid)?.unwrap_or(false));
        let at_end = switch(SUFFIX_SPACE)?;
        let merge_spaces = switch(MERGE_SPACES)?;
        let spaces =
            Spaces { prefix: add_space && !at_end, suffix: add_space && at_end, merge: merge_spaces };
        Unigram::new(vocab, unk, Charsmap::read(meta)?, spaces)
    }

    /// An encoder of this vocabulary; `charsmap` is the normalization table as files hold it.
    pub fn with_table(
        vocab: &Vocab,
        unk: Option<u32>,
        charsmap: Option<&[u8]>,
        spaces: Spaces,
    ) -> Result<Unigram> {
        let charsmap = charsmap.map(Charsmap::parse).transpose()?.unwrap_or_default();
        Unigram::new(vocab, unk, charsmap, spaces)
    }

    fn new(vocab: &Vocab, unk: Option<u32>, charsmap: Charsmap, spaces: Spaces) -> Result<Unigram> {
        let mut trie = Trie::new();
        let mut min_score = f32::MAX;
        for id in 0..vocab.len() as u32 {
            let bits = vocab.attr(id);
            if bits & attr::NORMAL != 0 {
                min_score = min_score.min(vocab.score(id));
            }
            if bits & (attr::NORMAL | attr::USER_DEFINED | attr::UNUSED) != 0 && !vocab.text(id).is_empty() {
                trie.insert(vocab.text(id), id);
            }
        }
        if (0..vocab.len() as u32).any(|id| !vocab.score(id).is_finite()) {
            return Err(invalid(SCORES, "a score is infinite"));
        }
        Ok(Unigram { trie, unk, unknown_score: f64::from(min_score) - UNKNOWN_PENALTY, charsmap, spaces })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let text = self.normalize(text);
        let first = out.len();
        let best = self.best_ends(vocab, &text);
        let mut end = text.len();
        let mut after_unknown = false;
        while end > 0 {
            let Best { token, start, .. } = best[end];
            // A run of characters without a token is one unknown token.
            if token != NONE {
                out.push(token);
            } else if !after_unknown {
                out.extend(self.unk);
            }
            after_unknown = token == NONE;
            end = start;
        }
        out[first..].reverse();
    }

    /// For each place, by which token it is best reached.
    fn best_ends(&self, vocab: &Vocab, text: &str) -> Vec<Best> {
        let bytes = text.as_bytes();
        let mut best = vec![Best { token: NONE, start: 0, score: f64::NEG_INFINITY }; bytes.len() + 1];
        best[0].score = 0.0;
        for (start, c) in text.char_indices() {
            let score = best[start].score;
            let mut reach = |end: usize, token: u32, score: f64| {
                if score > best[end].score {
                    best[end] = Best { token, start, score };
                }
            };
            let mut whole_character = false;
            let mut node = ROOT;
            for (i, &byte) in bytes[start..].iter().enumerate() {
                let Some(child) = self.trie.child(node, byte) else { break };
                node = child;
                let token = self.trie.nodes[node].token;
                if token == NONE {
                    continue;
                }
                whole_character |= i + 1 == c.len_utf8();
                // Added tokens win over any other way of writing their text.
                let added = vocab.attr(token) & attr::USER_DEFINED != 0;
                reach(start + i + 1, token, score + if added { 0.0 } else { f64::from(vocab.score(token)) });
            }
            if !whole_character {
                reach(start + c.len_utf8(), NONE, score + self.unknown_score);
            }
        }
        best
    }

    /// Replaces what the table replaces, and spaces by U+2581.
    fn normalize(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() * 3 / 2);
        let mut rest = text;
        let mut prefix_wanted = self.spaces.prefix;
        let mut in_word = false;
        while let Some(c) = rest.chars().next() {
            let (replacement, n_read) =
                self.charsmap.longest(rest).unwrap_or((&rest[..c.len_utf8()], c.len_utf8()));
            for c in replacement.chars() {
                if c == ' ' {
                    in_word = false;
                    if !self.spaces.merge {
                        out.push_str(SPACE);
                    }
                    continue;
                }
                if !in_word && (prefix_wanted || self.spaces.merge) {
                    out.push_str(SPACE);
                    prefix_wanted = false;
                }
                in_word = true;
                out.push(c);
            }
            rest = &rest[n_read..];
        }
        if self.spaces.suffix {
            out.push_str(SPACE);
        }
        out
    }
}

/// The best way to reach a place: its last token (`NONE`: an unknown character), where that starts, and
/// the sum of scores.
#[derive(Clone, Copy)]
struct Best {
    token: u32,
    start: usize,
    score: f64,
}

/// Which strings the normalizer replaces, and by what.
#[derive(Default)]
struct Charsmap {
    nodes: Vec<u32>,
    /// The replacements, each with a zero byte after it.
    texts: Vec<u8>,
}

impl Charsmap {
    fn read(meta: &Metadata) -> Result<Charsmap> {
        let bytes: Vec<u8> = match meta.array(CHARSMAP).map_err(as_invalid)? {
            None => return Ok(Charsmap::default()),
            Some(Array::U64(bytes)) => bytes.iter().map(|&b| b as u8).collect(),
            Some(Array::I64(bytes)) => bytes.iter().map(|&b| b as u8).collect(),
            Some(_) => return Err(invalid(CHARSMAP, "expected an array of bytes")),
        };
        Charsmap::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Charsmap> {
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let n_node_bytes = bytes.get(..4).map(|b| word(b) as usize);
        let Some((nodes, texts)) = n_node_bytes.and_then(|n| bytes[4..].split_at_checked(n)) else {
            return Err(invalid(CHARSMAP, "the table is longer than the array"));
        };
        if nodes.len() % 4 != 0 || texts.last() != Some(&0) {
            return Err(invalid(CHARSMAP, "the table or its texts are cut off"));
        }
        Ok(Charsmap { nodes: nodes.chunks(4).map(word).collect(), texts: texts.to_vec() })
    }

    /// The replacement of the longest listed prefix of `text`, and that prefix's length. An entry that
    /// points outside the table or inside a character is as good as absent.
    fn longest<'a>(&'a self, text: &'a str) -> Option<(&'a str, usize)> {
        // Bits of a node: 0-7 the byte that leads here, 8 whether a value hangs here, 9 whether the offset
        // is in units of 256, 10-30 the offset; a value has bit 31 set.
        let offset = |node: u32| ((node >> 10) << ((node & 1 << 9) >> 6)) as usize;
        let mut at = offset(*self.nodes.first()?);
        let mut found = None;
        for (i, &byte) in text.as_bytes().iter().enumerate() {
            at ^= usize::from(byte);
            let Some(&node) = self.nodes.get(at) else { break };
            if byte == 0 || node & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            at ^= offset(node);
            if node & 1 << 8 != 0 && text.is_char_boundary(i + 1) {
                let value = self.nodes.get(at).map(|value| (value & !(1 << 31)) as usize);
                let replacement = value.and_then(|start| self.texts.get(start..)).and_then(until_zero);
                found = replacement.map(|text| (text, i + 1)).or(found);
            }
        }
        found
    }
}

fn until_zero(bytes: &[u8]) -> Option<&str> {
    std::ffi::CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()
}
