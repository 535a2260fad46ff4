//! Filters: Jinja's own, and `tojson` as Hugging Face's environment has it.

use super::call::Given;
use super::fault;
use super::methods::{capitalized, joined, replaced, trimmed};
use super::show::{JsonStyle, escape, float};
use super::state::State;
use super::value::{Value, size};
use crate::error::Result;
use std::cmp::Ordering;

const KNOWN: [&str; 43] = [
    "tojson",
    "trim",
    "length",
    "count",
    "items",
    "list",
    "lower",
    "upper",
    "string",
    "join",
    "default",
    "d",
    "replace",
    "indent",
    "first",
    "last",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "unique",
    "sort",
    "dictsort",
    "reverse",
    "capitalize",
    "title",
    "int",
    "float",
    "abs",
    "round",
    "sum",
    "min",
    "max",
    "safe",
    "escape",
    "e",
    "forceescape",
    "format",
    "attr",
    "batch",
    "wordcount",
    "center",
];

/// Whether there is a filter of that name.
pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

impl State<'_> {
    /// `value | name(args)`.
    pub fn filter(&mut self, name: &str, value: Value, given: Given) -> Result<Value> {
        self.pay(1)?;
        match name {
            "trim" | "lower" | "upper" | "string" | "replace" | "indent" | "capitalize" | "title"
            | "safe" | "escape" | "e" | "forceescape" | "format" | "wordcount" | "center" => {
                self.text_filter(name, &value, &given)
            }
            "int" | "float" | "abs" | "round" => self.number_filter(name, &value, &given),
            "length" | "count" => match &value {
                Value::List(list) => Ok(Value::Int(list.items.len() as i64)),
                Value::Dict(dict) => Ok(Value::Int(dict.entries.len() as i64)),
                Value::Undefined(_) => Ok(Value::Int(0)),
                _ => match value.as_str() {
                    Some(text) => {
                        self.pay_bytes(text.len())?;
                        Ok(Value::Int(text.chars().count() as i64))
                    }
                    None => Err(fault(format!("{} has no length", value.type_name()))),
                },
            },
            "default" | "d" => {
                let missing = !value.is_defined() || (given.flag(1, "boolean", false) && !value.is_true());
                Ok(if missing {
                    given.get(0, "default_value").unwrap_or_else(|| Value::text(""))
                } else {
                    value
                })
            }
            "tojson" => {
                let style = self.json_style(&given)?;
                self.json(&value, &style)
            }
            "attr" => {
                let attr = given.text(0, "name", name)?;
                self.attr(&value, &attr)
            }
            other if is_known(other) => self.list_filter(name, value, &given),
            other => Err(fault(format!("the filter {other:?} is not known here"))),
        }
    }

    /// `tojson(indent=None, separators=None, sort_keys=False, ensure_ascii=False)`.
    fn json_style(&mut self, given: &Given) -> Result<JsonStyle> {
        // Its signature is (x, ensure_ascii=False, indent=None, separators=None, sort_keys=False).
        let ascii = given.flag(0, "ensure_ascii", false);
        let indent = match given.get(1, "indent") {
            None | Some(Value::None) => None,
            Some(Value::Str(text) | Value::Safe(text)) => Some(text.to_string()),
            Some(value) => {
                let n = value.as_int().ok_or_else(|| fault("the indent of tojson is no number"))?;
                let n = size(n);
                self.room_for(n)?;
                Some(" ".repeat(n))
            }
        };
        let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string());
        if let Some(separators) = given.get(2, "separators").filter(Value::is_true) {
            match &self.iterate(&separators)?[..] {
                [a, b] => (item, key) = (self.str(a)?.to_string(), self.str(b)?.to_string()),
                _ => return Err(fault("tojson takes two separators")),
            }
        }
        let sort_keys = given.flag(3, "sort_keys", false);
        Ok(JsonStyle { indent, item_separator: item, key_separator: key, ascii, sort_keys })
    }

    fn text_filter(&mut self, name: &str, value: &Value, given: &Given) -> Result<Value> {
        let text = self.str(value)?;
        // Escaping and changing case can make a text longer; each filter pays for what it makes.
        self.pay_bytes(text.len())?;
        match name {
            "trim" => {
                let chars = match given.get(0, "chars") {
                    None | Some(Value::None) => None,
                    Some(_) => Some(given.text(0, "chars", name)?),
                };
                self.text(trimmed(&text, chars.as_deref(), "strip").to_string())
            }
            "lower" | "upper" | "capitalize" | "title" => {
                self.room_for(text.len() * 3)?;
                self.text(match name {
                    "lower" => text.to_lowercase(),
                    "upper" => text.to_uppercase(),
                    "title" => words(&text),
                    _ => capitalized(&text),
                })
            }
            "string" => Ok(match value {
                Value::Safe(_) => value.clone(),
                _ => Value::Str(text),
            }),
            "safe" => Ok(Value::Safe(text)),
            "escape" | "e" | "forceescape" => match value {
                Value::Safe(_) if name != "forceescape" => Ok(value.clone()),
                _ => {
                    self.room_for(text.len() * 6)?;
                    Ok(Value::Safe(escape(&text).into()))
                }
            },
            "replace" => {
                let (old, new) = (given.required(0, "old", name)?, given.required(1, "new", name)?);
                let (old, new) = (self.str(&old)?, self.str(&new)?);
                let count = match given.get(2, "count") {
                    Some(Value::None) => -1,
                    _ => given.int(2, "count", -1)?,
                };
                replaced(self, &text, &old, &new, count)
            }
            "indent" => self.indent(&text, given),
            "format" => self.percent(&text, &given.plain),
            "wordcount" => Ok(Value::Int(text.split_whitespace().count() as i64)),
            _ => {
                let width = size(given.int(0, "width", 80)?);
                let n = width.saturating_sub(text.chars().count());
                self.room_for(text.len().saturating_add(n))?;
                // Python puts the odd blank on the left where the width is odd.
                let left = n / 2 + (n & width & 1);
                Ok(Value::from(format!("{}{text}{}", " ".repeat(left), " ".repeat(n - left))))
            }
        }
    }

    fn indent(&mut self, text: &str, given: &Given) -> Result<Value> {
        let indent = match given.get(0, "width") {
            Some(Value::Str(text) | Value::Safe(text)) => text.to_string(),
            _ => {
                let n = size(given.int(0, "width", 4)?);
                self.room_for(n)?;
                " ".repeat(n)
            }
        };
        let (first, blank) = (given.flag(1, "first", false), given.flag(2, "blank", false));
        let n_lines = text.matches('\n').count() + 1;
        self.room_for(text.len().saturating_add(indent.len().saturating_mul(n_lines)))?;
        let mut out = String::new();
        for (i, line) in text.split('\n').enumerate() {
            out.push_str(if i > 0 { "\n" } else { "" });
            if if i == 0 { first } else { blank || !line.is_empty() } {
                out.push_str(&indent);
            }
            out.push_str(line);
        }
        Ok(Value::from(out))
    }

    fn number_filter(&mut self, name: &str, value: &Value, given: &Given) -> Result<Value> {
        let number = value.as_number().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
        match name {
            "int" => {
                let whole = value.as_str().and_then(|text| text.trim().parse().ok()).or(value.as_int());
                let cut = number.map(|f| f as i64);
                Ok(whole.or(cut).map_or_else(|| given.get(0, "default").unwrap_or(Value::Int(0)), Value::Int))
            }
            "float" => {
                Ok(number.map_or_else(|| given.get(0, "default").unwrap_or(Value::Float(0.0)), Value::Float))
            }
            "abs" => match value {
                Value::Float(f) => Ok(Value::Float(f.abs())),
                _ => match value.as_int().and_then(i64::checked_abs) {
                    Some(i) => Ok(Value::Int(i)),
                    None => Err(fault(format!("{} has no absolute value", value.type_name()))),
                },
            },
            _ => {
                let Some(number) = value.as_number() else {
                    return Err(fault(format!("{} cannot be rounded", value.type_name())));
                };
                let scale = libm::pow(10.0, given.int(0, "precision", 0)? as f64);
                let method = given.get(1, "method");
                let scaled = number * scale;
                let rounded = match method.as_ref().and_then(Value::as_str) {
                    Some("ceil") => libm::ceil(scaled),
                    Some("floor") => libm::floor(scaled),
                    // Python rounds halves to even, and leaves whole numbers what they are.
                    _ if value.as_int().is_some() && scale >= 1.0 => return Ok(value.clone()),
                    _ => libm::rint(scaled),
                };
                Ok(Value::Float(rounded / scale))
            }
        }
    }

    fn list_filter(&mut self, name: &str, value: Value, given: &Given) -> Result<Value> {
        if name == "items" {
            return match &value {
                Value::Undefined(_) => self.list(Vec::new()),
                Value::Dict(dict) => self.dict_method(dict, "items", given),
                other => Err(fault(format!("{} has no items", other.type_name()))),
            };
        }
        if name == "reverse"
            && let Some(text) = value.as_str()
        {
            return self.text(text.chars().rev().collect());
        }
        // These five do not look at what is false: nothing comes of None, 0 and the like.
        let lenient = matches!(name, "map" | "select" | "reject" | "selectattr" | "rejectattr");
        let mut items = if lenient && !value.is_true() { Vec::new() } else { self.iterate(&value)? };
        match name {
            "list" => {}
            "first" | "last" => {
                let item = if name == "first" { items.into_iter().next() } else { items.pop() };
                return Ok(item.unwrap_or_else(|| Value::Undefined(format!("the {name} of nothing").into())));
            }
            "join" => {
                if let Some(attribute) = given.get(1, "attribute") {
                    items = self.attributes(&items, &attribute, None)?;
                }
                let between = given.get(0, "d").unwrap_or_else(|| Value::text(""));
                let between = self.str(&between)?;
                return joined(self, &items, &between, false);
            }
            "reverse" => items.reverse(),
            "map" => items = self.map(items, given)?,
            "select" | "reject" | "selectattr" | "rejectattr" => items = self.select(name, items, given)?,
            "unique" => items = self.unique(items, given)?,
            "sort" => {
                let keys = match given.get(2, "attribute") {
                    Some(attribute) => self.attributes(&items, &attribute, None)?,
                    None => items.clone(),
                };
                let cased = given.flag(1, "case_sensitive", false);
                items = self.sorted(items, keys, cased, given.flag(0, "reverse", false))?;
            }
            "dictsort" => {
                let Value::Dict(dict) = &value else { return Err(fault("dictsort takes a dict")) };
                let by_value = given.get(1, "by").is_some_and(|by| by.as_str() == Some("value"));
                let keys = dict.entries.iter().map(|(k, v)| if by_value { v } else { k }.clone()).collect();
                let Value::List(pairs) = self.dict_method(dict, "items", given)? else { return Ok(value) };
                let cased = given.flag(0, "case_sensitive", false);
                items = self.sorted(pairs.items.clone(), keys, cased, given.flag(2, "reverse", false))?;
            }
            "sum" => return self.sum(&items, given),
            "min" | "max" => {
                let keys = items.clone();
                let sorted = self.sorted(items, keys, false, name == "max")?;
                return Ok(sorted.into_iter().next().unwrap_or_else(|| Value::Undefined(name.into())));
            }
            _ => {
                let n = size(given.int(0, "linecount", 1)?).max(1);
                items = items.chunks(n).map(|chunk| Value::list(chunk.to_vec())).collect::<Result<_>>()?;
            }
        }
        self.list(items)
    }

    /// `attribute` (which may be a path with dots) of each item.
    fn attributes(
        &mut self,
        items: &[Value],
        attribute: &Value,
        default: Option<Value>,
    ) -> Result<Vec<Value>> {
        items.iter().map(|item| self.attribute(item, attribute, default.as_ref())).collect()
    }

    fn attribute(&mut self, item: &Value, attribute: &Value, default: Option<&Value>) -> Result<Value> {
        let mut value = item.clone();
        let path = self.str(attribute)?;
        for part in path.split('.') {
            self.pay(1)?;
            value = match part.parse() {
                Ok(at) => self.item(&value, &Value::Int(at))?,
                Err(_) => self.item(&value, &Value::text(part))?,
            };
        }
        Ok(if value.is_defined() { value } else { default.cloned().unwrap_or(value) })
    }

    fn map(&mut self, items: Vec<Value>, given: &Given) -> Result<Vec<Value>> {
        if let Some(attribute) = given.get(usize::MAX, "attribute") {
            return self.attributes(&items, &attribute, given.get(usize::MAX, "default"));
        }
        let filter = given.text(0, "filter", "map")?;
        let rest = |given: &Given| Given { plain: given.plain[1..].to_vec(), named: given.named.clone() };
        items.into_iter().map(|item| self.deeper(|this| this.filter(&filter, item, rest(given)))).collect()
    }

    fn select(&mut self, name: &str, items: Vec<Value>, given: &Given) -> Result<Vec<Value>> {
        let by_attribute = name.ends_with("attr");
        let attribute = if by_attribute { Some(given.required(0, "attribute", name)?) } else { None };
        let from = usize::from(by_attribute);
        let test = match given.plain.get(from) {
            Some(_) => Some(given.text(from, "test", name)?),
            None => None,
        };
        let plain = given.plain.get(from + 1..).unwrap_or_default().to_vec();
        let rest = Given { plain, named: Vec::new() };
        let mut kept = Vec::new();
        for item in items {
            let of = match &attribute {
                Some(attribute) => self.attribute(&item, attribute, None)?,
                None => item.clone(),
            };
            let holds = match &test {
                Some(test) => self.test(test, &of, &rest)?,
                None => of.is_true(),
            };
            if holds == name.starts_with("select") {
                kept.push(item);
            }
        }
        Ok(kept)
    }

    fn unique(&mut self, items: Vec<Value>, given: &Given) -> Result<Vec<Value>> {
        let cased = given.flag(0, "case_sensitive", false);
        let mut keys: Vec<Value> = Vec::new();
        let mut kept = Vec::new();
        for item in items {
            let of = match given.get(1, "attribute") {
                Some(attribute) => self.attribute(&item, &attribute, None)?,
                None => item.clone(),
            };
            let key = self.folded(of, cased)?;
            let mut known = false;
            for other in &keys {
                known = self.equal(other, &key)?;
                if known {
                    break;
                }
            }
            if !known {
                keys.push(key);
                kept.push(item);
            }
        }
        Ok(kept)
    }

    /// A key to compare by: texts in small letters, unless cases count.
    fn folded(&mut self, key: Value, cased: bool) -> Result<Value> {
        match key.as_str() {
            Some(text) if !cased => {
                self.room_for(text.len() * 3)?;
                self.text(text.to_lowercase())
            }
            _ => Ok(key),
        }
    }

    /// Items in the order of their keys. A merge by hand: comparing can fail, and has to be paid.
    fn sorted(&mut self, items: Vec<Value>, keys: Vec<Value>, cased: bool, down: bool) -> Result<Vec<Value>> {
        let mut order: Vec<(Value, Value)> = Vec::with_capacity(items.len());
        for (item, key) in items.into_iter().zip(keys) {
            let key = self.folded(key, cased)?;
            let (mut low, mut high) = (0, order.len());
            while low < high {
                let middle = (low + high) / 2;
                let ordering = self.order(&key, &order[middle].0)?;
                let goes_before = ordering == Some(if down { Ordering::Greater } else { Ordering::Less });
                (low, high) = if goes_before { (low, middle) } else { (middle + 1, high) };
            }
            self.pay_items(order.len() - low)?;
            order.insert(low, (key, item));
        }
        Ok(order.into_iter().map(|(_, item)| item).collect())
    }

    fn sum(&mut self, items: &[Value], given: &Given) -> Result<Value> {
        let items = match given.get(0, "attribute") {
            Some(attribute) => self.attributes(items, &attribute, None)?,
            None => items.to_vec(),
        };
        let start = given.get(1, "start").unwrap_or(Value::Int(0));
        items.iter().try_fold(start, |sum, item| self.binary(super::ast::Op::Add, &sum, item))
    }

    /// `text % args`.
    pub fn percent(&mut self, text: &str, args: &[Value]) -> Result<Value> {
        let mut out = String::new();
        let mut args = args.iter();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let spec: String = chars.clone().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            chars = chars.as_str()[spec.len()..].chars();
            let directive = chars.next().ok_or_else(|| fault("a format ends within a directive"))?;
            if directive == '%' {
                out.push('%');
                continue;
            }
            let arg = args.next().ok_or_else(|| fault("a format has more directives than values"))?;
            let shown = match (directive, arg.as_number(), spec.as_str()) {
                ('s', _, "") => self.str(arg)?.to_string(),
                ('r', _, "") => self.repr(arg)?,
                ('d' | 'i', Some(number), "") => {
                    float(libm::trunc(number)).trim_end_matches(".0").to_string()
                }
                ('f', Some(number), spec) => decimals(number, spec)?,
                _ => return Err(fault(format!("the format %{spec}{directive} is not supported here"))),
            };
            self.room_for(out.len() + shown.len())?;
            out.push_str(&shown);
        }
        if args.next().is_some() {
            return Err(fault("a format has fewer directives than values"));
        }
        self.text(out)
    }
}

/// Every word with a large first letter and small others. Jinja's words end at blanks, dashes and opening
/// brackets.
fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = !(c.is_whitespace() || "-({[<".contains(c));
    }
    out
}

/// Digits after the point as in `%.2f`.
fn decimals(number: f64, spec: &str) -> Result<String> {
    let digits = match spec.strip_prefix('.') {
        Some(digits) => digits.parse().ok().filter(|&n: &usize| n <= 100),
        None if spec.is_empty() => Some(6),
        None => None,
    };
    match digits {
        Some(digits) => Ok(format!("{number:.digits$}")),
        None => Err(fault(format!("the format %{spec}f is not supported here"))),
    }
}

/// Python's `str.format` with `{}`, `{0}` and `{name}`, and nothing more within the braces.
pub(super) fn braces(state: &mut State, text: &str, given: &Given) -> Result<Value> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        if tail.starts_with("{{") || tail.starts_with("}}") {
            out.push_str(&tail[..1]);
            rest = &tail[2..];
            continue;
        }
        let end = tail.find('}').filter(|_| tail.starts_with('{'));
        let end = end.ok_or_else(|| fault("a brace of a format has no partner"))?;
        let field = &tail[1..end];
        let value = match (field.is_empty(), field.parse::<usize>()) {
            (true, _) => given.plain.get(next).cloned(),
            (_, Ok(at)) => given.plain.get(at).cloned(),
            _ => given.get(usize::MAX, field),
        };
        next += usize::from(field.is_empty());
        let value = value.ok_or_else(|| fault(format!("the format has no value for {{{field}}}")))?;
        let shown = state.str(&value)?;
        state.room_for(out.len() + shown.len())?;
        out.push_str(&shown);
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    state.text(out)
}
