//! Unigram and RWKV vocabularies, of which the reference data has none: against definitions instead.

use bitpane::Code;
use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::Tokenizer;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

fn metadata(model: &str, texts: &[&str], scores: &[f32], types: &[i64]) -> Metadata {
    let mut array = StrArray::default();
    texts.iter().for_each(|text| array.push(text.as_bytes()));
    let mut meta = Metadata::default();
    meta.push("tokenizer.ggml.model".into(), Value::Str(model.as_bytes().to_vec()));
    meta.push("tokenizer.ggml.tokens".into(), Value::Array(Array::Str(array)));
    meta.push("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores.to_vec())));
    meta.push("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types.to_vec())));
    meta
}

const TEXTS: [&str; 11] =
    ["<pad>", "</s>", "<unk>", "a", "b", "ab", "ba", "aba", "bb", "\u{2581}", "\u{2581}a"];
const SCORES: [f32; 11] = [0.0, 0.0, 0.0, -3.0, -3.5, -4.0, -4.25, -5.5, -8.0, -2.0, -4.5];
const TYPES: [i64; 11] = [3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1];

fn unigram(change: impl FnOnce(&mut Metadata)) -> Result<Tokenizer, bitpane::Error> {
    let mut meta = metadata("t5", &TEXTS, &SCORES, &TYPES);
    change(&mut meta);
    Tokenizer::from_gguf(&meta)
}

/// The highest score of all ways to write a text in tokens; no text here needs the unknown token.
fn best_score(text: &str) -> f32 {
    if text.is_empty() {
        return 0.0;
    }
    let fits = (3..TEXTS.len()).filter_map(|id| Some(SCORES[id] + best_score(text.strip_prefix(TEXTS[id])?)));
    fits.fold(f32::MIN, f32::max)
}

#[test]
fn unigram_finds_the_highest_score() {
    let tokenizer = unigram(|_| ()).unwrap();
    for number in 0..729 {
        let letters = (0..6).map(|i| ["a", "b", "\u{2581}"][number / 3usize.pow(i) % 3]);
        let text: String = letters.collect();
        let ids = tokenizer.encode(&text, false, false).unwrap();
        let pieces: String = ids.iter().map(|&id| TEXTS[id as usize]).collect();
        assert_eq!(pieces, text);
        let score: f32 = ids.iter().map(|&id| SCORES[id as usize]).sum();
        assert!((score - best_score(&text)).abs() < 1e-4, "{text}: {ids:?}, {score}");
    }
}

#[test]
fn unigram_unknown_characters_and_spaces() {
    let tokenizer = unigram(|_| ()).unwrap();
    // One unknown token for a run of them; EOS is added by default.
    assert_eq!(tokenizer.encode("axyzb", true, false).unwrap(), [3, 2, 4, 1]);
    assert_eq!(tokenizer.encode("", true, false).unwrap(), [1]);
    assert_eq!(tokenizer.encode(" a  b", false, false).unwrap(), [10, 9, 9, 4]);
    let flag = |key: &'static str| move |meta: &mut Metadata| meta.push(key.into(), Value::Bool(true));
    let prefixed = unigram(flag("tokenizer.ggml.add_space_prefix")).unwrap();
    assert_eq!(prefixed.encode("a b", false, false).unwrap(), [10, 9, 4]);
    assert_eq!(prefixed.decode(&[10, 9, 4], false, false).unwrap(), b"a b");
    let merged = unigram(flag("tokenizer.ggml.remove_extra_whitespaces")).unwrap();
    assert_eq!(merged.encode("  a   b ", false, false).unwrap(), [10, 9, 4]);
    let suffixed = unigram(|meta| {
        flag("tokenizer.ggml.add_space_prefix")(meta);
        flag("tokenizer.ggml.treat_whitespace_as_suffix")(meta);
    });
    assert_eq!(suffixed.unwrap().encode("b", false, false).unwrap(), [4, 9]);
}

/// A normalization table of one entry: `from`, of one or two bytes, becomes `to`.
fn charsmap(from: &[u8], to: &str) -> Vec<u8> {
    // Node 0 has offset 256, so the node of a first byte c is 256 ^ c; its offset 512 leads to 768 ^ c (the
    // value, or with a second byte d the node 768 ^ c ^ d, whose value is 512 further).
    let mut nodes = vec![0u32; 2048];
    nodes[0] = 256 << 10;
    let mut at = 256;
    for (i, &byte) in from.iter().enumerate() {
        at ^= usize::from(byte);
        let last = i + 1 == from.len();
        nodes[at] = 512 << 10 | u32::from(last) << 8 | u32::from(byte);
        at ^= 512;
    }
    nodes[at] = 1 << 31;
    let mut bytes = (nodes.len() as u32 * 4).to_le_bytes().to_vec();
    bytes.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
    bytes.extend(to.bytes());
    bytes.push(0);
    bytes
}

fn with_charsmap(bytes: &[u8]) -> Result<Tokenizer, bitpane::Error> {
    let values = bytes.iter().map(|&b| u64::from(b)).collect();
    unigram(|meta| meta.push(CHARSMAP.into(), Value::Array(Array::U64(values))))
}

#[test]
fn unigram_replaces_what_its_table_lists() {
    let tokenizer = with_charsmap(&charsmap(b"X", "ab")).unwrap();
    assert_eq!(
        tokenizer.encode("XbX", false, false).unwrap(),
        tokenizer.encode("abbab", false, false).unwrap()
    );
    let tokenizer = with_charsmap(&charsmap("é".as_bytes(), "a b")).unwrap();
    assert_eq!(
        tokenizer.encode("éa", false, false).unwrap(),
        tokenizer.encode("a ba", false, false).unwrap()
    );
    assert_eq!(tokenizer.encode("è\0", false, false).unwrap(), [2]);
}

#[test]
fn unigram_tables_that_are_malformed_are_refused_or_harmless() {
    let good = charsmap(b"X", "a");
    for end in 0..good.len() {
        let error = with_charsmap(&good[..end]).err().unwrap_or_else(|| panic!("{end} bytes"));
        assert_eq!((error.code, error.key.as_deref()), (Code::TokenizerInvalid, Some(CHARSMAP)));
    }
    let floats = unigram(|meta| meta.push(CHARSMAP.into(), Value::Array(Array::F32(vec![0.0; 8]))));
    assert_eq!(floats.err().unwrap().key.as_deref(), Some(CHARSMAP));
    // Every entry points anywhere: no panic, no endless loop.
    for seed in 1..200u32 {
        let mut bytes = good.clone();
        let mut state = seed;
        for byte in &mut bytes[4..8196] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        let tokenizer = with_charsmap(&bytes).unwrap();
        tokenizer.encode("XaXb \u{e9}\u{20ac}\u{1f600} abc", false, false).unwrap();
    }
}

#[test]
fn unigram_scores_must_be_finite() {
    let mut scores = SCORES;
    scores[4] = f32::NEG_INFINITY;
    let error = Tokenizer::from_gguf(&metadata("t5", &TEXTS, &scores, &TYPES)).err().unwrap();
    assert_eq!((error.code, error.key.as_deref()), (Code::TokenizerInvalid, Some("tokenizer.ggml.scores")));
}

#[test]
fn rwkv_takes_the_longest_bytes() {
    let texts = ["<s>", "a", "ab", "abcd", "\\n", "\\xe4", "\\xe4\\xb8", "\\\\", "\\xad"];
    let types = [3, 1, 1, 1, 1, 1, 1, 1, 1];
    let meta = metadata("rwkv", &texts, &[0.0; 9], &types);
    let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
    let text = "aababcd\n\\中";
    let ids = tokenizer.encode(text, true, false).unwrap();
    assert_eq!(ids, [1, 2, 3, 4, 7, 6, 8]);
    assert_eq!(tokenizer.decode(&ids, false, false).unwrap(), text.as_bytes());
    // What begins no token is left out: the published vocabulary has every byte.
    assert_eq!(tokenizer.encode("abcx", false, false).unwrap(), [2]);
    let broken = metadata("rwkv", &["a", "\\x1"], &[0.0; 2], &[1, 1]);
    assert_eq!(Tokenizer::from_gguf(&broken).err().unwrap().code, Code::TokenizerInvalid);
}
