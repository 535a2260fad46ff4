//! A turn's prompt costs what is new in it.

use super::vocabulary::model;
use bitpane::tasks::{ChatRequest, GenerateOptions, Step, TextModel};
use bitpane::template::Clock;
use serde_json::json;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

struct Turn {
    n_prompt: usize,
    n_cached: usize,
    n_written: usize,
    text: String,
}

fn take_turn(model: &mut TextModel, messages: &[serde_json::Value], seed: i64) -> Turn {
    let request = ChatRequest::from_json(&json!({ "messages": messages }).to_string()).unwrap();
    let prompt = model.chat_tokens(&request, Clock::from_seconds(0)).unwrap();
    let mut options = GenerateOptions { max_tokens: 90, ..Default::default() };
    (options.sampler.temperature, options.sampler.top_k) = (1.0, 12);
    options.sampler.seed = Some(seed as _);
    let mut generation = model.start(prompt, options).unwrap();
    let mut text = String::new();
    loop {
        match model.step(&mut generation).unwrap() {
            Step::Prefill { .. } => {}
            Step::Piece { text: piece, .. } => text.push_str(&piece),
            Step::Done { text: rest, .. } => {
                text.push_str(&rest);
                break;
            }
        }
    }
    let (n_prompt, n_cached) = (generation.n_prompt(), generation.n_cached());
    Turn { n_prompt, n_cached, n_written: generation.tokens().len(), text }
}

fn thirty_turns(template: Option<&str>) {
    let mut model = model(template, 8000);
    let wanted = if template.is_some() { "model" } else { "chatml (the file has none)" };
    assert_eq!(model.info().chat_template, Some(wanted));
    let mut messages = vec![json!({ "role": "system", "content": "be brief and kind" })];
    let mut before = 0;
    let mut total_new = 0;
    for turn in 0..30 {
        let said = format!("turn {turn}: the cat and the tin of it in the end");
        messages.push(json!({ "role": "user", "content": said }));
        let took = take_turn(&mut model, &messages, turn);
        // New are the end of the last answer, its end mark, the user's turn and the start of the next one.
        let new = took.n_prompt - took.n_cached;
        if turn > 0 {
            assert!(
                took.n_cached + 1 >= before,
                "turn {turn}: {} of {before} tokens were kept",
                took.n_cached
            );
        }
        assert!(new <= 160, "turn {turn}: {new} tokens of {} processed", took.n_prompt);
        total_new += new;
        before = took.n_prompt + took.n_written;
        messages.push(json!({ "role": "assistant", "content": took.text }));
    }
    assert!(before >= 4000, "a conversation of {before} tokens");
    assert!(total_new < before, "{total_new} tokens processed for a conversation of {before}");
}

#[test]
fn thirty_turns_process_only_what_is_new_in_chatml() {
    thirty_turns(None);
}

#[test]
fn thirty_turns_process_only_what_is_new_with_a_template() {
    thirty_turns(Some(
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}</s>{% endfor %}[assistant] ",
    ));
}

#[test]
fn an_answer_that_was_changed_is_read_anew() {
    let mut model = model(None, 2000);
    let mut messages = vec![json!({ "role": "user", "content": "the tin" })];
    let first = take_turn(&mut model, &messages, 1);
    let ask = json!({ "role": "user", "content": "and then" });
    messages.extend([json!({ "role": "assistant", "content": "no" }), ask.clone()]);
    let changed = take_turn(&mut model, &messages, 2);
    assert!(changed.n_cached >= first.n_prompt && changed.n_cached < first.n_prompt + 3);
    // And a question that was changed, from there on.
    messages[0] = json!({ "role": "user", "content": "the cat" });
    assert!(take_turn(&mut model, &messages, 3).n_cached < first.n_prompt);
}
