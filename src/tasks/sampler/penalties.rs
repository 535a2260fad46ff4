//! Penalties for tokens that occurred lately.

use super::candidates::Candidates;
use super::params::SamplerParams;

/// Where logits are changed: the whole row, or what is left of it.
pub(super) enum Logits<'a> {
    Row(&'a mut [f32]),
    Left(&'a mut Candidates),
}

impl Logits<'_> {
    /// Replaces the logits of some tokens, whose ids ascend, by `change(logit, argument, temperature so far)`.
    ///
    /// A finite logit stays finite: -infinity alone rules a token out.
    pub fn change<T: Copy>(&mut self, tokens: &[(u32, T)], change: impl Fn(f32, T, f32) -> f32) {
        let replace = |logit: &mut f32, argument, temperature| {
            let changed = change(*logit, argument, temperature);
            *logit = if logit.is_finite() { changed.clamp(f32::MIN, f32::MAX) } else { *logit };
        };
        match self {
            Logits::Row(row) => {
                for &(id, argument) in tokens {
                    if let Some(logit) = row.get_mut(id as usize) {
                        replace(logit, argument, 1.0);
                    }
                }
            }
            Logits::Left(left) => {
                let temperature = left.temperature as f32;
                for c in &mut left.list {
                    if let Ok(i) = tokens.binary_search_by_key(&c.id, |token| token.0) {
                        replace(&mut c.logit, tokens[i].1, temperature);
                    }
                }
                left.changed();
            }
        }
    }
}

/// How often each recent token occurs; the buffers are reused.
#[derive(Clone, Debug, Default)]
pub(super) struct Penalties {
    sorted: Vec<u32>,
    counts: Vec<(u32, f32)>,
}

impl Penalties {
    pub fn is_off(p: &SamplerParams) -> bool {
        p.repeat_last_n == 0
            || (p.repeat_penalty == 1.0 && p.presence_penalty == 0.0 && p.frequency_penalty == 0.0)
    }

    pub fn apply(&mut self, p: &SamplerParams, history: &[u32], logits: &mut Logits) {
        let n_recent = SamplerParams::last_n(p.repeat_last_n, history.len());
        self.sorted.clear();
        self.sorted.extend_from_slice(&history[history.len() - n_recent..]);
        self.sorted.sort_unstable();
        self.counts.clear();
        for &id in &self.sorted {
            match self.counts.last_mut() {
                Some((last, count)) if *last == id => *count += 1.0,
                _ => self.counts.push((id, 1.0)),
            }
        }
        logits.change(&self.counts, |logit, count, temperature| {
            let scaled = if logit > 0.0 { logit / p.repeat_penalty } else { logit * p.repeat_penalty };
            scaled - (count * p.frequency_penalty + p.presence_penalty) * temperature
        });
    }
}
