//! The values that templates work with: Python's, as far as templates can tell.

use super::{MAX_TEXT_BYTES, budget};
use crate::error::Result;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::rc::Rc;

/// Containers in containers: no deeper than this, so that nothing that walks them runs out of stack.
pub(super) const MAX_DEPTH: u16 = 100;

/// A value. Containers are shared and never change.
#[derive(Clone)]
pub enum Value {
    /// What a name stands for that is not defined; with that name.
    Undefined(Rc<str>),
    /// Python's `None`, JSON's `null`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// A text.
    Str(Rc<str>),
    /// A text that the filter `safe` has marked: adding another to it escapes that.
    Safe(Rc<str>),
    /// A list or tuple.
    List(Rc<List>),
    /// A dictionary, in the order of insertion.
    Dict(Rc<Dict>),
    /// Something that only exists while a template runs.
    #[doc(hidden)]
    Run(Run),
}

/// A list or tuple.
pub struct List {
    /// Its values.
    pub items: Vec<Value>,
    /// Whether Python would call it a tuple.
    pub(super) is_tuple: bool,
    depth: u16,
}

/// A dictionary, in the order of insertion.
pub struct Dict {
    /// Keys and values.
    pub entries: Vec<(Value, Value)>,
    depth: u16,
}

/// What only exists while a template runs: places in tables of [`super::state::State`], and functions.
#[derive(Clone)]
pub enum Run {
    /// A namespace object.
    Namespace(usize),
    /// A macro, or the body of a `call` block.
    Macro(usize),
    /// The `loop` of a loop under way.
    Loop(usize),
    /// A function that every template has.
    Function(&'static str),
    /// A method with what it belongs to.
    Method(Rc<(Value, String)>),
}

impl Value {
    /// A text.
    pub fn text(text: &str) -> Value {
        Value::Str(text.into())
    }

    /// A list.
    ///
    /// # Errors
    /// [`Error::is_budget`](crate::Error::is_budget) where containers nest too deep.
    pub fn list(items: Vec<Value>) -> Result<Value> {
        Self::sequence(items, false)
    }

    pub(super) fn sequence(items: Vec<Value>, is_tuple: bool) -> Result<Value> {
        let depth = deeper(items.iter().map(Value::depth).max())?;
        Ok(Value::List(Rc::new(List { items, is_tuple, depth })))
    }

    /// A dictionary; of equal keys the last value counts.
    ///
    /// # Errors
    /// As [`Value::list`].
    pub fn dict(entries: Vec<(Value, Value)>) -> Result<Value> {
        let depth = deeper(entries.iter().map(|(k, v)| k.depth().max(v.depth())).max())?;
        Ok(Value::Dict(Rc::new(Dict { entries, depth })))
    }

    fn depth(&self) -> u16 {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            // A method holds a value; that cannot be told from a container of one.
            Value::Run(Run::Method(method)) => method.0.depth() + 1,
            _ => 0,
        }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) | Value::Safe(text) => Some(text),
            _ => None,
        }
    }

    /// The value under a text key of a dictionary.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Dict(dict) = self else { return None };
        dict.entries.iter().rev().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }

    /// Reads JSON.
    ///
    /// # Errors
    /// What is wrong with it, or that lists and dictionaries nest too deep in it.
    pub fn from_json(json: &str) -> std::result::Result<Value, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// JSON on one line, as Python's `json.dumps` writes it.
    ///
    /// # Errors
    /// [`Error::is_budget`](crate::Error::is_budget) beyond [`MAX_TEXT_BYTES`].
    pub fn to_json(&self) -> Result<String> {
        super::show::json_line(self)
    }

    /// Whether the name is defined.
    pub(super) fn is_defined(&self) -> bool {
        !matches!(self, Value::Undefined(_))
    }

    /// Python's truth of a value.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(text) | Value::Safe(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Run(_) => true,
        }
    }

    /// A number as Python compares it: truth values are 0 and 1.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(*b)),
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            _ => None,
        }
    }

    /// A whole number, truth values included.
    pub(super) fn as_int(&self) -> Option<i64> {
        match self {
            Value::Bool(b) => Some(i64::from(*b)),
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// What Python calls its type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "undefined",
            Value::None => "None",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) | Value::Safe(_) => "str",
            Value::List(list) if list.is_tuple => "tuple",
            Value::List(_) => "list",
            Value::Dict(_) => "dict",
            Value::Run(Run::Namespace(_)) => "namespace",
            Value::Run(Run::Loop(_)) => "loop",
            Value::Run(_) => "function",
        }
    }
}

/// A number as a size: nothing below 0, and where it does not fit as much as there can be, on 32 bits too.
pub(super) fn size(number: i64) -> usize {
    usize::try_from(number.max(0)).unwrap_or(usize::MAX)
}

fn deeper(inner: Option<u16>) -> Result<u16> {
    match inner.unwrap_or(0) + 1 {
        depth if depth > MAX_DEPTH => {
            Err(budget(format!("lists and dictionaries nest deeper than {MAX_DEPTH}")))
        }
        depth => Ok(depth),
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Str(text.into())
    }
}

impl<'de> Deserialize<'de> for Value {
    /// From JSON, with the order of keys.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(FromJson)
    }
}

struct FromJson;

impl<'de> Visitor<'de> for FromJson {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, b: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> std::result::Result<Value, E> {
        Ok(Value::Int(i))
    }

    fn visit_u64<E>(self, u: u64) -> std::result::Result<Value, E> {
        Ok(i64::try_from(u).map_or(Value::Float(u as f64), Value::Int))
    }

    fn visit_f64<E>(self, f: f64) -> std::result::Result<Value, E> {
        Ok(Value::Float(f))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Value, E> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(E::custom(format!("a text of {} bytes, {MAX_TEXT_BYTES} are allowed", text.len())));
        }
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Value::list(items).map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            entries.push((Value::from(key), value));
        }
        Value::dict(entries).map_err(A::Error::custom)
    }
}
