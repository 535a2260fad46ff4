//! SentencePiece vocabularies (`tokenizer.ggml.model` = "llama"): spaces become U+2581, and the adjacent
//! pair whose union has the highest score is merged until no union is a token. What remains without a
//! token is written byte by byte.
//!
//! Source: T. Kudo and J. Richardson, "SentencePiece", EMNLP 2018 (the BPE model with scores), with the
//! tie rule of llama.cpp: of equal scores the leftmost pair first.

use super::agenda::{Agenda, Pair};
use super::vocab::{Vocab, attr, byte_of};
use crate::error::Result;

/// The character that stands for a space.
pub(super) const SPACE: &str = "\u{2581}";

const NONE: u32 = u32::MAX;

/// Encoder of one SentencePiece vocabulary.
pub(super) struct Spm {
    byte_ids: [u32; 256],
    /// Which bytes stand right before U+2581 inside some token.
    joins_space: [bool; 256],
}

/// A run of the text; `len` 0 once it was merged into its left neighbour.
struct Symbol {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}

impl Spm {
    /// Finds the byte tokens; `unk` stands in for those that are missing.
    pub fn new(vocab: &Vocab, unk: Option<u32>) -> Result<Spm> {
        let mut joins_space = [false; 256];
        for id in 0..vocab.len() as u32 {
            let text = vocab.text(id);
            for i in 1..text.len() {
                if text[i..].starts_with(SPACE.as_bytes()) {
                    joins_space[text[i - 1] as usize] = true;
                }
            }
        }
        Ok(Spm { byte_ids: vocab.byte_ids(unk)?, joins_space })
    }

    /// Appends the ids of `text`, with a space before it if `prefix`.
    pub fn encode(&self, vocab: &Vocab, text: &str, prefix: bool, out: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if prefix {
            escaped.push_str(SPACE);
        }
        for (i, part) in text.split(' ').enumerate() {
            if i > 0 {
                escaped.push_str(SPACE);
            }
            escaped.push_str(part);
        }
        let mut merger = Merger { vocab, text: "", symbols: Vec::new(), agenda: Agenda::default() };
        let mut start = 0;
        for (space, _) in escaped.match_indices(SPACE) {
            // No token reaches from the byte before this space into it, so no merge does either: the
            // parts are independent, and a short one stays in the cache.
            if space > start && !self.joins_space[escaped.as_bytes()[space - 1] as usize] {
                merger.run(&escaped[start..space], &self.byte_ids, out);
                start = space;
            }
        }
        merger.run(&escaped[start..], &self.byte_ids, out);
    }
}

/// The bytes that token `id` stands for.
pub(super) fn piece(vocab: &Vocab, id: u32) -> Vec<u8> {
    let (text, bits) = (vocab.text(id), vocab.attr(id));
    if bits & (attr::UNKNOWN | attr::CONTROL | attr::USER_DEFINED) != 0 {
        text.to_vec()
    } else if bits & attr::NORMAL != 0 {
        unescape(text)
    } else if bits & attr::BYTE != 0 {
        byte_of(text).into_iter().collect()
    } else {
        Vec::new()
    }
}

/// Turns every U+2581 into a space.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE.as_bytes()) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// Merges one part of a text after another, with the same buffers.
struct Merger<'a> {
    vocab: &'a Vocab,
    text: &'a str,
    symbols: Vec<Symbol>,
    agenda: Agenda,
}

impl<'a> Merger<'a> {
    /// Appends the ids of one part.
    fn run(&mut self, text: &'a str, byte_ids: &[u32; 256], out: &mut Vec<u32>) {
        self.text = text;
        self.split();
        self.agenda.start(self.symbols.len());
        for right in 1..self.symbols.len() as u32 {
            self.propose(right - 1, right);
        }
        self.merge();
        for symbol in self.symbols.iter().filter(|s| s.len > 0) {
            let piece = &text.as_bytes()[symbol.start as usize..][..symbol.len as usize];
            match self.vocab.id(piece) {
                Some(id) => out.push(id),
                None => out.extend(piece.iter().map(|&byte| byte_ids[byte as usize])),
            }
        }
    }

    /// Makes every character a symbol.
    fn split(&mut self) {
        self.symbols.clear();
        for (i, (start, c)) in (0u32..).zip(self.text.char_indices()) {
            let (start, len) = (start as u32, c.len_utf8() as u32);
            self.symbols.push(Symbol { start, len, prev: i.wrapping_sub(1), next: i + 1 });
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
    }

    fn merge(&mut self) {
        while let Some((_, Pair { left, right, stamp: len })) = self.agenda.pop() {
            let (l, r) = (left as usize, right as usize);
            let right_len = self.symbols[r].len;
            if self.symbols[l].len == 0 || right_len == 0 || self.symbols[l].len + right_len != len {
                continue;
            }
            let next = self.symbols[r].next;
            self.symbols[r].len = 0;
            self.symbols[l].len = len;
            self.symbols[l].next = next;
            if next != NONE {
                self.symbols[next as usize].prev = left;
            }
            self.propose(self.symbols[l].prev, left);
            self.propose(left, next);
        }
    }

    /// Queues the merge of two neighbours if their union is a token.
    fn propose(&mut self, left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        let len = l.len + r.len;
        if let Some(id) = self.vocab.id(&self.text.as_bytes()[l.start as usize..][..len as usize]) {
            // The union's length tells later whether either side has changed.
            self.agenda.push(descending(self.vocab.score(id)), Pair { left, right, stamp: len });
        }
    }
}

/// An integer that is the less the greater the score; -0 equals 0.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { !(bits | 0x8000_0000) } else { bits }
}
