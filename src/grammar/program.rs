//! Rules as a network of nodes that reads bytes.
//!
//! A rule's nodes lead from its start to the one end node. A rule within another is a call, which a stack
//! remembers. An item that is repeated is a rule of its own, so that repetitions within repetitions do not
//! multiply.

use super::expr::{Expr, Rules, malformed, over_budget};
use super::utf8;
use crate::error::Result;
use std::collections::{HashMap, HashSet};

/// Nodes and edges together: about 16 MiB.
const MAX_SIZE: usize = 1 << 20;

/// The node at which every rule ends.
pub(super) const END: u32 = 0;

#[derive(Clone, Copy, Debug)]
pub(super) enum Node {
    /// A rule ends here.
    End,
    /// One byte, as the edges `from..to` say.
    Byte { from: u32, to: u32 },
    /// Either way.
    Split(u32, u32),
    /// The rule that starts at `start`, then `next`.
    Call { start: u32, next: u32 },
}

/// A byte in `low..=high` leads to `to`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub low: u8,
    pub high: u8,
    pub to: u32,
}

/// A network without left recursion.
#[derive(Debug)]
pub(super) struct Program {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    pub start: u32,
    /// Nodes from which the end can be reached.
    pub live: Vec<bool>,
    /// Bytes that no edge tells apart have the same class.
    pub class_of: [u8; 256],
    /// One byte of each class.
    pub class_bytes: Vec<u8>,
}

impl Program {
    /// # Errors
    /// `GrammarError` for left recursion or where no text matches; `GrammarBudget` for too much.
    pub fn new(rules: &Rules) -> Result<Program> {
        let mut build = Build { nodes: vec![Node::End], edges: Vec::new(), items: Vec::new() };
        // Calls name the rule until all starts are known; repeated items follow the named rules.
        let n_named = rules.list.len();
        let mut starts = Vec::with_capacity(n_named);
        for (_, body) in &rules.list {
            starts.push(build.expr(body, END, n_named)?);
        }
        while let Some(&item) = build.items.get(starts.len() - n_named) {
            starts.push(build.expr(item, END, n_named)?);
        }
        let Build { mut nodes, edges, .. } = build;
        for node in &mut nodes {
            if let Node::Call { start, .. } = node {
                *start = starts[*start as usize];
            }
        }
        let (class_of, class_bytes) = classes(&edges);
        let start = starts[rules.root as usize];
        let mut program = Program { nodes, edges, start, live: Vec::new(), class_of, class_bytes };
        program.live = program.reaching(true);
        if !program.live[start as usize] {
            return Err(malformed("no finite text follows the grammar"));
        }
        program.check_left_recursion(rules, &starts)?;
        Ok(program)
    }

    pub fn edges_of(&self, from: u32, to: u32) -> &[Edge] {
        &self.edges[from as usize..to as usize]
    }

    /// Nodes from which the end can be reached: with any bytes, or with none.
    fn reaching(&self, with_bytes: bool) -> Vec<bool> {
        let n = self.nodes.len();
        // Who is to be looked at again when a node turns out to reach the end.
        let mut waiting: Vec<(u32, u32)> = Vec::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let i = i as u32;
            match *node {
                Node::End => {}
                Node::Byte { from, to } if with_bytes => {
                    waiting.extend(self.edges_of(from, to).iter().map(|edge| (edge.to, i)));
                }
                Node::Byte { .. } => {}
                Node::Split(a, b) | Node::Call { start: a, next: b } => waiting.extend([(a, i), (b, i)]),
            }
        }
        waiting.sort_unstable();
        let mut reaches = vec![false; n];
        let mut news = vec![END];
        reaches[END as usize] = true;
        while let Some(node) = news.pop() {
            let first = waiting.partition_point(|w| w.0 < node);
            for &(_, i) in waiting[first..].iter().take_while(|w| w.0 == node) {
                let yes = match self.nodes[i as usize] {
                    Node::Call { start, next } => reaches[start as usize] && reaches[next as usize],
                    _ => true,
                };
                if yes && !std::mem::replace(&mut reaches[i as usize], true) {
                    news.push(i);
                }
            }
        }
        reaches
    }

    /// A rule must not call itself before a byte is read: that would never end.
    fn check_left_recursion(&self, rules: &Rules, starts: &[u32]) -> Result<()> {
        let empty = self.reaching(false);
        // What is reached without a byte: a cycle through a call is left recursion. Depth first, where a
        // node is on the path until all behind it is done.
        const NEW: u8 = 0;
        const ON_PATH: u8 = 1;
        const DONE: u8 = 2;
        let mut calls: Vec<Vec<u32>> = Vec::with_capacity(starts.len());
        let rule_of: HashMap<u32, u32> =
            starts.iter().rev().zip((0..starts.len() as u32).rev()).map(|(&s, i)| (s, i)).collect();
        for &start in starts {
            calls.push(self.first_calls(start, &empty, &rule_of));
        }
        let mut state = vec![NEW; starts.len()];
        for root in 0..starts.len() as u32 {
            let mut path = vec![(root, 0usize)];
            if state[root as usize] != NEW {
                continue;
            }
            state[root as usize] = ON_PATH;
            while let Some((rule, place)) = path.last_mut() {
                let Some(&callee) = calls[*rule as usize].get(*place) else {
                    state[*rule as usize] = DONE;
                    path.pop();
                    continue;
                };
                *place += 1;
                match state[callee as usize] {
                    NEW => {
                        state[callee as usize] = ON_PATH;
                        path.push((callee, 0));
                    }
                    ON_PATH => {
                        let named = path.iter().map(|p| p.0).chain([callee]).rev();
                        let name = named.map(|r| rules.list.get(r as usize)).find_map(|r| r.map(|r| &r.0));
                        let name = name.map_or("root", String::as_str);
                        return Err(malformed(format!("rule {name:?} is left recursive")));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The rules that may be called from `start` before a byte is read.
    fn first_calls(&self, start: u32, empty: &[bool], rule_of: &HashMap<u32, u32>) -> Vec<u32> {
        let mut seen = HashSet::new();
        let mut todo = vec![start];
        let mut calls = Vec::new();
        while let Some(node) = todo.pop() {
            if !seen.insert(node) {
                continue;
            }
            match self.nodes[node as usize] {
                Node::End | Node::Byte { .. } => {}
                Node::Split(a, b) => todo.extend([a, b]),
                Node::Call { start, next } => {
                    calls.extend(rule_of.get(&start));
                    if empty[start as usize] {
                        todo.push(next);
                    }
                }
            }
        }
        calls.sort_unstable();
        calls.dedup();
        calls
    }
}

struct Build<'a> {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    /// Items that are repeated: rules without a name.
    items: Vec<&'a Expr>,
}

impl<'a> Build<'a> {
    fn push(&mut self, node: Node) -> Result<u32> {
        if self.nodes.len() + self.edges.len() >= MAX_SIZE {
            return Err(over_budget(format!("a grammar of more than {MAX_SIZE} nodes")));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as u32 - 1)
    }

    fn byte(&mut self, edges: impl IntoIterator<Item = Edge>) -> Result<u32> {
        let from = self.edges.len() as u32;
        self.edges.extend(edges);
        self.push(Node::Byte { from, to: self.edges.len() as u32 })
    }

    /// The node at which `expr` starts if `next` follows it.
    fn expr(&mut self, expr: &'a Expr, next: u32, n_named: usize) -> Result<u32> {
        match expr {
            Expr::Text(text) => {
                let bytes = text.bytes().rev();
                bytes.into_iter().try_fold(next, |to, b| self.byte([Edge { low: b, high: b, to }]))
            }
            Expr::Chars(ranges) => self.chars(ranges, next),
            Expr::Seq(list) => list.iter().rev().try_fold(next, |next, item| self.expr(item, next, n_named)),
            Expr::Any(list) => {
                let mut starts = list.iter().rev();
                let Some(last) = starts.next() else { return self.byte([]) };
                let mut start = self.expr(last, next, n_named)?;
                for item in starts {
                    let other = self.expr(item, next, n_named)?;
                    start = self.push(Node::Split(other, start))?;
                }
                Ok(start)
            }
            Expr::Rule(rule) => self.push(Node::Call { start: *rule, next }),
            Expr::Repeat { item, min, max } => self.repeat(item, *min, *max, next, n_named),
        }
    }

    fn repeat(
        &mut self,
        item: &'a Expr,
        min: u32,
        max: Option<u32>,
        next: u32,
        n_named: usize,
    ) -> Result<u32> {
        if max == Some(0) {
            return Ok(next);
        }
        let n_copies = max.unwrap_or(min.max(1));
        // Call the item where it would be written out several times.
        let rule = (n_named + self.items.len()) as u32;
        let copy = |this: &mut Self, next: u32| {
            if n_copies > 1 {
                this.push(Node::Call { start: rule, next })
            } else {
                this.expr(item, next, n_named)
            }
        };
        if n_copies > 1 {
            self.items.push(item);
        }
        let mut start = next;
        match max {
            Some(max) => {
                // Optional ones lead out of the repetition at any of them.
                for _ in min..max {
                    let again = copy(self, start)?;
                    start = self.push(Node::Split(again, next))?;
                }
                for _ in 0..min {
                    start = copy(self, start)?;
                }
            }
            None => {
                let again = self.push(Node::Split(next, next))?;
                let body = copy(self, again)?;
                self.nodes[again as usize] = Node::Split(body, next);
                start = if min == 0 { again } else { body };
                for _ in 1..min {
                    start = copy(self, start)?;
                }
            }
        }
        Ok(start)
    }

    fn chars(&mut self, ranges: &[(u32, u32)], next: u32) -> Result<u32> {
        let mut single = Vec::new();
        let mut longer = Vec::new();
        for &(low, high) in ranges {
            utf8::sequences(low, high, &mut |sequence| match sequence {
                [(low, high)] => single.push(Edge { low: *low, high: *high, to: next }),
                sequence => longer.push(sequence.to_vec()),
            });
        }
        // Sequences that share all but their first byte share the nodes behind it.
        let mut tails: Vec<(Vec<(u8, u8)>, u32)> = Vec::new();
        for sequence in longer {
            let known = tails.iter().find(|tail| tail.0 == sequence[1..]).map(|tail| tail.1);
            let to = match known {
                Some(to) => to,
                None => {
                    let mut to = next;
                    for &(low, high) in sequence[1..].iter().rev() {
                        to = self.byte([Edge { low, high, to }])?;
                    }
                    if tails.len() < 16 {
                        tails.push((sequence[1..].to_vec(), to));
                    }
                    to
                }
            };
            single.push(Edge { low: sequence[0].0, high: sequence[0].1, to });
        }
        self.byte(single)
    }
}

/// Classes of bytes that every edge treats alike.
fn classes(edges: &[Edge]) -> ([u8; 256], Vec<u8>) {
    let mut begins = [false; 257];
    begins[0] = true;
    for edge in edges {
        begins[usize::from(edge.low)] = true;
        begins[usize::from(edge.high) + 1] = true;
    }
    let mut class_of = [0; 256];
    let mut class_bytes: Vec<u8> = Vec::new();
    for byte in 0..=255u8 {
        if begins[usize::from(byte)] {
            class_bytes.push(byte);
        }
        class_of[usize::from(byte)] = (class_bytes.len() - 1) as u8;
    }
    (class_of, class_bytes)
}
