//! Chat templates: the part of Jinja that they use, with the results of Hugging Face's environment.
//!
//! A template comes with the model and is as little trusted as the rest of the file. Every step and
//! every byte made is paid from one budget, values and calls nest to a fixed depth, nothing outside
//! of the values given can be reached, and these cannot be changed. So a template may be wrong, but it
//! cannot hang, overflow the stack or exhaust the memory.
//!
//! What holds is the documentation of Jinja 3.1 ("Template Designer Documentation") and what
//! `apply_chat_template` of transformers sets: `trim_blocks`, `lstrip_blocks`, loop controls,
//! `{% generation %}`, `raise_exception`, `strftime_now`, its own `tojson`, no autoescaping.
//! A crate of its own so that it can be compiled for size: nothing in it runs hot, and every visitor of a page
//! downloads it. Libraries were no way out: none bounds what texts and lists may take.
//!
//! Left out: inheritance, imports and other ways to name a second template, recursive loops,
//! `*args` and `**kwargs` in calls.

mod ast;
mod call;
mod clock;
mod error;
mod eval;
mod exec;
mod filters;
mod lexer;
mod methods;
mod ops;
mod parser;
mod predicates;
mod show;
mod state;
mod statements;
mod value;

pub use clock::Clock;
pub use error::{Error, Result};
pub use value::{Dict, List, Value};

/// Longest template, in bytes. The longest of known models have 30 thousand.
pub const MAX_SOURCE_BYTES: usize = 512 << 10;
/// Longest result, and longest string that a template may make, in bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Steps that one rendering may take. Evaluating a node is one; so are 64 bytes of text or 8 values handled.
pub const FUEL: u64 = 500_000;

/// Renders a template.
///
/// `vars` are the names it may use, such as `messages`; `clock` is the time that `strftime_now` tells.
///
/// # Errors
/// Where the template is malformed, calls `raise_exception` or does what Jinja refuses; with
/// [`Error::is_budget`] where it needs more than the limits above. Both with the line.
pub fn render(source: &str, vars: Vec<(String, Value)>, clock: Clock) -> Result<String> {
    if source.len() > MAX_SOURCE_BYTES {
        let message = format!("the template has {} bytes, {MAX_SOURCE_BYTES} are allowed", source.len());
        return Err(budget(message));
    }
    let tokens = lexer::lex(source)?;
    let block = parser::parse(tokens)?;
    state::State::new(vars, clock).run(&block)
}

/// The template is wrong.
fn fault(message: impl Into<String>) -> Error {
    Error { is_budget: false, message: message.into() }
}

/// The template wants too much.
fn budget(message: impl Into<String>) -> Error {
    Error { is_budget: true, message: message.into() }
}

/// Says in which line of the template something went wrong.
fn at_line(mut error: Error, line: u32) -> Error {
    if !error.message.starts_with("line ") {
        error.message = format!("line {line}: {}", error.message);
    }
    error
}
