//! Malformed tokenizer metadata: rows T01 to T05 and A07 of the fault catalogue.

use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::Tokenizer;
use bitpane::{Code, Error};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const PAD: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";

fn strings<T: AsRef<[u8]>>(texts: &[T]) -> Value {
    let mut array = StrArray::default();
    texts.iter().for_each(|text| array.push(text.as_ref()));
    Value::Array(Array::Str(array))
}

fn text(text: &str) -> Value {
    Value::Str(text.as_bytes().to_vec())
}

/// A small SentencePiece vocabulary without byte tokens: `<unk> <s> </s> ▁ a b ab ▁ab`.
fn small() -> Vec<(&'static str, Value)> {
    let texts = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "ab", "\u{2581}ab"];
    vec![
        (MODEL, text("llama")),
        (TOKENS, strings(&texts)),
        (SCORES, Value::Array(Array::F32(vec![0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0]))),
        (TYPES, Value::Array(Array::I64(vec![2, 3, 3, 1, 1, 1, 1, 1]))),
    ]
}

fn metadata(entries: &[(&str, Value)]) -> Metadata {
    let mut meta = Metadata::default();
    entries.iter().for_each(|(key, value)| meta.push(key.to_string(), value.clone()));
    meta
}

/// `small` with some entries replaced, added or (with `None`) removed.
fn changed(changes: &[(&'static str, Option<Value>)]) -> Result<Tokenizer, Error> {
    let mut entries = small();
    for (key, value) in changes {
        entries.retain(|(k, _)| k != key);
        entries.extend(value.clone().map(|value| (*key, value)));
    }
    Tokenizer::from_gguf(&metadata(&entries))
}

type Case = (&'static str, &'static str, Vec<(&'static str, Option<Value>)>);

fn floats(scores: &[f32]) -> Option<Value> {
    Some(Value::Array(Array::F32(scores.to_vec())))
}

fn ints(values: &[i64]) -> Option<Value> {
    Some(Value::Array(Array::I64(values.to_vec())))
}

#[test]
fn malformed_metadata_is_a_typed_error_that_names_the_key() {
    let bytes = Value::Array(Array::U64(vec![1; 8]));
    let cases: Vec<Case> = vec![
        ("T01", MODEL, vec![(MODEL, None)]),
        ("T01", MODEL, vec![(MODEL, Some(text("sentencepiece-42")))]),
        ("T01", MODEL, vec![(MODEL, Some(Value::U64(1)))]),
        ("T01", MODEL, vec![(MODEL, Some(Value::Str(vec![0xff])))]),
        ("T01", TOKENS, vec![(TOKENS, None)]),
        ("T01", TOKENS, vec![(TOKENS, ints(&[1, 2, 3]))]),
        ("T01", TOKENS, vec![(TOKENS, Some(text("<unk>")))]),
        ("T01", TOKENS, vec![(TOKENS, Some(strings::<&str>(&[])))]),
        ("T01", SCORES, vec![(SCORES, floats(&[0.0; 7]))]),
        ("T01", SCORES, vec![(SCORES, floats(&[0.0, 0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0]))]),
        ("T01", SCORES, vec![(SCORES, Some(bytes.clone()))]),
        ("T01", SCORES, vec![(SCORES, Some(Value::F32(0.0)))]),
        ("T01", TYPES, vec![(TYPES, ints(&[1; 7]))]),
        ("T01", TYPES, vec![(TYPES, Some(bytes))]),
        ("T01", TYPES, vec![(TYPES, floats(&[1.0; 8]))]),
        ("T02", BOS, vec![(BOS, Some(Value::U64(8)))]),
        ("T02", BOS, vec![(BOS, Some(Value::I64(-2)))]),
        ("T02", BOS, vec![(BOS, Some(Value::U64(u64::MAX)))]),
        ("T02", BOS, vec![(BOS, Some(Value::F32(1.0)))]),
        ("T02", BOS, vec![(BOS, Some(Value::I64(-1)))]),
        ("T02", BOS, vec![(BOS, Some(Value::U64(0xffff_ffff)))]),
        ("T02", EOS, vec![(EOS, Some(Value::U64(0xffff_fffe)))]),
        ("T02", EOS, vec![(EOS, Some(Value::Str(b"</s>".to_vec())))]),
        ("T02", UNK, vec![(UNK, Some(Value::U64(1 << 40)))]),
        ("T02", ADD_BOS, vec![(ADD_BOS, Some(Value::U64(1)))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "a", "<0x-1>"]))), (TYPES, ints(&[2, 1, 6]))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "a", "<0xZZ>"]))), (TYPES, ints(&[2, 1, 6]))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "a", "<0x1>"]))), (TYPES, ints(&[2, 1, 6]))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "a", ""]))), (TYPES, ints(&[2, 1, 6]))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<0x41>", "a", "<0x41>"]))), (TYPES, ints(&[6, 1, 6]))]),
        ("T03", TOKENS, vec![(TOKENS, Some(strings(&["<s>", "a", "a"]))), (TYPES, ints(&[3, 1, 1]))]),
        // No token for most bytes and no unknown token to stand in for them.
        ("T03", TOKENS, vec![(UNK, Some(Value::I64(-1)))]),
        ("T05", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "", "a"]))), (TYPES, ints(&[2, 4, 1]))]),
        ("T05", TOKENS, vec![(TOKENS, Some(strings(&["<unk>", "", "a"]))), (TYPES, ints(&[2, 3, 1]))]),
    ];
    for (row, key, changes) in cases {
        let shown = format!("{row} {changes:?}");
        let error = changed(&changes).err().unwrap_or_else(|| panic!("accepted: {shown}"));
        assert_eq!(
            (error.code, error.key.as_deref()),
            (Code::TokenizerInvalid, Some(key)),
            "{shown}: {error}"
        );
    }
}

#[test]
fn t01_the_embedding_must_have_a_row_for_each_token() {
    let tokenizer = changed(&[]).unwrap();
    tokenizer.check_rows(8).unwrap();
    for n_rows in [0, 7, 9] {
        let error = tokenizer.check_rows(n_rows).unwrap_err();
        assert_eq!((error.code, error.key.as_deref()), (Code::TokenizerInvalid, Some(TOKENS)));
    }
}

#[test]
fn t02_what_is_missing_has_documented_defaults() {
    let tokenizer = changed(&[]).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.add_bos()), (Some(1), Some(2), true));
    assert!(tokenizer.is_eog(2) && !tokenizer.is_eog(1) && !tokenizer.is_eog(1000));
    let tokenizer = changed(&[(SCORES, None), (TYPES, None)]).unwrap();
    assert_eq!(tokenizer.encode("x", false, false).unwrap(), [3, 0]);
    // The default ids are outside this vocabulary, so it has no such tokens; nothing depends on padding.
    let tiny =
        [(TOKENS, Some(strings(&["<unk>"]))), (TYPES, ints(&[2])), (ADD_BOS, Some(Value::Bool(false)))];
    let tokenizer = changed(&tiny).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
    assert_eq!(tokenizer.encode("ab", true, true).unwrap(), [0; 5]);
    let tokenizer = changed(&[(PAD, Some(Value::U64(1000)))]).unwrap();
    assert_eq!(tokenizer.encode("ab", true, false).unwrap(), [1, 7]);
    let no_bos = [(BOS, Some(Value::I64(-1))), (ADD_BOS, Some(Value::Bool(false)))];
    assert_eq!(changed(&no_bos).unwrap().encode("ab", true, false).unwrap(), [7]);
}

#[test]
fn t03_bytes_without_a_token_become_the_unknown_token() {
    let tokenizer = changed(&[]).unwrap();
    assert_eq!(tokenizer.encode("é", false, false).unwrap(), [3, 0, 0]);
    let texts = ["<unk>", "<s>", "</s>", "\u{2581}", "<0xC3>", "<0xa9>", "ab", "\u{2581}ab"];
    let some = [(TOKENS, Some(strings(&texts))), (TYPES, ints(&[2, 3, 3, 1, 6, 6, 1, 1]))];
    let tokenizer = changed(&some).unwrap();
    // Bytes are looked up in capitals; either way of writing decodes.
    assert_eq!(tokenizer.encode("é", false, false).unwrap(), [3, 4, 0]);
    assert_eq!(tokenizer.decode(&[4, 5], false, false).unwrap(), "é".as_bytes());
}

#[test]
fn t05_an_empty_piece_that_is_not_added_is_never_used() {
    let texts = ["<unk>", "<s>", "</s>", "", "", "a"];
    let tokenizer = changed(&[(TOKENS, Some(strings(&texts))), (TYPES, ints(&[2, 3, 3, 1, 1, 1]))]).unwrap();
    assert_eq!(tokenizer.encode("a", true, true).unwrap(), [1, 0, 0, 0, 5]);
    assert_eq!(tokenizer.decode(&[3, 5, 4], false, false).unwrap(), b"a");
}

#[test]
fn a07_an_id_outside_the_vocabulary_is_a_bad_argument() {
    let tokenizer = changed(&[]).unwrap();
    for id in [8, 9, u32::MAX] {
        let error = tokenizer.decode(&[1, id], false, true).unwrap_err();
        assert_eq!(error.code, Code::BadArgument);
        assert_eq!(tokenizer.token_bytes(id), None);
        assert!(!tokenizer.is_control(id));
    }
}

#[test]
fn tokens_that_are_not_utf8_do_no_harm() {
    let texts: [&[u8]; 7] = [b"<unk>", b"<s>", b"</s>", "\u{2581}".as_bytes(), b"\xe2\x96", b"\x81", b"\xc3"];
    for kind in [1, 3, 4] {
        let types = ints(&[2, 3, 3, 1, kind, kind, kind]);
        let tokenizer = changed(&[(TOKENS, Some(strings(&texts))), (TYPES, types)]).unwrap();
        for text in ["\u{2581}", "é", "a b", "\u{2592}"] {
            tokenizer.encode(text, true, true).unwrap();
        }
        assert_eq!(tokenizer.token_bytes(6), Some(&b"\xc3"[..]));
    }
}

#[test]
fn scores_of_any_size_order_merges() {
    // "aaa" can merge on either side: equal scores go left first, and -0 equals 0.
    for (left, right) in [(0.0, -0.0), (f32::INFINITY, f32::INFINITY), (f32::MIN, f32::MIN)] {
        let texts = ["<unk>", "<s>", "</s>", "a", "b", "ab", "ba"];
        let scores = floats(&[0.0, 0.0, 0.0, 0.0, 0.0, left, right]);
        let types = ints(&[2, 3, 3, 1, 1, 1, 1]);
        let space = ("tokenizer.ggml.add_space_prefix", Some(Value::Bool(false)));
        let tokenizer =
            changed(&[(TOKENS, Some(strings(&texts))), (SCORES, scores), (TYPES, types), space]).unwrap();
        assert_eq!(tokenizer.encode("abab", false, false).unwrap(), [5, 5]);
        assert_eq!(tokenizer.encode("baba", false, false).unwrap(), [6, 6]);
        assert_eq!(tokenizer.encode("aba", false, false).unwrap(), [5, 3]);
    }
}
