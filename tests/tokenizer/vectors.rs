//! Every vector of the reference data, exactly and in both directions.

use super::reference::{VOCABULARIES, shared, tokenizer, vocabulary};
use bitpane::tokenizer::{StreamDecoder, Tokenizer};
use serde_json::Value;

fn json(path: &str) -> Option<Value> {
    let bytes = std::fs::read(shared(path)?).unwrap();
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The bytes of a text field, or `absent` where the item has none.
fn text(item: &Value, field: &str, absent: &str) -> Vec<u8> {
    if let Some(hex) = item.get(format!("{field}_hex")) {
        let hex = hex.as_str().unwrap();
        return (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
    }
    item.get(field).map_or(absent, |t| t.as_str().unwrap()).as_bytes().to_vec()
}

/// What differs from llama.cpp for one string.
fn differences(tokenizer: &Tokenizer, golden: &Value, item: &Value, string: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare_ids = |what: &str, got: &[u32], want: &[u32]| {
        if got != want {
            wrong.push(format!("{what} of {string:?}: {got:?}, not {want:?}"));
        }
    };
    let plain = ids(&item["ids"]);
    let parsed = item.get("ids_parse").map_or(plain.clone(), ids);
    let (prefix, suffix) = (ids(&golden["special_prefix"]), ids(&golden["special_suffix"]));
    let around = |ids: &[u32]| [&prefix, ids, &suffix].concat();
    compare_ids("ids", &tokenizer.encode(string, false, false).unwrap(), &plain);
    compare_ids("ids_parse", &tokenizer.encode(string, false, true).unwrap(), &parsed);
    compare_ids("ids with specials", &tokenizer.encode(string, true, false).unwrap(), &around(&plain));
    let with_special = around(&parsed);
    compare_ids("ids_parse with specials", &tokenizer.encode(string, true, true).unwrap(), &with_special);
    let mut compare_text = |what: &str, ids: &[u32], remove: bool, unparse: bool| {
        if what == "text_parse" && item.get("ids_parse").is_none() {
            return;
        }
        let (got, want) = (tokenizer.decode(ids, remove, unparse).unwrap(), text(item, what, string));
        if got != want {
            let (got, want) = (String::from_utf8_lossy(&got), String::from_utf8_lossy(&want));
            wrong.push(format!("{what} of {string:?}: {got:?}, not {want:?}"));
        }
    };
    compare_text("text", &plain, false, true);
    compare_text("text_parse", &parsed, false, true);
    compare_text("text_special", &with_special, false, true);
    compare_text("text_strip", &with_special, true, false);
    wrong
}

fn report(what: &str, wrong: &[String]) {
    let shown = wrong[..wrong.len().min(20)].join("\n");
    assert!(wrong.is_empty(), "{what}: {} differences\n{shown}", wrong.len());
}

#[test]
fn golden_strings_in_both_directions() {
    let Some(strings) = json("golden/tokenizer/strings.json") else { return };
    for name in VOCABULARIES {
        let Some(tokenizer) = vocabulary(name) else { return };
        let Some(golden) = json(&format!("golden/tokenizer/{name}.json")) else { return };
        let items = golden["items"].as_array().unwrap();
        let strings = strings["strings"].as_array().unwrap();
        assert_eq!(items.len(), strings.len());
        let wrong: Vec<String> = std::iter::zip(items, strings)
            .flat_map(|(item, string)| differences(&tokenizer, &golden, item, string.as_str().unwrap()))
            .collect();
        report(name, &wrong);
        let id = |key: &str| golden[key].as_i64().and_then(|id| u32::try_from(id).ok());
        assert_eq!(tokenizer.bos(), id("bos"), "{name}");
        assert_eq!(tokenizer.eos(), id("eos"), "{name}");
        assert_eq!(tokenizer.n_vocab() as u64, golden["n_vocab"].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn published_vectors() {
    for name in VOCABULARIES {
        let Some(tokenizer) = vocabulary(name) else { return };
        let read = |end| {
            let path = format!("data/tokenizers/llama.cpp/ggml-vocab-{name}.gguf.{end}");
            shared(&path).map(|path| std::fs::read_to_string(path).unwrap())
        };
        let (Some(inputs), Some(outputs)) = (read("inp"), read("out")) else { return };
        let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
        let outputs: Vec<&str> = outputs.lines().collect();
        assert!(outputs.len() > 40 && outputs.len() <= inputs.len(), "{name}: {} lines", outputs.len());
        let mut wrong = Vec::new();
        for (input, output) in std::iter::zip(inputs, outputs) {
            let want: Vec<u32> = output.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let got = tokenizer.encode(input, false, false).unwrap();
            if got != want {
                wrong.push(format!("{input:?}: {got:?}, not {want:?}"));
            }
        }
        report(name, &wrong);
    }
}

#[test]
fn perplexity_text_of_the_character_model() {
    let Some(tokenizer) = tokenizer("data/lm/babyllama_tok105/babyllama105.Q8_0.gguf") else { return };
    let Some(golden) = json("golden/perplexity/babyllama105.Q8_0.json") else { return };
    let got = tokenizer.encode(golden["text"].as_str().unwrap(), false, false).unwrap();
    assert_eq!(got, ids(&golden["token_ids"]));
    for greedy in golden["greedy"].as_array().unwrap() {
        let prompt = tokenizer.encode(greedy["prompt"].as_str().unwrap(), true, false).unwrap();
        assert_eq!(prompt, ids(&greedy["prompt_ids"]));
        let text = tokenizer.decode(&ids(&greedy["ids"]), false, false).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), greedy["text"].as_str().unwrap());
    }
}

#[test]
fn small_models_bring_their_vocabulary() {
    for (path, n_vocab) in [
        ("data/lm/stories260K/stories260K.F32.gguf", 512),
        ("data/lm/stories260K/stories260K.Q8_0.gguf", 512),
        ("data/lm/babyllama_tok105/babyllama105.F32.gguf", 105),
        ("golden/quant/llama-F32.gguf", 512),
        ("golden/quant/llama-Q4_0.gguf", 512),
    ] {
        let Some(tokenizer) = tokenizer(path) else { return };
        tokenizer.check_rows(n_vocab).unwrap();
        let text = "Once upon a time, there was a little girl named Lily.";
        let ids = tokenizer.encode(text, true, false).unwrap();
        assert_eq!(ids[0], 1, "{path}");
        assert_eq!(tokenizer.decode(&ids[1..], false, false).unwrap(), text.as_bytes(), "{path}");
    }
    let Some(tokenizer) = tokenizer("data/lm/stories260K/stories260K.F32.gguf") else { return };
    // The model's own text, from the tokens it was trained on: "Once upon a time" as llama2.c encodes it.
    assert_eq!(tokenizer.encode("Once upon a time", true, false).unwrap(), [1, 403, 407, 261, 378]);
}

#[test]
fn t11_streams_hold_back_unfinished_characters() {
    let Some(strings) = json("golden/tokenizer/strings.json") else { return };
    for name in VOCABULARIES {
        let Some(tokenizer) = vocabulary(name) else { return };
        for string in strings["strings"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()) {
            let ids = tokenizer.encode(string, false, false).unwrap();
            let mut decoder = StreamDecoder::new();
            let mut streamed = String::new();
            for &id in &ids {
                streamed.push_str(&decoder.push(&tokenizer, id));
            }
            streamed.push_str(&decoder.finish());
            let pieces: Vec<u8> = ids
                .iter()
                .filter(|&&id| !tokenizer.is_control(id))
                .flat_map(|&id| tokenizer.token_bytes(id).unwrap())
                .copied()
                .collect();
            let whole = String::from_utf8_lossy(&pieces);
            assert_eq!(streamed, whole, "{name}");
            // Word pieces drop the character; no other may appear.
            let n_replaced = |text: &str| text.matches('\u{fffd}').count();
            assert!(n_replaced(&whole) <= n_replaced(string), "{name}: {string:?}");
        }
    }
}
