//! Methods of texts, dictionaries and lists that do not change them.

use super::call::Given;
use super::fault;
use super::state::State;
use super::value::{Dict, List, Run, Value, size};
use crate::error::Result;

const TEXT: [&str; 35] = [
    "strip",
    "lstrip",
    "rstrip",
    "split",
    "rsplit",
    "splitlines",
    "startswith",
    "endswith",
    "upper",
    "lower",
    "title",
    "capitalize",
    "replace",
    "find",
    "rfind",
    "index",
    "rindex",
    "count",
    "join",
    "format",
    "removeprefix",
    "removesuffix",
    "partition",
    "rpartition",
    "isdigit",
    "isalpha",
    "isalnum",
    "isspace",
    "isupper",
    "islower",
    "isnumeric",
    "isdecimal",
    "zfill",
    "ljust",
    "rjust",
];
const DICT: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const LIST: [&str; 3] = ["index", "count", "copy"];
const LOOP: [&str; 2] = ["cycle", "changed"];
/// Methods that would change a value: the sandbox refuses them.
const CHANGING: [&str; 14] = [
    "append",
    "extend",
    "insert",
    "remove",
    "pop",
    "clear",
    "sort",
    "reverse",
    "update",
    "setdefault",
    "popitem",
    "add",
    "discard",
    "fromkeys",
];

/// Whether a value has that method, be it only to be refused.
pub(super) fn has(of: &Value, name: &str) -> bool {
    match of {
        Value::Str(_) | Value::Safe(_) => TEXT.contains(&name),
        Value::Dict(_) => {
            DICT.contains(&name) || ["pop", "clear", "update", "setdefault", "popitem"].contains(&name)
        }
        Value::List(_) => LIST.contains(&name) || CHANGING[..8].contains(&name),
        Value::Run(Run::Loop(_)) => LOOP.contains(&name),
        _ => false,
    }
}

fn unknown(of: &str, name: &str) -> Result<Value> {
    Err(fault(match CHANGING.contains(&name) {
        true => format!("{name:?} would change a {of}, which templates may not"),
        false => format!("a {of} has no method {name:?}"),
    }))
}

/// Whether a text has cased letters, all of the one case.
pub(super) fn is_cased(text: &str, upper: bool) -> bool {
    let cased = |c: &char| c.is_uppercase() || c.is_lowercase();
    text.chars().any(|c| cased(&c)) && text.chars().filter(cased).all(|c| c.is_uppercase() == upper)
}

impl State<'_> {
    pub fn dict_method(&mut self, dict: &Dict, name: &str, given: &Given) -> Result<Value> {
        self.pay_items(dict.entries.len())?;
        match name {
            "get" => {
                let key = given.required(0, "key", "get")?;
                let found = self.find_key(&dict.entries, &key)?.map(|at| dict.entries[at].1.clone());
                Ok(found.or_else(|| given.get(1, "default")).unwrap_or(Value::None))
            }
            "items" => {
                let pair = |(k, v): &(Value, Value)| Value::sequence(vec![k.clone(), v.clone()], true);
                Value::list(dict.entries.iter().map(pair).collect::<Result<_>>()?)
            }
            "keys" => Value::list(dict.entries.iter().map(|(key, _)| key.clone()).collect()),
            "values" => Value::list(dict.entries.iter().map(|(_, value)| value.clone()).collect()),
            "copy" => Value::dict(dict.entries.clone()),
            _ => unknown("dict", name),
        }
    }

    pub fn list_method(&mut self, list: &List, name: &str, given: &Given) -> Result<Value> {
        match name {
            "index" | "count" => {
                let wanted = given.required(0, "value", name)?;
                let mut n = 0;
                for (i, item) in list.items.iter().enumerate() {
                    if self.equal(item, &wanted)? {
                        if name == "index" {
                            return Ok(Value::Int(i as i64));
                        }
                        n += 1;
                    }
                }
                if name == "index" {
                    return Err(fault("the value is not in the list"));
                }
                Ok(Value::Int(n))
            }
            "copy" => self.list(list.items.clone()),
            _ => unknown("list", name),
        }
    }
}

/// A method of a text.
pub(super) fn text_method(state: &mut State, text: &str, name: &str, given: &Given) -> Result<Value> {
    // Each of them reads the text once, and most write one as long.
    state.pay_bytes(text.len())?;
    let whole =
        |predicate: fn(char) -> bool| Ok(Value::Bool(!text.is_empty() && text.chars().all(predicate)));
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let chars = match given.get(0, "chars") {
                None | Some(Value::None) => None,
                Some(_) => Some(given.text(0, "chars", name)?),
            };
            let text = trimmed(text, chars.as_deref(), name);
            state.text(text.to_string())
        }
        "split" | "rsplit" => split(state, text, name == "rsplit", given),
        "splitlines" => {
            let keep = given.flag(0, "keepends", false);
            let lines = text.split_inclusive('\n').map(|line| match keep {
                true => Value::text(line),
                false => {
                    Value::text(line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l)))
                }
            });
            let lines = lines.collect();
            state.list(lines)
        }
        "startswith" | "endswith" => {
            let parts = match given.required(0, "prefix", name)? {
                Value::List(list) if list.is_tuple => list.items.clone(),
                part => vec![part],
            };
            state.pay_items(parts.len())?;
            for part in parts {
                let Some(part) = part.as_str() else {
                    return Err(fault(format!("{name} needs a text, not {}", part.type_name())));
                };
                if if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) } {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        // A character's other case may take up to three times its bytes.
        "upper" | "lower" | "title" | "capitalize" => {
            state.room_for(text.len() * 3)?;
            state.text(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "title" => title(text),
                _ => capitalized(text),
            })
        }
        "replace" => {
            let (old, new) = (given.text(0, "old", name)?, given.text(1, "new", name)?);
            let count = given.int(2, "count", -1)?;
            replaced(state, text, &old, &new, count)
        }
        "find" | "rfind" | "index" | "rindex" => {
            let part = given.text(0, "sub", name)?;
            let found = if name.starts_with('r') { text.rfind(&*part) } else { text.find(&*part) };
            match found {
                Some(at) => Ok(Value::Int(text[..at].chars().count() as i64)),
                None if name.ends_with("find") => Ok(Value::Int(-1)),
                None => Err(fault("the text does not hold what was looked for")),
            }
        }
        "count" => {
            let part = given.text(0, "sub", name)?;
            let n = if part.is_empty() { text.chars().count() + 1 } else { text.matches(&*part).count() };
            Ok(Value::Int(n as i64))
        }
        "join" => {
            let items = given.required(0, "iterable", name)?;
            let items = state.iterate(&items)?;
            joined(state, &items, text, true)
        }
        "format" => super::filters::braces(state, text, given),
        "removeprefix" | "removesuffix" => {
            let part = given.text(0, "affix", name)?;
            let cut =
                if name == "removeprefix" { text.strip_prefix(&*part) } else { text.strip_suffix(&*part) };
            state.text(cut.unwrap_or(text).to_string())
        }
        "partition" | "rpartition" => {
            let sep = given.text(0, "sep", name)?;
            let backwards = name == "rpartition";
            let found = if backwards { text.rsplit_once(&*sep) } else { text.split_once(&*sep) };
            let parts = match found {
                Some((before, after)) => [before, &sep, after],
                None if backwards => ["", "", text],
                None => [text, "", ""],
            };
            Value::sequence(parts.map(Value::text).to_vec(), true)
        }
        "isdigit" | "isdecimal" | "isnumeric" => whole(char::is_numeric),
        "isalpha" => whole(char::is_alphabetic),
        "isalnum" => whole(char::is_alphanumeric),
        "isspace" => whole(char::is_whitespace),
        "isupper" | "islower" => Ok(Value::Bool(is_cased(text, name == "isupper"))),
        "zfill" | "ljust" | "rjust" => padded(state, text, name, given),
        _ => unknown("text", name),
    }
}

/// A text without white space, or without any of `chars`, at its ends.
pub(super) fn trimmed<'a>(text: &'a str, chars: Option<&str>, how: &str) -> &'a str {
    let cut = |c: char| match chars {
        Some(chars) => chars.contains(c),
        // Python counts the separators of ASCII as white space, Unicode does not.
        None => c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c),
    };
    match how {
        "lstrip" => text.trim_start_matches(cut),
        "rstrip" => text.trim_end_matches(cut),
        _ => text.trim_matches(cut),
    }
}

fn split(state: &mut State, text: &str, backwards: bool, given: &Given) -> Result<Value> {
    let max = given.int(1, "maxsplit", -1)?;
    let max = usize::try_from(max).unwrap_or(usize::MAX - 1);
    // Every part is a value of its own.
    let parts: Vec<&str> = match given.get(0, "sep") {
        None | Some(Value::None) => by_space(text, max, backwards),
        Some(_) => {
            let sep = given.text(0, "sep", "split")?;
            if sep.is_empty() {
                return Err(fault("a text cannot be split at nothing"));
            }
            if backwards {
                let mut parts: Vec<&str> = text.rsplitn(max + 1, &*sep).collect();
                parts.reverse();
                parts
            } else {
                text.splitn(max + 1, &*sep).collect()
            }
        }
    };
    state.pay(parts.len() as u64)?;
    Value::list(parts.into_iter().map(Value::text).collect())
}

/// Words; after `max` cuts the rest stays whole.
fn by_space(text: &str, max: usize, backwards: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let cut = if parts.len() == max {
            None
        } else if backwards {
            rest.rfind(char::is_whitespace)
        } else {
            rest.find(char::is_whitespace)
        };
        let Some(at) = cut else {
            parts.push(rest);
            break;
        };
        let (before, after) = rest.split_at(at);
        if backwards {
            parts.push(after.trim_start());
            rest = before.trim_end();
        } else {
            parts.push(before);
            rest = after.trim_start();
        }
    }
    if backwards {
        parts.reverse();
    }
    parts
}

/// `text` with up to `count` places of `old` replaced; all where `count` is negative.
pub(super) fn replaced(state: &mut State, text: &str, old: &str, new: &str, count: i64) -> Result<Value> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let n = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() }.min(count);
    state.room_for(
        (text.len() - if old.is_empty() { 0 } else { n * old.len() })
            .saturating_add(n.saturating_mul(new.len())),
    )?;
    Ok(Value::from(text.replacen(old, new, n)))
}

/// Values one after another. Python's method takes texts only, Jinja's filter anything.
pub(super) fn joined(state: &mut State, items: &[Value], between: &str, texts_only: bool) -> Result<Value> {
    let mut text = String::new();
    for (i, item) in items.iter().enumerate() {
        if texts_only && item.as_str().is_none() {
            return Err(fault(format!("join needs texts, not {}", item.type_name())));
        }
        let part = state.str(item)?;
        let between = if i > 0 { between } else { "" };
        if text.len() + between.len() + part.len() > super::MAX_TEXT_BYTES {
            return Err(super::budget("join makes a text that is too long"));
        }
        state.pay_bytes(between.len() + part.len())?;
        text.push_str(between);
        text.push_str(&part);
    }
    state.pay(items.len() as u64 / 8)?;
    Ok(Value::from(text))
}

fn padded(state: &mut State, text: &str, how: &str, given: &Given) -> Result<Value> {
    let width = size(given.int(0, "width", 0)?);
    let fill = match how {
        "zfill" => "0".into(),
        _ => match given.get(1, "fillchar") {
            Some(_) => given.text(1, "fillchar", how)?,
            None => " ".into(),
        },
    };
    if fill.chars().count() != 1 {
        return Err(fault("a text is filled up with one character"));
    }
    let n = width.saturating_sub(text.chars().count());
    state.room_for(text.len().saturating_add(n.saturating_mul(fill.len())))?;
    let filling = fill.repeat(n);
    let (sign, digits) = match how == "zfill" && text.starts_with(['+', '-']) {
        true => text.split_at(1),
        false => ("", text),
    };
    Ok(Value::from(if how == "ljust" {
        format!("{text}{filling}")
    } else {
        format!("{sign}{filling}{digits}")
    }))
}

/// Python's `str.title`: every letter after something that is none is large.
pub(super) fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

/// The first letter large, all others small.
pub(super) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().collect::<String>() + &chars.as_str().to_lowercase(),
        None => String::new(),
    }
}
