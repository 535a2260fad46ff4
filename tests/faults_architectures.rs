//! Hostile hyperparameters in otherwise sound models, for every architecture of `tests/data/arch`.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::{Array, Header, Value, gguf};
use bitpane::tasks::{EmbedOptions, LoadOptions, Loaded, Loader};
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

    /// The file with tensor `name` in another shape, of zeros, or taken out.
    fn reshaped(&self, name: &str, shape: Option<&[usize]>) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        for (key, value) in self.header.metadata.iter() {
            writer.put(key, value.clone());
        }
        let zeros = vec![0u8; 1 << 16];
        let mut data = Vec::new();
        for t in &self.header.tensors {
            if t.name != name {
                writer.tensor(&t.name, t.dtype, &t.shape).unwrap();
                data.push(&self.bytes[t.offset as usize..][..t.n_bytes as usize]);
            } else if let Some(shape) = shape {
                writer.tensor(&t.name, t.dtype, shape).unwrap();
                let n_bytes = t.n_bytes as usize / t.shape.iter().product::<usize>();
                data.push(&zeros[..n_bytes * shape.iter().product::<usize>()]);
            }
        }
        writer.to_bytes(&data).unwrap()
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
    match loader.finish()? {
        Loaded::Text(mut model) => model.logits(&[1, 5, 9], 1).map(|_| ()),
        Loaded::Encoder(mut model) => model.embed_tokens(&[1, 5, 9], &EmbedOptions::default()).map(|_| ()),
        _ => panic!("no model of texts"),
    }
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
        ("granitemoe", "expert_count", uint(0)),
        ("granitemoe", "expert_count", None),
        ("granitemoe", "expert_used_count", uint(0)),
        ("granitemoe", "expert_used_count", uint(6)),
        ("granitemoe", "expert_used_count", None),
        ("qwen3moe", "expert_feed_forward_length", uint(0)),
        ("mamba2", "ssm.conv_kernel", uint(0)),
        ("mamba2", "ssm.state_size", uint(0)),
        ("mamba2", "ssm.time_step_rank", uint(0)),
        ("mamba2", "ssm.time_step_rank", uint(5)),
        ("mamba2", "ssm.group_count", uint(0)),
        ("mamba2", "ssm.group_count", uint(4)),
        ("mamba2", "ssm.inner_size", uint(1 << 40)),
        ("rwkv7", "wkv.head_size", uint(0)),
        ("rwkv7", "wkv.head_size", uint(5)),
        ("lfm2", "shortconv.l_cache", uint(0)),
        ("lfm2", "attention.head_count_kv", Some(Value::Array(Array::U64(vec![0, 1, 0])))),
        ("lfm2", "attention.head_count_kv", Some(Value::Array(Array::I64(vec![0, -1, 0, 3])))),
        ("lfm2", "attention.head_count_kv", Some(Value::Array(Array::U64(vec![0, 2, 0, 3])))),
        ("bert-rank", "pooling_type", uint(5)),
        ("bert-rank", "pooling_type", float(1.5)),
        ("nomic-bert", "pooling_type", uint(4)),
        ("modern-bert", "hidden_activation", Some(Value::Str(b"swish2".to_vec()))),
        ("modern-bert", "attention.sliding_window_pattern", bools(4)),
        ("modern-bert", "rope.freq_base_swa", float(0.0)),
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
fn tensors_of_other_shapes_are_named() {
    for (model, name, shape) in [
        ("granitemoe", "blk.0.ffn_gate_exps.weight", Some(&[4, 28, 48][..])),
        ("granitemoe", "blk.0.ffn_gate_exps.weight", Some(&[5, 48, 28])),
        ("granitemoe", "blk.0.ffn_gate_exps.weight", Some(&[5 * 28, 48])),
        ("granitemoe", "blk.0.ffn_gate_exps.weight", Some(&[5, 28, 0])),
        ("granitemoe", "blk.0.ffn_up_exps.weight", Some(&[0, 28, 48])),
        ("granitemoe", "blk.0.ffn_up_exps.weight", Some(&[1, 5, 28, 48])),
        ("granitemoe", "blk.0.ffn_down_exps.weight", Some(&[5 * 28 * 48])),
        ("granitemoe", "blk.1.ffn_gate_inp.weight", Some(&[4, 48])),
        ("granitemoe-shared", "blk.0.ffn_up_shexp.weight", Some(&[48, 24])),
        ("mamba2", "blk.0.ssm_conv1d.weight", Some(&[4, 80])),
        ("mamba2", "blk.0.ssm_conv1d.weight", Some(&[320])),
        ("mamba2", "blk.0.ssm_in.weight", Some(&[133, 32])),
        ("mamba2", "blk.1.ssm_a", Some(&[7, 1])),
        ("mamba2", "blk.1.ssm_d", None),
        ("rwkv7", "blk.0.time_mix_lerp_fused.weight", Some(&[5, 1, 1, 32])),
        ("rwkv7", "blk.1.time_mix_w2.weight", Some(&[8, 32])),
        ("rwkv7", "blk.1.time_mix_v1.weight", None),
        ("lfm2", "blk.0.shortconv.conv.weight", Some(&[48, 4])),
        ("lfm2", "blk.0.shortconv.in_proj.weight", Some(&[48, 48])),
        ("bert-rank", "position_embd.weight", Some(&[127, 48])),
        ("bert-rank", "token_types.weight", Some(&[2, 47])),
        ("bert-rank", "token_types.weight", Some(&[96])),
        ("bert-rank", "cls.output.weight", Some(&[16, 47])),
        ("modern-bert", "blk.0.attn_qkv.weight", Some(&[32, 96])),
        ("modern-bert", "blk.1.attn_norm.weight", None),
    ] {
        let error = run(&Model::named(model).reshaped(name, shape)).expect_err(name);
        let known = matches!(error.code, Code::ShapeMismatch | Code::MissingTensor | Code::BadShape);
        assert!(known && error.tensor.as_deref() == Some(name), "{model}, {name} {shape:?}: {error:?}");
    }
    // A head whose parts do not fit has no key of its own.
    let narrow = Model::named("bert-rank").reshaped("cls.weight", Some(&[12, 48]));
    assert!(matches!(run(&narrow).unwrap_err().code, Code::ShapeMismatch | Code::BadConfig));
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
        "granitemoe-shared",
        "mamba2",
        "rwkv7",
        "lfm2",
        "bert-rank",
        "modern-bert",
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
