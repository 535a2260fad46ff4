//! Tokenizers: damaged metadata is refused or works, and what it encodes comes back.

use super::mutate::{Random, corpus, mutated};
use bitpane::Code;
use bitpane::container::{Array, Metadata, StrArray, Value};
use bitpane::tokenizer::{StreamDecoder, Tokenizer};
use std::sync::OnceLock;

const WORDS: [&[u8]; 12] = [
    b"<s>",
    b"</s>",
    b"<0x41>",
    b"<0xZZ>",
    b"\xe2\x96\x81",
    b"a",
    b" ",
    b"\n",
    b"\xc4\xa0",
    b"th",
    b"\xff",
    b"<unk>",
];
const TOKENS: [&[u8]; 24] = [
    b"<unk>",
    b"<s>",
    b"</s>",
    b"<|im_end|>",
    b"<0x41>",
    b"<0x0A>",
    b"\xe2\x96\x81",
    b"a",
    b"b",
    b"c",
    b"aa",
    b"ab",
    b"th",
    b"he",
    b"the",
    b"\xe2\x96\x81a",
    b"\xc4\xa0",
    b"\xc4\xa0a",
    b"e",
    b"t",
    b"h",
    b"aaaa",
    b"",
    b"##ing",
];

fn strings(random: &mut Random, from: &[&[u8]], n: usize) -> Array {
    let mut array = StrArray::default();
    for i in 0..n {
        match random.below(8) {
            0 => array.push(&mutated(random, from, &WORDS)),
            _ => array.push(from[i % from.len()]),
        }
    }
    Array::Str(array)
}

fn metadata(random: &mut Random) -> Metadata {
    let mut meta = Metadata::default();
    let text = |text: &str| Value::Str(text.as_bytes().to_vec());
    meta.push(
        "tokenizer.ggml.model".into(),
        text(random.pick(&["llama", "gpt2", "bert", "t5", "rwkv", "none"])),
    );
    let n = 1 + random.below(60);
    meta.push("tokenizer.ggml.tokens".into(), Value::Array(strings(random, &TOKENS, n)));
    if random.below(4) > 0 {
        let n = if random.below(8) == 0 { random.below(70) } else { n };
        let scores = (0..n).map(|_| f32::from_bits(0xC000_0000 | random.next() as u32 >> 9)).collect();
        meta.push("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores)));
    }
    if random.below(4) > 0 {
        let types = (0..n).map(|_| random.below(8) as i64).collect();
        meta.push("tokenizer.ggml.token_type".into(), Value::Array(Array::I64(types)));
    }
    if random.below(3) > 0 {
        let merges: [&[u8]; 7] = [b"t h", b"th e", b"a a", b"a b", b"\xc4\xa0 a", b"a", b"q q"];
        let n = random.below(10);
        meta.push("tokenizer.ggml.merges".into(), Value::Array(strings(random, &merges, n)));
        meta.push(
            "tokenizer.ggml.pre".into(),
            text(random.pick(&["gpt-2", "llama-bpe", "qwen2", "nothing"])),
        );
    }
    for key in ["bos", "eos", "unknown", "padding"] {
        if random.below(2) == 0 {
            let id = random.next() as i64 % 70;
            meta.push(format!("tokenizer.ggml.{key}_token_id"), Value::I64(id));
        }
    }
    for key in ["add_bos_token", "add_eos_token", "add_space_prefix", "remove_extra_whitespaces"] {
        if random.below(3) == 0 {
            meta.push(format!("tokenizer.ggml.{key}"), Value::Bool(random.below(2) == 0));
        }
    }
    meta
}

pub fn one(seed: u64) {
    static TEXTS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| corpus("tokenizer"));
    let mut random = Random(seed);
    let tokenizer = match Tokenizer::from_gguf(&metadata(&mut random)) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(matches!(error.code, Code::TokenizerInvalid | Code::UnsupportedPreTokenizer), "{error}");
            return;
        }
    };
    for _ in 0..4 {
        let text = mutated(&mut random, texts, &WORDS);
        let text = String::from_utf8_lossy(&text);
        check(&tokenizer, &text, random.below(2) == 0, random.below(2) == 0);
    }
}

/// What a tokenizer makes of a text is of its vocabulary, comes back, and is the same in parts.
pub fn check(tokenizer: &Tokenizer, text: &str, special: bool, other: bool) {
    let ids = tokenizer.encode(text, special, other).unwrap();
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
    tokenizer.decode(&ids, other, special).unwrap();
    let mut decoder = StreamDecoder::new();
    ids.iter().for_each(|&id| drop(decoder.push(tokenizer, id)));
    decoder.finish();
    // Parts that are plain are in order, apart, on whole characters, and then hold no control token.
    let plain = tokenizer.control_texts(text);
    assert!(plain.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    assert!(plain.iter().all(|&(start, end)| start < end && text.get(start..end).is_some()), "{plain:?}");
    let whole = [(0, text.len())];
    let plain = if text.is_empty() { &whole[..0] } else { &whole };
    let mixed = tokenizer.encode_mixed(text, plain, false).unwrap();
    assert_eq!(mixed, tokenizer.encode(text, false, false).unwrap(), "{text:?}");
}
