//! Which tokens may come next.

use super::Grammar;
use super::automaton::{Automaton, DEAD, Halt};
use super::expr::{malformed, over_budget};
use super::trie::TokenTrie;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes of remembered masks.
const MAX_MASK_BYTES: usize = 8 << 20;

/// A text under way that follows a grammar.
///
/// Which tokens may come is found by following the automaton down the tree of the vocabulary, and remembered
/// for each state of the automaton: most states return often.
pub struct Constraint {
    automaton: Automaton,
    trie: Arc<TokenTrie>,
    state: u32,
    /// One bit per token, for each state.
    masks: HashMap<u32, Box<[u64]>>,
    /// The states above each depth of the tree.
    path: Vec<u32>,
}

impl Constraint {
    /// The beginning of a text.
    ///
    /// # Errors
    /// `GrammarBudget` for a grammar with too many beginnings.
    pub fn new(grammar: &Grammar, trie: Arc<TokenTrie>) -> Result<Constraint> {
        let (automaton, state) = Automaton::new(Arc::clone(&grammar.program))?;
        Ok(Constraint { automaton, trie, state, masks: HashMap::new(), path: Vec::new() })
    }

    /// Whether the text may end here.
    pub fn may_end(&self) -> bool {
        self.automaton.accepts(self.state)
    }

    /// Whether the text must end here: nothing can follow.
    pub fn is_complete(&self) -> bool {
        self.may_end() && self.automaton.is_over(self.state)
    }

    /// Rules out (with -infinity) all tokens that cannot come next; `logits` are `[n_vocab]`. Tokens that end
    /// a text may come where the text may end, if `ends` says so.
    ///
    /// # Errors
    /// `GrammarError` if no token can come, `GrammarBudget` if the grammar is too ambiguous here.
    pub fn mask(&mut self, logits: &mut [f32], ends: bool) -> Result<()> {
        let ends = ends && self.may_end();
        if !self.masks.contains_key(&self.state) {
            let mask = self.find()?;
            if (self.masks.len() + 1) * mask.len() * 8 > MAX_MASK_BYTES {
                self.masks.clear();
            }
            self.masks.insert(self.state, mask);
        }
        let mask = &self.masks[&self.state];
        let kept: Vec<(usize, f32)> = if ends {
            let ids = self.trie.ends.iter().map(|&id| id as usize);
            ids.filter_map(|id| logits.get(id).map(|&logit| (id, logit))).collect()
        } else {
            Vec::new()
        };
        let any = apply(mask, logits);
        for &(id, logit) in &kept {
            logits[id] = logit;
        }
        if any || !kept.is_empty() {
            return Ok(());
        }
        Err(malformed("no token of the vocabulary can continue the text as the grammar asks"))
    }

    /// Goes on by the bytes of a token.
    ///
    /// # Errors
    /// `GrammarError` for bytes that the grammar does not allow, `GrammarBudget`.
    pub fn accept(&mut self, bytes: &[u8]) -> Result<()> {
        for &byte in bytes {
            let next = match self.automaton.step(self.state, byte) {
                Err(Halt::Full) => {
                    self.forget()?;
                    self.automaton.step(self.state, byte)
                }
                next => next,
            };
            self.state = next.map_err(failure)?;
        }
        if self.state == DEAD && !bytes.is_empty() {
            return Err(malformed("the text does not follow the grammar"));
        }
        Ok(())
    }

    fn forget(&mut self) -> Result<()> {
        self.masks.clear();
        self.state = self.automaton.forget(self.state)?;
        Ok(())
    }

    /// The tokens that can come next.
    fn find(&mut self) -> Result<Box<[u64]>> {
        match self.walk() {
            Err(Halt::Full) => {
                self.forget()?;
                self.walk().map_err(failure)
            }
            found => found.map_err(failure),
        }
    }

    fn walk(&mut self) -> std::result::Result<Box<[u64]>, Halt> {
        let Constraint { automaton, trie, path, state, .. } = self;
        let mut mask = vec![0u64; trie.n_vocab.div_ceil(64)].into_boxed_slice();
        path.clear();
        path.push(*state);
        let mut i = 0;
        while i < trie.n_nodes() {
            let node = trie.nodes[i];
            let depth = node.depth as usize;
            let next = automaton.step(path[depth], node.byte)?;
            if next == DEAD {
                i = node.skip as usize;
                continue;
            }
            path.truncate(depth + 1);
            path.push(next);
            i += 1;
            for &id in &trie.tokens[node.first as usize..trie.nodes[i].first as usize] {
                mask[id as usize / 64] |= 1 << (id % 64);
            }
        }
        Ok(mask)
    }
}

fn failure(halt: Halt) -> crate::error::Error {
    match halt {
        Halt::Full => over_budget("the grammar needs too many states for one token"),
        Halt::Failed(error) => error,
    }
}

/// Rules out the tokens whose bit is not set; gives whether one is.
fn apply(mask: &[u64], logits: &mut [f32]) -> bool {
    let mut any = 0;
    for (&word, logits) in mask.iter().zip(logits.chunks_mut(64)) {
        any |= word;
        if word == 0 {
            logits.fill(f32::NEG_INFINITY);
        } else if word != u64::MAX {
            for (bit, logit) in logits.iter_mut().enumerate() {
                *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
            }
        }
    }
    any != 0
}
