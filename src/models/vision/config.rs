//! What files say about a vision model: `config.json` as Hugging Face and timm write it, the metadata of
//! safetensors, and GGUF's keys, all under Hugging Face's names.

use crate::container::{Array, Metadata, Value as MetaValue};
use crate::error::{Code, Error, Result};
use serde_json::{Map, Value};

/// Largest value of any dimension.
const MAX_DIM: u64 = 1 << 24;
/// Key of safetensors metadata under which a `config.json` may stand.
const EMBEDDED: &str = "config";

/// Hyperparameters. Where a file says nothing, they follow from the tensors.
#[derive(Clone, Debug, Default)]
pub struct Config {
    values: Map<String, Value>,
    /// Put before names in errors, such as `vit.` or `vision_config.`.
    scope: String,
}

/// GGUF's keys (after `vit.`, `clip.vision.` or `clip.text.`) and Hugging Face's.
const GGUF_KEYS: &[(&str, &str)] = &[
    ("attention.head_count", "num_attention_heads"),
    ("attention.layer_norm_epsilon", "layer_norm_eps"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("image_size", "image_size"),
    ("patch_size", "patch_size"),
    ("projection_dim", "projection_dim"),
    ("rope.freq_base", "rope_theta"),
];

impl Config {
    /// Reads a `config.json`. timm's `model_args` and `pretrained_cfg` count as if they stood outside.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for what is no JSON object.
    pub fn from_json(text: &str) -> Result<Self> {
        let bad = |what: String| Error::new(Code::BadConfig, what).key("config");
        let values = match serde_json::from_str(text) {
            Ok(Value::Object(values)) => values,
            Ok(_) => return Err(bad("config.json is not a JSON object".into())),
            Err(e) => return Err(bad(format!("config.json is not JSON: {e}")).source(e)),
        };
        let mut config = Config { values, scope: String::new() };
        for inner in ["model_args", "pretrained_cfg"] {
            if let Some(Value::Object(more)) = config.values.get(inner).cloned() {
                more.into_iter().for_each(|(k, v)| {
                    config.values.entry(k).or_insert(v);
                });
            }
        }
        Ok(config)
    }

    /// What a file's own metadata say: a `config.json` in those of safetensors, GGUF's keys for `architecture`.
    ///
    /// # Errors
    /// As [`Self::from_json`].
    pub fn from_metadata(metadata: &Metadata, architecture: &str) -> Result<Self> {
        if let Ok(Some(text)) = metadata.str(EMBEDDED) {
            return Config::from_json(text);
        }
        let mut config = Config { values: Map::new(), scope: format!("{architecture}.") };
        for (key, value) in metadata.iter() {
            let Some(name) = key.strip_prefix(config.scope.as_str()) else { continue };
            let Some(value) = to_json(value) else { continue };
            match ["vision.", "text."].iter().find_map(|s| Some((*s, name.strip_prefix(s)?))) {
                Some((section, inner)) => {
                    let section = format!("{}_config", section.trim_end_matches('.'));
                    let entry = config.values.entry(section).or_insert_with(|| Value::Object(Map::new()));
                    entry.as_object_mut().map(|map| map.insert(hugging_face(inner).into(), value));
                }
                None => {
                    config.values.insert(hugging_face(name).into(), value);
                }
            }
        }
        Ok(config)
    }

    /// The part of that name (`vision_config`, `text_config`); empty where there is none.
    pub fn section(&self, name: &str) -> Config {
        let values = self.values.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
        Config { values, scope: format!("{}{name}.", self.scope) }
    }

    /// Hugging Face's `model_type`, or timm's `architecture`.
    pub fn model_type(&self) -> Option<&str> {
        ["model_type", "architecture"].iter().find_map(|key| self.str(key))
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value under `name`; null counts as absent.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|v| !v.is_null())
    }

    /// A text.
    pub fn str(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// True or false; absent and anything else is `default`.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    /// An error about `name`, under the name that the file has for it.
    pub fn bad(&self, name: &str, rule: impl Into<String>) -> Error {
        let own = GGUF_KEYS.iter().find(|(_, hf)| *hf == name && !self.scope.is_empty());
        let name = own.filter(|_| !self.scope.ends_with("_config.")).map_or(name, |(gguf, _)| gguf);
        Error::new(Code::BadConfig, rule).key(format!("{}{name}", self.scope))
    }

    /// A dimension in `1 ..= 2^24`; where a file has one per direction, both must be equal.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn dim(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = match value {
            Value::Array(sides) if sides.len() > 1 && sides.windows(2).all(|s| s[0] == s[1]) => &sides[0],
            Value::Array(_) => return Err(self.bad(name, "only square sizes are supported")),
            number => number,
        };
        match number.as_u64() {
            Some(n) if n > 0 && n <= MAX_DIM => Ok(Some(n as usize)),
            _ => Err(self.bad(name, format!("{number} is not in 1 ..= {MAX_DIM}"))),
        }
    }

    /// A token id.
    pub fn token(&self, name: &str) -> Option<u32> {
        self.get(name)?.as_u64()?.try_into().ok()
    }

    /// A finite number above zero, or `default`.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn positive(&self, name: &str, default: f32) -> Result<f32> {
        match self.get(name).map(|v| (v, v.as_f64())) {
            None => Ok(default),
            Some((_, Some(x))) if x > 0.0 && (x as f32).is_finite() => Ok(x as f32),
            Some((v, _)) => Err(self.bad(name, format!("{v} is not above zero"))),
        }
    }

    /// Dimensions in a list, or `None` where it is absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn dims(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let dim = |v: &Value| v.as_u64().filter(|n| (1..=MAX_DIM).contains(n)).map(|n| n as usize);
        match value.as_array().map(|list| list.iter().map(dim).collect()) {
            Some(Some(dims)) => Ok(Some(dims)),
            _ => Err(self.bad(name, format!("expected a list of numbers in 1 ..= {MAX_DIM}"))),
        }
    }

    /// Side of the square input, in pixels: `image_size`, or timm's `input_size`.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn image_size(&self) -> Result<Option<usize>> {
        if let Some(size) = self.dim("image_size")? {
            return Ok(Some(size));
        }
        Ok(self.dims("input_size")?.and_then(|size| size.last().copied()))
    }

    /// Names of the classes: `id2label`, timm's `label_names`, GGUF's `labels`; empty where there are none,
    /// or only the `LABEL_0` that Hugging Face writes for want of names.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for names that are no texts.
    pub fn labels(&self) -> Result<Vec<String>> {
        let text = |key: &str, v: &Value| {
            v.as_str().map(String::from).ok_or_else(|| self.bad(key, "expected an array of strings"))
        };
        for key in ["label_names", "labels"] {
            match self.get(key) {
                Some(Value::Array(names)) => return names.iter().map(|v| text(key, v)).collect(),
                Some(_) => return Err(self.bad(key, "expected an array of strings")),
                None => {}
            }
        }
        let Some(Value::Object(by_id)) = self.get("id2label") else { return Ok(Vec::new()) };
        let label = |i: usize| by_id.get(&i.to_string());
        let names = (0..by_id.len()).map_while(label).map(|v| text("id2label", v));
        let names = names.collect::<Result<Vec<_>>>()?;
        let is_named = names.iter().enumerate().any(|(i, name)| *name != format!("LABEL_{i}"));
        Ok(if is_named && names.len() == by_id.len() { names } else { Vec::new() })
    }
}

fn hugging_face(gguf: &str) -> &str {
    GGUF_KEYS.iter().find(|(known, _)| *known == gguf).map_or(gguf, |(_, name)| name)
}

/// Metadata as JSON; `None` for what JSON has no form for.
fn to_json(value: &MetaValue) -> Option<Value> {
    let number = |x: f64| serde_json::Number::from_f64(x).map(Value::Number);
    Some(match value {
        MetaValue::U64(n) => (*n).into(),
        MetaValue::I64(n) => (*n).into(),
        // Not through f64: 1e-6 would become 9.99...e-7.
        MetaValue::F32(x) => number(x.to_string().parse().ok()?).unwrap_or(Value::String(x.to_string())),
        MetaValue::F64(x) => number(*x).unwrap_or(Value::String(x.to_string())),
        MetaValue::Bool(b) => (*b).into(),
        MetaValue::Str(s) => String::from_utf8_lossy(s).into(),
        MetaValue::Array(Array::F32(v)) => v.iter().copied().collect(),
        MetaValue::Array(Array::F64(v)) => v.iter().copied().collect(),
        MetaValue::Array(Array::Bool(v)) => v.iter().copied().collect(),
        MetaValue::Array(Array::Str(v)) => v.iter().map(String::from_utf8_lossy).collect(),
        MetaValue::Array(other) => (0..other.len()).filter_map(|i| other.i64(i)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_all_kinds_say_the_same() {
        let hf = Config::from_json(
            r#"{"model_type": "vit", "image_size": 224, "layer_norm_eps": 1e-12, "id2label": {"0": "a", "1": "b"}}"#,
        );
        let timm = Config::from_json(
            r#"{"architecture": "vit_tiny_patch16_224", "num_classes": 2,
                "pretrained_cfg": {"input_size": [3, 224, 224], "label_names": ["a", "b"]}}"#,
        );
        let mut metadata = Metadata::default();
        metadata.push("vit.image_size".into(), MetaValue::U64(224));
        metadata.push("vit.labels".into(), MetaValue::Array(Array::Str(["a", "b"].iter().collect())));
        for config in [hf, timm, Config::from_metadata(&metadata, "vit")] {
            let config = config.unwrap();
            assert_eq!(config.image_size().unwrap(), Some(224));
            assert_eq!(config.labels().unwrap(), ["a", "b"]);
        }
    }

    #[test]
    fn values_outside_their_domain_name_the_key() {
        let key = |e: Error| (e.code, e.key.unwrap_or_default());
        for text in ["", "[]", "{", "null"] {
            assert_eq!(key(Config::from_json(text).unwrap_err()), (Code::BadConfig, "config".into()));
        }
        let json = r#"{"image_size": [2, 3], "patch_size": 0, "hidden_size": -4, "layer_norm_eps": "x", "id2label": {"0": 1}}"#;
        let config = Config::from_json(json).unwrap();
        for name in ["image_size", "patch_size", "hidden_size"] {
            assert_eq!(key(config.dim(name).unwrap_err()), (Code::BadConfig, name.into()));
        }
        assert_eq!(key(config.positive("layer_norm_eps", 1.0).unwrap_err()).1, "layer_norm_eps");
        assert_eq!(key(config.labels().unwrap_err()).1, "id2label");
        let mut metadata = Metadata::default();
        metadata.push("vit.attention.head_count".into(), MetaValue::U64(0));
        let gguf = Config::from_metadata(&metadata, "vit").unwrap();
        assert_eq!(key(gguf.dim("num_attention_heads").unwrap_err()).1, "vit.attention.head_count");
    }
}
