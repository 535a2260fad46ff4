//! Byte-level BPE (`tokenizer.ggml.model` = "gpt2"): text is cut into words, every byte becomes a printable
//! character, and in each word the adjacent pair that comes first in the list of merges is merged.
//!
//! Source: A. Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.2, and
//! its released encoder for the mapping of bytes.

use super::agenda::{Agenda, Pair};
use super::pretokenize::{PreTokenizer, Splitter};
use super::unicode::is_space;
use super::vocab::{Vocab, as_invalid, attr, byte_of, invalid};
use crate::container::{Array, Metadata};
use crate::error::{Error, Result};

/// Key of the merges, best first, each two pieces with a space between them.
pub(super) const MERGES: &str = "tokenizer.ggml.merges";

const NONE: u32 = u32::MAX;

/// Encoder of one byte-level vocabulary.
pub(super) struct Bpe {
    splitter: Splitter,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    ignore_merges: bool,
    merges: Merges,
    /// The token of each byte, or `NONE`: such bytes are left out, as in llama.cpp.
    byte_ids: [u32; 256],
    /// The same for the last byte of a word, where its token is another, as in CLIP; white space between words is
    /// then left out.
    last_ids: Option<Box<[u32; 256]>>,
}

impl Bpe {
    /// Reads and checks the merges.
    pub fn read(meta: &Metadata, vocab: &Vocab, pre: &PreTokenizer) -> Result<Bpe> {
        let texts = match meta.array(MERGES).map_err(as_invalid)? {
            Some(Array::Str(merges)) => merges,
            Some(_) => return Err(invalid(MERGES, "expected an array of strings")),
            None => return Err(invalid(MERGES, "the file has no merges")),
        };
        let mut merges = Merges::new(texts.len(), MERGES);
        for text in texts.iter() {
            merges.add_text(vocab, text)?;
        }
        Ok(Bpe::new(vocab, merges, pre.splitter(), pre.ignore_merges))
    }

    /// An encoder with these merges.
    pub fn new(vocab: &Vocab, merges: Merges, splitter: Splitter, ignore_merges: bool) -> Bpe {
        let byte_id = |byte: u8| vocab.id(char_of(byte).encode_utf8(&mut [0; 4]).as_bytes());
        let byte_ids = std::array::from_fn(|byte| byte_id(byte as u8).unwrap_or(NONE));
        Bpe { splitter, ignore_merges, merges, byte_ids, last_ids: None }
    }

    /// With `suffix` at the end of the last piece of every word.
    pub fn with_suffix(mut self, vocab: &Vocab, suffix: &str) -> Bpe {
        let id =
            |byte: usize| vocab.id(format!("{}{suffix}", char_of(byte as u8)).as_bytes()).unwrap_or(NONE);
        self.last_ids = Some(Box::new(std::array::from_fn(id)));
        self
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger { merges: &self.merges, symbols: Vec::new(), agenda: Agenda::default() };
        let mut encoded = String::new();
        for word in self.splitter.split(text) {
            if self.ignore_merges {
                encoded.clear();
                encoded.extend(word.bytes().map(char_of));
                if let Some(id) = vocab.id(encoded.as_bytes()) {
                    out.push(id);
                    continue;
                }
            }
            let ids = word.bytes().map(|byte| self.byte_ids[byte as usize]);
            match &self.last_ids {
                None => merger.run(ids, out),
                Some(_) if word.starts_with(is_space) => {}
                Some(last_ids) => {
                    let last = word.bytes().last().map(|byte| last_ids[byte as usize]);
                    merger.run(ids.take(word.len() - 1).chain(last), out);
                }
            }
        }
    }
}

/// The bytes that token `id` stands for.
pub(super) fn piece(vocab: &Vocab, id: u32) -> Vec<u8> {
    let (text, bits) = (vocab.text(id), vocab.attr(id));
    if bits & (attr::UNKNOWN | attr::CONTROL | attr::USER_DEFINED) != 0 {
        text.to_vec()
    } else if bits & attr::NORMAL != 0 {
        from_chars(text)
    } else if bits & attr::BYTE != 0 {
        byte_of(text).into_iter().collect()
    } else {
        Vec::new()
    }
}

/// Turns characters back into bytes; those that stand for no byte stay as they are.
fn from_chars(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_from(c) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        bytes.extend_from_slice(chunk.invalid());
    }
    bytes
}

/// The printable character that stands for a byte: the byte's own in Latin-1 where that is printable, the
/// others from U+0100 on in their order.
pub(super) fn char_of(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match byte {
        0..=0x20 => 0x100 + code,
        0x7f..=0xa0 => 0x121 + (code - 0x7f),
        0xad => 0x143,
        _ => code,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte for which a character stands.
pub(super) fn byte_from(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// A pair that may be merged.
struct Merge {
    left: u32,
    right: u32,
    merged: u32,
}

/// All merges by rank, with look-up by pair in a table of open addressing.
pub(super) struct Merges {
    by_rank: Vec<Merge>,
    slots: Vec<u32>,
    /// What errors name.
    key: &'static str,
}

/// As for the vocabulary: honest merges stay far below this.
const MAX_PROBES: usize = 256;

impl Merges {
    /// Room for `n_merges`; errors will name `key`.
    pub fn new(n_merges: usize, key: &'static str) -> Merges {
        let slots = vec![NONE; (n_merges * 2).next_power_of_two()];
        Merges { by_rank: Vec::with_capacity(n_merges), slots, key }
    }

    /// Adds the next merge, written with a space between its pieces.
    pub fn add_text(&mut self, vocab: &Vocab, text: &[u8]) -> Result<()> {
        // From the second byte on: the first piece could itself begin with a space.
        match text.iter().skip(1).position(|&b| b == b' ') {
            Some(i) => self.add(vocab, &text[..=i], &text[i + 2..]),
            None => Err(self.fault(text, b"", "has no space between two pieces")),
        }
    }

    /// Adds the next merge.
    pub fn add(&mut self, vocab: &Vocab, left: &[u8], right: &[u8]) -> Result<()> {
        let ids = (vocab.id(left), vocab.id(right), vocab.id(&[left, right].concat()));
        let (Some(left_id), Some(right_id), Some(merged)) = ids else {
            return Err(self.fault(left, right, "names a piece that is not in the vocabulary"));
        };
        match self.slot(left_id, right_id) {
            Some(slot) if self.slots[slot] == NONE => self.slots[slot] = self.by_rank.len() as u32,
            Some(_) => return Err(self.fault(left, right, "occurs twice")),
            None => return Err(self.fault(left, right, "has the same hash as too many others")),
        }
        self.by_rank.push(Merge { left: left_id, right: right_id, merged });
        Ok(())
    }

    fn fault(&self, left: &[u8], right: &[u8], what: &str) -> Error {
        let (left, right) = (String::from_utf8_lossy(left), String::from_utf8_lossy(right));
        invalid(self.key, format!("merge {}, {left:?} {right:?}, {what}", self.by_rank.len()))
    }

    /// The slot of a pair, or the empty one where it would stand.
    fn slot(&self, left: u32, right: u32) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let key = (u64::from(left) << 32 | u64::from(right)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let first = (key ^ key >> 32) as usize;
        (0..=MAX_PROBES).map(|probe| first.wrapping_add(probe) & mask).find(|&slot| {
            let rank = self.slots[slot];
            rank == NONE || {
                let merge = &self.by_rank[rank as usize];
                (merge.left, merge.right) == (left, right)
            }
        })
    }

    /// The rank of a pair.
    fn rank(&self, left: u32, right: u32) -> Option<u32> {
        self.slot(left, right).map(|slot| self.slots[slot]).filter(|&rank| rank != NONE)
    }
}

/// A token of the word; `NONE` once it was merged into its left neighbour.
struct Symbol {
    id: u32,
    prev: u32,
    next: u32,
}

/// Merges one word after another, with the same buffers.
struct Merger<'a> {
    merges: &'a Merges,
    symbols: Vec<Symbol>,
    agenda: Agenda,
}

impl Merger<'_> {
    /// Appends the ids of one word, given the tokens of its bytes.
    fn run(&mut self, ids: impl Iterator<Item = u32>, out: &mut Vec<u32>) {
        self.symbols.clear();
        for (i, id) in (0u32..).zip(ids) {
            self.symbols.push(Symbol { id, prev: i.wrapping_sub(1), next: i + 1 });
        }
        if let Some(last) = self.symbols.last_mut() {
            last.next = NONE;
        }
        self.agenda.start(self.symbols.len());
        for right in 1..self.symbols.len() as u32 {
            self.propose(right - 1, right);
        }
        while let Some((rank, Pair { left, right, .. })) = self.agenda.pop() {
            let (l, r) = (left as usize, right as usize);
            let merge = &self.merges.by_rank[rank as usize];
            // Either side may have been merged with another since.
            if (self.symbols[l].id, self.symbols[r].id) != (merge.left, merge.right) {
                continue;
            }
            let next = self.symbols[r].next;
            self.symbols[r].id = NONE;
            self.symbols[l].id = merge.merged;
            self.symbols[l].next = next;
            if next != NONE {
                self.symbols[next as usize].prev = left;
            }
            self.propose(self.symbols[l].prev, left);
            self.propose(left, next);
        }
        out.extend(self.symbols.iter().map(|s| s.id).filter(|&id| id != NONE));
    }

    /// Queues the merge of two neighbours if there is one.
    fn propose(&mut self, left: u32, right: u32) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (self.symbols[left as usize].id, self.symbols[right as usize].id);
        if let Some(rank) = self.merges.rank(l, r) {
            self.agenda.push(rank, Pair { left, right, stamp: 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{byte_from, char_of};

    #[test]
    fn bytes_and_characters_map_both_ways() {
        for byte in 0..=255 {
            assert_eq!(byte_from(char_of(byte)), Some(byte));
        }
        for (byte, c) in
            [(b' ', 'Ġ'), (b'\n', 'Ċ'), (b'a', 'a'), (0x7f, 'ġ'), (0xa0, 'ł'), (0xad, 'Ń'), (0xff, 'ÿ')]
        {
            assert_eq!(char_of(byte), c);
        }
        for c in ['\u{ad}', ' ', '\u{144}', '▁'] {
            assert_eq!(byte_from(c), None);
        }
    }
}
