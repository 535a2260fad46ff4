//! Templates: whatever they say, they end with a text or an error, soon.

use super::mutate::{Random, corpus, mutated};
use bitpane::Code;
use bitpane::template::{Clock, MAX_TEXT_BYTES, Value, render};
use std::sync::OnceLock;

const WORDS: [&[u8]; 66] = [
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"{#",
    b"#}",
    b"-",
    b"+",
    b"|",
    b".",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"~",
    b"*",
    b"**",
    b"//",
    b"%",
    b"==",
    b"<=",
    b"=",
    b"'",
    b"\"",
    b"\\",
    b"\n",
    b" if ",
    b" else ",
    b" in ",
    b" is ",
    b" not ",
    b" and ",
    b"{% endif %}",
    b"{% endfor %}",
    b"{% for x in messages %}",
    b"{% set x = 1 %}",
    b"loop.",
    b"messages",
    b"range(1000000000)",
    b"9223372036854775807",
    b"1e308",
    b"-1",
    b"0",
    b"none",
    b"true",
    b"x",
    b"| tojson",
    b"| indent(1000000000)",
    b"| center(99999999)",
    b"| list",
    b"| map('upper')",
    b"| join(messages)",
    b"| sort(attribute='role')",
    b"| replace('', 'aaaa')",
    b"| batch(0)",
    b".split()",
    b".items()",
    b".zfill(999999999)",
    b"namespace()",
    b"{{ self }}",
    b"\xc3\xa9",
    b"\xf0\x9f\x98\x80",
];

fn vars() -> Vec<(String, Value)> {
    let json = r#"{"messages": [{"role": "system", "content": " a <b> "}, {"role": "user", "content": "\u00e9\n"},
        {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": {"x": [1, 2.5]}}}]}],
        "tools": [], "add_generation_prompt": true, "bos_token": "<s>"}"#;
    let Ok(Value::Dict(dict)) = serde_json::from_str(json) else { panic!("no object") };
    dict.entries.iter().map(|(key, value)| (key.as_str().unwrap().to_string(), value.clone())).collect()
}

pub fn one(seed: u64) {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| corpus("template"));
    let source = mutated(&mut Random(seed), seeds, &WORDS);
    let source = String::from_utf8_lossy(&source);
    check(&source, seed as i64);
}

/// A template gives a text or a typed error, neither of them long.
pub fn check(source: &str, seconds: i64) {
    match render(source, vars(), Clock::from_seconds(seconds)) {
        Ok(text) => assert!(text.len() <= MAX_TEXT_BYTES),
        Err(error) => {
            assert!(matches!(error.code, Code::TemplateError | Code::TemplateBudget), "{error}");
            assert!(
                error.message.len() < 2 * source.len() + 2000,
                "a message of {} bytes",
                error.message.len()
            );
        }
    }
}
