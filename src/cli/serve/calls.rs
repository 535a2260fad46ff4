//! Calls of tools, read out of what models write, and the schema that has them write one.
//!
//! The same formats as `www/lib/tool-calls.ts` reads for the package; that has the tests of each as well.

use super::fields::bad;
use crate::error::Result;
use crate::template::Value;
use serde_json::{Map, Value as Json, json};

const MARKERS: [&str; 4] = ["<tool_call>", "[TOOL_CALLS]", "<function=", "<|python_tag|>"];
/// So many markers without a call: the rest is text.
const MAX_MISSES: usize = 32;

/// A call: the name of a tool and its arguments as JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// The name in a tool, or in the choice of one.
pub(super) fn name_of(tool: &Json) -> Option<&str> {
    tool.get("function").unwrap_or(tool).get("name").and_then(Json::as_str)
}

/// The schema of one call of a tool, of `wanted` where that is given.
///
/// # Errors
/// `BadArgument` where there is no such tool.
pub(super) fn schema(tools: &[Json], wanted: Option<&str>) -> Result<String> {
    let mut defs = Map::new();
    let mut calls = Vec::new();
    for tool in tools {
        let Some(name) = name_of(tool).filter(|name| wanted.is_none_or(|wanted| wanted == *name)) else {
            continue;
        };
        let parameters = tool.get("function").unwrap_or(tool).get("parameters").cloned();
        let parameters = parameters.unwrap_or_else(|| json!({ "type": "object" }));
        // References within a tool's schema are from its own root.
        defs.extend(parameters.get("$defs").and_then(Json::as_object).cloned().unwrap_or_default());
        calls.push(json!({
            "type": "object",
            "properties": { "name": { "const": name }, "arguments": parameters },
            "required": ["name", "arguments"],
            "additionalProperties": false,
        }));
    }
    match (calls.len(), wanted) {
        (0, None) => Err(bad("tool_choice", "there are no tools to choose from")),
        (0, Some(name)) => Err(bad("tool_choice", format!("there is no tool {name:?}"))),
        _ => Ok(json!({ "anyOf": calls, "$defs": defs }).to_string()),
    }
}

/// Withholds from a stream what may be a call, until the answer has ended.
pub(super) struct CallFilter {
    names: Vec<String>,
    held: String,
    holds: bool,
    started: bool,
}

impl CallFilter {
    pub(super) fn new(names: Vec<String>) -> Self {
        CallFilter { names, held: String::new(), holds: false, started: false }
    }

    /// Takes text; gives what is certainly no call.
    pub(super) fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        if self.holds {
            return String::new();
        }
        if !self.started {
            match self.held.trim_start().chars().next() {
                None => return String::new(),
                // An answer that begins as JSON may be a call as a whole.
                Some('{' | '[' | '`') => {
                    self.holds = true;
                    return String::new();
                }
                Some(_) => self.started = true,
            }
        }
        let found = MARKERS.iter().filter_map(|marker| self.held.find(marker)).min();
        self.holds = found.is_some();
        let end = found.unwrap_or_else(|| self.held.len() - begun_marker(&self.held));
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }

    /// The rest of the answer: text and calls.
    pub(super) fn finish(self) -> (String, Vec<Call>) {
        read(&self.held, &self.names)
    }
}

/// How much of a text's end may be the start of a marker.
fn begun_marker(text: &str) -> usize {
    let begun = |marker: &&str| (1..marker.len()).rev().find(|&n| text.ends_with(&marker[..n]));
    MARKERS.iter().filter_map(begun).max().unwrap_or(0)
}

/// Takes an answer apart.
fn read(text: &str, names: &[String]) -> (String, Vec<Call>) {
    let (content, calls) = marked_calls(text);
    if !calls.is_empty() {
        return (content, calls);
    }
    match bare_calls(text, names) {
        Some(calls) if !calls.is_empty() => (String::new(), calls),
        _ => (text.to_string(), Vec::new()),
    }
}

/// Calls behind markers; what stands around them is content.
fn marked_calls(text: &str) -> (String, Vec<Call>) {
    let (mut content, mut calls) = (String::new(), Vec::new());
    let (mut from, mut misses) = (0, 0);
    while misses < MAX_MISSES {
        let first = MARKERS.iter().filter_map(|m| text[from..].find(m).map(|at| (from + at, *m))).min();
        let Some((at, marker)) = first else { break };
        match marked(text, marker, at + marker.len()) {
            Some((found, end)) => {
                content.push_str(&text[from..at]);
                calls.extend(found);
                from = end;
            }
            None => {
                content.push_str(&text[from..at + marker.len()]);
                from = at + marker.len();
                misses += 1;
            }
        }
    }
    content.push_str(&text[from..]);
    (content.trim().to_string(), calls)
}

fn marked(text: &str, marker: &str, at: usize) -> Option<(Vec<Call>, usize)> {
    if marker == "<function=" {
        let name = text[at..].split_once('>').map(|(name, _)| name)?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let (value, end) = value_at(text, at + name.len() + 1)?;
        let call = Call { name: name.to_string(), arguments: object(&value)? };
        return Some((vec![call], skip(text, end, "</function>")));
    }
    // Newer models of Mistral write the name before its arguments.
    let rest = text[at..].trim_start();
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
    if !name.is_empty() {
        let after = rest[name.len()..].strip_prefix("[ARGS]").unwrap_or(&rest[name.len()..]);
        let (value, end) = value_at(text, text.len() - after.len())?;
        let call = Call { name: name.to_string(), arguments: object(&value)? };
        return Some((vec![call], end));
    }
    let (value, end) = value_at(text, at)?;
    Some((calls_of(&value, None)?, skip(text, end, "</tool_call>")))
}

fn skip(text: &str, at: usize, end: &str) -> usize {
    match text[at..].trim_start().strip_prefix(end) {
        Some(rest) => text.len() - rest.len(),
        None => at,
    }
}

/// Calls in an answer that is nothing but JSON: one value, or several after one another.
fn bare_calls(text: &str, names: &[String]) -> Option<Vec<Call>> {
    let body = text.trim();
    let fenced = body.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let body = fenced.map_or(body, |rest| rest.strip_prefix("json").unwrap_or(rest));
    let mut calls = Vec::new();
    let mut at = 0;
    while !body[at..].trim().is_empty() {
        let (value, end) = value_at(body, at)?;
        calls.extend(calls_of(&value, Some(names))?);
        let rest = body[end..].trim_start();
        at = body.len() - rest.strip_prefix([';', ',']).unwrap_or(rest).len();
    }
    Some(calls)
}

/// The calls that a value stands for; with `names`, only of these.
fn calls_of(value: &Value, names: Option<&[String]>) -> Option<Vec<Call>> {
    if let Value::List(list) = value {
        let calls = list.items.iter().map(|item| calls_of(item, names));
        return Some(calls.collect::<Option<Vec<_>>>()?.concat());
    }
    if let Some(inner @ (Value::List(_) | Value::Dict(_))) = value.get("tool_calls").or(value.get("function"))
    {
        return calls_of(inner, names);
    }
    let name = ["name", "tool_name", "function"].iter().find_map(|key| value.get(key))?.as_str()?;
    if names.is_some_and(|names| names.iter().all(|known| known != name)) {
        return None;
    }
    let given = value.get("arguments").or(value.get("parameters"));
    let arguments = match given {
        Some(Value::Str(text)) => text.to_string(),
        Some(value) => object(value)?,
        None if names.is_none() => "{}".into(),
        None => return None,
    };
    Some(vec![Call { name: name.to_string(), arguments }])
}

/// The JSON of an object.
fn object(value: &Value) -> Option<String> {
    matches!(value, Value::Dict(_)).then(|| value.to_json().ok()).flatten()
}

/// The JSON object or list that begins at a place, white space aside, and where it ends.
fn value_at(text: &str, from: usize) -> Option<(Value, usize)> {
    let start = text.len() - text[from..].trim_start().len();
    if !text[start..].starts_with(['{', '[']) {
        return None;
    }
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (i, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((Value::from_json(&text[start..=i]).ok()?, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["get_weather".into(), "add".into()]
    }

    /// What a stream in pieces of `n` characters gives.
    fn streamed(text: &str, n: usize) -> (String, Vec<Call>) {
        let mut filter = CallFilter::new(names());
        let chars: Vec<char> = text.chars().collect();
        let mut content: String =
            chars.chunks(n).map(|piece| filter.push(&piece.iter().collect::<String>())).collect();
        let (rest, calls) = filter.finish();
        content.push_str(&rest);
        (content.trim().to_string(), calls)
    }

    #[test]
    fn each_format_gives_its_calls_in_whatever_pieces_it_comes() {
        let weather = Call { name: "get_weather".into(), arguments: r#"{"city": "Zürich"}"#.into() };
        let add = Call { name: "add".into(), arguments: r#"{"a": 1, "b": [2, "}"]}"#.into() };
        let both = [weather, add];
        for (text, content, calls) in [
            (
                "Let me see.\n<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\"}}</tool_call>\n<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": [2, \"}\"]}}\n</tool_call>",
                "Let me see.",
                &both[..],
            ),
            (
                r#"[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "abc"}]"#,
                "",
                &both[..1],
            ),
            (r#"[TOOL_CALLS]get_weather[ARGS]{"city": "Zürich"}"#, "", &both[..1]),
            (
                r#"{"name": "get_weather", "parameters": {"city": "Zürich"}}; {"name": "add", "parameters": {"a": 1, "b": [2, "}"]}}"#,
                "",
                &both[..],
            ),
            (
                r#"<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Zürich"}}"#,
                "",
                &both[..1],
            ),
            (
                r#"<function=get_weather>{"city": "Zürich"}</function><function=add>{"a":1,"b":[2,"}"]}</function>"#,
                "",
                &both[..],
            ),
            (
                "```json\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Zürich\"}}\n```",
                "",
                &both[..1],
            ),
        ] {
            for n in [1, 3, 1000] {
                assert_eq!(streamed(text, n), (content.to_string(), calls.to_vec()), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_call_stays_text() {
        for text in [
            "",
            "Hello.",
            "a < b and <tool",
            r#"{"name": "get_weather"}"#,
            r#"{"name": "no_such_tool", "arguments": {}}"#,
            "[1, 2]",
            "{broken",
            r#"{"name": "add", "arguments": {}} is how it is done"#,
            "<tool_call>not JSON</tool_call>",
            "<function=add>1</function>",
            "[TOOL_CALLS] are Mistral's",
            r#"{"name": "add", "arguments": 1}"#,
            "]]}}<tool_call>",
        ] {
            for n in [1, 2, 1000] {
                assert_eq!(streamed(text, n), (text.to_string(), vec![]), "{text}");
            }
        }
        let hostile = "<tool_call>{\"a\":".repeat(20_000);
        assert_eq!(streamed(&hostile, 1000).1, []);
    }

    #[test]
    fn a_choice_needs_its_tool() {
        let tools = [
            json!({ "type": "function", "function": { "name": "add", "parameters": { "type": "object", "$defs": { "x": true } } } }),
        ];
        assert!(schema(&tools, None).unwrap().contains("\"$defs\":{\"x\":true}"));
        assert!(schema(&tools, Some("add")).is_ok());
        assert_eq!(schema(&tools, Some("sub")).unwrap_err().key.as_deref(), Some("tool_choice"));
        assert!(schema(&[], None).is_err());
    }
}
