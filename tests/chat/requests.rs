//! What is a conversation, and what is not: fault T10, and which template is used for what.

use super::vocabulary::{metadata, tokenizer};
use bitpane::Code;
use bitpane::container::{Array, Metadata, Value as Meta};
use bitpane::tasks::{ChatFormat, ChatRequest};
use bitpane::template::Clock;
use serde_json::{Value, json};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn text_of(format: &ChatFormat, request: &Value) -> String {
    let request = ChatRequest::from_json(&request.to_string()).unwrap();
    let tokenizer = tokenizer(&["<s>", "</s>", "<|im_start|>", "<|im_end|>"]);
    format.render(&tokenizer, &request, Clock::from_seconds(0)).unwrap().text
}

#[test]
fn t10_what_is_no_conversation_is_a_bad_argument() {
    let message = |role: Value, content: Value| json!({ "messages": [{ "role": role, "content": content }] });
    let call =
        |call: Value| json!({ "messages": [{ "role": "assistant", "content": null, "tool_calls": call }] });
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let many: Vec<Value> = (0..10_000).map(|_| hi[0].clone()).collect();
    let cases = [
        ("messages[0].role", message(json!("wizard"), json!("hi"))),
        ("messages[0].role", message(json!(1), json!("hi"))),
        ("messages[0].role", json!([{ "content": "hi" }])),
        ("messages", json!([])),
        ("messages", json!({ "messages": [] })),
        ("messages", json!({})),
        ("messages", json!("hi")),
        ("messages", json!({ "messages": "hi" })),
        ("messages", json!({ "messages": many })),
        ("messages[0]", json!([1])),
        ("messages[0].content", message(json!("user"), json!(1))),
        ("messages[0].content", message(json!("user"), json!(null))),
        ("messages[0].content", message(json!("user"), json!({ "text": "hi" }))),
        ("messages[0].content", message(json!("user"), json!([{ "type": "image_url", "image_url": "x" }]))),
        ("messages[0].content", message(json!("user"), json!([{ "type": "text", "text": 1 }]))),
        ("messages[0].content", json!([{ "role": "tool" }])),
        ("messages[0].tool_calls", call(json!("f"))),
        ("messages[0].tool_calls", call(json!([{}]))),
        ("messages[0].tool_calls", call(json!([{ "function": { "name": "f" } }]))),
        ("messages[0].tool_calls", call(json!([{ "function": { "arguments": "{}" } }]))),
        ("tools", json!({ "messages": hi, "tools": "f" })),
        ("tools", json!({ "messages": hi, "tools": [{}] })),
        ("documents", json!({ "messages": hi, "documents": 1 })),
        ("enable_thinking", json!({ "messages": hi, "enable_thinking": "yes" })),
        ("chat_template_kwargs", json!({ "messages": hi, "chat_template_kwargs": 1 })),
        ("chat_template_kwargs", json!({ "messages": hi, "chat_template_kwargs": { "messages": [] } })),
        ("temprature", json!({ "messages": hi, "temprature": 1 })),
    ];
    for (key, request) in cases {
        let json = request.to_string();
        let shown: String = json.chars().take(100).collect();
        let error = ChatRequest::from_json(&json).err().unwrap_or_else(|| panic!("{shown} is taken"));
        assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some(key)), "{shown}: {error}");
    }
    for text in ["", "{", "[{\"role\": \"user\", \"content\": \"\\ud800\"}]", &"[".repeat(100_000)] {
        assert_eq!(ChatRequest::from_json(text).err().unwrap().code, Code::BadArgument);
    }
}

#[test]
fn chatml_is_the_fallback() {
    let given = text_of(
        &ChatFormat::default(),
        &json!([
            { "role": "system", "content": "A" },
            { "role": "user", "content": [{ "type": "text", "text": "B" }, { "type": "text", "text": "C" }] },
        ]),
    );
    assert_eq!(
        given,
        "<|im_start|>system\nA<|im_end|>\n<|im_start|>user\nB\nC<|im_end|>\n<|im_start|>assistant\n"
    );
    let closed = text_of(
        &ChatFormat::default(),
        &json!({
            "messages": [{ "role": "user", "content": "B" }], "add_generation_prompt": false,
        }),
    );
    assert_eq!(closed, "<|im_start|>user\nB<|im_end|>\n");
}

#[test]
fn tools_take_the_template_that_is_named_for_them() {
    let mut meta = Metadata::default();
    let text = |text: &str| Meta::Str(text.as_bytes().to_vec());
    meta.push(
        "tokenizer.chat_templates".into(),
        Meta::Array(Array::Str(["tool_use", "rag"].iter().collect())),
    );
    meta.push("tokenizer.chat_template".into(), text("plain"));
    meta.push("tokenizer.chat_template.tool_use".into(), text("{{ tools[0].function.name }}"));
    let format = ChatFormat::from_gguf(&meta).unwrap();
    let hi = json!([{ "role": "user", "content": "hi" }]);
    assert_eq!(text_of(&format, &hi), "plain");
    assert_eq!(text_of(&format, &json!({ "messages": hi, "tools": [] })), "plain");
    let tools = json!([{ "type": "function", "function": { "name": "look_up" } }]);
    assert_eq!(text_of(&format, &json!({ "messages": hi, "tools": tools })), "look_up");
    let mut broken = Metadata::default();
    broken.push("tokenizer.chat_template".into(), Meta::U64(1));
    assert_eq!(ChatFormat::from_gguf(&broken).unwrap_err().key.as_deref(), Some("tokenizer.chat_template"));
}

/// The arguments of a call come as text; templates that want objects get them, others the text.
#[test]
fn arguments_have_the_form_that_the_template_takes() {
    let request = json!([{ "role": "assistant", "content": null, "tool_calls": [
        { "type": "function", "function": { "name": "f", "arguments": "{\"b\": 1, \"a\": [2.5]}" } },
    ] }]);
    let with = |source: &str| text_of(&ChatFormat::from_template(source), &request);
    let call = "messages[0].tool_calls[0].function.arguments";
    assert_eq!(with(&format!("{{{{ {call} | tojson }}}}")), r#"{"b": 1, "a": [2.5]}"#);
    assert_eq!(with(&format!("{{% for k, v in {call}.items() %}}{{{{ k }}}};{{% endfor %}}")), "b;a;");
    assert_eq!(with(&format!("{{{{ 'x ' + {call} }}}}")), r#"x {"b": 1, "a": [2.5]}"#);
}

#[test]
fn switches_and_other_variables_reach_the_template() {
    let request = json!({
        "messages": [{ "role": "developer", "content": "d" }],
        "enable_thinking": false,
        "documents": [{ "title": "t" }],
        "chat_template_kwargs": { "level": "high" },
    });
    let source = "{{ enable_thinking }} {{ documents[0].title }} {{ level }} {{ add_generation_prompt }} \
                  {{ bos_token }} {{ eos_token }} {{ messages[0].role }} {{ strftime_now('%Y') }} {{ missing is defined }}";
    let given = text_of(&ChatFormat::from_template(source), &request);
    assert_eq!(given, "False t high True <s> </s> system 1970 False");
    let knows = text_of(&ChatFormat::from_template("{# developer #}{{ messages[0].role }}"), &request);
    assert_eq!(knows, "developer");
}

#[test]
fn a_start_token_is_there_once() {
    let tokenizer = tokenizer(&["<s>", "</s>"]);
    let request = ChatRequest::from_json(r#"[{"role": "user", "content": "hi"}]"#).unwrap();
    let bos = tokenizer.bos();
    for source in ["{{ bos_token }}hi", "hi"] {
        let prompt =
            ChatFormat::from_template(source).render(&tokenizer, &request, Clock::from_seconds(0)).unwrap();
        let ids = prompt.encode(&tokenizer).unwrap();
        assert_eq!(ids.iter().filter(|&&id| Some(id) == bos).count(), 1, "{source}");
        assert_eq!(ids.first().copied(), bos);
    }
}

/// Whatever a model calls the end of its turn ends its answer.
#[test]
fn ends_of_turns_end_an_answer() {
    for end in [
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<end_of_turn>",
        "<|end|>",
        "</s>",
        "<|endoftext|>",
        "<|return|>",
        "<|call|>",
    ] {
        let mut meta = Metadata::default();
        metadata(&[end], None).into_iter().for_each(|(key, value)| meta.push(key, value));
        let tokenizer = bitpane::tokenizer::Tokenizer::from_gguf(&meta).unwrap();
        assert!(tokenizer.is_eog(tokenizer.id_of(end).unwrap()), "{end}");
    }
}
