//! Conversations as prompts: what users say stays text (T08), what is no conversation is refused (T10),
//! and a turn costs what is new in it.

#[cfg(not(target_arch = "wasm32"))]
mod common;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

#[path = "chat/plain_text.rs"]
mod plain_text;
#[path = "chat/requests.rs"]
mod requests;
#[path = "chat/turns.rs"]
mod turns;
#[path = "chat/vocabulary.rs"]
mod vocabulary;
