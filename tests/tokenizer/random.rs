//! Random vocabularies: merging agrees with its definition, and nothing panics.

use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::{StreamDecoder, Tokenizer};
use std::collections::HashMap;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// A small generator of numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn text(&mut self, letters: &[&str], max_len: usize) -> String {
        (0..1 + self.below(max_len)).map(|_| letters[self.below(letters.len())]).collect()
    }
}

fn strings(texts: &[String]) -> Value {
    let mut array = StrArray::default();
    texts.iter().for_each(|text| array.push(text.as_bytes()));
    Value::Array(Array::Str(array))
}

fn metadata(model: &str, texts: &[String]) -> Metadata {
    let mut meta = Metadata::default();
    meta.push("tokenizer.ggml.model".into(), Value::Str(model.as_bytes().to_vec()));
    meta.push("tokenizer.ggml.tokens".into(), strings(texts));
    meta
}

/// Distinct texts after the given ones.
fn vocabulary(random: &mut Random, first: &[&str], letters: &[&str], n: usize) -> Vec<String> {
    let mut texts: Vec<String> = first.iter().chain(letters).map(|t| t.to_string()).collect();
    for _ in 0..n {
        let text = random.text(letters, 5);
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// Merges the best pair, of equals the leftmost, until none is left.
fn merge_by_definition(mut pieces: Vec<String>, worth: impl Fn(&str, &str) -> Option<f64>) -> Vec<String> {
    loop {
        let mut best: Option<(f64, usize)> = None;
        for i in 1..pieces.len() {
            if let Some(worth) = worth(&pieces[i - 1], &pieces[i])
                && best.is_none_or(|(most, _)| worth > most)
            {
                best = Some((worth, i));
            }
        }
        let Some((_, right)) = best else { return pieces };
        let piece = pieces.remove(right);
        pieces[right - 1].push_str(&piece);
    }
}

#[test]
fn spm_merges_by_its_definition() {
    let mut random = Random(1);
    for _ in 0..300 {
        let letters = ["a", "b", "é", "\u{2581}"];
        let n_pieces = 1 + random.below(40);
        let texts = vocabulary(&mut random, &["<unk>", "<s>", "</s>"], &letters, n_pieces);
        let scores: Vec<f32> = texts.iter().map(|_| random.below(12) as f32 / 2.0 - 3.0).collect();
        let mut meta = metadata("llama", &texts);
        meta.push("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores.clone())));
        let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
        let ids: HashMap<&str, usize> = texts.iter().enumerate().map(|(id, t)| (t.as_str(), id)).collect();
        for max_len in [3, 12, 40, 900] {
            let text = random.text(&["a", "b", "é", " ", "  "], max_len);
            let escaped = format!(" {text}").replace(' ', "\u{2581}");
            let pieces = escaped.chars().map(String::from).collect();
            let score = |l: &str, r: &str| Some(f64::from(scores[*ids.get(format!("{l}{r}").as_str())?]));
            let expected: Vec<u32> =
                merge_by_definition(pieces, score).iter().map(|piece| ids[piece.as_str()] as u32).collect();
            assert_eq!(
                tokenizer.encode(&text, false, false).unwrap(),
                expected,
                "{text:?} {texts:?} {scores:?}"
            );
            assert_eq!(tokenizer.decode(&expected, false, false).unwrap(), text.as_bytes());
        }
    }
}

#[test]
fn bpe_merges_by_its_definition() {
    let mut random = Random(2);
    for _ in 0..300 {
        let n_pieces = 1 + random.below(40);
        let texts = vocabulary(&mut random, &[], &["a", "b", "c"], n_pieces);
        let mut merges: Vec<String> = Vec::new();
        for _ in 0..60 {
            let (left, right) = (&texts[random.below(texts.len())], &texts[random.below(texts.len())]);
            let merge = format!("{left} {right}");
            if texts.contains(&format!("{left}{right}")) && !merges.contains(&merge) {
                merges.push(merge);
            }
        }
        let mut meta = metadata("gpt2", &texts);
        meta.push("tokenizer.ggml.merges".into(), strings(&merges));
        meta.push("tokenizer.ggml.pre".into(), Value::Str(b"gpt-2".to_vec()));
        let tokenizer = Tokenizer::from_gguf(&meta).unwrap();
        for max_len in [4, 20, 900] {
            let text = random.text(&["a", "b", "c"], max_len);
            let pieces = text.chars().map(String::from).collect();
            let rank =
                |l: &str, r: &str| Some(-(merges.iter().position(|m| *m == format!("{l} {r}"))? as f64));
            let id = |piece: &String| texts.iter().position(|t| t == piece).unwrap() as u32;
            let expected: Vec<u32> = merge_by_definition(pieces, rank).iter().map(id).collect();
            assert_eq!(tokenizer.encode(&text, false, false).unwrap(), expected, "{text:?} {merges:?}");
        }
    }
}

#[test]
fn no_vocabulary_and_no_text_makes_a_panic() {
    let mut random = Random(3);
    let letters =
        ["a", "b", " ", "\u{2581}", "<0x41>", "é", "\n", "Ġ", "<", "|", "한", "\u{301}", "👍", "\\x41", "\0"];
    let mut n_loaded = 0;
    for _ in 0..3_000 {
        let texts: Vec<String> = (0..1 + random.below(30)).map(|_| random.text(&letters, 4)).collect();
        let model = ["llama", "gpt2", "bert", "rwkv", "t5"][random.below(5)];
        let mut meta = metadata(model, &texts);
        let types = texts.iter().map(|_| random.below(60) as i64 / 6).collect();
        meta.push("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types)));
        let scores = texts.iter().map(|_| random.below(100) as f32 - 50.0).collect();
        meta.push("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores)));
        meta.push("tokenizer.ggml.merges".into(), strings(&[]));
        let keys =
            ["bos_token_id", "eos_token_id", "unknown_token_id", "seperator_token_id", "add_bos_token"];
        for key in keys {
            let value = match random.below(3) {
                0 => Value::U64(random.below(texts.len() + 1) as u64),
                1 => Value::I64(-1),
                _ => Value::Bool(random.below(2) == 0),
            };
            if (key == "add_bos_token") == matches!(value, Value::Bool(_)) {
                meta.push(format!("tokenizer.ggml.{key}"), value);
            }
        }
        let Ok(tokenizer) = Tokenizer::from_gguf(&meta) else { continue };
        n_loaded += 1;
        let text = random.text(&letters, 60);
        let ids = tokenizer.encode(&text, random.below(2) == 0, random.below(2) == 0).unwrap();
        for flags in 0..4 {
            tokenizer.decode(&ids, flags & 1 == 0, flags & 2 == 0).unwrap();
        }
        let mut decoder = StreamDecoder::new();
        let mut streamed: String = ids.iter().map(|&id| decoder.push(&tokenizer, id)).collect();
        streamed.push_str(&decoder.finish());
        let shown = ids.iter().filter(|&&id| !tokenizer.is_control(id));
        let bytes: Vec<u8> = shown.flat_map(|&id| tokenizer.token_bytes(id).unwrap()).copied().collect();
        assert_eq!(streamed, String::from_utf8_lossy(&bytes));
    }
    assert!(n_loaded > 300, "only {n_loaded} vocabularies were valid");
}
