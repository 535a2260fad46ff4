//! Metadata values and typed getters whose errors name the key.

use crate::error::{Code, Error, Result};

/// A metadata value. Strings are bytes: files hold what is not UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// u8, u16, u32 or u64.
    U64(u64),
    /// i8, i16, i32 or i64.
    I64(i64),
    /// f32.
    F32(f32),
    /// f64.
    F64(f64),
    /// bool.
    Bool(bool),
    /// string.
    Str(Vec<u8>),
    /// Array of one kind of element.
    Array(Array),
}

/// A metadata array, kept compact: vocabularies have 10^5 entries.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// u8. Widths below 32 bits are kept: widened, they would take eight times the file's bytes.
    U8(Vec<u8>),
    /// i8.
    I8(Vec<i8>),
    /// u16.
    U16(Vec<u16>),
    /// i16.
    I16(Vec<i16>),
    /// u32 or u64.
    U64(Vec<u64>),
    /// i32 or i64.
    I64(Vec<i64>),
    /// f32.
    F32(Vec<f32>),
    /// f64.
    F64(Vec<f64>),
    /// bool.
    Bool(Vec<bool>),
    /// strings.
    Str(StrArray),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::Str(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` as an integer, of whatever width; `None` where it is none or does not fit.
    pub fn i64(&self, i: usize) -> Option<i64> {
        match self {
            Array::U8(v) => v.get(i).map(|&x| x.into()),
            Array::I8(v) => v.get(i).map(|&x| x.into()),
            Array::U16(v) => v.get(i).map(|&x| x.into()),
            Array::I16(v) => v.get(i).map(|&x| x.into()),
            Array::U64(v) => v.get(i).and_then(|&x| x.try_into().ok()),
            Array::I64(v) => v.get(i).copied(),
            _ => None,
        }
    }
}

/// Strings back to back, with the end of each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StrArray {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl StrArray {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds a string. The sum of all lengths must stay below 4 GiB (containers cap it far lower).
    pub fn push(&mut self, s: &[u8]) {
        self.bytes.extend_from_slice(s);
        self.ends.push(self.bytes.len() as u32);
    }

    /// String `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for StrArray {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut out = StrArray::default();
        strings.into_iter().for_each(|s| out.push(s.as_ref()));
        out
    }
}

/// Metadata entries in file order. A getter gives `None` where the key is absent and an
/// error that names the key where the value has another kind.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
}

impl Metadata {
    /// Adds an entry; the caller has checked that the key is new.
    pub fn push(&mut self, key: String, value: Value) {
        self.entries.push((key, value));
    }

    /// Takes out the entries whose keys `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.entries.retain(|(key, _)| keep(key));
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// A non-negative integer of any stored width.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::U64(v)) => Ok(Some(*v)),
            Some(Value::I64(v)) if *v >= 0 => Ok(Some(*v as u64)),
            Some(_) => Err(wrong(key, "a non-negative integer")),
        }
    }

    /// A number, f32, f64 or integer.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            Some(Value::U64(v)) => Ok(Some(*v as f32)),
            Some(Value::I64(v)) => Ok(Some(*v as f32)),
            Some(_) => Err(wrong(key, "a number")),
        }
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(_) => Err(wrong(key, "a bool")),
        }
    }

    /// A UTF-8 string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(v)) => match std::str::from_utf8(v) {
                Ok(s) => Ok(Some(s)),
                Err(_) => Err(wrong(key, "a UTF-8 string")),
            },
            Some(_) => Err(wrong(key, "a string")),
        }
    }

    /// An array of any kind.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(a)) => Ok(Some(a)),
            Some(_) => Err(wrong(key, "an array")),
        }
    }
}

fn wrong(key: &str, expected: &str) -> Error {
    Error::new(Code::BadValue, format!("expected {expected}")).key(key)
}
