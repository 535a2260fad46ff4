//! Whole models of a few kilobytes, valid until a case changes one thing: what the loader has
//! to refuse after the container has accepted the file.

use bitpane::Code;

use super::gguf::{self, BOOL, F32, I32, Q8_0, STRING, U32, U64, kv, kv_array, string};
use super::{Case, bad, good, safetensors};

const FLOAT: u32 = 6;

/// A GGUF file to be: metadata entries and tensors by name.
#[derive(Clone)]
pub struct Model {
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    /// Outermost first.
    shape: Vec<u64>,
    tensor_type: u32,
    data: Vec<u8>,
}

/// Small numbers around 0 as F32, the same for the same length.
fn numbers(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 400.0).to_le_bytes()).collect()
}

fn bytes_of(shape: &[u64], tensor_type: u32) -> Vec<u8> {
    let n = shape.iter().product::<u64>() as usize;
    match tensor_type {
        F32 => numbers(n),
        Q8_0 => [&[0x00, 0x20][..], &[3; 32]].concat().repeat(n / 32),
        _ => vec![0; 64 * n],
    }
}

impl Model {
    /// A `llama` of one layer: n_embd 32, 4 heads, 2 key and value heads, n_ff 64, 12 tokens.
    pub fn llama() -> Model {
        let pieces = ["<unk>", "<s>", "</s>", "<0x41>", "\u{2581}", "a", "b", "c", "d", "ab", "cd", "e"];
        let pieces: Vec<u8> = pieces.iter().flat_map(|p| string(p.as_bytes())).collect();
        let scores: Vec<u8> = (0..12).flat_map(|i| (-(i as f32)).to_le_bytes()).collect();
        let types: Vec<u8> =
            [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1].iter().flat_map(|t: &i32| t.to_le_bytes()).collect();
        let mut model = Model { entries: Vec::new(), tensors: Vec::new() }
            .set("general.architecture", STRING, &string(b"llama"))
            .set("llama.attention.layer_norm_rms_epsilon", FLOAT, &1e-5f32.to_le_bytes())
            .set_entry("tokenizer.ggml.tokens", kv_array("tokenizer.ggml.tokens", STRING, 12, &pieces))
            .set_entry("tokenizer.ggml.scores", kv_array("tokenizer.ggml.scores", FLOAT, 12, &scores))
            .set_entry("tokenizer.ggml.token_type", kv_array("tokenizer.ggml.token_type", I32, 12, &types))
            .set("tokenizer.ggml.model", STRING, &string(b"llama"));
        for (key, value) in [
            ("llama.context_length", 64u32),
            ("llama.embedding_length", 32),
            ("llama.block_count", 1),
            ("llama.feed_forward_length", 64),
            ("llama.attention.head_count", 4),
            ("llama.attention.head_count_kv", 2),
            ("llama.rope.dimension_count", 8),
            ("tokenizer.ggml.bos_token_id", 1),
            ("tokenizer.ggml.eos_token_id", 2),
            ("tokenizer.ggml.unknown_token_id", 0),
        ] {
            model = model.uint(key, value);
        }
        for (name, shape) in [
            ("token_embd.weight", &[12u64, 32][..]),
            ("blk.0.attn_norm.weight", &[32]),
            ("blk.0.attn_q.weight", &[32, 32]),
            ("blk.0.attn_k.weight", &[16, 32]),
            ("blk.0.attn_v.weight", &[16, 32]),
            ("blk.0.attn_output.weight", &[32, 32]),
            ("blk.0.ffn_norm.weight", &[32]),
            ("blk.0.ffn_gate.weight", &[64, 32]),
            ("blk.0.ffn_up.weight", &[64, 32]),
            ("blk.0.ffn_down.weight", &[32, 64]),
            ("output_norm.weight", &[32]),
        ] {
            model = model.tensor(name, shape, F32);
        }
        model
    }

    /// A `vit` of one layer: n_embd 64, one head, 2 x 2 patches of 4 x 4, 3 classes.
    pub fn vit() -> Model {
        let mut model = Model { entries: Vec::new(), tensors: Vec::new() }.set(
            "general.architecture",
            STRING,
            &string(b"vit"),
        );
        for (name, shape) in [
            ("cls_token", &[1u64, 1, 64][..]),
            ("pos_embed", &[1, 5, 64]),
            ("patch_embed.proj.weight", &[64, 3, 4, 4]),
            ("patch_embed.proj.bias", &[64]),
            ("blocks.0.norm1.weight", &[64]),
            ("blocks.0.norm1.bias", &[64]),
            ("blocks.0.attn.qkv.weight", &[192, 64]),
            ("blocks.0.attn.qkv.bias", &[192]),
            ("blocks.0.attn.proj.weight", &[64, 64]),
            ("blocks.0.attn.proj.bias", &[64]),
            ("blocks.0.norm2.weight", &[64]),
            ("blocks.0.norm2.bias", &[64]),
            ("blocks.0.mlp.fc1.weight", &[128, 64]),
            ("blocks.0.mlp.fc1.bias", &[128]),
            ("blocks.0.mlp.fc2.weight", &[64, 128]),
            ("blocks.0.mlp.fc2.bias", &[64]),
            ("norm.weight", &[64]),
            ("norm.bias", &[64]),
            ("head.weight", &[3, 64]),
            ("head.bias", &[3]),
        ] {
            model = model.tensor(name, shape, F32);
        }
        model
    }

    /// Sets or replaces a metadata entry.
    pub fn set(self, key: &str, value_type: u32, value: &[u8]) -> Model {
        self.set_entry(key, kv(key, value_type, value))
    }

    fn set_entry(mut self, key: &str, entry: Vec<u8>) -> Model {
        self.entries.retain(|(k, _)| k != key);
        self.entries.push((key.to_string(), entry));
        self
    }

    fn uint(self, key: &str, value: u32) -> Model {
        self.set(key, U32, &value.to_le_bytes())
    }

    fn unset(mut self, key: &str) -> Model {
        let before = self.entries.len();
        self.entries.retain(|(k, _)| k != key);
        assert!(self.entries.len() < before, "{key}");
        self
    }

    /// Sets or replaces a tensor.
    pub fn tensor(mut self, name: &str, shape: &[u64], tensor_type: u32) -> Model {
        let data = bytes_of(shape, tensor_type);
        let tensor = Tensor { name: name.to_string(), shape: shape.to_vec(), tensor_type, data };
        match self.tensors.iter_mut().find(|t| t.name == name) {
            Some(old) => *old = tensor,
            None => self.tensors.push(tensor),
        }
        self
    }

    fn without(mut self, name: &str) -> Model {
        let before = self.tensors.len();
        self.tensors.retain(|t| t.name != name);
        assert!(self.tensors.len() < before, "{name}");
        self
    }

    /// Puts one F32 value into a tensor's data.
    pub fn value(mut self, name: &str, i: usize, value: f32) -> Model {
        let tensor = self.tensors.iter_mut().find(|t| t.name == name).expect("a tensor of that name");
        tensor.data[4 * i..4 * i + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// In `n` files, as gguf-split makes them: all metadata in the first.
    pub fn split(&self, n: usize) -> Vec<Model> {
        let per_file = self.tensors.len().div_ceil(n);
        let n_tensors = (self.tensors.len() as i32).to_le_bytes();
        let part = |i: usize, tensors: &[Tensor]| {
            let entries = if i == 0 { self.entries.clone() } else { Vec::new() };
            Model { entries, tensors: tensors.to_vec() }
                .set("split.no", gguf::U16, &(i as u16).to_le_bytes())
                .set("split.count", gguf::U16, &(n as u16).to_le_bytes())
                .set("split.tensors.count", I32, &n_tensors)
        };
        self.tensors.chunks(per_file).enumerate().map(|(i, tensors)| part(i, tensors)).collect()
    }

    /// Some of the tensors, in a file of its own.
    pub fn part(&self, tensors: std::ops::Range<usize>) -> Model {
        Model { entries: self.entries.clone(), tensors: self.tensors[tensors].to_vec() }
    }

    /// Names of its tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|t| t.name.clone()).collect()
    }

    /// The GGUF file.
    pub fn gguf(&self) -> Vec<u8> {
        let entries: Vec<Vec<u8>> = self.entries.iter().map(|(_, e)| e.clone()).collect();
        let mut data = Vec::new();
        let mut heads = Vec::new();
        for t in &self.tensors {
            let dims: Vec<u64> = t.shape.iter().rev().copied().collect();
            heads.push(gguf::tensor(&t.name, &dims, t.tensor_type, data.len() as u64));
            let n = gguf_bytes(t);
            data.extend(&t.data[..n]);
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let mut file = gguf::file(&entries, &heads, 0);
        file.extend(data);
        file
    }

    /// The same tensors as safetensors; `dtype` names the type of each.
    pub fn safetensors(&self, dtype: impl Fn(&str) -> (&'static str, usize)) -> Vec<u8> {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for t in &self.tensors {
            let (name, bytes) = dtype(&t.name);
            let begin = data.len();
            let n = t.shape.iter().product::<u64>() as usize * bytes;
            data.extend((0..n).map(|i| t.data.get(i).copied().unwrap_or(0)));
            entries.push(format!(
                r#""{}":{{"dtype":"{name}","shape":{:?},"data_offsets":[{begin},{}]}}"#,
                t.name,
                t.shape,
                data.len()
            ));
        }
        let mut file = safetensors::file(format!("{{{}}}", entries.join(",")), 0);
        file.extend(data);
        file
    }
}

/// Bytes of a tensor as its type lays them out.
fn gguf_bytes(t: &Tensor) -> usize {
    let n = t.shape.iter().product::<u64>();
    bitpane::quant::DType(t.tensor_type).bytes_for(n).expect("whole blocks") as usize
}

/// Rows of groups G and S that the model layer decides.
pub fn cases() -> Vec<Case> {
    [architectures(), numbers_in_metadata(), llama_tensors(), vit_tensors(), dtypes()]
        .into_iter()
        .flatten()
        .collect()
}

fn architectures() -> Vec<Case> {
    const KEY: &str = "general.architecture";
    let with = |value: &[u8]| Model::llama().set(KEY, STRING, &string(value)).gguf();
    let split = |value_type, value: &[u8]| Model::llama().set("split.count", value_type, value).gguf();
    vec![
        good("G25", "the only shard", split(U32, &[1, 0, 0, 0])),
        bad("G25", "one shard of three", split(U32, &[3, 0, 0, 0]), Code::ShardMismatch).says("split.count"),
        bad("G25", "split.count -1", split(I32, &[0xff; 4]), Code::ShardMismatch).says("split.count"),
        bad("G25", "split.count is a string", split(STRING, &string(b"3")), Code::ShardMismatch)
            .says("split.count"),
        good("G29", "a llama whose embedding is its output", Model::llama().gguf()),
        good(
            "G29",
            "a llama with an output matrix",
            Model::llama().tensor("output.weight", &[12, 32], F32).gguf(),
        ),
        good("G29", "a vit", Model::vit().gguf()),
        bad("G26", "no architecture", Model::llama().unset(KEY).gguf(), Code::UnsupportedArch).says(KEY),
        bad("G26", "unknown architecture", with(b"mamba9"), Code::UnsupportedArch).says("mamba9"),
        bad("G26", "empty architecture", with(b""), Code::UnsupportedArch),
        bad("G26", "architecture of 64 KiB", with(&[b'a'; 65_536]), Code::UnsupportedArch),
        bad("G26", "architecture not UTF-8", with(b"\xff\xfe"), Code::UnsupportedArch),
        bad("G26", "architecture is a number", Model::llama().uint(KEY, 1).gguf(), Code::UnsupportedArch),
        bad("G26", "no tensors of a known model", safetensors::tiny(), Code::UnsupportedArch)
            .says("tensor names")
            .says("tensor names"),
    ]
}

fn numbers_in_metadata() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut row = |key: &'static str, what: &str, value_type, value: &[u8]| {
        let key_full = format!("llama.{key}");
        let bytes = Model::llama().set(&key_full, value_type, value).gguf();
        cases.push(bad("G27", format!("{key} {what}"), bytes, Code::BadConfig).says(key));
    };
    for key in [
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "context_length",
        "attention.head_count",
        "attention.head_count_kv",
        "rope.dimension_count",
    ] {
        row(key, "0", U32, &[0; 4]);
        row(key, "-1", I32, &[0xff; 4]);
        row(key, "10^9", U32, &1_000_000_000u32.to_le_bytes());
        row(key, "2^40", U64, &(1u64 << 40).to_le_bytes());
        row(key, "2^64-1", U64, &[0xff; 8]);
        row(key, "a float", FLOAT, &1f32.to_le_bytes());
        row(key, "a string", STRING, &string(b"1"));
        row(key, "a bool", BOOL, &[1]);
    }
    row("attention.head_count", "not dividing the width", U32, &[5, 0, 0, 0]);
    row("attention.head_count_kv", "above the heads", U32, &[8, 0, 0, 0]);
    row("attention.head_count_kv", "not dividing the heads", U32, &[3, 0, 0, 0]);
    row("rope.dimension_count", "odd", U32, &[7, 0, 0, 0]);
    row("rope.dimension_count", "above the head", U32, &[16, 0, 0, 0]);
    for (what, value) in [
        ("NaN", f32::NAN),
        ("0", 0.0),
        ("-1", -1.0),
        ("infinite", f32::INFINITY),
        ("-infinite", f32::NEG_INFINITY),
    ] {
        row("attention.layer_norm_rms_epsilon", what, FLOAT, &value.to_le_bytes());
        row("rope.freq_base", what, FLOAT, &value.to_le_bytes());
    }
    row("rope.scaling.type", "unknown", STRING, &string(b"sideways"));
    row("rope.scaling.type", "a number", U32, &[1, 0, 0, 0]);
    for key in
        ["block_count", "embedding_length", "feed_forward_length", "context_length", "attention.head_count"]
    {
        let bytes = Model::llama().unset(&format!("llama.{key}")).gguf();
        cases.push(bad("G27", format!("{key} missing"), bytes, Code::BadConfig).says(key));
    }
    cases
}

fn llama_tensors() -> Vec<Case> {
    let llama = Model::llama();
    let mut cases = vec![
        good("G28", "an unknown tensor more", llama.clone().tensor("extra.weight", &[4, 32], F32).gguf()),
        good("G28", "Q8_0 matrices", {
            let q8 = |m: Model, name: &str, n| m.tensor(name, &[n, 32], Q8_0);
            q8(q8(llama.clone(), "token_embd.weight", 12), "blk.0.attn_q.weight", 32).gguf()
        }),
    ];
    for (name, shape) in [
        ("token_embd.weight", &[12u64, 32][..]),
        ("blk.0.attn_norm.weight", &[32]),
        ("blk.0.attn_q.weight", &[32, 32]),
        ("blk.0.attn_v.weight", &[16, 32]),
        ("blk.0.ffn_down.weight", &[32, 64]),
        ("output_norm.weight", &[32]),
    ] {
        let bytes = llama.clone().without(name).gguf();
        cases.push(bad("G28", format!("{name} missing"), bytes, Code::MissingTensor).says(name));
        let mut wrong: Vec<Vec<u64>> =
            vec![vec![], vec![0], vec![33], vec![8, 8, 8, 8], vec![1, 1], vec![0, 32], vec![32, 0]];
        if let [n, k] = *shape {
            wrong.push(vec![n * k]);
            wrong.push(vec![n + 1, k]);
            wrong.push(vec![1, n, k]);
            if n != k {
                wrong.push(vec![k, n]);
            }
        }
        for shape in wrong {
            // One more or fewer row of the embedding is another vocabulary, told by the tokenizer.
            if name == "token_embd.weight" && shape == [13, 32] {
                continue;
            }
            let bytes = llama.clone().tensor(name, &shape, F32).gguf();
            cases.push(bad("G28", format!("{name} {shape:?}"), bytes, Code::ShapeMismatch).says(name));
        }
    }
    for n in [0, 11, 32] {
        let bytes = llama.clone().tensor("output.weight", &[n, 32], F32).gguf();
        cases.push(
            bad("G28", format!("output.weight of {n} rows"), bytes, Code::ShapeMismatch)
                .says("output.weight"),
        );
        let bytes = llama.clone().tensor("blk.0.attn_q.bias", &[n + 1], F32).gguf();
        if n + 1 != 32 {
            cases.push(
                bad("G28", format!("bias of {}", n + 1), bytes, Code::ShapeMismatch).says("attn_q.bias"),
            );
        }
    }
    for (layers, missing) in [(2, "blk.1."), (1024, "blk.1.")] {
        let bytes = llama.clone().uint("llama.block_count", layers).gguf();
        cases.push(
            bad("G28", format!("{layers} layers declared, one there"), bytes, Code::MissingTensor)
                .says(missing),
        );
    }
    let bytes = llama.clone().uint("llama.attention.key_length", 1 << 12).gguf();
    cases.push(bad("G28", "heads of 2^12", bytes, Code::ShapeMismatch).says("attn_q"));
    // 4 heads of 2^24 elements are wider than any model.
    let bytes = llama.clone().uint("llama.attention.key_length", 1 << 24).gguf();
    cases.push(bad("G28", "heads of 2^24", bytes, Code::BadConfig).says("key_length"));
    // 2^24 heads of 2^24 elements: the product is beyond 32 bits.
    let bytes =
        llama.uint("llama.attention.head_count", 1 << 24).uint("llama.attention.key_length", 1 << 24).gguf();
    cases.push(bad("G27", "2^24 heads of 2^24", bytes, Code::BadConfig));
    cases
}

fn vit_tensors() -> Vec<Case> {
    let vit = Model::vit();
    let mut cases = Vec::new();
    for name in
        ["cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight"]
    {
        let bytes = vit.clone().without(name).gguf();
        cases.push(
            bad("G28", format!("vit: {name} missing"), bytes, Code::MissingTensor)
                .says(name.strip_suffix(".qkv.weight").unwrap_or(name)),
        );
        for shape in [&[][..], &[0], &[7], &[1, 1], &[0, 64], &[64, 0], &[2, 3, 5, 7]] {
            let bytes = vit.clone().tensor(name, shape, F32).gguf();
            cases.push(bad("G28", format!("vit: {name} {shape:?}"), bytes, Code::ShapeMismatch));
        }
    }
    for shape in [&[0u64, 3, 4, 4][..], &[0, 48], &[64, 3, 4, 5]] {
        let bytes = vit.clone().tensor("patch_embed.proj.weight", shape, F32).gguf();
        cases.push(
            bad("G28", format!("vit: patches {shape:?}"), bytes, Code::ShapeMismatch).says("patch_embed"),
        );
    }
    cases
}

fn dtypes() -> Vec<Case> {
    let f32 = |_: &str| ("F32", 4);
    let head_as = |name: &'static str, n: usize| {
        Model::vit().safetensors(move |t| if t == "head.weight" { (name, n) } else { ("F32", 4) })
    };
    let extra = |name: &'static str, n: usize| {
        let model = Model::vit().tensor("extra", &[4], F32);
        model.safetensors(move |t| if t == "extra" { (name, n) } else { ("F32", 4) })
    };
    let mut cases = vec![good("S09", "a vit", Model::vit().safetensors(f32))];
    for (name, n) in [
        ("BOOL", 1),
        ("U8", 1),
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
        ("I64", 8),
        ("I32", 4),
        ("U16", 2),
        ("F64", 8),
    ] {
        cases.push(
            bad("S09", format!("weight of {name}"), head_as(name, n), Code::UnsupportedDtype).says(name),
        );
        cases.push(good("S09", format!("an unused tensor of {name}"), extra(name, n)));
    }
    // Q8_1 is for activations: no file has weights of it.
    let q8_1 = Model::llama().tensor("blk.0.ffn_down.weight", &[32, 64], 9).gguf();
    cases.push(bad("G18", "weights of Q8_1", q8_1, Code::UnsupportedQuant).says("ffn_down"));
    cases
}
