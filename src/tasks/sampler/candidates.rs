//! The tokens that may still be drawn, and what takes some of them out.

use super::exp::exp;
use crate::kernels::scan::Survey;
use std::cmp::Ordering;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub logit: f32,
    pub id: u32,
    /// exp((logit - highest logit) / temperature), once weighed.
    pub weight: f64,
}

/// First by logit, highest first, then by id.
pub(super) fn by_rank(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// The tokens that may still be drawn: at least one, in order of id or of rank, so that sums and draws do
/// not depend on the order that a selection happens to leave. Buffers are reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    pub list: Vec<Candidate>,
    /// What logits are divided by, so far.
    pub temperature: f64,
    /// Sum of the weights; `None` while they are not of the present logits and temperature.
    total: Option<f64>,
    scratch: Vec<f32>,
}

impl Candidates {
    /// Takes the tokens whose logit is at least `threshold`, in order of id.
    pub fn gather(&mut self, logits: &[f32], survey: &Survey, threshold: f32) {
        self.list.clear();
        self.temperature = 1.0;
        self.total = None;
        // Not below: -infinity alone rules a token out.
        let threshold = threshold.max(f32::MIN);
        let list = &mut self.list;
        survey.at_least(logits, threshold, |id, logit| {
            list.push(Candidate { logit, id: id as u32, weight: 0.0 });
        });
    }

    /// [`gather`](Self::gather) with room for what certainly has the `k` most probable.
    pub fn gather_top(&mut self, logits: &[f32], survey: &Survey, k: usize) {
        // k blocks whose highest logit is at least x hold k logits of at least x.
        self.scratch.clear();
        self.scratch.extend_from_slice(survey.blocks());
        let threshold = if k < self.scratch.len() {
            *self.scratch.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
        } else {
            f32::MIN
        };
        self.gather(logits, survey, threshold);
    }

    /// The highest logit.
    pub fn highest(&self) -> f32 {
        self.list.iter().fold(f32::NEG_INFINITY, |highest, c| highest.max(c.logit))
    }

    /// Logits have changed.
    pub fn changed(&mut self) {
        self.total = None;
    }

    /// Divides all logits.
    pub fn divide(&mut self, temperature: f64) {
        self.temperature *= temperature;
        self.total = None;
    }

    /// Computes the weights if they are not those of the present logits; gives their sum.
    pub fn weigh(&mut self) -> f64 {
        if let Some(total) = self.total {
            return total;
        }
        let highest = f64::from(self.highest());
        let mut total = 0.0;
        for c in &mut self.list {
            c.weight = exp((f64::from(c.logit) - highest) / self.temperature);
            total += c.weight;
        }
        self.total = Some(total);
        total
    }

    /// Keeps those that pass, and always the most probable one.
    pub fn keep(&mut self, mut passes: impl FnMut(&Candidate) -> bool) {
        let best = self.list.iter().copied().min_by(by_rank);
        self.list.retain(|c| passes(c));
        if self.list.is_empty() {
            self.list.extend(best);
        }
        self.total = None;
    }

    /// Keeps the most probable one alone.
    pub fn keep_best(&mut self) {
        let best = self.list.iter().copied().min_by(by_rank);
        self.list.clear();
        self.list.extend(best);
        self.total = None;
    }

    /// Keeps the `k` most probable, in order of rank.
    pub fn keep_top(&mut self, k: usize) {
        if k >= self.list.len() {
            return;
        }
        self.list.select_nth_unstable_by(k - 1, by_rank);
        self.list.truncate(k);
        self.list.sort_unstable_by(by_rank);
        self.total = None;
    }

    /// Brings the candidates into the order of `by` and keeps them up to and with the first at which `last`
    /// holds.
    ///
    /// Sorted in chunks that grow, since how long the prefix is shows on the way.
    pub fn keep_prefix(
        &mut self,
        by: impl Fn(&Candidate, &Candidate) -> Ordering,
        mut last: impl FnMut(&Candidate) -> bool,
    ) {
        let mut n_sorted = 0;
        for i in 0..self.list.len() {
            if i == n_sorted {
                n_sorted = sort_chunk(&mut self.list, n_sorted, &by);
            }
            if last(&self.list[i]) {
                self.list.truncate(i + 1);
                break;
            }
        }
        self.total = None;
    }
}

/// Brings the next chunk after the first `n_sorted` into order; gives how many are in order now.
fn sort_chunk(
    list: &mut [Candidate],
    n_sorted: usize,
    by: impl Fn(&Candidate, &Candidate) -> Ordering,
) -> usize {
    let end = (n_sorted * 4).max(64).min(list.len());
    let rest = &mut list[n_sorted..];
    let n_chunk = end - n_sorted;
    if n_chunk < rest.len() {
        rest.select_nth_unstable_by(n_chunk, &by);
    }
    rest[..n_chunk].sort_unstable_by(by);
    end
}
