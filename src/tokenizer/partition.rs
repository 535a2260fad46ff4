//! Cuts a text at its special tokens.
//!
//! The rule is llama.cpp's: longer tokens go first over the whole text, and tokens of one length in the
//! order of their ids, each from left to right. That is not what a scan from left to right finds, so all
//! matches are found first (Aho and Corasick, "Efficient string matching", CACM 18(6), 1975) and then
//! accepted in that order. Time is linear in the text, however many tokens there are.

use super::trie::{NONE, ROOT, Trie};
use super::vocab::{Vocab, attr};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fragment<'a> {
    /// Text between special tokens; never empty.
    Text(&'a str),
    /// A special token.
    Token(u32),
}

/// What Aho and Corasick add to a node of the trie.
#[derive(Clone, Copy)]
struct Links {
    /// The node of the longest proper suffix that is in the trie.
    fail: u32,
    /// The nearest node along `fail` that ends a token.
    output: u32,
}

/// Which special tokens may be found where.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Control and unknown tokens too; otherwise their texts are plain text.
    pub parse_special: bool,
    /// Ascending ranges of bytes that no control or unknown token may touch.
    pub plain: &'a [(usize, usize)],
}

impl Scope<'_> {
    fn allows(&self, bits: u8, start: usize, end: usize) -> bool {
        if bits & (attr::CONTROL | attr::UNKNOWN) == 0 {
            return true;
        }
        let next = self.plain.partition_point(|&(_, plain_end)| plain_end <= start);
        self.parse_special && self.plain.get(next).is_none_or(|&(plain_start, _)| plain_start >= end)
    }
}

/// Finds special tokens in text.
pub(super) struct Partition {
    trie: Trie,
    links: Vec<Links>,
    any_user_defined: bool,
    /// Control and unknown tokens.
    controls: Vec<u32>,
}

/// Text matched up to byte `end` by the token of `node`.
struct Match {
    end: usize,
    node: usize,
}

impl Partition {
    /// An automaton of all control, unknown and user-defined tokens.
    pub fn new(vocab: &Vocab) -> Partition {
        let mut trie = Trie::new();
        let mut any_user_defined = false;
        let mut controls = Vec::new();
        let special = attr::CONTROL | attr::USER_DEFINED | attr::UNKNOWN;
        for id in 0..vocab.len() as u32 {
            let text = vocab.text(id);
            // A text that is not UTF-8 could only match inside a character.
            if vocab.attr(id) & special == 0 || text.is_empty() || std::str::from_utf8(text).is_err() {
                continue;
            }
            match vocab.attr(id) & (attr::CONTROL | attr::UNKNOWN) {
                0 => any_user_defined = true,
                _ => controls.push(id),
            }
            trie.insert(text, id);
        }
        let links = vec![Links { fail: ROOT as u32, output: NONE }; trie.nodes.len()];
        let mut this = Partition { trie, links, any_user_defined, controls };
        this.link();
        this
    }

    fn step(&self, mut node: usize, byte: u8) -> usize {
        loop {
            match self.trie.child(node, byte) {
                Some(child) => return child,
                None if node == ROOT => return ROOT,
                None => node = self.links[node].fail as usize,
            }
        }
    }

    /// Fills `links`, nodes of lesser depth first.
    fn link(&mut self) {
        let mut queue = vec![ROOT];
        let mut next = 0;
        while let Some(&node) = queue.get(next) {
            next += 1;
            let mut child = self.trie.nodes[node].first_child;
            while child != NONE {
                let at = child as usize;
                let fail = match node {
                    ROOT => ROOT,
                    _ => self.step(self.links[node].fail as usize, self.trie.byte(at)),
                };
                let ends = self.trie.nodes[fail].token != NONE;
                let output = if ends { fail as u32 } else { self.links[fail].output };
                self.links[at] = Links { fail: fail as u32, output };
                queue.push(at);
                child = self.trie.nodes[at].sibling;
            }
        }
    }

    /// `node` or the nearest one along its outputs whose token may be matched, ending before byte `end`.
    fn matching(&self, vocab: &Vocab, mut node: usize, end: usize, scope: Scope) -> Option<usize> {
        loop {
            let token = self.trie.nodes[node].token;
            if token != NONE && scope.allows(vocab.attr(token), end - vocab.text(token).len(), end) {
                return Some(node);
            }
            match self.links[node].output {
                NONE => return None,
                output => node = output as usize,
            }
        }
    }

    /// The parts of `text` in order.
    pub fn split<'a>(&self, vocab: &Vocab, text: &'a str, scope: Scope) -> Vec<Fragment<'a>> {
        let wanted = if scope.parse_special { self.trie.nodes.len() > 1 } else { self.any_user_defined };
        let matches = if wanted { self.find(vocab, text.as_bytes(), scope) } else { BTreeMap::new() };
        if matches.is_empty() {
            return if text.is_empty() { Vec::new() } else { vec![Fragment::Text(text)] };
        }
        let accepted = self.accept(vocab, text.as_bytes(), matches, scope);
        let mut fragments = Vec::with_capacity(2 * accepted.len() + 1);
        let mut start = 0;
        for (token_start, (token_end, token)) in accepted {
            if start < token_start {
                fragments.push(Fragment::Text(&text[start..token_start]));
            }
            fragments.push(Fragment::Token(token));
            start = token_end;
        }
        if start < text.len() {
            fragments.push(Fragment::Text(&text[start..]));
        }
        fragments
    }

    /// The longest match at each end, by length, longest first.
    fn find(&self, vocab: &Vocab, text: &[u8], scope: Scope) -> BTreeMap<Reverse<usize>, Vec<Match>> {
        let mut by_len: BTreeMap<Reverse<usize>, Vec<Match>> = BTreeMap::new();
        let mut state = ROOT;
        for (i, &byte) in text.iter().enumerate() {
            state = self.step(state, byte);
            if state == ROOT {
                continue;
            }
            if let Some(node) = self.matching(vocab, state, i + 1, scope) {
                let len = vocab.text(self.trie.nodes[node].token).len();
                by_len.entry(Reverse(len)).or_default().push(Match { end: i + 1, node });
            }
        }
        by_len
    }

    /// The parts of `text` that are the texts of control or unknown tokens, or that could become one
    /// with what stands before or after `text`: ranges of bytes, ascending and apart.
    pub fn control_texts(&self, vocab: &Vocab, text: &str) -> Vec<(usize, usize)> {
        let steers = |id: u32| vocab.attr(id) & (attr::CONTROL | attr::UNKNOWN) != 0;
        let mut found: Vec<(usize, usize)> = Vec::new();
        let mut state = ROOT;
        for (i, byte) in text.bytes().enumerate() {
            state = self.step(state, byte);
            let mut node = state;
            loop {
                let token = self.trie.nodes[node].token;
                if token != NONE && steers(token) {
                    found.push((i + 1 - vocab.text(token).len(), i + 1));
                    break;
                }
                match self.links[node].output {
                    NONE => break,
                    output => node = output as usize,
                }
            }
        }
        found.extend(self.begun(text).map(|start| (start, text.len())));
        found.extend(self.ended(vocab, text).map(|end| (0, end)));
        merged(found)
    }

    /// Where the longest end of `text` starts that a special token starts with.
    fn begun(&self, text: &str) -> Option<usize> {
        let mut state = ROOT;
        let mut len = 0;
        for byte in text.bytes() {
            state = self.step(state, byte);
            len = if state == ROOT { 0 } else { len + 1 };
        }
        // The state is as deep as the match is long; `len` may count bytes that a fallback dropped.
        (text.len() - len..text.len()).find(|&start| {
            text.is_char_boundary(start)
                && text[start..].bytes().try_fold(ROOT, |node, byte| self.trie.child(node, byte)).is_some()
        })
    }

    /// How far the longest start of `text` goes that a control or unknown token ends with.
    fn ended(&self, vocab: &Vocab, text: &str) -> Option<usize> {
        let first = text.bytes().next()?;
        let mut longest = 0;
        for token in self.controls.iter().map(|&id| vocab.text(id)) {
            for at in (1..token.len()).filter(|&at| token[at] == first) {
                if token.len() - at > longest && text.as_bytes().starts_with(&token[at..]) {
                    longest = token.len() - at;
                }
            }
        }
        (longest > 0 && text.is_char_boundary(longest)).then_some(longest)
    }

    /// Accepts matches in order of length; gives start -> (end, token), the white space that a token
    /// takes with it included.
    fn accept(
        &self,
        vocab: &Vocab,
        text: &[u8],
        mut by_len: BTreeMap<Reverse<usize>, Vec<Match>>,
        scope: Scope,
    ) -> BTreeMap<usize, (usize, u32)> {
        let mut taken = vec![false; text.len()];
        let mut accepted = BTreeMap::new();
        while let Some((Reverse(len), mut matches)) = by_len.pop_first() {
            matches.sort_by_key(|m| (self.trie.nodes[m.node].token, m.end));
            for Match { end, node } in matches {
                // Every shorter match that ends here contains this byte too.
                if taken[end - 1] {
                    continue;
                }
                // What is taken is never shorter than `len`, so the two ends tell whether they overlap.
                if !taken[end - len] {
                    let token = self.trie.nodes[node].token;
                    let range = extend(&taken, text, end - len, end, vocab.attr(token));
                    taken[range.0..range.1].fill(true);
                    accepted.insert(range.0, (range.1, token));
                    continue;
                }
                let output = self.links[node].output;
                if output != NONE
                    && let Some(node) = self.matching(vocab, output as usize, end, scope)
                {
                    let len = vocab.text(self.trie.nodes[node].token).len();
                    by_len.entry(Reverse(len)).or_default().push(Match { end, node });
                }
            }
        }
        accepted
    }
}

/// Ranges in order, with those that overlap made one.
fn merged(mut ranges: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
    ranges.sort_unstable();
    let mut apart: Vec<(usize, usize)> = Vec::new();
    for (start, end) in ranges {
        match apart.last_mut() {
            Some(last) if start < last.1 => last.1 = last.1.max(end),
            _ => apart.push((start, end)),
        }
    }
    apart
}

/// Widens a match by the free white space that its token strips.
fn extend(taken: &[bool], text: &[u8], mut start: usize, mut end: usize, bits: u8) -> (usize, usize) {
    let free_space = |i: usize| !taken[i] && matches!(text[i], b' ' | b'\t'..=b'\r');
    while bits & attr::LSTRIP != 0 && start > 0 && free_space(start - 1) {
        start -= 1;
    }
    while bits & attr::RSTRIP != 0 && end < text.len() && free_space(end) {
        end += 1;
    }
    (start, end)
}
