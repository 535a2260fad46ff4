//! `tokenizer.json` and `vocab.txt`: what is read and what is refused (T01, T04, T05, T06).

use bitpane::Code;
use bitpane::tokenizer::Tokenizer;
use serde_json::{Value, json};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn bpe() -> Value {
    json!({
        "added_tokens": [{"id": 5, "content": "<|x|>", "special": true}, {"id": 6, "content": "<y>", "special": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "post_processor": null,
        "model": {
            "type": "BPE",
            "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3, "Ġab": 4},
            "merges": [["a", "b"], ["Ġ", "ab"]],
        },
    })
}

fn wordpiece() -> Value {
    json!({
        "added_tokens": [
            {"id": 0, "content": "[UNK]", "special": true},
            {"id": 1, "content": "[CLS]", "special": true},
            {"id": 2, "content": "[SEP]", "special": true},
        ],
        "normalizer": {"type": "BertNormalizer", "lowercase": true, "strip_accents": null},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "[SEP]"}}],
        },
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 4,
            "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "un": 3, "##able": 4, "##a": 5, ".": 6, "e": 7, "ᄒ": 8, "##ᅡ": 9, "##ᆫ": 10},
        },
    })
}

fn load(file: &Value) -> Result<Tokenizer, bitpane::Error> {
    Tokenizer::from_json(&serde_json::to_vec(file).unwrap())
}

#[test]
fn small_files_load() {
    let tokenizer = load(&bpe()).unwrap();
    assert_eq!(tokenizer.encode("ab ab<|x|><y>", true, false).unwrap(), [2, 4, 6]);
    assert_eq!(tokenizer.encode("ab ab<|x|><y>", true, true).unwrap(), [2, 4, 5, 6]);
    let mut old = bpe();
    old["model"]["merges"] = json!(["a b", "Ġ ab"]);
    old["model"].as_object_mut().unwrap().remove("type");
    assert_eq!(load(&old).unwrap().encode("ab ab", true, false).unwrap(), [2, 4]);
    let tokenizer = load(&wordpiece()).unwrap();
    let text = "UNable. É unx una unabl";
    assert_eq!(tokenizer.encode(text, true, false).unwrap(), [1, 0, 6, 7, 0, 3, 5, 0, 2]);
    assert_eq!(tokenizer.encode("한", false, false).unwrap(), [8, 9, 10]);
    assert_eq!(tokenizer.decode(&[1, 3, 5, 6, 2], true, false).unwrap(), b" una.");
    assert_eq!(tokenizer.decode(&[3, 4], false, false).unwrap(), b"unable");
}

#[test]
fn malformed_files_are_typed_errors_that_name_the_part() {
    let invalid = Code::TokenizerInvalid;
    let no_pre = Code::UnsupportedPreTokenizer;
    let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    let nested = json!({"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": []}]});
    let cases: Vec<(&str, Code, &str, &str, Value)> = vec![
        ("T04", invalid, "model.merges", "/model/merges", json!([["a", "x"]])),
        ("T04", invalid, "model.merges", "/model/merges", json!([["a", ""]])),
        ("T04", invalid, "model.merges", "/model/merges", json!(["ab"])),
        ("T04", invalid, "model.merges", "/model/merges", json!([["a", "b"], ["a", "b"]])),
        ("T04", invalid, "tokenizer.json", "/model/merges", json!([["a", "b", "c"]])),
        ("T01", invalid, "tokenizer.json", "/model/vocab", json!({"a": -1})),
        ("T01", invalid, "tokenizer.json", "/model/vocab", json!({"a": 4_294_967_296_u64})),
        ("T01", invalid, "tokenizer.json", "/model/vocab", json!(["a"])),
        ("T01", invalid, "model.vocab", "/model/vocab", json!({"a": 4_000_000_000_u64})),
        ("T01", invalid, "model.vocab", "/model/vocab", json!({"a": 0, "b": 0})),
        ("T05", invalid, "model.vocab", "/added_tokens", json!([{"id": 5, "content": "", "special": true}])),
        ("T05", invalid, "model.vocab", "/added_tokens", json!([{"id": 5, "content": "a", "special": true}])),
        ("T05", invalid, "added_tokens", "/added_tokens", json!([{"id": 0, "content": "x"}])),
        (
            "T05",
            invalid,
            "added_tokens",
            "/added_tokens",
            json!([{"id": 5, "content": "x", "single_word": true}]),
        ),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", split(json!({"Regex": "(a+)+"}))),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", split(json!({"String": "\n"}))),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", split(Value::Null)),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", json!({"type": "ByteLevel"})),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", json!({"type": "Metaspace"})),
        ("T06", no_pre, "pre_tokenizer", "/pre_tokenizer", nested),
        ("T06", invalid, "pre_tokenizer", "/pre_tokenizer", json!({"type": "Digits"})),
        ("T06", invalid, "pre_tokenizer", "/pre_tokenizer", Value::Null),
        ("", invalid, "normalizer", "/normalizer", json!({"type": "Nmt"})),
        (
            "",
            invalid,
            "post_processor",
            "/post_processor",
            json!({"type": "RobertaProcessing", "cls": ["<s>", 0]}),
        ),
        (
            "",
            invalid,
            "post_processor",
            "/post_processor",
            json!({"type": "TemplateProcessing", "single": []}),
        ),
        ("", invalid, "model.vocab", "/model/type", json!("Unigram")),
        ("", invalid, "model.type", "/model/byte_fallback", json!(true)),
    ];
    for (row, code, key, pointer, value) in cases {
        let mut file = bpe();
        for absent in ["byte_fallback", "end_of_word_suffix"] {
            file["model"][absent] = json!(null);
        }
        file["model"]["byte_fallback"] = json!(false);
        *file.pointer_mut(pointer).unwrap() = value.clone();
        let error = load(&file).err().unwrap_or_else(|| panic!("{row} {pointer} {value}: accepted"));
        assert_eq!((error.code, error.key.as_deref()), (code, Some(key)), "{row} {pointer} {value}: {error}");
    }
    let whole = serde_json::to_vec(&bpe()).unwrap();
    for end in 0..whole.len() {
        assert_eq!(Tokenizer::from_json(&whole[..end]).err().unwrap().code, invalid, "{end} bytes");
    }
    assert_eq!(Tokenizer::from_vocab_txt("", true).err().unwrap().code, invalid);
    assert_eq!(Tokenizer::from_vocab_txt("a\na\n", true).err().unwrap().code, invalid);
}
