//! DRY: a penalty for tokens that would extend a repetition, which grows with its length.
//!
//! Source: the sampler of that name that p-e-w proposed for text-generation-webui (pull request 5677), with
//! the rules of llama.cpp where the two differ.

use super::params::{SamplerParams, bad};
use super::penalties::Logits;
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use std::collections::HashMap;

/// Longer breakers are cut, as llama.cpp does: bytes of text.
const MAX_BREAKER_LEN: usize = 40;
/// Of a breaker that starts inside of a token, this many tokens of the rest are looked at.
const MAX_TAIL_LEN: usize = 20;
/// More breakers than anyone means to give: each is looked for in every token.
const MAX_BREAKERS: usize = 64;
/// ln of the largest f32: a larger penalty would not be finite.
const MAX_LN: f32 = 88.722_84;

/// The token sequences that stand for a breaker: by their first token, what follows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Breakers(HashMap<u32, Vec<Vec<u32>>>);

impl Breakers {
    /// Where tokens may hold or begin one of `texts`.
    ///
    /// # Errors
    /// `BadArgument` for too many.
    pub fn new(texts: &[String], tokenizer: &Tokenizer) -> Result<Breakers> {
        if texts.len() > MAX_BREAKERS {
            let what = format!("{} sequence breakers, at most {MAX_BREAKERS} are taken", texts.len());
            return Err(bad("drySequenceBreakers", what));
        }
        let mut heads: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for text in texts.iter().filter(|text| !text.is_empty()) {
            let text = cut(text);
            for id in 0..tokenizer.n_vocab() as u32 {
                let piece = tokenizer.token_bytes(id).unwrap_or_default();
                if contains(piece, text.as_bytes()) {
                    heads.entry(id).or_default().push(Vec::new());
                    continue;
                }
                for n in overlaps(piece, text) {
                    let mut tail = tokenizer.encode(&text[n..], false, false)?;
                    tail.truncate(MAX_TAIL_LEN);
                    let tails = heads.entry(id).or_default();
                    if !tails.contains(&tail) {
                        tails.push(tail);
                    }
                }
            }
        }
        Ok(Breakers(heads))
    }

    /// How many of the last tokens stand after the last breaker.
    fn n_after(&self, recent: &[u32]) -> usize {
        let last = recent.len();
        for i in 0..last {
            let Some(tails) = self.0.get(&recent[last - 1 - i]) else { continue };
            let after = &recent[last - i..];
            if let Some(longest) = tails.iter().filter(|t| after.starts_with(t)).map(Vec::len).max() {
                return i - longest;
            }
        }
        last
    }
}

/// The first bytes of a text, in whole characters.
fn cut(text: &str) -> &str {
    let end = (0..=MAX_BREAKER_LEN.min(text.len())).rev().find(|&n| text.is_char_boundary(n)).unwrap_or(0);
    &text[..end]
}

fn contains(piece: &[u8], text: &[u8]) -> bool {
    piece.windows(text.len()).any(|window| window == text)
}

/// The lengths (of whole characters) that an end of `piece` and a beginning of `text` share.
fn overlaps(piece: &[u8], text: &str) -> impl Iterator<Item = usize> {
    (1..text.len()).filter(move |&n| text.is_char_boundary(n) && piece.ends_with(&text.as_bytes()[..n]))
}

/// Finds repetitions; the buffers are reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Dry {
    pub breakers: Breakers,
    reversed: Vec<u32>,
    z: Vec<usize>,
    lengths: Vec<(u32, usize)>,
}

impl Dry {
    pub fn is_off(p: &SamplerParams) -> bool {
        p.dry_multiplier == 0.0 || p.dry_base < 1.0 || p.dry_penalty_last_n == 0
    }

    pub fn apply(&mut self, p: &SamplerParams, history: &[u32], logits: &mut Logits) {
        let n_recent = SamplerParams::last_n(p.dry_penalty_last_n, history.len());
        let allowed = usize::try_from(p.dry_allowed_length).unwrap_or(0);
        let recent = &history[history.len() - n_recent..];
        let limit = self.breakers.n_after(recent);
        if n_recent <= allowed || limit < allowed {
            return;
        }
        self.find(recent, allowed, limit);
        let max_exponent = if p.dry_base > 1.000_001 { MAX_LN / libm::logf(p.dry_base) } else { f32::MAX };
        logits.change(&self.lengths, |logit, length, temperature| {
            let exponent = ((length - allowed) as f32).min(max_exponent.floor());
            logit - p.dry_multiplier * libm::powf(p.dry_base, exponent) * temperature
        });
    }

    /// For each token that would extend a repetition: the length of the longest one, at most `limit`.
    fn find(&mut self, recent: &[u32], allowed: usize, limit: usize) {
        self.reversed.clear();
        self.reversed.extend(recent.iter().rev());
        z_function(&self.reversed, &mut self.z);
        self.lengths.clear();
        // reversed[i..] begins as the text ends; what followed there is reversed[i - 1].
        for i in 1..self.reversed.len() {
            let length = self.z[i].min(limit);
            if length >= allowed {
                self.lengths.push((self.reversed[i - 1], length));
            }
        }
        self.lengths.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.lengths.dedup_by_key(|found| found.0);
    }
}

/// `z[i]`: how many items `s[i..]` and `s` have in common at their beginning; `z[0]` is 0. Linear.
/// Source: D. Gusfield, "Algorithms on Strings, Trees, and Sequences", section 1.3.
fn z_function(s: &[u32], z: &mut Vec<usize>) {
    z.clear();
    z.resize(s.len(), 0);
    // s[start..end] equals the beginning of s, and no other known such range ends later.
    let (mut start, mut end) = (0, 0);
    for i in 1..s.len() {
        let mut n = if i < end { z[i - start].min(end - i) } else { 0 };
        while i + n < s.len() && s[n] == s[i + n] {
            n += 1;
        }
        z[i] = n;
        if i + n > end {
            (start, end) = (i, i + n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By definition: the longest suffix of the text that ends before position `at` too.
    fn repetition(recent: &[u32], at: usize) -> usize {
        let longest = (0..=at).rev().find(|&n| recent[at - n..at] == recent[recent.len() - n..]);
        longest.unwrap_or(0)
    }

    #[test]
    fn repetitions_are_those_of_the_definition() {
        let mut state = 1u32;
        for length in 1..60 {
            let recent: Vec<u32> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    state >> 30
                })
                .collect();
            for allowed in [1, 2, 3] {
                let mut dry = Dry::default();
                dry.find(&recent, allowed, 7);
                for token in 0..4 {
                    let places = (0..recent.len()).filter(|&at| recent[at] == token);
                    let longest = places.map(|at| repetition(&recent, at).min(7)).max().unwrap_or(0);
                    let want = (longest >= allowed).then_some((token, longest));
                    let got = dry.lengths.iter().copied().find(|found| found.0 == token);
                    assert_eq!(got, want, "{recent:?}, allowed {allowed}");
                }
            }
        }
    }

    #[test]
    fn the_penalty_grows_with_the_repetition_and_ends_at_a_breaker() {
        let params = SamplerParams {
            dry_multiplier: 0.5,
            dry_base: 2.0,
            dry_allowed_length: 2,
            ..SamplerParams::default()
        };
        let penalty = |breakers: &[(u32, Vec<Vec<u32>>)], history: &[u32]| {
            let mut row = [0.0f32; 10];
            let mut dry = Dry { breakers: Breakers(breakers.iter().cloned().collect()), ..Dry::default() };
            dry.apply(&params, history, &mut Logits::Row(&mut row));
            row
        };
        // 1 2 3 4 .. 1 2 3: a 4 would make it four; the repetition so far has three tokens: 0.5 * 2^(3 - 2).
        let mut want = [0.0f32; 10];
        want[4] = -1.0;
        assert_eq!(penalty(&[], &[1, 2, 3, 4, 9, 1, 2, 3]), want);
        // Two tokens: 0.5 * 2^0. One token is below what is allowed.
        want[4] = -0.5;
        assert_eq!(penalty(&[], &[2, 3, 4, 9, 2, 3]), want);
        assert_eq!(penalty(&[], &[3, 4, 9, 3]), [0.0; 10]);
        // After a breaker the repetition counts anew: only 2 3 stand after 1.
        assert_eq!(penalty(&[(1, vec![vec![]])], &[1, 2, 3, 4, 9, 1, 2, 3]), want);
        assert_eq!(penalty(&[(2, vec![vec![]])], &[1, 2, 3, 4, 9, 1, 2, 3]), [0.0; 10]);
        // A breaker of two tokens, 1 2, of which all are seen.
        assert_eq!(penalty(&[(1, vec![vec![2]])], &[1, 2, 3, 4, 9, 1, 2, 3]), [0.0; 10]);
        // Everlasting repetition stays finite.
        let long = vec![5; 5000];
        assert!(penalty(&[], &long)[5].is_finite() && penalty(&[], &long)[5] < -1e30);
    }

    #[test]
    fn breakers_overlap_tokens() {
        assert!(contains(b"a: b", b":"));
        assert_eq!(overlaps(b"x:", ":::").collect::<Vec<_>>(), [1]);
        assert_eq!(overlaps(b"x::", ":::").collect::<Vec<_>>(), [1, 2]);
        assert_eq!(overlaps(b"x", ":").count(), 0);
        assert_eq!(cut(&"é".repeat(30)).len(), 40);
    }
}
