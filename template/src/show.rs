//! Values as text: Python's `str` and `repr`, and JSON as Python's `json.dumps` writes it.

use super::state::State;
use super::value::{Run, Value};
use super::{MAX_TEXT_BYTES, budget, fault};
use crate::error::Result;
use std::fmt::Write;
use std::rc::Rc;

impl State<'_> {
    /// Python's `str(value)`.
    pub fn str(&mut self, value: &Value) -> Result<Rc<str>> {
        match value {
            Value::Str(text) | Value::Safe(text) => Ok(text.clone()),
            Value::Undefined(_) => Ok("".into()),
            other => Ok(self.repr(other)?.into()),
        }
    }

    /// Python's `repr(value)`.
    pub fn repr(&mut self, value: &Value) -> Result<String> {
        let mut out = String::new();
        repr(value, &mut out)?;
        self.room_for(out.len())?;
        Ok(out)
    }

    /// JSON. Without an indent all is on one line, with ", " and ": " between.
    pub fn json(&mut self, value: &Value, style: &JsonStyle) -> Result<Value> {
        let mut out = String::new();
        json(value, style, 0, &mut out)?;
        self.text(out)
    }
}

/// JSON on one line.
pub(super) fn json_line(value: &Value) -> Result<String> {
    let (item_separator, key_separator) = (", ".to_string(), ": ".to_string());
    let style = JsonStyle { indent: None, item_separator, key_separator, ascii: false, sort_keys: false };
    let mut out = String::new();
    json(value, &style, 0, &mut out)?;
    Ok(out)
}

/// How JSON is written.
pub(super) struct JsonStyle {
    /// What one level of indentation is.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub ascii: bool,
    pub sort_keys: bool,
}

/// A text that is being written has to stay within bounds even before it is paid.
fn bounded(out: &str) -> Result<()> {
    if out.len() > MAX_TEXT_BYTES {
        return Err(budget(format!("a text of more than {MAX_TEXT_BYTES} bytes")));
    }
    Ok(())
}

fn repr(value: &Value, out: &mut String) -> Result<()> {
    bounded(out)?;
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Float(f) => out.push_str(&float(*f)),
        Value::Str(text) => quoted(text, out),
        Value::Safe(text) => {
            out.push_str("Markup(");
            quoted(text, out);
            out.push(')');
        }
        Value::List(list) => {
            out.push(if list.is_tuple { '(' } else { '[' });
            for (i, item) in list.items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(item, out)?;
            }
            out.push_str(match (list.is_tuple, list.items.len()) {
                (false, _) => "]",
                (true, 1) => ",)",
                (true, _) => ")",
            });
        }
        Value::Dict(dict) => {
            out.push('{');
            for (i, (key, value)) in dict.entries.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(key, out)?;
                out.push_str(": ");
                repr(value, out)?;
            }
            out.push('}');
        }
        Value::Run(run) => out.push_str(match run {
            Run::Namespace(_) => "<Namespace>",
            Run::Macro(_) => "<Macro>",
            Run::Loop(_) => "<LoopContext>",
            Run::Function(_) | Run::Method(_) => "<function>",
        }),
    }
    Ok(())
}

/// A text in quotes, as Python writes it.
fn quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) || c == '\u{ad}' => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Python's `repr` of a float: the shortest digits, an exponent from 1e16 on and below 1e-4.
pub(super) fn float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    let size = f.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{f:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = match power.strip_prefix('-') {
            Some(power) => ('-', power),
            None => ('+', power),
        };
        return format!("{digits}e{sign}{power:0>2}");
    }
    format!("{f:?}")
}

fn json(value: &Value, style: &JsonStyle, level: usize, out: &mut String) -> Result<()> {
    bounded(out)?;
    match value {
        Value::None => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(i) => out.push_str(&i.to_string()),
        Value::Float(f) => out.push_str(&json_float(*f)),
        Value::Str(text) | Value::Safe(text) => json_text(text, style.ascii, out),
        Value::List(list) => {
            let items = list.items.iter().map(|item| (None, item)).collect();
            json_container(('[', ']'), items, style, level, out)?;
        }
        Value::Dict(dict) => {
            let mut items: Vec<(Option<&Value>, &Value)> =
                dict.entries.iter().map(|(k, v)| (Some(k), v)).collect();
            if style.sort_keys {
                items.sort_by(|a, b| a.0.and_then(Value::as_str).cmp(&b.0.and_then(Value::as_str)));
            }
            json_container(('{', '}'), items, style, level, out)?;
        }
        other => return Err(fault(format!("{} cannot be written as JSON", other.type_name()))),
    }
    Ok(())
}

fn json_container(
    (open, close): (char, char),
    items: Vec<(Option<&Value>, &Value)>,
    style: &JsonStyle,
    level: usize,
    out: &mut String,
) -> Result<()> {
    let newline = |level: usize, out: &mut String| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..level).for_each(|_| out.push_str(indent));
        }
    };
    out.push(open);
    for (i, (key, value)) in items.iter().enumerate() {
        out.push_str(if i > 0 { &style.item_separator } else { "" });
        newline(level + 1, out);
        if let Some(key) = key {
            let name = match key {
                Value::Str(text) | Value::Safe(text) => text.to_string(),
                Value::Int(_) | Value::Bool(_) | Value::None | Value::Float(_) => {
                    let mut name = String::new();
                    json(key, style, 0, &mut name)?;
                    name
                }
                other => return Err(fault(format!("{} is no key of JSON", other.type_name()))),
            };
            json_text(&name, style.ascii, out);
            out.push_str(&style.key_separator);
        }
        json(value, style, level + 1, out)?;
    }
    if !items.is_empty() {
        newline(level, out);
    }
    out.push(close);
    Ok(())
}

fn json_float(f: f64) -> String {
    match float(f).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.into(),
    }
}

fn json_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// HTML's special characters as references, as markupsafe writes them.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}
