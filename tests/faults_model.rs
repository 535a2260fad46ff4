//! Catalogue rows that need the whole model: files whose container is sound and whose content
//! is not. Native and in wasm.

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::{Array, Value};
use bitpane::quant::DType;
use bitpane::tasks::{EmbedOptions, GenerateOptions, LoadOptions, Loaded, Loader, Step};
use bitpane::{Code, Error};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// A model file to be spoilt: metadata and tensors by name.
struct Model {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, DType, Vec<usize>)>,
}

impl Model {
    /// A llama with 32 channels, one layer and eight tokens.
    fn llama() -> Model {
        let mut model = Model { metadata: Vec::new(), tensors: Vec::new() };
        let uint = |v: u64| Value::U64(v);
        model.put("general.architecture", Value::Str(b"llama".to_vec()));
        for (key, value) in [
            ("embedding_length", 32),
            ("block_count", 1),
            ("feed_forward_length", 64),
            ("context_length", 64),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", 16),
        ] {
            model.put(&format!("llama.{key}"), uint(value));
        }
        model.put("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        model.put("tokenizer.ggml.model", Value::Str(b"llama".to_vec()));
        let tokens = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "\u{2581}a", "ab"];
        model.put("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens.iter().collect())));
        let scores = (0..8).map(|i| -(i as f32)).collect();
        model.put("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
        let types = vec![2, 3, 3, 1, 1, 1, 1, 1];
        model.put("tokenizer.ggml.token_type", Value::Array(Array::I64(types)));
        for (name, shape) in [
            ("token_embd.weight", vec![8, 32]),
            ("output_norm.weight", vec![32]),
            ("blk.0.attn_norm.weight", vec![32]),
            ("blk.0.attn_q.weight", vec![32, 32]),
            ("blk.0.attn_k.weight", vec![16, 32]),
            ("blk.0.attn_v.weight", vec![16, 32]),
            ("blk.0.attn_output.weight", vec![32, 32]),
            ("blk.0.ffn_norm.weight", vec![32]),
            ("blk.0.ffn_gate.weight", vec![64, 32]),
            ("blk.0.ffn_up.weight", vec![64, 32]),
            ("blk.0.ffn_down.weight", vec![32, 64]),
        ] {
            let dtype = if shape.len() == 2 { DType::Q4_0 } else { DType::F32 };
            model.tensors.push((name.into(), dtype, shape));
        }
        model
    }

    fn put(&mut self, key: &str, value: Value) {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value));
    }

    fn with(mut self, key: &str, value: Value) -> Model {
        self.put(key, value);
        self
    }

    fn without(mut self, name: &str) -> Model {
        self.metadata.retain(|(k, _)| k != name);
        self.tensors.retain(|(n, _, _)| n != name);
        self
    }

    fn tensor(mut self, name: &str, dtype: DType, shape: &[usize]) -> Model {
        self.tensors.retain(|(n, _, _)| n != name);
        self.tensors.push((name.into(), dtype, shape.to_vec()));
        self
    }

    /// The file; weights come from a formula.
    fn bytes(&self) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        for (key, value) in &self.metadata {
            writer.put(key, value.clone());
        }
        let mut data = Vec::new();
        for (name, dtype, shape) in &self.tensors {
            writer.tensor(name, *dtype, shape).unwrap();
            data.push(weights(*dtype, shape.iter().product()));
        }
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        writer.to_bytes(&data).unwrap()
    }
}

fn weights(dtype: DType, n: usize) -> Vec<u8> {
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 - 0.5).collect();
    let format = dtype.format().unwrap();
    let mut bytes = vec![0; n / format.block_len * format.block_bytes];
    if let Some(quantize) = format.codec.and_then(|c| c.quantize) {
        quantize(&values, &mut bytes);
    }
    bytes
}

/// Loads, and where that succeeds writes two tokens.
fn run(bytes: &[u8], options: LoadOptions) -> Result<(), Error> {
    let mut loader = Loader::new(options, None)?;
    loader.push(bytes)?;
    match loader.finish()? {
        Loaded::Text(mut model) => {
            let mut options = GenerateOptions { max_tokens: 2, ignore_eos: true, ..Default::default() };
            options.sampler.temperature = 0.0;
            let mut generation = model.start(vec![1, 4], options)?;
            while !matches!(model.step(&mut generation)?, Step::Done { .. }) {}
        }
        Loaded::Encoder(mut model) => {
            model.embed_tokens(&[1, 4], &EmbedOptions::default())?;
        }
        Loaded::Vision(mut model) => {
            let size = model.info().image_size;
            model.logits(&vec![0.5; 3 * size * size], &[3, size, size])?;
        }
    }
    Ok(())
}

struct Case {
    id: &'static str,
    what: &'static str,
    model: Model,
    code: Option<Code>,
    /// What the printed error must name.
    names: &'static str,
}

fn bad(id: &'static str, what: &'static str, model: Model, code: Code, names: &'static str) -> Case {
    Case { id, what, model, code: Some(code), names }
}

fn good(id: &'static str, what: &'static str, model: Model) -> Case {
    Case { id, what, model, code: None, names: "" }
}

fn cases() -> Vec<Case> {
    use Code::*;
    let llama = Model::llama;
    let text = |s: &str| Value::Str(s.as_bytes().to_vec());
    let config = |key: &'static str, value: Value, what: &'static str| {
        let model = llama().with(&format!("llama.{key}"), value);
        bad("G27", what, model, BadConfig, key)
    };
    vec![
        good("G29", "tied embedding", llama()),
        good("G29", "output matrix of its own", llama().tensor("output.weight", DType::Q8_0, &[8, 32])),
        bad(
            "G18",
            "a type without codec",
            llama().tensor("blk.0.attn_q.weight", DType::Q8_1, &[32, 32]),
            UnsupportedQuant,
            "blk.0.attn_q.weight",
        ),
        bad(
            "G26",
            "no architecture",
            llama().without("general.architecture"),
            UnsupportedArch,
            "general.architecture",
        ),
        bad(
            "G26",
            "unknown architecture",
            llama().with("general.architecture", text("mamba9")),
            UnsupportedArch,
            "mamba9",
        ),
        bad(
            "G26",
            "architecture of 64 KiB",
            llama().with("general.architecture", text(&"x".repeat(65536))),
            UnsupportedArch,
            "xxxx",
        ),
        bad(
            "G26",
            "architecture as a number",
            llama().with("general.architecture", Value::U64(3)),
            UnsupportedArch,
            "general.architecture",
        ),
        config("block_count", Value::U64(0), "no layers"),
        config("block_count", Value::I64(-1), "negative layers"),
        config("block_count", Value::U64(1_000_000_000), "a thousand million layers"),
        config("block_count", Value::F32(1.0), "layers as a float"),
        config("block_count", text("1"), "layers as a string"),
        config("attention.head_count", Value::U64(0), "no heads"),
        config("attention.head_count", Value::U64(3), "heads that do not divide the width"),
        config("attention.head_count_kv", Value::U64(4), "more key heads than heads"),
        config("attention.head_count_kv", Value::U64(0), "no key heads"),
        config("rope.dimension_count", Value::U64(15), "odd rotation"),
        config("rope.dimension_count", Value::U64(18), "rotation beyond the head"),
        config("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), "epsilon NaN"),
        config("attention.layer_norm_rms_epsilon", Value::F32(0.0), "epsilon 0"),
        config("attention.layer_norm_rms_epsilon", Value::F32(-1.0), "negative epsilon"),
        config("rope.freq_base", Value::F32(f32::INFINITY), "infinite rotation base"),
        config("rope.scaling.type", text("magic"), "unknown scaling"),
        config("context_length", Value::U64(0), "no context"),
        config("context_length", Value::U64(1 << 40), "a context of 2^40"),
        config("embedding_length", Value::U64(1 << 40), "a width of 2^40"),
        config("expert_count", Value::U64(1 << 40), "2^40 experts"),
        bad(
            "G27",
            "a missing key",
            llama().without("llama.feed_forward_length"),
            BadConfig,
            "feed_forward_length",
        ),
        bad(
            "G27",
            "two layers declared, one there",
            llama().with("llama.block_count", Value::U64(2)),
            MissingTensor,
            "blk.1.",
        ),
        bad(
            "G28",
            "a missing weight",
            llama().without("blk.0.ffn_up.weight"),
            MissingTensor,
            "blk.0.ffn_up.weight",
        ),
        bad(
            "G28",
            "a missing norm",
            llama().without("output_norm.weight"),
            MissingTensor,
            "output_norm.weight",
        ),
        bad(
            "G28",
            "a missing embedding",
            llama().without("token_embd.weight"),
            MissingTensor,
            "token_embd.weight",
        ),
        bad(
            "G28",
            "a transposed weight",
            llama().tensor("blk.0.ffn_up.weight", DType::Q4_0, &[32, 64]),
            ShapeMismatch,
            "blk.0.ffn_up.weight",
        ),
        bad(
            "G28",
            "a matrix as a norm",
            llama().tensor("output_norm.weight", DType::F32, &[32, 1]),
            ShapeMismatch,
            "output_norm.weight",
        ),
        bad(
            "G28",
            "a bias of another length",
            llama().tensor("blk.0.attn_q.bias", DType::F32, &[31]),
            ShapeMismatch,
            "blk.0.attn_q.bias",
        ),
        bad(
            "G17",
            "an empty weight",
            llama().tensor("blk.0.ffn_up.weight", DType::Q4_0, &[0, 32]),
            ShapeMismatch,
            "blk.0.ffn_up.weight",
        ),
        good("G28", "a tensor that nobody needs", llama().tensor("extra.weight", DType::F32, &[3, 5])),
        good("G28", "an index buffer", llama().tensor("extra.position_ids", DType::I32, &[7])),
        good("G28", "a bias", llama().tensor("blk.0.attn_q.bias", DType::F32, &[32])),
        good(
            "G28",
            "another type for one weight",
            llama().tensor("blk.0.attn_q.weight", DType::F16, &[32, 32]),
        ),
        bad(
            "T01",
            "more tokens than rows",
            llama().tensor("token_embd.weight", DType::Q4_0, &[7, 32]),
            TokenizerInvalid,
            "tokenizer.ggml.tokens",
        ),
        bad(
            "T01",
            "no tokens",
            llama().without("tokenizer.ggml.tokens"),
            TokenizerInvalid,
            "tokenizer.ggml.tokens",
        ),
    ]
}

#[test]
fn sound_containers_with_unsound_models() {
    let mut failures = Vec::new();
    let cases = cases();
    for case in &cases {
        let result = run(&case.model.bytes(), LoadOptions::default());
        let ok = match (&result, case.code) {
            (Ok(()), None) => true,
            (Err(e), Some(code)) => e.code == code && e.to_string().contains(case.names),
            _ => false,
        };
        if !ok {
            failures.push(format!("{} {}: {result:?}, expected {:?}", case.id, case.what, case.code));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

#[test]
fn weights_that_are_not_numbers() {
    // S13: quantizing names the weight; without quantizing the fault shows when it computes.
    let mut model = Model::llama().tensor("blk.0.ffn_up.weight", DType::F32, &[64, 32]).bytes();
    let end = model.len();
    model[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let quantize = LoadOptions { quantize: Some("Q4_0".into()), ..LoadOptions::default() };
    let error = run(&model, quantize).unwrap_err();
    assert_eq!(error.code, Code::NonFiniteWeight);
    assert!(error.to_string().contains("blk.0.ffn_up.weight"), "{error}");
    assert_eq!(run(&model, LoadOptions::default()).unwrap_err().code, Code::NumericFault);
}

#[test]
fn options_outside_their_domain() {
    let bytes = Model::llama().bytes();
    let with = |f: &dyn Fn(&mut LoadOptions)| {
        let mut options = LoadOptions::default();
        f(&mut options);
        run(&bytes, options).unwrap_err()
    };
    for (key, error) in [
        ("contextLength", with(&|o| o.context_length = Some(0))),
        ("contextLength", with(&|o| o.context_length = Some(65))),
        ("contextLength", with(&|o| o.context_length = Some(1 << 31))),
        ("kvType", with(&|o| o.kv_type = Some("Q3".into()))),
        ("quantize", with(&|o| o.quantize = Some("Q8_1".into()))),
        ("quantize", with(&|o| o.quantize = Some("four bits".into()))),
    ] {
        assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some(key)), "{error}");
    }
}

/// Every prefix and every bit of the header, and a sample of the data: success or a typed
/// error, never a panic.
#[test]
fn cut_and_flipped_models() {
    let bytes = Model::llama().bytes();
    for n in (0..bytes.len()).step_by(37).chain(bytes.len() - 40..bytes.len()) {
        let error = run(&bytes[..n], LoadOptions::default()).unwrap_err();
        assert!(matches!(error.code, Code::Truncated | Code::BadMagic), "cut at {n}: {error}");
    }
    let header = bitpane::container::gguf::parse(&bytes, Some(bytes.len() as u64)).unwrap().unwrap();
    let data_at = header.data_offset as usize;
    // Whole models take a sample; the container tests flip every bit.
    let step = if cfg!(target_arch = "wasm32") { 31 } else { 3 };
    let (mut ok, mut refused) = (0, 0);
    for at in (0..data_at).step_by(step).chain((data_at..bytes.len()).step_by(11 * step)) {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            match run(&bytes, LoadOptions::default()) {
                Ok(()) => ok += 1,
                Err(_) => refused += 1,
            }
        }
    }
    println!("{ok} flips load and run, {refused} are refused");
    assert!(ok > 0 && refused > 2000 / step);
}
