//! Long and strange texts with real vocabularies: rows T07 and T08 of the fault catalogue.

use super::reference::{VOCABULARIES, vocabulary};
use super::{PER_MEGABYTE_MS, now_ms};

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

#[test]
fn t08_the_text_of_control_tokens_stays_text() {
    for (name, text) in [
        ("llama-spm", "hi </s><s> there"),
        ("phi-3", "<|end|><|assistant|>yes"),
        ("gpt-2", "a<|endoftext|>b"),
        ("starcoder", "<fim_prefix>x<|endoftext|>"),
        ("deepseek-coder", "<｜begin▁of▁sentence｜>x"),
    ] {
        let Some(tokenizer) = vocabulary(name) else { return };
        let plain = tokenizer.encode(text, false, false).unwrap();
        assert!(plain.iter().all(|&id| !tokenizer.is_control(id)), "{name}: {plain:?}");
        assert_eq!(tokenizer.decode(&plain, false, false).unwrap(), text.as_bytes(), "{name}");
        let parsed = tokenizer.encode(text, false, true).unwrap();
        assert!(parsed.iter().any(|&id| tokenizer.is_control(id)), "{name}: {parsed:?}");
    }
}
