//! Many added tokens: row T05 of the fault catalogue.

use super::{PER_MEGABYTE_MS, now_ms};
use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::Tokenizer;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn with_added(texts: &[String]) -> Tokenizer {
    let mut array = StrArray::default();
    let base = ["<unk>", "<s>", "</s>", "a", "b"];
    base.iter().for_each(|text| array.push(text.as_bytes()));
    texts.iter().for_each(|text| array.push(text.as_bytes()));
    let mut types = vec![2, 3, 3, 1, 1];
    types.resize(array.len(), 4);
    let mut meta = Metadata::default();
    meta.push("tokenizer.ggml.model".into(), Value::Str(b"llama".to_vec()));
    meta.push("tokenizer.ggml.tokens".into(), Value::Array(Array::Str(array)));
    meta.push("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types)));
    meta.push("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
    Tokenizer::from_gguf(&meta).unwrap()
}

#[test]
fn t05_many_added_tokens_take_linear_time() {
    let texts: Vec<String> = (0..100_000).map(|i| format!("<|added_{i}|>")).collect();
    let start = now_ms();
    let tokenizer = with_added(&texts);
    let text = format!("{}<|added_4711|>{}", "a".repeat(500_000), "<|added_".repeat(60_000));
    let ids = tokenizer.encode(&text, false, false).unwrap();
    let took = now_ms() - start;
    println!("100000 added tokens, {} bytes: {took:.0} ms", text.len());
    assert!(ids.contains(&(5 + 4711)));
    assert!(took < 3.0 * PER_MEGABYTE_MS, "{took:.0} ms");
}

#[test]
fn t05_added_tokens_that_contain_each_other_take_linear_time() {
    let texts: Vec<String> = (2..1_000).map(|n| "a".repeat(n)).collect();
    let tokenizer = with_added(&texts);
    let start = now_ms();
    let ids = tokenizer.encode(&"a".repeat(1_000_001), false, false).unwrap();
    let took = now_ms() - start;
    println!("nested added tokens, 1 MB: {took:.0} ms");
    // 1,001 times the longest, 999 letters, then what is left: one of 2 letters.
    let longest = 5 + 997;
    let mut expected = vec![longest; 1_001];
    expected.push(5);
    assert_eq!(ids, expected);
    assert!(took < 3.0 * PER_MEGABYTE_MS, "{took:.0} ms");
}

#[test]
fn longer_added_tokens_go_first_wherever_they_are() {
    let added = ["ab", "bcd", "abc!", "dd"].map(String::from);
    let tokenizer = with_added(&added);
    let [ab, bcd, abc, dd] = [5, 6, 7, 8];
    let (a, b, unk) = (3, 4, 0);
    for (text, expected) in [
        ("abcd", vec![a, bcd]),
        ("abc", vec![ab, unk]),
        ("abc!", vec![abc]),
        ("abcdabc!", vec![a, bcd, abc]),
        ("bcdd", vec![bcd, unk]),
        ("ddd", vec![dd, unk]),
        ("aabab", vec![a, ab, ab]),
        ("b", vec![b]),
    ] {
        assert_eq!(tokenizer.encode(text, false, false).unwrap(), expected, "{text}");
    }
}

/// Every kind, byte-level BPE with every kind of pre-tokenizer: each meets the run in its own way.
#[test]
fn t07_a_run_of_one_letter_takes_linear_time_with_every_kind() {
    let strings = |texts: &[String]| {
        let mut array = StrArray::default();
        texts.iter().for_each(|text| array.push(text.as_bytes()));
        Value::Array(Array::Str(array))
    };
    // Every length up to 16, and what the kinds need.
    let runs: Vec<String> = (1..=16).map(|n| "a".repeat(n)).collect();
    let prefixed = |mark: &str| runs.iter().map(|run| format!("{mark}{run}")).collect::<Vec<_>>();
    let pair = |n: usize| format!("{} {}", "a".repeat(n.div_ceil(2)), "a".repeat(n / 2));
    let merges: Vec<String> = (2..=16).map(pair).collect();
    let build = |model: &str, pre: &str| {
        let mut texts: Vec<String> = ["<unk>", "<s>", "</s>", "<0x61>"].map(String::from).to_vec();
        texts.extend(runs.clone());
        if model == "bert" {
            texts.extend(prefixed("\u{2581}"));
        }
        let mut meta = Metadata::default();
        let n = texts.len();
        let types = (0..n)
            .map(|i| match i {
                0 => 2,
                1 | 2 => 3,
                3 => 6,
                _ => 1,
            })
            .collect();
        meta.push("tokenizer.ggml.model".into(), Value::Str(model.as_bytes().to_vec()));
        meta.push("tokenizer.ggml.tokens".into(), strings(&texts));
        meta.push("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types)));
        let scores = texts.iter().map(|text| text.len() as f32 - 20.0).collect();
        meta.push("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores)));
        for (key, id) in [("unknown", 0), ("bos", 1), ("seperator", 2), ("eos", 2)] {
            meta.push(format!("tokenizer.ggml.{key}_token_id"), Value::U64(id));
        }
        meta.push("tokenizer.ggml.pre".into(), Value::Str(pre.as_bytes().to_vec()));
        meta.push("tokenizer.ggml.merges".into(), strings(&merges));
        Tokenizer::from_gguf(&meta)
    };
    let mut kinds = vec![("llama", "default"), ("t5", "default"), ("bert", "default"), ("rwkv", "default")];
    kinds.extend(
        [
            "gpt-2",
            "llama-bpe",
            "qwen2",
            "gpt-4o",
            "deepseek-coder",
            "deepseek-v3",
            "falcon",
            "starcoder",
            "bloom",
            "stablelm2",
            "tekken",
            "smollm",
            "mpt",
            "olmo",
            "command-r",
            "refact",
            "viking",
            "jais",
        ]
        .map(|pre| ("gpt2", pre)),
    );
    let text = "a".repeat(100_000);
    for (model, pre) in kinds {
        let tokenizer = build(model, pre).unwrap_or_else(|e| panic!("{model} {pre}: {e}"));
        let start = now_ms();
        let ids = tokenizer.encode(&text, false, false).unwrap();
        let took = now_ms() - start;
        assert!(took < 0.25 * PER_MEGABYTE_MS, "{model} {pre}: {took:.0} ms for {} ids", ids.len());
    }
}
