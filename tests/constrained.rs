//! The default model writes what grammars and schemas ask for, and nothing else.
#![cfg(not(target_arch = "wasm32"))]

#[path = "common/json_schema.rs"]
mod json_schema;

use bitpane::error::{Code, Error};
use bitpane::grammar::{Constraint, Grammar, TokenTrie};
use bitpane::tasks::sampler::SamplerParams;
use bitpane::tasks::{GenerateOptions, Loaded, Loader, Reason, Step, StepLogprobs, TextModel};
use json_schema::{PATTERNS, fault};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

fn story() -> TextModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/story.gguf");
    let mut loader = Loader::new(Default::default(), None).unwrap();
    loader.push(&std::fs::read(path).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("no language model"),
    }
}

struct Written {
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<StepLogprobs>,
    reason: Reason,
    seed: u64,
    decode_ms: f64,
}

fn write(model: &mut TextModel, prompt: &str, options: GenerateOptions) -> Result<Written, Error> {
    let prompt = model.tokenize(prompt, true, false)?;
    let mut generation = model.start(prompt, options)?;
    let (mut text, mut logprobs, mut decode_ms) = (String::new(), Vec::new(), 0.0);
    loop {
        let begin = Instant::now();
        let step = model.step(&mut generation)?;
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        match step {
            Step::Prefill { .. } => continue,
            Step::Piece { text: piece, logprobs: of_step, .. } => {
                text.push_str(&piece);
                logprobs.extend(of_step);
            }
            Step::Done { text: rest, reason } => {
                text.push_str(&rest);
                let (tokens, seed) = (generation.tokens().to_vec(), generation.seed());
                return Ok(Written { text, tokens, logprobs, reason, seed, decode_ms });
            }
        }
        decode_ms += ms;
    }
}

/// The model's own distribution: temperature 1 and nothing taken out.
fn plain(seed: i64) -> SamplerParams {
    SamplerParams {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: Some(seed),
        ..Default::default()
    }
}

const FORMATS: [&str; 4] = ["date", "time", "date-time", "uuid"];

/// Random schemas whose values are short.
struct Schemas(u64);

impl Schemas {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn document(&mut self) -> Value {
        let mut schema = self.value(2);
        if self.chance(30) {
            let defs = json!({ "first": self.value(0), "second": self.value(0) });
            let inner = json!({ "$ref": format!("#/$defs/{}", ["first", "second"][self.below(2) as usize]) });
            schema = json!({ "type": "array", "items": inner, "minItems": 1, "maxItems": 2, "$defs": defs });
        }
        schema
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth > 0 { 15 } else { 9 }) {
            0 => json!({ "type": "null" }),
            1 => json!({ "type": "boolean" }),
            2 => self.number(),
            3 => self.string(),
            4 => json!({ "enum": ["red", "gr\"een", 7, null, {"a": [1.5, "b"]}, "snow ☃"] }),
            5 => json!({ "const": ["x", { "y": false }] }),
            6 => json!({ "type": "string", "pattern": PATTERNS[self.below(4) as usize] }),
            7 => json!({ "type": "string", "format": (FORMATS[self.below(4) as usize]) }),
            8 => {
                json!({ "type": ["string", "null", "integer"], "maxLength": 6, "minimum": -20, "maximum": 20 })
            }
            9 | 10 => self.array(depth - 1),
            11 => json!({ "anyOf": [self.value(depth - 1), self.value(0)] }),
            12 => {
                json!({ "oneOf": [{ "type": "boolean" }, { "type": "string", "maxLength": 4 }, self.object(0)] })
            }
            _ => self.object(depth - 1),
        }
    }

    fn number(&mut self) -> Value {
        let low = self.below(4000) as i64 - 2000;
        let high = low + self.below(3000) as i64;
        match self.below(5) {
            0 => json!({ "type": "integer" }),
            1 => json!({ "type": "integer", "minimum": low, "maximum": high }),
            2 => json!({ "type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": high + 2 }),
            3 => json!({ "type": "number", "minimum": low, "maximum": high }),
            _ => json!({ "type": "number" }),
        }
    }

    fn string(&mut self) -> Value {
        let min = self.below(4);
        json!({ "type": "string", "minLength": min, "maxLength": min + self.below(6) })
    }

    fn array(&mut self, depth: u32) -> Value {
        let min = self.below(3);
        if self.chance(30) {
            let prefix: Vec<Value> = (0..2).map(|_| self.value(0)).collect();
            return json!({ "type": "array", "prefixItems": prefix, "items": self.value(0), "minItems": min, "maxItems": 3 });
        }
        json!({ "type": "array", "items": self.value(depth), "minItems": min, "maxItems": min + self.below(2) })
    }

    fn object(&mut self, depth: u32) -> Value {
        let names = ["name", "a", "b\"c", "größe"];
        let n = self.below(4) as usize;
        let mut properties = serde_json::Map::new();
        let mut required = Vec::new();
        for name in &names[..n] {
            properties.insert(name.to_string(), self.value(depth));
            if self.chance(60) {
                required.push(*name);
            }
        }
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
    }
}

#[test]
fn json_of_500_random_schemas_parses_and_validates() {
    let mut model = story();
    let mut schemas = Schemas(2026);
    let mut n_valid = 0;
    let mut longest = 0;
    for run in 0..500 {
        let schema = schemas.document();
        let options = GenerateOptions {
            json_schema: Some(schema.to_string()),
            sampler: plain(run),
            max_tokens: 10_000,
            ..Default::default()
        };
        let written = write(&mut model, "Once", options).unwrap_or_else(|e| panic!("{schema}: {e}"));
        longest = longest.max(written.tokens.len());
        let fault = match serde_json::from_str::<Value>(&written.text) {
            Ok(value) => fault(&schema, &value, &schema),
            Err(error) => Some(error.to_string()),
        };
        match fault {
            None if written.reason == Reason::Stop => n_valid += 1,
            fault => {
                println!("run {run}: {schema}\n gave {:?} ({:?}): {fault:?}", written.text, written.reason)
            }
        }
    }
    println!("{n_valid} of 500 valid; the longest took {longest} tokens");
    assert_eq!(n_valid, 500);
}

#[test]
fn a_grammar_decides_what_is_written_and_when_it_ends() {
    let mut model = story();
    let run = |model: &mut TextModel, grammar: &str, change: fn(&mut GenerateOptions)| {
        let mut options =
            GenerateOptions { grammar: Some(grammar.into()), sampler: plain(3), ..Default::default() };
        change(&mut options);
        write(model, "Once upon a time", options)
    };
    let written = run(&mut model, r#"root ::= " yes" | " no""#, |_| ()).unwrap();
    assert!([" yes", " no"].contains(&written.text.as_str()), "{:?}", written.text);
    assert_eq!(written.reason, Reason::Stop);
    let empty = run(&mut model, r#"root ::= """#, |_| ()).unwrap();
    assert_eq!((empty.text.as_str(), empty.tokens.len(), empty.reason), ("", 0, Reason::Stop));
    // Characters of several bytes, whatever tokens they are made of.
    let snow = run(&mut model, r#"root ::= "☃😀é" [à-ü]{3}"#, |_| ()).unwrap();
    assert!(snow.text.starts_with("☃😀é") && snow.text.chars().count() == 6, "{:?}", snow.text);
    // Where the text may end or go on, an end token may come, unless it is not to.
    let open = run(&mut model, r#"root ::= [a-z ]+"#, |o| (o.ignore_eos, o.max_tokens) = (true, 40)).unwrap();
    assert_eq!((open.tokens.len(), open.reason), (40, Reason::Length));
    assert!(open.text.bytes().all(|b| b == b' ' || b.is_ascii_lowercase()));
    // A text that is cut off is.
    let cut = run(&mut model, r#"root ::= "a"{200}"#, |o| o.max_tokens = 5).unwrap();
    assert_eq!((cut.tokens.len(), cut.reason), (5, Reason::Length));
    // Samplers act on what the grammar leaves; a bias does not override it.
    let greedy = run(&mut model, r#"root ::= "x" | "q""#, |o| o.sampler.temperature = 0.0).unwrap();
    assert!(["x", "q"].contains(&greedy.text.as_str()));
    for (change, code, key) in [
        (
            (|o| o.json_schema = Some("true".into())) as fn(&mut GenerateOptions),
            Code::BadArgument,
            "jsonSchema",
        ),
        (|o| o.grammar = Some("root ::= x".into()), Code::GrammarError, "grammar"),
        (|o| (o.grammar, o.json_schema) = (None, Some(r#"{"not":{}}"#.into())), Code::GrammarError, "not"),
        (|o| o.logprobs = Some(21), Code::BadArgument, "logprobs"),
    ] {
        let error = run(&mut model, "root ::= \"a\"", change).err().expect("an error");
        assert_eq!((error.code, error.key.as_deref()), (code, Some(key)), "{error}");
    }
}

#[test]
fn masks_allow_exactly_what_the_grammar_can_follow() {
    let model = story();
    let tokenizer = model.tokenizer();
    let trie = Arc::new(TokenTrie::new(tokenizer));
    let schema = r#"{"type":"object","properties":{"a":{"type":"string","maxLength":3},"b":{"type":"integer"}},"required":["b"]}"#;
    for (grammar, text) in [
        (Grammar::from_json_schema(schema).unwrap(), r#"{"a": "é\n", "b": -12}"#),
        (Grammar::from_gbnf(r#"root ::= ([a-y]+ " "? | "日" .){0,9}"#).unwrap(), "ab c日本"),
    ] {
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let mut constraint = Constraint::new(&grammar, Arc::clone(&trie)).unwrap();
            constraint.accept(&text.as_bytes()[..end]).unwrap();
            let mut logits = vec![0.0; tokenizer.n_vocab()];
            let masked = constraint.mask(&mut logits, true);
            for id in 0..tokenizer.n_vocab() as u32 {
                let mut next = Constraint::new(&grammar, Arc::clone(&trie)).unwrap();
                next.accept(&text.as_bytes()[..end]).unwrap();
                let allowed = if tokenizer.is_eog(id) {
                    next.may_end()
                } else {
                    let bytes = tokenizer.token_bytes(id).unwrap();
                    !tokenizer.is_control(id) && !bytes.is_empty() && next.accept(bytes).is_ok()
                };
                if masked.is_ok() {
                    assert_eq!(logits[id as usize] == 0.0, allowed, "token {id} after {:?}", &text[..end]);
                } else {
                    assert!(!allowed);
                }
            }
        }
    }
}

#[test]
fn logprobs_are_of_the_model_whatever_the_samplers_do() {
    let mut model = story();
    let prompt = "Once upon a time";
    let options = GenerateOptions {
        logprobs: Some(20),
        max_tokens: 6,
        sampler: SamplerParams { top_k: 3, repeat_penalty: 1.5, ..plain(8) },
        ..Default::default()
    };
    let written = write(&mut model, prompt, options).unwrap();
    assert_eq!(written.logprobs.len(), 6);
    assert_eq!(written.seed, 8);
    let mut tokens = model.tokenize(prompt, true, false).unwrap();
    tokens.extend(&written.tokens);
    let rows = model.logits(&tokens, 7).unwrap();
    for ((row, token), got) in rows.iter().zip(&written.tokens).zip(&written.logprobs) {
        let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let logprob = |id: u32| (f64::from(row[id as usize]).exp() / total).ln();
        assert_eq!(got.chosen.token, *token);
        assert!((got.chosen.logprob - logprob(*token)).abs() < 1e-4);
        assert_eq!(got.chosen.bytes, model.tokenizer().token_bytes(*token).unwrap());
        assert_eq!(got.top.len(), 20);
        assert!(got.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
        assert!(got.top.iter().all(|top| (top.logprob - logprob(top.token)).abs() < 1e-4));
    }
}

#[test]
fn a_seed_that_was_made_up_repeats_its_text() {
    let mut model = story();
    let run = |model: &mut TextModel, seed| {
        let sampler = SamplerParams { seed, ..plain(0) };
        write(model, "Once", GenerateOptions { sampler, max_tokens: 20, ..Default::default() }).unwrap()
    };
    let first = run(&mut model, None);
    assert_eq!(run(&mut model, Some(first.seed as i64)).text, first.text);
    assert_ne!(run(&mut model, None).seed, first.seed);
}

/// `cargo test --release --test constrained -- --ignored --nocapture cost`: medians with and without a grammar.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_grammar() {
    let mut model = story();
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let schema = json!({"type":"object","properties":{"name":{"type":"string"},"story":{"type":"string"},"tags":{"type":"array","items":{"type":"string"}}},"required":["name","story","tags"]});
    let bounded = json!({"type":"string","minLength":150,"maxLength":200});
    let cases = [
        ("none", None, None),
        ("any letters", None, Some(r#"root ::= [^\x00]*"#.to_string())),
        ("object", Some(schema.to_string()), None),
        ("string of 150 to 200", Some(bounded.to_string()), None),
    ];
    // In turns: what else the machine does then meets all of them.
    let mut times = cases.each_ref().map(|_| Vec::new());
    for seed in 0..61 {
        for ((_, json_schema, grammar), times) in cases.iter().zip(&mut times) {
            let options = GenerateOptions {
                json_schema: json_schema.clone(),
                grammar: grammar.clone(),
                ignore_eos: true,
                max_tokens: 100,
                sampler: plain(seed),
                ..Default::default()
            };
            let written = write(&mut model, "Once", options).unwrap();
            times.push(written.decode_ms * 1e3 / written.tokens.len() as f64);
        }
    }
    let rows: Vec<_> = cases.iter().zip(times).map(|((name, ..), times)| (*name, median(times))).collect();
    for (name, time) in &rows {
        println!("{name:<24} {time:8.1} us per token, {:+.1} %", (time / rows[0].1 - 1.0) * 100.0);
    }
}
