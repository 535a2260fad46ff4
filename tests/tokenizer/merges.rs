//! Malformed byte-level BPE data: rows T04 and T06 of the fault catalogue.

use super::{PER_MEGABYTE_MS, now_ms};
use bitpane::Code;
use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::Tokenizer;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MERGES: &str = "tokenizer.ggml.merges";
const PRE: &str = "tokenizer.ggml.pre";

fn strings(texts: &[impl AsRef<[u8]>]) -> Value {
    let mut array = StrArray::default();
    texts.iter().for_each(|text| array.push(text.as_ref()));
    Value::Array(Array::Str(array))
}

fn metadata(tokens: &[impl AsRef<[u8]>], merges: Option<Value>, pre: Option<Value>) -> Metadata {
    let mut meta = Metadata::default();
    meta.push("tokenizer.ggml.model".into(), Value::Str(b"gpt2".to_vec()));
    meta.push("tokenizer.ggml.tokens".into(), strings(tokens));
    merges.into_iter().for_each(|merges| meta.push(MERGES.into(), merges));
    pre.into_iter().for_each(|pre| meta.push(PRE.into(), pre));
    meta
}

#[test]
fn t04_malformed_merges_are_a_typed_error() {
    let tokens = ["a", "b", "c", "ab", "abc", "Ġ", "Ġa"];
    let cases: Vec<(&str, Option<Value>)> = vec![
        ("absent", None),
        ("not strings", Some(Value::Array(Array::U64(vec![1])))),
        ("not an array", Some(Value::Str(b"a b".to_vec()))),
        ("no separator", Some(strings(&["a b", "abc"]))),
        ("empty", Some(strings(&[""]))),
        ("a space alone", Some(strings(&[" "]))),
        ("no second piece", Some(strings(&["a "]))),
        ("no first piece", Some(strings(&[" a"]))),
        ("unknown left piece", Some(strings(&["x b"]))),
        ("unknown right piece", Some(strings(&["a x"]))),
        ("unknown union", Some(strings(&["b c"]))),
        ("three pieces", Some(strings(&["a b c"]))),
        ("occurs twice", Some(strings(&["a b", "ab c", "a b"]))),
        ("not UTF-8", Some(strings(&[b"\xff \xfe"]))),
    ];
    for (what, merges) in cases {
        let error =
            Tokenizer::from_gguf(&metadata(&tokens, merges, None)).err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(
            (error.code, error.key.as_deref()),
            (Code::TokenizerInvalid, Some(MERGES)),
            "{what}: {error}"
        );
    }
    let tokenizer =
        Tokenizer::from_gguf(&metadata(&tokens, Some(strings(&["a b", "ab c", "Ġ a"])), None)).unwrap();
    assert_eq!(tokenizer.encode("abc a abx", false, false).unwrap(), [4, 6, 5, 3]);
    // Without merges every byte stays alone.
    let none = Some(Value::Array(Array::Str(StrArray::default())));
    let tokenizer = Tokenizer::from_gguf(&metadata(&tokens, none, None)).unwrap();
    assert_eq!(tokenizer.encode("abc", false, false).unwrap(), [0, 1, 2]);
}

#[test]
fn t04_a_million_merges_load_in_time() {
    let letters: Vec<String> = (0..1_000).map(|i| char::from_u32(0x4e00 + i).unwrap().to_string()).collect();
    let mut tokens = letters.clone();
    let mut merges = Vec::new();
    for left in &letters {
        for right in &letters {
            merges.push(format!("{left} {right}"));
            tokens.push(format!("{left}{right}"));
        }
    }
    let meta = metadata(&tokens, Some(strings(&merges)), None);
    let start = now_ms();
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    let took = now_ms() - start;
    println!("{} merges: {took:.0} ms", merges.len());
    assert_eq!(tokenizer.n_vocab(), 1_001_000);
    assert!(took < 3.0 * PER_MEGABYTE_MS, "{took:.0} ms");
}

#[test]
fn t06_an_unknown_pre_tokenizer_is_named() {
    for name in ["(a+)+", "", "gpt-2 ", "llama-bpe\0"] {
        let pre = Some(Value::Str(name.as_bytes().to_vec()));
        let meta = metadata(&["a"], Some(strings(&[""; 0])), pre);
        let error = Tokenizer::from_gguf(&meta).err().unwrap_or_else(|| panic!("{name:?}"));
        assert_eq!((error.code, error.key.as_deref()), (Code::UnsupportedPreTokenizer, Some(PRE)), "{error}");
        assert!(error.message.contains("smollm"), "the known ones are listed: {error}");
    }
}
