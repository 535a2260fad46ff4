//! Options that say how tokens are chosen.

use crate::tasks::sampler::{Biased, LogitBias, SamplerParams};

/// One flag: its name, what its value is called, and what it does.
macro_rules! sampler_args {
    ($($(#[$doc:meta])* $field:ident: $kind:ty, $value:literal;)*) => {
        /// Flags whose defaults are those of [`SamplerParams`].
        #[derive(clap::Args)]
        struct Numbers {
            $($(#[$doc])* #[arg(
                long,
                value_name = $value,
                allow_negative_numbers = true,
                default_value_t = SamplerParams::default().$field
            )]
            $field: $kind,)*
        }

        impl Numbers {
            fn fill(&self, params: &mut SamplerParams) {
                $(params.$field = self.$field;)*
            }
        }
    };
}

sampler_args! {
    /// 0 always takes the most probable token; more is more varied
    temperature: f32, "X";
    /// Vary the temperature by up to this much with the entropy; 0 is off
    dynatemp_range: f32, "X";
    /// How the entropy decides on the temperature
    dynatemp_exponent: f32, "X";
    /// Choose among this many of the most probable tokens; 0 for all
    top_k: i64, "N";
    /// Choose among the fewest tokens that reach this probability together
    top_p: f32, "P";
    /// Choose among tokens with at least this share of the highest probability
    min_p: f32, "P";
    /// Choose among the fewest locally typical tokens that reach this probability; 1 is off
    typical_p: f32, "P";
    /// Choose among tokens within this many standard deviations of the best; 0 is off
    top_n_sigma: f32, "X";
    /// How often the most probable tokens are taken out (XTC); 0 is off
    xtc_probability: f32, "P";
    /// The probability from which XTC takes tokens out
    xtc_threshold: f32, "P";
    /// Make recent tokens less likely; 1 is off
    repeat_penalty: f32, "X";
    /// How many tokens count as recent; -1 for all
    repeat_last_n: i64, "N";
    /// Take this from the scores of recent tokens
    presence_penalty: f32, "X";
    /// Take this from the scores of recent tokens for each time they occur
    frequency_penalty: f32, "X";
    /// Strength of the penalty for extending repetitions (DRY); 0 is off
    dry_multiplier: f32, "X";
    /// How DRY's penalty grows with the repetition
    dry_base: f32, "X";
    /// Repetitions shorter than this cost nothing
    dry_allowed_length: i64, "N";
    /// How many tokens DRY looks at; -1 for all
    dry_penalty_last_n: i64, "N";
    /// 2 for Mirostat 2 in place of the other samplers; 0 is off
    mirostat: i64, "N";
    /// The surprise in bits that Mirostat keeps to
    mirostat_tau: f32, "X";
    /// How fast Mirostat learns
    mirostat_eta: f32, "X";
}

/// How tokens are chosen.
#[derive(clap::Args)]
#[command(next_help_heading = "Choosing tokens")]
pub(super) struct SamplerArgs {
    #[command(flatten)]
    numbers: Numbers,
    /// A text at which repetitions end for DRY (may be given several times; default \n, :, ", *)
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Add X to the score of a token, given by id or text; X may be "false" (may be given several times)
    #[arg(long, value_name = "TOKEN=X", value_parser = bias)]
    logit_bias: Vec<(Biased, f32)>,
    /// The samplers in their order, separated by semicolons
    #[arg(long, value_name = "NAMES", default_value_t = SamplerParams::default().samplers.join(";"))]
    samplers: String,
    /// The same seed gives the same text [default: another one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
}

fn bias(text: &str) -> Result<(Biased, f32), String> {
    let (token, bias) = text.rsplit_once('=').ok_or("expected TOKEN=X")?;
    let bias = match bias {
        "false" => f32::NEG_INFINITY,
        number => number.parse().map_err(|e| format!("{number:?}: {e}"))?,
    };
    Ok((token.parse().map_or_else(|_| Biased::Text(token.into()), Biased::Id), bias))
}

impl SamplerArgs {
    pub fn params(&self) -> SamplerParams {
        let mut params = SamplerParams { seed: self.seed, ..SamplerParams::default() };
        self.numbers.fill(&mut params);
        params.logit_bias = LogitBias(self.logit_bias.clone());
        params.samplers = self.samplers.split(';').filter(|s| !s.is_empty()).map(String::from).collect();
        if !self.dry_sequence_breaker.is_empty() {
            params.dry_sequence_breakers.clone_from(&self.dry_sequence_breaker);
        }
        params
    }
}
