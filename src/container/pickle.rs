//! Reads a pickle of tensors without running anything: objects are made of an allow-list, and every other name
//! that a pickle asks for is an error.
//!
//! Objects lie in one list and refer to each other by number, so that neither nesting nor cycles need the stack,
//! and an object costs memory once however often it is mentioned. Each operation adds at most one object: memory
//! is bounded by the length of the pickle.
//!
//! Source: Python's `pickletools` (the operations), PyTorch's `torch/serialization.py` (what they mean).

use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;

/// Longest pickle, bytes. Names and shapes of the largest models take a few megabytes.
pub const MAX_BYTES: usize = 64 << 20;

/// A value on the pickle machine's stack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// True or false.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A number.
    Float(f64),
    /// A function or class of the allow-list.
    Global(Global),
    /// An object, by its place in [`Pickle::objects`].
    Object(usize),
}

/// What a pickle may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.Size`.
    Size,
    /// A class of storages.
    Storage(Element),
}

/// Element types of storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Element {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Element {
    /// Bytes of an element.
    pub fn n_bytes(self) -> u64 {
        match self {
            Element::F64 | Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 | Element::Bf16 | Element::I16 => 2,
            Element::I8 | Element::U8 | Element::Bool => 1,
        }
    }
}

/// By module and name.
const GLOBALS: &[(&str, &str, Global)] = &[
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Global::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Global::RebuildParameter),
    ("torch", "Size", Global::Size),
    ("torch", "DoubleStorage", Global::Storage(Element::F64)),
    ("torch", "FloatStorage", Global::Storage(Element::F32)),
    ("torch", "HalfStorage", Global::Storage(Element::F16)),
    ("torch", "BFloat16Storage", Global::Storage(Element::Bf16)),
    ("torch", "LongStorage", Global::Storage(Element::I64)),
    ("torch", "IntStorage", Global::Storage(Element::I32)),
    ("torch", "ShortStorage", Global::Storage(Element::I16)),
    ("torch", "CharStorage", Global::Storage(Element::I8)),
    ("torch", "ByteStorage", Global::Storage(Element::U8)),
    ("torch", "BoolStorage", Global::Storage(Element::Bool)),
];

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// Text; bytes that are no UTF-8 are replaced.
    Text(String),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A list or a set.
    List(Vec<Value>),
    /// Entries in the order in which they were set; later ones replace earlier ones of the same key.
    Dict(Vec<(Value, Value)>),
    /// Numbers in another place of the file.
    Storage {
        /// Type of the elements.
        element: Element,
        /// The name of the place.
        key: String,
        /// Elements.
        len: u64,
    },
    /// A view of a storage.
    Tensor(View),
}

/// A tensor as a view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The storage, by its place in [`Pickle::objects`].
    pub storage: usize,
    /// Elements before the first.
    pub offset: u64,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Elements from one index to the next, for each dimension.
    pub strides: Vec<u64>,
}

/// What a pickle holds.
#[derive(Debug)]
pub struct Pickle {
    /// All objects.
    pub objects: Vec<Object>,
    /// What was pickled.
    pub root: Value,
    /// Bytes up to the end of the pickle.
    pub n_bytes: usize,
}

impl Pickle {
    /// The text that a value is.
    pub fn text(&self, value: Value) -> Option<&str> {
        match self.object(value)? {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The object that a value is.
    pub fn object(&self, value: Value) -> Option<&Object> {
        match value {
            Value::Object(at) => self.objects.get(at),
            _ => None,
        }
    }
}

/// Reads the pickle at the beginning of `bytes`.
///
/// # Errors
/// [`Code::UnsupportedArch`] naming a function or class that is not on the allow-list; [`Code::Truncated`],
/// [`Code::BadValue`], [`Code::LimitExceeded`], with the place in `bytes`.
pub fn read(bytes: &[u8]) -> Result<Pickle> {
    let mut machine = Machine {
        bytes: &bytes[..bytes.len().min(MAX_BYTES)],
        at: 0,
        op_at: 0,
        is_cut: bytes.len() > MAX_BYTES,
        budget: 2 * bytes.len().min(MAX_BYTES),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        objects: Vec::new(),
    };
    loop {
        machine.op_at = machine.at;
        let [op] = machine.array()?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { objects: machine.objects, root, n_bytes: machine.at });
        }
        machine.step(op)?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the operation began.
    op_at: usize,
    /// Whether bytes follow that are beyond the limit.
    is_cut: bool,
    /// Items and bytes that may still be copied: what the memo holds can be mentioned any number of times.
    budget: usize,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Value>,
    objects: Vec<Object>,
}

impl<'a> Machine<'a> {
    fn bad(&self, rule: impl Into<String>) -> Error {
        Error::new(Code::BadValue, rule).at(self.op_at as u64)
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None if self.is_cut => {
                let rule = format!("a pickle of more than {MAX_BYTES} bytes");
                Err(Error::new(Code::LimitExceeded, rule).at(self.op_at as u64))
            }
            None => Err(Error::new(Code::Truncated, "the pickle ends in the midst").at(self.op_at as u64)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| self.bad("too few bytes"))
    }

    /// A line, without its end.
    fn line(&mut self) -> Result<&'a str> {
        let len = self.bytes[self.at..].iter().position(|&b| b == b'\n');
        let line = self.take(len.map_or(u64::MAX, |len| len as u64))?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| self.bad("a line that is not UTF-8"))
    }

    fn pop(&mut self) -> Result<Value> {
        match self.stack.pop() {
            Some(value) if self.stack.len() >= self.marks.last().copied().unwrap_or(0) => Ok(value),
            _ => Err(self.bad("the stack is empty")),
        }
    }

    fn top(&self) -> Result<Value> {
        self.stack.last().copied().ok_or_else(|| self.bad("the stack is empty"))
    }

    /// What was pushed since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        let mark = mark.ok_or_else(|| self.bad("there is no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn push(&mut self, object: Object) {
        self.objects.push(object);
        self.stack.push(Value::Object(self.objects.len() - 1));
    }

    fn push_text(&mut self, n: u64) -> Result<()> {
        let text = String::from_utf8_lossy(self.take(n)?).into_owned();
        self.push(Object::Text(text));
        Ok(())
    }

    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            // PROTO, FRAME: of no consequence.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'K' | b'M' | b'J' | b'I' | b'L' | 0x8a | b'G' | b'F' => {
                let number = self.number(op)?;
                self.stack.push(number);
            }
            b'X' | b'T' | b'B' => {
                let n = u32::from_le_bytes(self.array()?);
                self.push_text(n.into())?;
            }
            0x8c | b'U' | b'C' => {
                let [n] = self.array()?;
                self.push_text(n.into())?;
            }
            0x8d | 0x8e | 0x96 => {
                let n = u64::from_le_bytes(self.array()?);
                self.push_text(n)?;
            }
            b'V' | b'S' => {
                let text = self.line()?.trim_matches(['\'', '"']).to_string();
                self.push(Object::Text(text));
            }
            b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.memo(op)?,
            b')' | 0x85..=0x87 | b't' | b']' | b'l' | b'}' | b'd' | 0x8f => self.container(op)?,
            b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(op)?,
            b'c' | 0x93 => self.global(op)?,
            b'Q' | b'P' => self.persistent(op)?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            other => return Err(self.bad(format!("the pickle operation {other:#04x} is not supported"))),
        }
        Ok(())
    }

    fn number(&mut self, op: u8) -> Result<Value> {
        Ok(match op {
            b'K' => Value::Int(self.array::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.array()?)),
            b'F' => {
                let line = self.line()?;
                Value::Float(line.parse().map_err(|_| self.bad(format!("{line:?} is no number")))?)
            }
            b'I' | b'L' => match self.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                line => {
                    let digits = line.trim_end_matches('L');
                    Value::Int(digits.parse().map_err(|_| self.bad(format!("{digits:?} is no integer")))?)
                }
            },
            _ => {
                let [n] = self.array()?;
                let digits = self.take(n.into())?;
                // Longer ones occur (a magic number); what they are does not matter.
                let sign = if digits.last().is_some_and(|b| *b >= 0x80) { 0xff } else { 0 };
                let mut wide = [sign; 8];
                digits.iter().zip(&mut wide).for_each(|(from, to)| *to = *from);
                Value::Int(i64::from_le_bytes(wide))
            }
        })
    }

    fn memo(&mut self, op: u8) -> Result<()> {
        let at = match op {
            0x94 => self.memo.len() as u64,
            b'q' | b'h' => self.array::<1>()?[0].into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?).into(),
            _ => {
                let line = self.line()?;
                line.parse().map_err(|_| self.bad(format!("{line:?} is no place in the memo")))?
            }
        };
        if matches!(op, b'h' | b'j' | b'g') {
            let value = self.memo.get(&at).copied();
            self.stack.push(value.ok_or_else(|| self.bad(format!("the memo has no {at}")))?);
        } else {
            self.memo.insert(at, self.top()?);
        }
        Ok(())
    }

    fn container(&mut self, op: u8) -> Result<()> {
        let object = match op {
            b')' => Object::Tuple(Vec::new()),
            b't' => Object::Tuple(self.pop_mark()?),
            0x85..=0x87 => {
                let mut items = (0x85..=op).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
                items.reverse();
                Object::Tuple(items)
            }
            b']' | 0x8f => Object::List(Vec::new()),
            b'l' => Object::List(self.pop_mark()?),
            b'}' => Object::Dict(Vec::new()),
            _ => {
                let items = self.pop_mark()?;
                Object::Dict(self.pairs(&items)?)
            }
        };
        self.push(object);
        Ok(())
    }

    fn pairs(&self, items: &[Value]) -> Result<Vec<(Value, Value)>> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
            _ => Err(self.bad("a key without a value")),
        }
    }

    /// Adds to the container below.
    fn fill(&mut self, op: u8) -> Result<()> {
        let items = match op {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        let pairs = if matches!(op, b's' | b'u') { self.pairs(&items)? } else { Vec::new() };
        let container = match self.top()? {
            Value::Object(at) => self.objects.get_mut(at),
            _ => None,
        };
        match container {
            Some(Object::List(list)) if pairs.is_empty() => list.extend(items),
            Some(Object::Dict(entries)) if matches!(op, b's' | b'u') => entries.extend(pairs),
            _ => return Err(self.bad("something is added to what holds nothing")),
        }
        Ok(())
    }

    fn global(&mut self, op: u8) -> Result<()> {
        let (module, name) = if op == b'c' {
            (self.line()?.to_string(), self.line()?.to_string())
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            (self.text_of(module)?, self.text_of(name)?)
        };
        let known = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module.as_str(), name.as_str()));
        match known {
            Some((.., global)) => self.stack.push(Value::Global(*global)),
            None => {
                let shown: String = format!("{module}.{name}").chars().take(128).collect();
                let rule =
                    format!("the checkpoint asks for {shown}, which is not among what checkpoints need");
                return Err(Error::new(Code::UnsupportedArch, rule).key(shown).at(self.op_at as u64));
            }
        }
        Ok(())
    }

    fn spend(&mut self, n: usize) -> Result<()> {
        let limit = || Error::new(Code::LimitExceeded, "the pickle makes too much of little");
        self.budget = self.budget.checked_sub(n).ok_or_else(|| limit().at(self.op_at as u64))?;
        Ok(())
    }

    fn text_of(&mut self, value: Value) -> Result<String> {
        if let Value::Object(at) = value
            && let Object::Text(text) = &self.objects[at]
        {
            self.spend(text.len())?;
        }
        match value {
            Value::Object(at) => match &self.objects[at] {
                Object::Text(text) => Ok(text.clone()),
                _ => Err(self.bad("expected a text")),
            },
            _ => Err(self.bad("expected a text")),
        }
    }

    fn tuple_of(&self, value: Value) -> Result<&[Value]> {
        match value {
            Value::Object(at) => match &self.objects[at] {
                Object::Tuple(items) | Object::List(items) => Ok(items),
                _ => Err(self.bad("expected a tuple")),
            },
            _ => Err(self.bad("expected a tuple")),
        }
    }

    fn count(&self, value: Value) -> Result<u64> {
        match value {
            Value::Int(n) => u64::try_from(n).map_err(|_| self.bad(format!("{n} is negative"))),
            _ => Err(self.bad("expected an integer")),
        }
    }

    /// `("storage", class, key, device, elements)`: the only thing that may lie outside.
    fn persistent(&mut self, op: u8) -> Result<()> {
        if op == b'P' {
            return Err(self.bad("a persistent id that is a line"));
        }
        let id = self.pop()?;
        let parts = self.tuple_of(id)?;
        let &[kind, Value::Global(Global::Storage(element)), key, _, len, ref rest @ ..] = parts else {
            return Err(self.bad("a persistent id that is no storage"));
        };
        let is_view = rest.iter().any(|view| *view != Value::None);
        if is_view || self.text_of(kind)? != "storage" {
            return Err(self.bad("a persistent id that is no storage"));
        }
        let (key, len) = (self.text_of(key)?, self.count(len)?);
        self.push(Object::Storage { element, key, len });
        Ok(())
    }

    /// Calls a function of the allow-list.
    fn call(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        self.spend(self.tuple_of(arguments)?.len())?;
        let arguments = self.tuple_of(arguments)?.to_vec();
        match (callee, arguments.as_slice()) {
            (Value::Global(Global::OrderedDict), []) => self.push(Object::Dict(Vec::new())),
            (Value::Global(Global::OrderedDict), [pairs]) => {
                self.spend(self.tuple_of(*pairs)?.len())?;
                let pairs = self.tuple_of(*pairs)?.iter().map(|pair| match self.tuple_of(*pair)? {
                    [key, value] => Ok((*key, *value)),
                    _ => Err(self.bad("a pair of another length")),
                });
                let entries = pairs.collect::<Result<_>>()?;
                self.push(Object::Dict(entries));
            }
            (Value::Global(Global::Size), [size]) => self.stack.push(*size),
            (Value::Global(Global::RebuildParameter), [tensor, ..]) => self.stack.push(*tensor),
            (Value::Global(Global::RebuildTensor), [Value::Object(storage), offset, shape, strides, ..]) => {
                let counts = |value: Value| -> Result<Vec<u64>> {
                    // One more than a tensor may have shows as too many.
                    self.tuple_of(value)?.iter().take(9).map(|n| self.count(*n)).collect()
                };
                let view = View {
                    storage: *storage,
                    offset: self.count(*offset)?,
                    shape: counts(*shape)?,
                    strides: counts(*strides)?,
                };
                let is_storage = matches!(self.objects.get(*storage), Some(Object::Storage { .. }));
                if !is_storage || view.shape.len() != view.strides.len() || view.shape.len() > 8 {
                    return Err(self.bad("a tensor that is no view of a storage"));
                }
                self.push(Object::Tensor(view));
            }
            _ => return Err(self.bad("a call of what is no function, or with other arguments")),
        }
        Ok(())
    }

    /// Attributes of dictionaries (state dicts have some) are of no consequence.
    fn build(&mut self) -> Result<()> {
        self.pop()?;
        match self.top()? {
            Value::Object(at) if matches!(self.objects[at], Object::Dict(_)) => Ok(()),
            _ => Err(self.bad("attributes of what has none")),
        }
    }
}
