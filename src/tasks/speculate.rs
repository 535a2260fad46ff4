//! Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192): several tokens are guessed and
//! then checked by one pass of the model, which costs little more than a pass for one.
//!
//! A guess stands only where the sampler, given the model's own logits, chooses the same token. So
//! the text is the same as without guessing, whatever the sampler.

use super::TextModel;
use crate::error::{Code, Error, Result};
use crate::kernels::vecmath;
use crate::layers::I;
use serde::Deserialize;

/// How to guess. Every field may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Speculation {
    /// Most tokens guessed at a time, 1 to 16; by default 8.
    pub max_draft: usize,
    /// Without a draft model: what followed the last occurrence of the last so many tokens (or of
    /// fewer, but at least 2) is the guess; by default 4, at most 16.
    pub ngram: usize,
    /// With a draft model: it stops at a token of which it is less sure; by default 0.4.
    pub min_p: f32,
}

impl Default for Speculation {
    fn default() -> Self {
        Speculation { max_draft: 8, ngram: 4, min_p: 0.4 }
    }
}

const MAX_DRAFT: usize = 16;
const MIN_NGRAM: usize = 2;
const MAX_NGRAM: usize = 16;

impl Speculation {
    /// Checks every option.
    ///
    /// # Errors
    /// [`Code::BadArgument`] whose key is the option.
    pub fn validate(&self) -> Result<()> {
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        if !(1..=MAX_DRAFT).contains(&self.max_draft) {
            return bad(
                "maxDraft",
                format!("maxDraft must be from 1 to {MAX_DRAFT}, not {}", self.max_draft),
            );
        }
        if !(MIN_NGRAM..=MAX_NGRAM).contains(&self.ngram) {
            return bad(
                "ngram",
                format!("ngram must be from {MIN_NGRAM} to {MAX_NGRAM}, not {}", self.ngram),
            );
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return bad("minP", format!("minP must be from 0 to 1, not {}", self.min_p));
        }
        Ok(())
    }
}

/// The guesses of one generation.
#[derive(Default)]
pub(super) struct Drafts {
    /// Guessed tokens, which the context holds.
    tokens: Vec<u32>,
    /// How many of them the sampler has chosen as well.
    n_right: usize,
    /// How many to guess: more after right guesses, fewer after wrong ones.
    len: usize,
    /// All guesses so far, and those that were right.
    pub n_drafted: usize,
    pub n_accepted: usize,
}

impl Drafts {
    /// Which of the rows of logits is next: one more than there are right guesses.
    pub(super) fn row(&self) -> usize {
        self.n_right
    }

    /// Whether the sampler's choice was the guess. If so, its logits are there already.
    pub(super) fn is_guessed(&mut self, token: u32) -> bool {
        let is_right = self.tokens.get(self.n_right) == Some(&token);
        self.n_right += usize::from(is_right);
        self.n_accepted += usize::from(is_right);
        is_right
    }

    /// Begins a new round of guesses, as many as seem worth it.
    fn restart(&mut self, max: usize) -> usize {
        self.len = match (self.len, self.tokens.len()) {
            (0, _) => 2,
            (len, 0) => len,
            (len, guessed) if self.n_right == guessed => len * 2,
            (len, _) => (len / 2).max(1),
        }
        .min(max);
        self.tokens.clear();
        self.n_right = 0;
        self.len
    }
}

impl TextModel {
    /// Has a smaller model of the same vocabulary make guesses where speculation is asked for.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where the vocabularies differ.
    pub fn set_draft(&mut self, draft: TextModel) -> Result<()> {
        let (own, other) = (self.tokenizer(), draft.tokenizer());
        let differs = |id: u32| own.token_bytes(id) != other.token_bytes(id);
        if own.n_vocab() != other.n_vocab() || (0..own.n_vocab() as u32).any(differs) {
            let rule = "the draft model has another vocabulary than the model";
            return Err(Error::new(Code::BadArgument, rule).key("draft"));
        }
        self.draft = Some(Box::new(draft));
        Ok(())
    }

    /// Appends the last token of `history`, which is not in the context yet, and guesses after it.
    pub(super) fn append_with_guesses(
        &mut self,
        history: &[u32],
        drafts: &mut Drafts,
        speculation: Option<&Speculation>,
        most: usize,
    ) {
        let Some((&token, before)) = history.split_last() else { return };
        self.go_back(before.len());
        if let Some(speculation) = speculation.filter(|_| self.can_go_back()) {
            let n = drafts.restart(speculation.max_draft).min(most);
            let mut guesses = std::mem::take(&mut drafts.tokens);
            match &mut self.draft {
                Some(draft) => draft.guess(history, n, speculation.min_p, &mut guesses),
                None => look_up(history, n, speculation.ngram, &mut guesses),
            }
            drafts.tokens = guesses;
            drafts.n_drafted += drafts.tokens.len();
        }
        if drafts.tokens.is_empty() {
            return self.append(&[token], 1);
        }
        let tokens: Vec<u32> = [token].into_iter().chain(drafts.tokens.iter().copied()).collect();
        self.append(&tokens, tokens.len());
    }

    /// Up to `n` tokens that this model finds likeliest after `history`.
    fn guess(&mut self, history: &[u32], n: usize, min_p: f32, out: &mut Vec<u32>) {
        if n == 0 || history.len() + n > self.n_ctx() {
            return;
        }
        let kept = self.keep_prefix(history);
        for chunk in history[kept..].chunks(super::generate::PROMPT_CHUNK) {
            self.append(chunk, 1);
        }
        loop {
            let logits = self.row_logits(0);
            let top = vecmath::argmax::<I>(logits);
            vecmath::softmax::<I>(logits);
            // A model that computes nonsense guesses nothing.
            if logits[top].is_nan() || logits[top] < min_p {
                return;
            }
            out.push(top as u32);
            if out.len() == n {
                return;
            }
            self.append(&[top as u32], 1);
        }
    }
}

/// What followed the last occurrence of the end of `history`: of its last `longest` tokens, or
/// else of fewer.
fn look_up(history: &[u32], n: usize, longest: usize, out: &mut Vec<u32>) {
    for len in (MIN_NGRAM..=longest.min(history.len().saturating_sub(1))).rev() {
        let end = &history[history.len() - len..];
        let earlier = &history[..history.len() - 1];
        if let Some(at) = earlier.windows(len).rposition(|window| window == end) {
            let follows = &history[at + len..];
            out.extend(&follows[..follows.len().min(n)]);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(history: &[u32], n: usize, longest: usize) -> Vec<u32> {
        let mut out = Vec::new();
        look_up(history, n, longest, &mut out);
        out
    }

    #[test]
    fn looks_up_the_longest_and_latest_match() {
        assert_eq!(found(&[1, 2, 3, 9, 1, 2], 4, 4), [3, 9, 1, 2]);
        assert_eq!(found(&[1, 2, 3, 9, 1, 2], 1, 4), [3]);
        // The longer match wins over the later one.
        assert_eq!(found(&[5, 1, 2, 7, 1, 2, 8, 5, 1, 2], 1, 3), [7]);
        assert_eq!(found(&[5, 1, 2, 7, 1, 2, 8, 5, 1, 2], 1, 2), [8]);
        // A repetition of one token goes on.
        assert_eq!(found(&[4, 4, 4], 2, 4), [4]);
        assert_eq!(found(&[1, 2, 3], 4, 4), [0u32; 0]);
        assert_eq!(found(&[1], 4, 4), [0u32; 0]);
        assert_eq!(found(&[], 4, 4), [0u32; 0]);
    }

    #[test]
    fn guesses_grow_with_success() {
        let mut drafts = Drafts::default();
        assert_eq!(drafts.restart(8), 2);
        drafts.tokens = vec![1, 2];
        assert!(drafts.is_guessed(1) && drafts.is_guessed(2) && !drafts.is_guessed(3));
        assert_eq!((drafts.row(), drafts.restart(8), drafts.row()), (2, 4, 0));
        drafts.tokens = vec![1, 2];
        assert!(!drafts.is_guessed(2));
        assert_eq!(drafts.restart(8), 2);
        assert_eq!(drafts.n_accepted, 2);
    }
}
