//! The stages that take candidates out, by their definitions.
//!
//! Sources: A. Holtzman et al., "The Curious Case of Neural Text Degeneration" (top-p); C. Meister et al.,
//! "Locally Typical Sampling"; N. N. Minh et al., "Turning Up the Heat" (min-p); C. Tang et al., "Top-nσ"; XTC
//! as p-e-w proposed it for text-generation-webui (pull request 6335).

use super::candidates::{Candidates, by_rank};

impl Candidates {
    /// The fewest that reach `p` together.
    pub fn top_p(&mut self, p: f64) {
        let wanted = p * self.weigh();
        let mut mass = 0.0;
        self.keep_prefix(by_rank, |c| {
            mass += c.weight;
            mass >= wanted
        });
    }

    /// Those with at least this share of the highest probability.
    pub fn min_p(&mut self, p: f64) {
        self.weigh();
        self.keep(|c| c.weight >= p);
    }

    /// The fewest that exceed `p` together, beginning with those whose surprise is nearest to the entropy.
    pub fn typical_p(&mut self, p: f64) {
        let total = self.weigh();
        let entropy = self.entropy();
        let distance = |weight: f64| {
            // What is never drawn has an infinite surprise.
            if weight > 0.0 { (-libm::log(weight / total) - entropy).abs() } else { f64::INFINITY }
        };
        let mut mass = 0.0;
        self.keep_prefix(
            |a, b| distance(a.weight).total_cmp(&distance(b.weight)).then_with(|| by_rank(a, b)),
            |c| {
                mass += c.weight;
                mass > p * total
            },
        );
    }

    /// Those at most `n` standard deviations below the highest.
    pub fn top_n_sigma(&mut self, n: f32) {
        let threshold = sigma_threshold(self.list.iter().map(|c| c.logit), self.highest(), n);
        self.keep(|c| c.logit >= threshold);
    }

    /// Takes out all that reach `threshold` but the least probable of them.
    pub fn xtc(&mut self, threshold: f64) {
        let wanted = threshold * self.weigh();
        let reaches = |c: &&super::candidates::Candidate| c.weight >= wanted;
        let Some(least) = self.list.iter().filter(reaches).copied().max_by(by_rank) else { return };
        self.keep(|c| by_rank(c, &least).is_ge());
    }

    /// Divides by a temperature that depends on the entropy: at most `range` from `temperature`.
    pub fn dynamic_temperature(&mut self, temperature: f64, range: f64, exponent: f64) {
        let lowest = (temperature - range).max(0.0);
        if self.list.len() > 1 {
            self.weigh();
            let share = self.entropy() / libm::log(self.list.len() as f64);
            let chosen = lowest + (temperature + range - lowest) * libm::pow(share.clamp(0.0, 1.0), exponent);
            self.fixed_temperature(chosen);
        }
    }

    /// Divides by a temperature; 0 keeps the most probable one.
    pub fn fixed_temperature(&mut self, temperature: f64) {
        if temperature > 0.0 {
            self.divide(temperature);
        } else {
            self.keep_best();
        }
    }

    /// Entropy in nats. The weights are fresh.
    fn entropy(&mut self) -> f64 {
        let total = self.weigh();
        let drawn = self.list.iter().map(|c| c.weight / total).filter(|&p| p > 0.0);
        drawn.map(|p| -p * libm::log(p)).sum()
    }
}

/// The highest logit less `n` standard deviations of all that are not ruled out.
pub(super) fn sigma_threshold(logits: impl Iterator<Item = f32> + Clone, highest: f32, n: f32) -> f32 {
    let finite = logits.filter(|x| x.is_finite()).map(f64::from);
    let (count, sum) = finite.clone().fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x));
    let mean = sum / count;
    let squares: f64 = finite.map(|x| (x - mean) * (x - mean)).sum();
    (f64::from(highest) - f64::from(n) * (squares / count).sqrt()) as f32
}
