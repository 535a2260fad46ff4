//! What GBNF and JSON Schemas are turned into: rules over code points.

use crate::error::{Code, Error, Result};

/// Deeper nesting is refused, so that recursion over expressions is bounded.
pub(super) const MAX_DEPTH: usize = 200;

/// Bounds on repetition counts: more would only be refused later.
pub(super) const MAX_REPEAT: u32 = 1_000_000;

/// A set of code points: ranges, ascending and apart.
pub(super) type Chars = Vec<(u32, u32)>;

/// What a piece of text may be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    /// This text.
    Text(String),
    /// One code point of a set.
    Chars(Chars),
    /// One after the other; none of them is the empty text.
    Seq(Vec<Expr>),
    /// One of these.
    Any(Vec<Expr>),
    /// From `min` to `max` times.
    Repeat { item: Box<Expr>, min: u32, max: Option<u32> },
    /// What the rule of this number says.
    Rule(u32),
}

impl Expr {
    pub fn text(text: impl Into<String>) -> Expr {
        Expr::Text(text.into())
    }

    pub fn empty() -> Expr {
        Expr::Seq(Vec::new())
    }

    pub fn repeat(self, min: u32, max: Option<u32>) -> Expr {
        Expr::Repeat { item: Box::new(self), min, max }
    }

    pub fn optional(self) -> Expr {
        self.repeat(0, Some(1))
    }
}

/// Rules by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    /// The name of each rule (for messages) and what it stands for.
    pub list: Vec<(String, Expr)>,
    /// The rule that the whole text follows.
    pub root: u32,
}

impl Rules {
    /// Adds a rule; gives its number.
    pub fn add(&mut self, name: impl Into<String>, body: Expr) -> u32 {
        self.list.push((name.into(), body));
        self.list.len() as u32 - 1
    }

    /// Adds a rule; gives what stands for it.
    pub fn share(&mut self, name: impl Into<String>, body: Expr) -> Expr {
        Expr::Rule(self.add(name, body))
    }
}

/// Sorts and joins ranges.
pub(super) fn normalize(mut ranges: Chars) -> Chars {
    ranges.sort_unstable();
    let mut joined: Chars = Vec::with_capacity(ranges.len());
    for (low, high) in ranges {
        match joined.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            _ => joined.push((low, high)),
        }
    }
    joined
}

/// The last code point.
pub(super) const MAX_CHAR: u32 = 0x10_FFFF;

/// All code points that are not in a normalized set.
pub(super) fn complement(ranges: &[(u32, u32)]) -> Chars {
    let mut rest = Vec::new();
    let mut from = 0;
    for &(low, high) in ranges {
        if low > from {
            rest.push((from, low - 1));
        }
        from = high + 1;
    }
    if from <= MAX_CHAR {
        rest.push((from, MAX_CHAR));
    }
    rest
}

/// The code points of a normalized set that are not in another.
pub(super) fn without(set: &[(u32, u32)], other: &[(u32, u32)]) -> Chars {
    let mut outside = complement(set);
    outside.extend_from_slice(other);
    complement(&normalize(outside))
}

/// Whether a normalized set holds a code point.
pub(super) fn holds(set: &[(u32, u32)], c: u32) -> bool {
    set.iter().any(|&(low, high)| (low..=high).contains(&c))
}

pub(super) fn over_budget(what: impl Into<String>) -> Error {
    Error::new(Code::GrammarBudget, what)
}

pub(super) fn malformed(what: impl Into<String>) -> Error {
    Error::new(Code::GrammarError, what)
}

/// Checks the bounds of a repetition.
pub(super) fn check_repeat(min: u32, max: Option<u32>) -> Result<()> {
    if min.max(max.unwrap_or(0)) > MAX_REPEAT {
        return Err(over_budget(format!("a repetition of more than {MAX_REPEAT}")));
    }
    if max.is_some_and(|max| max < min) {
        return Err(malformed(format!("a repetition from {min} to less")));
    }
    Ok(())
}
