//! The stages of the chain and their order.

use super::params::bad;
use crate::error::Result;

/// One stage of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Repeat, presence and frequency penalties.
    Penalties,
    /// The penalty for extending a repetition.
    Dry,
    /// A distance from the highest logit in standard deviations.
    TopNSigma,
    /// A number of tokens.
    TopK,
    /// Locally typical tokens.
    TypicalP,
    /// A sum of probabilities.
    TopP,
    /// A share of the highest probability.
    MinP,
    /// Taking out the most probable.
    Xtc,
    /// Temperature, fixed or dynamic.
    Temperature,
}

impl Stage {
    /// llama.cpp's default order.
    pub const ORDER: [Stage; 9] = [
        Stage::Penalties,
        Stage::Dry,
        Stage::TopNSigma,
        Stage::TopK,
        Stage::TypicalP,
        Stage::TopP,
        Stage::MinP,
        Stage::Xtc,
        Stage::Temperature,
    ];

    /// The name that llama.cpp's command line has for it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Penalties => "penalties",
            Stage::Dry => "dry",
            Stage::TopNSigma => "top_n_sigma",
            Stage::TopK => "top_k",
            Stage::TypicalP => "typ_p",
            Stage::TopP => "top_p",
            Stage::MinP => "min_p",
            Stage::Xtc => "xtc",
            Stage::Temperature => "temperature",
        }
    }

    /// The stages of these names.
    ///
    /// # Errors
    /// `BadArgument` with key `samplers` for an unknown name or one that occurs twice.
    pub fn parse(names: &[String]) -> Result<Vec<Stage>> {
        let mut stages = Vec::with_capacity(names.len().min(Stage::ORDER.len()));
        for name in names {
            let Some(stage) = Stage::ORDER.into_iter().find(|stage| stage.name() == name) else {
                let known = Stage::ORDER.map(Stage::name).join(", ");
                return Err(bad("samplers", format!("there is no sampler {name:?}, only {known}")));
            };
            if stages.contains(&stage) {
                return Err(bad("samplers", format!("sampler {name:?} occurs twice")));
            }
            stages.push(stage);
        }
        Ok(stages)
    }

    /// Whether the most probable token always passes, whatever else does.
    pub(super) fn keeps_the_highest(self) -> bool {
        !matches!(self, Stage::Penalties | Stage::Dry | Stage::TypicalP | Stage::Xtc)
    }
}
