//! Log-probabilities of tokens as the model gives them, before any sampler.

use super::candidates::{Candidates, by_rank};
use crate::kernels::scan::{Survey, log_sum_exp};

/// A token and ln of its probability under the model's own distribution over the vocabulary: before bias,
/// penalties, grammar and temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// ln p, in nats.
    pub logprob: f64,
}

/// Remembers a row of logits before the samplers change it.
#[derive(Clone, Debug, Default)]
pub struct Logprobs {
    row: Vec<f32>,
    ln_total: f64,
    survey: Survey,
    candidates: Candidates,
}

impl Logprobs {
    /// Keeps a row; what is not a number is for the sampler to report.
    pub fn keep(&mut self, logits: &[f32]) {
        self.row.clear();
        self.row.extend_from_slice(logits);
        self.survey.take(logits);
        let highest = self.survey.highest(logits).map_or(0.0, |(_, highest)| highest);
        self.ln_total = log_sum_exp(logits, highest);
    }

    /// ln p of a token of the kept row.
    pub fn of(&self, id: u32) -> f64 {
        self.row.get(id as usize).map_or(f64::NEG_INFINITY, |&logit| f64::from(logit) - self.ln_total)
    }

    /// The `n` most probable tokens of the kept row, the most probable first.
    pub fn top(&mut self, n: usize) -> impl Iterator<Item = TokenLogprob> {
        if n > 0 {
            self.candidates.gather_top(&self.row, &self.survey, n);
            self.candidates.keep_top(n);
            self.candidates.list.sort_unstable_by(by_rank);
        }
        let of = |id, logit| TokenLogprob { id, logprob: f64::from(logit) - self.ln_total };
        self.candidates.list.iter().take(n).map(move |c| of(c.id, c.logit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logprobs_are_those_of_a_softmax() {
        let logits: Vec<f32> = (0..3000).map(|i| ((i * 7919) % 1009) as f32 / 70.0 - 9.0).collect();
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        let mut logprobs = Logprobs::default();
        logprobs.keep(&logits);
        for id in [0, 17, 2999] {
            let want = (f64::from(logits[id]).exp() / total).ln();
            assert!((logprobs.of(id as u32) - want).abs() < 2e-6);
        }
        let mut ranked: Vec<u32> = (0..3000).collect();
        ranked.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
        for n in [0, 1, 20, 100] {
            let top: Vec<u32> = logprobs.top(n).map(|t| t.id).collect();
            assert_eq!(top, ranked[..n]);
        }
    }
}
