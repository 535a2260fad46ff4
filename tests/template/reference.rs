//! tests/data/template_goldens.py says where the expected results come from.

use bitpane::template::{Clock, Value, render};
#[cfg(not(target_arch = "wasm32"))]
use serde_json::Value as Json;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// 2024-07-26 09:05:03, as in the script.
const NOW: i64 = 1_721_984_703;

#[cfg(not(target_arch = "wasm32"))]
fn goldens() -> Json {
    serde_json::from_str(include_str!("../data/template_goldens.json")).unwrap()
}

/// The goldens' text again: order of keys matters to templates, and `serde_json::Value` sorts them.
fn ordered() -> Value {
    serde_json::from_str(include_str!("../data/template_goldens.json")).unwrap()
}

fn entries(value: &Value) -> Vec<(String, Value)> {
    let Value::Dict(dict) = value else { panic!("no object") };
    dict.entries.iter().map(|(k, v)| (k.as_str().unwrap().to_string(), v.clone())).collect()
}

/// `base` with the values of `more` in place of its own.
fn merged(base: &Value, more: &Value) -> Vec<(String, Value)> {
    let more = entries(more);
    let mut vars: Vec<_> = entries(base);
    vars.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    vars.extend(more);
    vars
}

#[test]
fn the_language_is_that_of_jinja() {
    let ordered = ordered();
    let Some(Value::List(cases)) = ordered.get("cases") else { panic!() };
    let mut wrong = Vec::new();
    for case in &cases.items {
        let Value::List(case) = case else { panic!() };
        let [source, vars, wanted] = &case.items[..] else { panic!() };
        let source = source.as_str().unwrap();
        let vars = merged(ordered.get("base").unwrap(), vars);
        let given = render(source, vars, Clock::from_seconds(NOW));
        if given.as_deref().ok() != wanted.as_str() {
            wrong.push(format!("{source}\n  wanted {:?}\n  given  {given:?}", wanted.as_str()));
        }
    }
    assert!(cases.items.len() > 100);
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), cases.items.len(), wrong.join("\n"));
}

/// Where this engine renders what Python refuses: Jinja's `map` gives a generator, which `tojson` cannot
/// write. Here it gives a list, as in the engine that this template was written for.
#[cfg(not(target_arch = "wasm32"))]
const ONLY_HERE: [(&str, &str); 1] = [("llama.cpp/templates/llama-cpp-deepseek-r1.jinja", "tools")];

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn templates_of_known_models_give_what_transformers_gives() {
    let Some(folder) = crate::common::shared("data/tokenizers") else { return };
    let (goldens, ordered) = (goldens(), ordered());
    let mut wrong = Vec::new();
    let mut n_equal = 0;
    for (name, results) in goldens["templates"].as_object().unwrap() {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let source = match name.ends_with(".json") {
            true => {
                serde_json::from_str::<Json>(&text).unwrap()["chat_template"].as_str().unwrap().to_string()
            }
            false => text,
        };
        for (title, vars) in entries(ordered.get("conversations").unwrap()) {
            let vars = merged(ordered.get("base").unwrap(), &vars);
            let given = render(&source, vars, Clock::from_seconds(NOW));
            let hashed = given.as_deref().ok().map(|text| (text.len() as u64, format!("{:016x}", fnv(text))));
            let wanted = &results[title.as_str()];
            let wanted =
                wanted.as_array().map(|w| (w[0].as_u64().unwrap(), w[1].as_str().unwrap().to_string()));
            if wanted.is_none() && ONLY_HERE.contains(&(name, title.as_str())) {
                assert!(given.unwrap().contains("\"name\": \"get_weather\""));
            } else if hashed != wanted {
                if let (Ok(folder), Ok(text)) = (std::env::var("TEMPLATE_RESULTS"), &given) {
                    let file = format!("{}.{title}", name.rsplit('/').next().unwrap()).replace(' ', "_");
                    std::fs::write(std::path::Path::new(&folder).join(file), text).unwrap();
                }
                wrong.push(format!("{name}, {title}: wanted {wanted:?}, given {hashed:?} {:?}", given.err()));
            } else {
                n_equal += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{n_equal} equal, {} not\n{}", wrong.len(), wrong.join("\n"));
    assert!(n_equal > 170, "{n_equal} results compared");
}

#[cfg(not(target_arch = "wasm32"))]
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
