//! Tokenizers from `tokenizer.json` and `vocab.txt` against the libraries that these formats come from.

use super::reference::{shared, vocabulary};
use bitpane::tokenizer::Tokenizer;
use serde_json::Value;

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
    let Some(from_gguf) = vocabulary("gpt-2") else { return };
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
