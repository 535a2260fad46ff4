//! A budget spent on types: of all upgrades the one that takes off most expected loss per byte, and again.
//!
//! On each tensor's lower convex hull of (bytes, loss) this is the Lagrangian optimum for the bytes that it ends at
//! (Everett 1963): every tensor's slope is on the same side of one price per byte. What is then left is filled with
//! the upgrades that still fit.

use super::{Choice, Plan, Planned, Survey, shapes};
use crate::error::{Code, Error, Result};
use serde::{Deserialize, Serialize};

/// What a plan may cost. Exactly one is given.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// Bytes of the written file, at most.
    pub target_bytes: Option<u64>,
    /// Bits of all weights per weight, at most.
    pub bits_per_weight: Option<f64>,
    /// Expected loss, at most, in the survey's unit; as few bytes as that takes.
    pub max_loss: Option<f64>,
}

/// One point of the curve of size against loss.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CurvePoint {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bits of all weights per weight.
    pub bits_per_weight: f64,
    /// Expected loss.
    pub loss: f64,
}

/// GGUF pads tensors to so many bytes.
const ALIGNMENT: u64 = 32;

/// What it takes in the file, but for the header's own padding.
fn padded(choice: &Choice) -> u64 {
    choice.bytes.next_multiple_of(ALIGNMENT) + choice.shape_bytes
}

/// An upgrade of one tensor, from one corner of its hull to the next.
struct Step {
    tensor: usize,
    to: usize,
    bytes: u64,
    gain: f64,
}

impl Survey {
    fn is_usable(&self) -> Result<()> {
        match self.tensors.iter().find(|t| t.choices.is_empty()) {
            Some(t) => Err(Error::new(Code::BadValue, "the survey has no types for it").tensor(&t.name)),
            None => Ok(()),
        }
    }

    /// The corners of each tensor's lower convex hull, as indices into its choices.
    fn hulls(&self) -> Vec<Vec<usize>> {
        self.tensors.iter().map(|t| hull(&t.choices)).collect()
    }

    /// All upgrades, the best first.
    fn steps(&self, hulls: &[Vec<usize>]) -> Vec<Step> {
        let mut steps = Vec::new();
        for (tensor, hull) in hulls.iter().enumerate() {
            let choices = &self.tensors[tensor].choices;
            for pair in hull.windows(2) {
                let (from, to) = (&choices[pair[0]], &choices[pair[1]]);
                let bytes = padded(to).saturating_sub(padded(from)).max(1);
                steps.push(Step { tensor, to: pair[1], bytes, gain: from.loss - to.loss });
            }
        }
        // Slopes fall along a hull: sorting keeps each tensor's steps in order.
        let slope = |s: &Step| s.gain / s.bytes as f64;
        steps.sort_by(|a, b| {
            slope(b).total_cmp(&slope(a)).then(a.tensor.cmp(&b.tensor)).then(a.to.cmp(&b.to))
        });
        steps
    }

    fn bytes_of(&self, chosen: &[usize]) -> u64 {
        let all = || self.tensors.iter().zip(chosen).map(|(t, &c)| &t.choices[c]);
        let key = if all().any(|choice| choice.shape_bytes > 0) { shapes::KEY_BYTES } else { 0 };
        (all().map(padded).sum::<u64>() + key + self.header_bytes).next_multiple_of(ALIGNMENT)
    }

    fn loss_of(&self, chosen: &[usize]) -> f64 {
        self.tensors.iter().zip(chosen).map(|(t, &c)| t.choices[c].loss).sum()
    }

    fn bits_of(&self, chosen: &[usize]) -> f64 {
        let bytes: u64 = self.tensors.iter().zip(chosen).map(|(t, &c)| t.choices[c].bytes).sum();
        bytes as f64 * 8.0 / self.parameters.max(1) as f64
    }

    /// The plan of least expected loss within a budget.
    ///
    /// # Errors
    /// [`Code::BudgetInfeasible`] naming the smallest budget that can be met; [`Code::BadArgument`] for a budget that is
    /// none.
    pub fn plan(&self, budget: &Budget) -> Result<Plan> {
        self.is_usable()?;
        let limit = self.limit(budget)?;
        let hulls = self.hulls();
        let mut chosen: Vec<usize> = hulls.iter().map(|h| h[0]).collect();
        let fits = |chosen: &[usize]| match limit {
            Limit::Bytes(n) => self.bytes_of(chosen) <= n,
            Limit::Bits(x) => self.bits_of(chosen) <= x,
            Limit::Loss(_) => true,
        };
        if !fits(&chosen) {
            return Err(self.infeasible(&limit, &chosen));
        }
        for step in self.steps(&hulls) {
            if matches!(limit, Limit::Loss(x) if self.loss_of(&chosen) <= x) {
                break;
            }
            // A step of a tensor whose last step did not fit would skip one, which is no fault.
            let before = std::mem::replace(&mut chosen[step.tensor], step.to);
            if !fits(&chosen) {
                chosen[step.tensor] = before;
            }
        }
        if let Limit::Loss(x) = limit
            && self.loss_of(&chosen) > x
        {
            return Err(self.infeasible(&limit, &chosen));
        }
        if !matches!(limit, Limit::Loss(_)) {
            self.fill(&mut chosen, &fits);
        }
        Ok(self.plan_of(&chosen))
    }

    /// Spends what is left on any choice of less loss that fits, the largest gains first.
    fn fill(&self, chosen: &mut [usize], fits: &dyn Fn(&[usize]) -> bool) {
        loop {
            let mut best: Option<(f64, usize, usize)> = None;
            for (tensor, t) in self.tensors.iter().enumerate() {
                let (now, loss) = (chosen[tensor], t.choices[chosen[tensor]].loss);
                for (c, choice) in t.choices.iter().enumerate().filter(|(_, c)| c.loss < loss) {
                    let gain = loss - choice.loss;
                    if best.is_some_and(|(g, ..)| gain <= g) {
                        continue;
                    }
                    chosen[tensor] = c;
                    if fits(chosen) {
                        best = Some((gain, tensor, c));
                    }
                    chosen[tensor] = now;
                }
            }
            match best {
                Some((_, tensor, c)) => chosen[tensor] = c,
                None => return,
            }
        }
    }

    fn plan_of(&self, chosen: &[usize]) -> Plan {
        let planned = |(t, &c): (&super::Surveyed, &usize)| Planned {
            name: t.name.clone(),
            dtype: t.choices[c].dtype.clone(),
            note: None,
        };
        Plan {
            tensors: self.tensors.iter().zip(chosen).map(planned).collect(),
            bytes: self.bytes_of(chosen),
            bits_per_weight: self.bits_of(chosen),
            expected_loss: Some(self.loss_of(chosen)),
        }
    }

    /// The plans that cannot be improved on, by size: what a byte more would buy.
    pub fn curve(&self) -> Vec<CurvePoint> {
        if self.is_usable().is_err() {
            return Vec::new();
        }
        let hulls = self.hulls();
        let mut chosen: Vec<usize> = hulls.iter().map(|h| h[0]).collect();
        let point = |chosen: &[usize]| CurvePoint {
            bytes: self.bytes_of(chosen),
            bits_per_weight: self.bits_of(chosen),
            loss: self.loss_of(chosen),
        };
        let mut points = vec![point(&chosen)];
        for step in self.steps(&hulls) {
            chosen[step.tensor] = step.to;
            points.push(point(&chosen));
        }
        points
    }

    fn limit(&self, budget: &Budget) -> Result<Limit> {
        let bad = |key: &str, rule: &str| Err(Error::new(Code::BadArgument, rule).key(key));
        match *budget {
            Budget { target_bytes: Some(n), bits_per_weight: None, max_loss: None } => Ok(Limit::Bytes(n)),
            Budget { target_bytes: None, bits_per_weight: Some(x), max_loss: None } => match x.is_finite() {
                true => Ok(Limit::Bits(x)),
                false => bad("bitsPerWeight", "not a number"),
            },
            Budget { target_bytes: None, bits_per_weight: None, max_loss: Some(x) } => match x >= 0.0 {
                true => Ok(Limit::Loss(x)),
                false => bad("maxLoss", "not a number of at least 0"),
            },
            _ => bad("targetBytes", "one of targetBytes, bitsPerWeight and maxLoss is needed"),
        }
    }

    fn infeasible(&self, limit: &Limit, smallest: &[usize]) -> Error {
        let (key, rule) = match limit {
            Limit::Bytes(n) => {
                let least = self.bytes_of(smallest);
                ("targetBytes", format!("no plan fits {n} bytes: the smallest possible is {least}"))
            }
            Limit::Bits(x) => {
                let least = self.bits_of(smallest);
                (
                    "bitsPerWeight",
                    format!("no plan fits {x} bits per weight: the smallest possible is {least:.4}"),
                )
            }
            Limit::Loss(x) => {
                let least = self.loss_of(smallest);
                (
                    "maxLoss",
                    format!("no plan is expected to lose {x} or less: the smallest possible is {least:.3e}"),
                )
            }
        };
        Error::new(Code::BudgetInfeasible, rule).key(key)
    }
}

enum Limit {
    Bytes(u64),
    Bits(f64),
    Loss(f64),
}

/// Corners of the lower convex hull of (bytes, loss); `choices` ascend by bytes.
pub(super) fn hull(choices: &[Choice]) -> Vec<usize> {
    let mut corners: Vec<usize> = Vec::new();
    for (i, choice) in choices.iter().enumerate() {
        if corners.last().is_some_and(|&last| choices[last].loss <= choice.loss) {
            continue;
        }
        if corners.last().is_some_and(|&last| padded(&choices[last]) == padded(choice)) {
            corners.pop();
        }
        while let [.., a, b] = corners[..] {
            let slope = |from: usize, to: usize| {
                let bytes = padded(&choices[to]) as f64 - padded(&choices[from]) as f64;
                (choices[to].loss - choices[from].loss) / bytes.max(1.0)
            };
            if slope(a, b) < slope(b, i) {
                break;
            }
            corners.pop();
        }
        corners.push(i);
    }
    corners
}
