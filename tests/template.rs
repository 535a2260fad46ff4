//! Chat templates against Python's Jinja, and what a hostile template can do.

#[cfg(not(target_arch = "wasm32"))]
mod common;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

#[path = "template/limits.rs"]
mod limits;
#[path = "template/reference.rs"]
mod reference;
