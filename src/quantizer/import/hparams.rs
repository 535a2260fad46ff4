//! `config.json` under GGUF's keys.

use super::super::outline::Extra;
use super::names::Arch;
use crate::container::{Metadata, Value as Meta};
use crate::error::{Code, Error, Result};
use serde_json::{Map, Value};

/// A `config.json`, or the part of it that is about text.
pub struct Hparams {
    values: Map<String, Value>,
}

impl Hparams {
    /// Reads a `config.json`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| Error::new(Code::BadConfig, what).key("config");
        match serde_json::from_str(text) {
            Ok(Value::Object(mut values)) => {
                // What sees and reads keeps the part that reads apart.
                if let Some(Value::Object(inner)) = values.remove("text_config") {
                    values.extend(inner);
                }
                Ok(Hparams { values })
            }
            Ok(_) => Err(bad("config.json is not a JSON object".into())),
            Err(e) => Err(bad(format!("config.json is not JSON: {e}")).source(e)),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|v| !v.is_null())
    }

    pub fn str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn bad(&self, key: &str, rule: impl Into<String>) -> Error {
        Error::new(Code::BadConfig, rule).key(key)
    }

    /// The first of some keys that is there, a whole number.
    pub fn count(&self, keys: &[&str]) -> Result<Option<u64>> {
        match keys.iter().find_map(|key| Some((*key, self.get(key)?))) {
            None => Ok(None),
            Some((key, value)) => match value.as_u64().filter(|n| *n <= 1 << 32) {
                Some(n) => Ok(Some(n)),
                None => Err(self.bad(key, format!("{value} is not a count"))),
            },
        }
    }

    fn need(&self, keys: &[&str]) -> Result<u64> {
        self.count(keys)?.ok_or_else(|| self.bad(keys[0], "config.json lacks it"))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key).map(|v| (v, v.as_f64())) {
            None => Ok(None),
            Some((_, Some(x))) if x.is_finite() => Ok(Some(x as f32)),
            Some((v, _)) => Err(self.bad(key, format!("{v} is not a number"))),
        }
    }

    fn n_embd(&self) -> Result<u64> {
        self.need(&["hidden_size", "n_embd"])
    }

    /// Heads of queries, and of keys and values.
    pub fn heads(&self) -> Result<(usize, usize)> {
        let n_head = self.need(&["num_attention_heads", "n_head"])?;
        let n_head_kv = self.count(&["num_key_value_heads"])?.unwrap_or(n_head);
        if n_head == 0 || n_head_kv == 0 {
            return Err(self.bad("num_attention_heads", "no heads"));
        }
        Ok((n_head as usize, n_head_kv as usize))
    }

    fn head_dim(&self) -> Result<u64> {
        match self.count(&["head_dim"])? {
            Some(d) => Ok(d),
            None => Ok(self.n_embd()? / self.heads()?.0 as u64),
        }
    }

    /// Dimensions of a head that are rotated.
    fn n_rot(&self) -> Result<u64> {
        let share = match self.number("partial_rotary_factor")? {
            Some(share) => Some(share),
            None => self.number("rotary_pct")?,
        };
        let d = self.head_dim()?;
        Ok(share.map_or(d, |share| (d as f32 * share) as u64))
    }

    /// Adds all keys of the architecture.
    pub fn write(&self, arch: &Arch, metadata: &mut Metadata) -> Result<()> {
        let mut keys = Keys { arch: arch.gguf, metadata };
        let n_embd = self.n_embd()?;
        let (n_head, n_head_kv) = self.heads()?;
        keys.uint("block_count", self.need(&["num_hidden_layers", "n_layer"])?);
        keys.uint("context_length", self.need(&["max_position_embeddings", "n_positions", "n_ctx"])?);
        keys.uint("embedding_length", n_embd);
        keys.uint(
            "feed_forward_length",
            self.count(&["intermediate_size", "n_inner"])?.unwrap_or(4 * n_embd),
        );
        keys.uint("attention.head_count", n_head as u64);
        if self.get("num_key_value_heads").is_some() {
            keys.uint("attention.head_count_kv", n_head_kv as u64);
        }
        if let Some(d) = self.count(&["head_dim"])? {
            keys.uint("attention.key_length", d);
            keys.uint("attention.value_length", d);
        }
        match self.number("rms_norm_eps")? {
            Some(eps) => keys.f32("attention.layer_norm_rms_epsilon", eps),
            None => keys.f32("attention.layer_norm_epsilon", self.layer_norm_eps()?),
        }
        if arch.gguf != "gpt2" && arch.gguf != "bert" {
            keys.uint("rope.dimension_count", self.n_rot()?);
            let base = self.rope_number("rope_theta")?.or(self.number("rotary_emb_base")?);
            keys.f32("rope.freq_base", base.unwrap_or(10_000.0));
            self.scaling(&mut keys)?;
        }
        self.peculiar(arch, &mut keys)
    }

    fn layer_norm_eps(&self) -> Result<f32> {
        for key in ["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"] {
            if let Some(eps) = self.number(key)? {
                return Ok(eps);
            }
        }
        Ok(1e-5)
    }

    /// Newer files keep the rotation's numbers together.
    fn rope_number(&self, key: &str) -> Result<Option<f32>> {
        let inner = self.get("rope_parameters").and_then(|p| p.get(key)).and_then(Value::as_f64);
        match inner {
            Some(x) => Ok(Some(x as f32)),
            None => self.number(key),
        }
    }

    /// `rope_scaling` with its type; `None` where there is none.
    fn rope_scaling(&self) -> Option<(&str, &Value)> {
        let scaling = self.get("rope_scaling").or_else(|| self.get("rope_parameters"))?;
        let named = scaling.get("rope_type").or_else(|| scaling.get("type"))?.as_str()?;
        (named != "default").then_some((named, scaling))
    }

    fn scaling(&self, keys: &mut Keys) -> Result<()> {
        let Some((kind, scaling)) = self.rope_scaling() else { return Ok(()) };
        let number = |key: &str| scaling.get(key).and_then(Value::as_f64).map(|x| x as f32);
        let factor = || number("factor").ok_or_else(|| self.bad("rope_scaling", "no factor"));
        match kind {
            "linear" | "yarn" => {
                keys.str("rope.scaling.type", kind);
                keys.f32("rope.scaling.factor", factor()?);
                if let Some(n) = number("original_max_position_embeddings") {
                    keys.uint("rope.scaling.original_context_length", n as u64);
                }
            }
            // A tensor says it.
            "llama3" => {}
            "longrope" | "su" => {
                let n = self.need(&["original_max_position_embeddings"])?;
                let stretch = self.need(&["max_position_embeddings"])? as f32 / n as f32;
                let magnitude = if stretch > 1.0 {
                    libm::sqrtf(1.0 + libm::logf(stretch) / libm::logf(n as f32))
                } else {
                    1.0
                };
                keys.uint("rope.scaling.original_context_length", n);
                keys.f32("rope.scaling.attn_factor", magnitude);
            }
            other => return Err(self.bad("rope_scaling", format!("scaling {other:?} is not supported"))),
        }
        Ok(())
    }

    /// What single architectures have beside the rest.
    fn peculiar(&self, arch: &Arch, keys: &mut Keys) -> Result<()> {
        if let (true, Some(window)) = (
            ["gemma2", "gemma3", "phi3", "starcoder2"].contains(&arch.gguf),
            self.count(&["sliding_window"])?,
        ) {
            keys.uint("attention.sliding_window", window);
        }
        match arch.gguf {
            "gemma" | "gemma2" | "gemma3" => {
                for (key, gguf) in [
                    ("attn_logit_softcapping", "attn_logit_softcapping"),
                    ("final_logit_softcapping", "final_logit_softcapping"),
                    ("rope_local_base_freq", "rope.freq_base_swa"),
                ] {
                    if let Some(x) = self.number(key)? {
                        keys.f32(gguf, x);
                    }
                }
            }
            "granite" => {
                for (key, gguf) in [
                    ("attention_multiplier", "attention.scale"),
                    ("embedding_multiplier", "embedding_scale"),
                    ("residual_multiplier", "residual_scale"),
                    ("logits_scaling", "logit_scale"),
                ] {
                    if let Some(x) = self.number(key)? {
                        keys.f32(gguf, x);
                    }
                }
            }
            "gptneox" => keys.bool("use_parallel_residual", self.flag("use_parallel_residual", true)),
            "stablelm" => keys.bool("use_parallel_residual", self.flag("use_parallel_residual", false)),
            "bert" => {
                keys.bool("attention.causal", false);
                keys.uint("pooling_type", 1);
            }
            _ => {}
        }
        if ["hidden_act", "hidden_activation", "activation_function"]
            .iter()
            .any(|k| self.str(k) == Some("relu"))
        {
            return Err(self.bad("hidden_act", "\"relu\" is not supported"));
        }
        Ok(())
    }

    /// Tensors that follow from the configuration.
    pub fn extra(&self, arch: &Arch) -> Result<Vec<Extra>> {
        let Some((kind, scaling)) = self.rope_scaling() else { return Ok(Vec::new()) };
        match kind {
            "llama3" => {
                Ok(vec![Extra { name: "rope_freqs.weight".into(), values: self.llama3_factors(scaling)? }])
            }
            "longrope" | "su" if arch.gguf == "phi3" => {
                let list = |key: &str| {
                    let values = scaling
                        .get(key)
                        .and_then(Value::as_array)
                        .map(|v| v.iter().map(Value::as_f64).collect());
                    let values: Option<Vec<f64>> = values.flatten();
                    values.ok_or_else(|| self.bad("rope_scaling", format!("no {key}")))
                };
                let extra = |name: &str, key: &str| {
                    Ok(Extra { name: name.into(), values: list(key)?.iter().map(|x| *x as f32).collect() })
                };
                Ok(vec![
                    extra("rope_factors_long.weight", "long_factor")?,
                    extra("rope_factors_short.weight", "short_factor")?,
                ])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What divides each frequency in Llama 3.1: nothing for short waves, `factor` for long ones, and a blend between.
    fn llama3_factors(&self, scaling: &Value) -> Result<Vec<f32>> {
        let number = |key: &str| {
            scaling
                .get(key)
                .and_then(Value::as_f64)
                .ok_or_else(|| self.bad("rope_scaling", format!("no {key}")))
        };
        let (factor, low, high) =
            (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
        let n_ctx = number("original_max_position_embeddings")?;
        let base = f64::from(self.rope_number("rope_theta")?.unwrap_or(10_000.0));
        let d = self.n_rot()?;
        let of = |i: u64| {
            let wave = 2.0 * std::f64::consts::PI * libm::pow(base, (2 * i) as f64 / d as f64);
            let blend = (n_ctx / wave - low) / (high - low);
            match () {
                () if wave < n_ctx / high => 1.0,
                () if wave > n_ctx / low => factor,
                () => 1.0 / ((1.0 - blend) / factor + blend),
            }
        };
        Ok((0..d / 2).map(|i| of(i) as f32).collect())
    }
}

struct Keys<'a> {
    arch: &'static str,
    metadata: &'a mut Metadata,
}

impl Keys<'_> {
    fn push(&mut self, key: &str, value: Meta) {
        self.metadata.push(format!("{}.{key}", self.arch), value);
    }

    fn uint(&mut self, key: &str, n: u64) {
        self.push(key, Meta::U64(n));
    }

    fn f32(&mut self, key: &str, x: f32) {
        self.push(key, Meta::F32(x));
    }

    fn bool(&mut self, key: &str, b: bool) {
        self.push(key, Meta::Bool(b));
    }

    fn str(&mut self, key: &str, s: &str) {
        self.push(key, Meta::Str(s.into()));
    }
}
