//! Templates: whatever they say, they end with a text or an error, soon.

use super::mutate::{Random, mutated};
use bitpane::Code;
use bitpane::template::{Clock, MAX_TEXT_BYTES, Value, render};

const SEEDS: [&[u8]; 14] = [
    b"{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% if not loop.last %},{% endif %}{% endfor %}",
    b"{%- set ns = namespace(a=0, t='x') -%}{% for i in range(9) if i % 2 %}{% set ns.a = ns.a + i %}{{ ns.a }}{% endfor %}",
    b"{% macro f(n, m=2) %}{% if n > 0 %}{{ n * m }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) ~ f(m=3, n=1) }}",
    b"{% call(x) w([1, 2]) %}{{ x }}{% endcall %}{% filter upper %}a{% endfilter %}{% raw %}{{ }}{% endraw %}{# c #}",
    b"{{ messages | map(attribute='role') | join(', ') }}{{ messages | selectattr('role', 'equalto', 'user') | list | tojson(indent=2) }}",
    b"{{ 'a,b'.split(',')[::-1] }}{{ ' x '.strip() }}{{ 'abc'[1:] }}{{ 'x'.replace('', 'yy').title() }}{{ {'a': [1, (2,)]}.items() }}",
    b"{% set a, b = [1, 2.5] %}{{ -a ** 2 // b % 3 }}{{ a < b <= 3 and a in [1] or b is not none }}{{ 1 if a else 2 }}",
    b"{% if tools is defined and tools %}{{ tools | tojson }}{% elif messages[0].role == 'system' %}{{ messages[1:] }}{% else %}{{ raise_exception('x') }}{% endif %}",
    b"{% set t %}a{{ 1 }}{% endset %}{{ t | indent(4, true) | replace('a', t) | length }}{{ '%s %d' % (t, 1) }}{{ '{} {0}'.format(t) }}",
    b"{{ [3, 1] | sort | first }}{{ [1, 1] | unique | sum }}{{ 'b a' | wordcount }}{{ 2.5 | round(1) }}{{ '7' | int }}{{ dict(a=1) | dictsort }}",
    b"{% for k, v in {'x': 1}.items() %}{% for c in v | string %}{{ loop.index0 }}{% break %}{% endfor %}{% continue %}{% else %}e{% endfor %}",
    b"{% with x = 1 %}{% generation %}{{ x }}{% endgeneration %}{% endwith %}{{ strftime_now('%d %b %Y') }}{{ 'z' * 40 | center(50) }}",
    b"{% set ns = namespace(t=[1]) %}{% for i in range(30) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t == ns.t }}",
    b"{% set ns = namespace(t='ab') %}{% for i in range(50) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
];

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
    let source = mutated(&mut Random(seed), &SEEDS, &WORDS);
    let source = String::from_utf8_lossy(&source);
    match render(&source, vars(), Clock::from_seconds(seed as i64)) {
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
