//! A small vocabulary, and a model of random weights that has it.

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::{Array, Metadata, Value};
use bitpane::quant::DType;
use bitpane::tasks::{LoadOptions, Loaded, Loader, TextModel};
use bitpane::tokenizer::Tokenizer;

/// The tokens that steer the models whose templates are tested.
pub const CONTROLS: [&str; 34] = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "<|START_OF_TURN_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|SYSTEM_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<\u{ff5c}User\u{ff5c}>",
    "<\u{ff5c}Assistant\u{ff5c}>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<|recipient|>",
    "<|content|>",
];

/// Metadata of a SentencePiece vocabulary: `controls`, all bytes, and pieces of words.
pub fn metadata(controls: &[&str], template: Option<&str>) -> Vec<(String, Value)> {
    let mut texts: Vec<String> = vec!["<unk>".into()];
    let mut types = vec![2];
    for control in controls {
        texts.push(control.to_string());
        types.push(3);
    }
    for byte in 0..=255u8 {
        texts.push(format!("<0x{byte:02X}>"));
        types.push(6);
    }
    for piece in PIECES {
        texts.push(piece.to_string());
        types.push(1);
    }
    let scores = (0..texts.len()).map(|i| -(i as f32)).collect();
    let text = |text: &str| Value::Str(text.as_bytes().to_vec());
    let id = |token: &str| controls.iter().position(|c| *c == token).map(|i| Value::U64(i as u64 + 1));
    let mut entries = vec![
        ("tokenizer.ggml.model".to_string(), text("llama")),
        ("tokenizer.ggml.tokens".into(), Value::Array(Array::Str(texts.iter().collect()))),
        ("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores))),
        ("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types))),
        ("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false)),
    ];
    entries.extend(id("<s>").map(|id| ("tokenizer.ggml.bos_token_id".into(), id)));
    entries.extend(id("</s>").map(|id| ("tokenizer.ggml.eos_token_id".into(), id)));
    entries.extend(template.map(|source| ("tokenizer.chat_template".into(), text(source))));
    entries
}

/// Letters and pairs of them: a text has many ways to be cut into these.
const PIECES: [&str; 40] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "k", "l", "m", "n", "o", "p", "r", "s", "t", "u", "v",
    "\u{2581}", "he", "th", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of",
    "ed", "is", "it", "al",
];

pub fn tokenizer(controls: &[&str]) -> Tokenizer {
    let mut meta = Metadata::default();
    metadata(controls, None).into_iter().for_each(|(key, value)| meta.push(key, value));
    Tokenizer::from_gguf(&meta).unwrap()
}

/// A llama of 32 channels with one layer. Its weights are random, but it never writes a byte or control token.
pub fn model(template: Option<&str>, n_ctx: usize) -> TextModel {
    let controls = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"];
    let n_vocab = 1 + controls.len() + 256 + PIECES.len();
    let mut writer = GgufWriter::new();
    writer.put("general.architecture", Value::Str(b"llama".to_vec()));
    for (key, value) in [
        ("embedding_length", 32),
        ("block_count", 1),
        ("feed_forward_length", 64),
        ("context_length", n_ctx as u64),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", 16),
    ] {
        writer.put(&format!("llama.{key}"), Value::U64(value));
    }
    writer.put("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
    for (key, value) in metadata(&controls, template) {
        writer.put(&key, value);
    }
    let mut data = Vec::new();
    for (name, shape) in [
        ("token_embd.weight", vec![n_vocab, 32]),
        ("output.weight", vec![n_vocab, 32]),
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
        writer.tensor(name, DType::F32, &shape).unwrap();
        let n: usize = shape.iter().product();
        let mut values: Vec<f32> = (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 1009.0 - 0.5).collect();
        if name == "output_norm.weight" || name.ends_with("norm.weight") {
            values.fill(1.0);
        }
        // Rows of zeros have the logit 0; with top-k those that count are among the pieces.
        if name == "output.weight" {
            values[..(n_vocab - PIECES.len()) * 32].fill(0.0);
            values.iter_mut().for_each(|v| *v *= 4.0);
        }
        data.push(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    }
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut loader =
        Loader::new(LoadOptions { context_length: Some(n_ctx), ..Default::default() }, None).unwrap();
    loader.push(&writer.to_bytes(&data).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("not a language model"),
    }
}
