//! Long and strange texts, and many added tokens: rows T05 and T07 of the fault catalogue.

use super::{PER_MEGABYTE_MS, VOCABULARIES, now_ms, vocabulary};
use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::Tokenizer;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn t07_long_texts_take_linear_time_and_come_back() {
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}";
    let texts = [
        ("a", "a".repeat(1_000_000)),
        ("^", "^".repeat(1_000_000)),
        ("spaces", " ".repeat(1_000_000)),
        ("newlines", "\n".repeat(1_000_000)),
        ("<", "<".repeat(1_000_000)),
        ("emoji", family.repeat(1_000_000 / family.len())),
        ("empty", String::new()),
        ("replacement", "\u{fffd}".repeat(10)),
        ("words", "The quick brown fox, naïve and 12345 strong; ".repeat(90_000)),
    ];
    for name in VOCABULARIES {
        let Some(tokenizer) = vocabulary(name) else { return };
        for (what, text) in &texts {
            let start = now_ms();
            let ids = tokenizer.encode(text, false, true).unwrap();
            let took = now_ms() - start;
            let allowed = PER_MEGABYTE_MS * (1.0 + text.len() as f64 / 1e6);
            println!("{name} {what}: {} bytes, {} ids, {took:.0} ms", text.len(), ids.len());
            assert!(took < allowed, "{name} {what}: {took:.0} ms for {} bytes", text.len());
            // Word pieces keep neither white space nor characters that they do not know.
            let comes_back = tokenizer.decode(&ids, false, true).unwrap() == text.as_bytes();
            assert!(comes_back || *name == "bert-bge", "{name} {what}");
        }
    }
}

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
