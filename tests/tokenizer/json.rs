//! `tokenizer.json` and `vocab.txt`: reference vectors, and malformed files (T04, T05, T06).

use super::shared;
use bitpane::Code;
use bitpane::tokenizer::Tokenizer;
use serde_json::{Value, json};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// File, number of ids of all strings, digest: see tests/data/tokenizer_digests.py.
const DIGESTS: &[(&str, usize, u64)] = &[
    ("smollm2/SmolLM2-135M-Instruct-Tokenizer.json", 10790, 0x9e8a71e20c57ba62),
    ("minimind/tokenizer.json", 16702, 0x51e00c5e1dcafd6f),
    ("gpt2_rten/reftests/models/gpt2/tokenizer.json", 11121, 0x2160ccdd820bbc80),
];

fn read(path: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(shared(path)?).unwrap())
}

fn read_json(path: &str) -> Option<Value> {
    Some(serde_json::from_slice(&read(path)?).unwrap())
}

#[test]
fn files_give_the_ids_of_their_own_library_and_come_back() {
    let Some(strings) = read_json("golden/tokenizer/strings.json") else { return };
    for (name, count, digest) in DIGESTS {
        let Some(bytes) = read(&format!("data/tokenizers/{name}")) else { return };
        let tokenizer = Tokenizer::from_json(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut n_ids = 0;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for string in strings["strings"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()) {
            let ids = tokenizer.encode(string, true, true).unwrap();
            n_ids += ids.len();
            for byte in ids.iter().flat_map(|id| id.to_le_bytes()) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
            assert_eq!(tokenizer.decode(&ids, false, true).unwrap(), string.as_bytes(), "{name}");
        }
        assert_eq!((n_ids, hash), (*count, *digest), "{name}");
    }
}

#[test]
fn both_formats_of_one_vocabulary_agree() {
    let Some(bytes) = read("data/tokenizers/gpt2_rten/reftests/models/gpt2/tokenizer.json") else { return };
    let Some(from_gguf) = super::vocabulary("gpt-2") else { return };
    let from_json = Tokenizer::from_json(&bytes).unwrap();
    let text = "Don't panic: 42 naïve <|endoftext|> tests\n\n\tend ";
    for parse in [false, true] {
        let ids = from_json.encode(text, true, parse).unwrap();
        assert_eq!(ids, from_gguf.encode(text, true, parse).unwrap());
    }
    assert!(from_json.is_eog(50256) && !from_json.is_eog(0));
}

#[test]
fn whole_documents_give_the_reference_ids() {
    const FOLDER: &str = "data/tokenizers/gpt2_rten/reftests";
    for (document, model) in [
        ("monty-python-credits", "gpt2"),
        ("monty-python-credits", "bert-base-uncased"),
        ("Metal_umlaut", "bert-base-uncased"),
        ("Rust_(programming_language)", "bert-base-uncased"),
        ("Rust_(programming_language)", "bert-base-cased"),
    ] {
        let Some(reference) = read_json(&format!("{FOLDER}/{document}-{model}.json")) else { return };
        let Some(text) = read(&format!("{FOLDER}/{document}.txt")) else { return };
        let tokenizer = if model == "gpt2" {
            let Some(file) = read(&format!("{FOLDER}/models/gpt2/tokenizer.json")) else { return };
            Tokenizer::from_json(&file)
        } else {
            let Some(file) = read(&format!("{FOLDER}/models/{model}/vocab.txt")) else { return };
            Tokenizer::from_vocab_txt(std::str::from_utf8(&file).unwrap(), model.ends_with("uncased"))
        };
        let ids = tokenizer.unwrap().encode(std::str::from_utf8(&text).unwrap(), true, false).unwrap();
        let expected: Vec<u32> =
            reference["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let first = std::iter::zip(&ids, &expected).position(|(a, b)| a != b);
        assert!(
            ids == expected,
            "{document} {model}: {} of {} ids, first difference at {first:?}",
            ids.len(),
            expected.len()
        );
    }
}

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
        ("", invalid, "normalizer", "/normalizer", json!({"type": "Lowercase"})),
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
        ("", invalid, "model.type", "/model/type", json!("Unigram")),
        ("", invalid, "model.type", "/model/byte_fallback", json!(true)),
        ("", invalid, "model.type", "/model/end_of_word_suffix", json!("</w>")),
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
