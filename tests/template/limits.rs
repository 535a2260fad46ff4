//! Fault T09: templates that would take for ever, too much memory or too much stack.

use bitpane::template::{Clock, MAX_SOURCE_BYTES, MAX_TEXT_BYTES, Value, render};
use bitpane::{Code, Error};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn run(source: &str) -> Result<String, Error> {
    run_with(source, Vec::new())
}

fn run_with(source: &str, vars: Vec<(String, Value)>) -> Result<String, Error> {
    render(source, vars, Clock::from_seconds(0))
}

#[track_caller]
fn ends_with(code: Code, source: &str) {
    #[cfg(not(target_arch = "wasm32"))]
    let start = std::time::Instant::now();
    let shown: String = source.chars().take(120).collect();
    let error = run(source).expect_err(&shown);
    assert_eq!(error.code, code, "{shown}: {error}");
    assert_eq!(error.key.as_deref(), Some("chat_template"), "{shown}");
    #[cfg(not(target_arch = "wasm32"))]
    assert!(start.elapsed().as_secs() < 5, "{shown}: {:?}", start.elapsed());
}

/// The rows of T09 that are wrong rather than expensive.
#[test]
fn t09_malformed_templates_are_template_errors() {
    for source in [
        "{% if %}",
        "{{ 'a' | no_such_filter }}",
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ range.__globals__ }}",
        "{% set x = [] %}{{ x.append(1) }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ 10 ** 100 }}",
        "{{ 1 // 0 }}",
        "{{ -9223372036854775807 - 9 }}",
        "{{ 'a'.encode() }}",
        "{% for i in range(1, 3, 0) %}{% endfor %}",
    ] {
        ends_with(Code::TemplateError, source);
    }
}

/// The rows of T09 that are expensive, and what else multiplies.
#[test]
fn t09_expensive_templates_run_out_of_budget() {
    for source in [
        "{{ range(10**9) }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for a in range(999) %}{% for b in range(999) %}{% for c in range(999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ '-' * 10**10 }}",
        "{{ 10**10 * '-' }}",
        "{{ [1] * 10**10 }}",
        "{{ 'a' | indent(10**9) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ [1, [2]] | tojson(indent=10**9) }}",
        "{{ '%.100f%.100f' % (1, 1) * 10**9 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
        "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t='ab') %}{% for i in range(99) %}{% set ns.t = ns.t | replace('a', ns.t) %}{% endfor %}",
        "{% set ns = namespace(t=['ab']) %}{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(99) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t }}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(90) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t | tojson }}",
        "{% set ns = namespace(t=[1]) %}{% for i in range(90) %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.t == ns.t }}",
        "{% set ns = namespace(t=1) %}{% for i in range(9999) %}{% set ns.t = {'a': ns.t} %}{% endfor %}",
        "{% set ns = namespace(t=1) %}{% for i in range(9999) %}{% set ns.t = {'a': ns.t}.get %}{% endfor %}",
        "{% set t = 'a' * 1000000 %}{% for i in range(9999) %}{{ t | length }}{% endfor %}",
        "{% set t = 'a' * 1000000 %}{{ t }}{{ t }}",
        "{% set t = 'a' * 1000000 %}{{ [t, t, t] | join }}",
        "{% set t = 'a' * 1000000 %}{{ t.replace('a', t) }}",
        "{% set t = '&' * 1000000 %}{{ t | escape }}",
        "{% set t = 'a ' * 500000 %}{{ t.split() }}",
        "{% set t = 'a' * 1000000 %}{{ t | list }}",
        "{% for i in range(60000) %}{% macro m() %}{% endmacro %}{% endfor %}",
        "{{ range(400000) | sort | unique | list | length }}",
        "{{ range(4000) | unique | list | length }}",
    ] {
        ends_with(Code::TemplateBudget, source);
    }
}

#[test]
fn t09_nesting_is_bounded_before_the_stack_ends() {
    let deep = |open: &str, inner: &str, close: &str, n: usize| open.repeat(n) + inner + &close.repeat(n);
    for n in [40, 5_000, 50_000] {
        ends_with(Code::TemplateBudget, &format!("{{{{ {} }}}}", deep("(", "1", ")", n)));
        ends_with(Code::TemplateBudget, &format!("{{{{ {} }}}}", deep("[", "1", "]", n)));
        ends_with(Code::TemplateBudget, &format!("{{{{ {} }}}}", deep("- ", "1", "", n)));
        ends_with(Code::TemplateBudget, &format!("{{{{ {} }}}}", deep("not ", "1", "", n)));
        ends_with(Code::TemplateBudget, &format!("{{{{ {} }}}}", deep("a[", "1", "]", n)));
    }
    for n in [200, 5_000] {
        for chain in ["1 + ", "x.a.", "x or ", "x if y else ", "1 ** "] {
            ends_with(Code::TemplateBudget, &format!("{{{{ {}x }}}}", chain.repeat(n)));
        }
        ends_with(Code::TemplateBudget, &format!("{{{{ x{} }}}}", "|list".repeat(n)));
        ends_with(Code::TemplateBudget, &format!("{{{{ x{} }}}}", "[0]".repeat(n)));
        ends_with(Code::TemplateBudget, &deep("{% if 1 %}", "x", "{% endif %}", n));
    }
    // What the parser lets pass has a limit where it runs: 31 levels of 90 operators each.
    let worst = (0..30).fold("x".to_string(), |inner, _| format!("({inner}{})", " + x".repeat(90)));
    ends_with(Code::TemplateBudget, &format!("{{% set x = 1 %}}{{{{ {worst} }}}}"));
}

#[test]
fn t09_a_template_of_ten_megabytes_is_refused() {
    ends_with(Code::TemplateBudget, &"x".repeat(10 << 20));
    ends_with(Code::TemplateBudget, &"{{ 1 }}".repeat(2 << 20));
    assert_eq!(run(&"x".repeat(MAX_SOURCE_BYTES)).unwrap().len(), MAX_SOURCE_BYTES);
    let text = "{% set t = 'ab' * 524288 %}{{ t }}";
    assert_eq!(run(text).unwrap().len(), MAX_TEXT_BYTES);
}

/// Numbers that do not fit a size where these have 32 bits.
#[test]
fn large_numbers_are_no_small_ones() {
    let text = "{{ [1, 2, 3][::4294967296] }}{{ [1, 2, 3][::-4294967296] }}{{ [1, 2, 3][-4294967297:4294967297] }}\
                {{ 'a' * -4294967295 }}{{ 'aa'.replace('a', 'b', 4294967296) }}{{ 'a b'.split(' ', 4294967296) }}\
                {{ [1, 2] | batch(4294967297) | list }}{{ range(4294967297, 4294967299) | list }}";
    let wanted = "[1][3][1, 2, 3]bb['a', 'b'][[1, 2]][4294967297, 4294967298]";
    assert_eq!(run(text).unwrap(), wanted);
}

/// A long conversation is no attack: 500 turns of 1,000 characters.
#[test]
fn a_long_conversation_fits_the_budget() {
    let message = |i: usize| {
        let role = if i.is_multiple_of(2) { "user" } else { "assistant" };
        let entry = |k: &str, v: String| (Value::text(k), Value::from(v));
        Value::dict(vec![entry("role", role.into()), entry("content", "word ".repeat(200))]).unwrap()
    };
    let messages = Value::list((0..500).map(message).collect()).unwrap();
    let source = "{% for m in messages %}{% if m.role == 'user' %}{{ '<u>' + m['content'] | trim + '</u>' }}\
                  {% elif m.role == 'assistant' %}{{ '<a>' ~ m.content.strip() ~ '</a>' }}{% endif %}{% endfor %}";
    let text = run_with(source, vec![("messages".into(), messages)]).unwrap();
    assert_eq!(text.len(), 500 * (999 + 7));
}

/// Values from JSON nest no deeper than the engine can bear, and are never cut short silently.
#[test]
fn deep_json_is_refused() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(serde_json::from_str::<Value>(&nested(100)).is_ok());
    for n in [101, 1_000, 100_000] {
        assert!(serde_json::from_str::<Value>(&nested(n)).is_err(), "{n}");
    }
}
