//! Chat templates, with the errors of this crate; the interpreter is the crate `bitpane-template`.

pub use bitpane_template::{Clock, Dict, FUEL, List, MAX_SOURCE_BYTES, MAX_TEXT_BYTES, Value};

use crate::error::{Code, Error, Result};

/// The interpreter's error as one of this crate.
pub(crate) fn failed(error: bitpane_template::Error) -> Error {
    let code = if error.is_budget { Code::TemplateBudget } else { Code::TemplateError };
    Error::new(code, error.message.clone()).key("chat_template").source(error)
}

/// Renders a template: [`bitpane_template::render`].
///
/// # Errors
/// [`Code::TemplateError`] where the template is malformed, calls `raise_exception` or does what Jinja
/// refuses; [`Code::TemplateBudget`] where it needs more than it may. Both with the line.
pub fn render(source: &str, vars: Vec<(String, Value)>, clock: Clock) -> Result<String> {
    bitpane_template::render(source, vars, clock).map_err(failed)
}
