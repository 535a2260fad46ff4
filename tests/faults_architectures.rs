//! Hostile hyperparameters in otherwise sound models, for every architecture of `tests/data/arch`.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::{Array, Header, Value, gguf};
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use bitpane::{Code, Error};
use std::path::Path;

/// A model file, taken apart.
struct Model {
    bytes: Vec<u8>,
    header: Header,
}

impl Model {
    fn named(name: &str) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/arch/{name}.gguf"));
        let bytes = std::fs::read(path).unwrap();
        let header = gguf::parse(&bytes, Some(bytes.len() as u64)).unwrap().unwrap();
        Model { bytes, header }
    }

    /// The file with `key` (without the architecture's name) set to `value`, or taken out.
    fn with(&self, key: &str, value: Option<Value>) -> Vec<u8> {
        let key = format!("{}.{key}", self.header.metadata.str("general.architecture").unwrap().unwrap());
        let mut writer = GgufWriter::new();
        for (name, old) in self.header.metadata.iter().filter(|(name, _)| *name != key) {
            writer.put(name, old.clone());
        }
        if let Some(value) = value {
            writer.put(&key, value);
        }
        let mut data = Vec::new();
        for t in &self.header.tensors {
            writer.tensor(&t.name, t.dtype, &t.shape).unwrap();
            data.push(&self.bytes[t.offset as usize..][..t.n_bytes as usize]);
        }
        writer.to_bytes(&data).unwrap()
    }

    /// The numeric keys of the architecture, without its name.
    fn keys(&self) -> Vec<String> {
        let prefix = format!("{}.", self.header.metadata.str("general.architecture").unwrap().unwrap());
        let keys = self.header.metadata.iter().filter_map(|(key, _)| key.strip_prefix(&prefix));
        keys.map(String::from).collect()
    }
}

/// Loads, and where that succeeds computes logits of a few tokens.
fn run(bytes: &[u8]) -> Result<(), Error> {
    let options = LoadOptions { context_length: Some(8), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None)?;
    loader.push(bytes)?;
    let Loaded::Text(mut model) = loader.finish()? else { panic!("no language model") };
    model.logits(&[1, 5, 9], 1).map(|_| ())
}

#[test]
fn impossible_values_are_named() {
    let uint = |v: u64| Some(Value::U64(v));
    let float = |v: f32| Some(Value::F32(v));
    let bools = |n: usize| Some(Value::Array(Array::Bool(vec![true; n])));
    for (model, key, value) in [
        ("exaone4-window", "attention.sliding_window", uint(0)),
        ("gemma3", "attention.sliding_window", uint(1 << 40)),
        ("gemma3", "attention.sliding_window", Some(Value::I64(-1))),
        ("gemma3", "attention.sliding_window_pattern", bools(6)),
        ("gemma3", "attention.sliding_window_pattern", bools(0)),
        ("gemma3", "attention.sliding_window_pattern", Some(Value::Array(Array::F32(vec![1.0; 7])))),
        ("gemma3", "rope.freq_base_swa", float(0.0)),
        ("gemma3", "rope.freq_base_swa", float(f32::NAN)),
        ("gemma3", "final_logit_softcapping", float(f32::NAN)),
        ("olmo2-window", "rope.scaling.original_context_length", uint(0)),
        ("olmo2-window", "rope.scaling.attn_factor", float(f32::INFINITY)),
        ("olmo2-window", "rope.scaling.factor", float(-4.0)),
        ("olmo2-window", "rope.scaling.factor", float(f32::NAN)),
        ("olmo2-window", "attention.sliding_window_pattern", bools(4)),
        ("granite", "attention.scale", float(f32::NAN)),
        ("granite", "embedding_scale", float(f32::INFINITY)),
        ("granite", "residual_scale", float(f32::NEG_INFINITY)),
        ("granite", "logit_scale", float(0.0)),
        ("granite", "logit_scale", float(f32::NAN)),
        ("granite", "logit_scale", None),
        ("granite", "rope.dimension_count", uint(18)),
        ("stablelm", "rope.dimension_count", uint(3)),
        ("stablelm", "attention.layer_norm_epsilon", float(0.0)),
        ("stablelm", "attention.head_count_kv", uint(3)),
        ("llama-yarn", "attention.head_count", uint(5)),
        ("hunyuan-dense", "rope.scaling.alpha", float(f32::NAN)),
        ("hunyuan-dense", "rope.scaling.alpha", float(3e38)),
        ("llama-yarn", "rope.scaling.type", Some(Value::Str(b"magic".to_vec()))),
        ("llama-yarn", "rope.scaling.type", uint(1)),
        ("phi3-long", "expert_count", uint(4)),
        ("gptneox-sequential", "use_parallel_residual", None),
        ("gptneox-sequential", "use_parallel_residual", uint(1)),
    ] {
        let error = run(&Model::named(model).with(key, value.clone())).expect_err(key);
        let full = error.key.as_deref().unwrap_or_default();
        assert!(
            error.code == Code::BadConfig && full.ends_with(key),
            "{model}, {key} = {value:?}: {error:?}"
        );
    }
}

#[test]
fn zero_stands_for_no_window() {
    for name in ["gemma3", "olmo2-window"] {
        run(&Model::named(name).with("attention.sliding_window", Some(Value::U64(0)))).unwrap();
    }
}

/// Whatever a key holds: logits or a typed error, never a panic.
#[test]
fn any_value_of_any_key() {
    let values = [
        Value::U64(0),
        Value::U64(1),
        Value::U64(3),
        Value::U64(1 << 24),
        Value::U64(u64::MAX),
        Value::I64(-1),
        Value::F32(f32::NAN),
        Value::F32(f32::MAX),
        Value::F32(1e-38),
        Value::F32(-1.0),
        Value::Bool(true),
        Value::Str(Vec::new()),
        Value::Array(Array::U64(Vec::new())),
        Value::Array(Array::Bool(vec![true; 2])),
    ];
    let models = [
        "gemma3",
        "olmo2-window",
        "granite",
        "stablelm-parallel",
        "hunyuan-dense",
        "llama-yarn",
        "phi3-long",
    ];
    let (mut ok, mut refused) = (0, 0);
    for name in models {
        let model = Model::named(name);
        for key in model.keys() {
            for value in &values {
                match run(&model.with(&key, Some(value.clone()))) {
                    Ok(()) => ok += 1,
                    Err(_) => refused += 1,
                }
            }
        }
    }
    println!("{ok} run, {refused} are refused");
    assert!(ok > 100 && refused > 500);
}
