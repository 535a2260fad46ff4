//! The order of merges: by key, then from left to right.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Two neighbours that may be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    /// Index of the left one.
    pub left: u32,
    /// Index of the right one.
    pub right: u32,
    /// Whatever tells later whether they are still what they were.
    pub stamp: u32,
}

/// Above this many symbols buckets beat a heap: they need no comparisons and walk memory in order.
const MANY: usize = 512;

/// A queue of pairs, the least key first, of equal keys the leftmost.
///
/// Words are short and want a small heap. A text without words is one long run of repetition: few
/// keys, each with a great many pairs that come in order, so one bucket a key takes constant time a pair.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(u32, Pair)>>,
    buckets: BTreeMap<u32, Bucket>,
    in_buckets: bool,
}

/// Pairs of one key: those that came in order, and the others.
#[derive(Default)]
struct Bucket {
    ordered: Vec<Pair>,
    n_taken: usize,
    late: BinaryHeap<Reverse<Pair>>,
}

impl Agenda {
    /// Prepares for the pairs of `n_symbols` symbols.
    pub fn start(&mut self, n_symbols: usize) {
        self.heap.clear();
        self.buckets.clear();
        self.in_buckets = n_symbols > MANY;
    }

    /// Adds a pair.
    pub fn push(&mut self, key: u32, pair: Pair) {
        if self.in_buckets {
            self.buckets.entry(key).or_default().push(pair);
        } else {
            self.heap.push(Reverse((key, pair)));
        }
    }

    /// Takes the next pair and its key.
    pub fn pop(&mut self) -> Option<(u32, Pair)> {
        if !self.in_buckets {
            return self.heap.pop().map(|Reverse(entry)| entry);
        }
        while let Some(mut entry) = self.buckets.first_entry() {
            let key = *entry.key();
            match entry.get_mut().pop() {
                Some(pair) => return Some((key, pair)),
                None => drop(entry.remove()),
            }
        }
        None
    }
}

impl Bucket {
    fn push(&mut self, pair: Pair) {
        if self.ordered.last().is_none_or(|last| *last <= pair) {
            self.ordered.push(pair);
        } else {
            self.late.push(Reverse(pair));
        }
    }

    fn pop(&mut self) -> Option<Pair> {
        let first = self.ordered.get(self.n_taken).copied();
        let late = self.late.peek().map(|Reverse(pair)| *pair);
        if let Some(pair) = late
            && first.is_none_or(|first| pair < first)
        {
            self.late.pop();
            return late;
        }
        self.n_taken += usize::from(first.is_some());
        first
    }
}

#[cfg(test)]
mod tests {
    use super::{Agenda, MANY, Pair};

    /// Pushes and pops in a scrambled but fixed order; gives what came out.
    fn run(n_symbols: usize) -> Vec<(u32, Pair)> {
        let mut agenda = Agenda::default();
        agenda.start(n_symbols);
        let mut state = 1u32;
        let mut out = Vec::new();
        for step in 0..5_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            agenda.push(state >> 29, Pair { left: state >> 16 & 0xfff, right: step, stamp: 0 });
            if step % 3 == 0 {
                out.extend(agenda.pop());
            }
        }
        out.extend(std::iter::from_fn(|| agenda.pop()));
        out
    }

    #[test]
    fn heap_and_buckets_agree() {
        let heap = run(MANY);
        assert_eq!(heap.len(), 5_000);
        assert_eq!(heap, run(MANY + 1));
        assert!(heap[3_400..].is_sorted());
    }
}
