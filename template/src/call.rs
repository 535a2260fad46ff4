//! Calls of macros and of the functions that every template has.

use super::fault;
use super::methods;
use super::state::State;
use super::value::{Run, Value};
use crate::error::Result;
use std::rc::Rc;

/// The functions that every template has. `cycler`, `joiner` and `lipsum` are left out.
const FUNCTIONS: [&str; 5] = ["range", "dict", "namespace", "raise_exception", "strftime_now"];

/// The function of that name.
pub(super) fn function(name: &str) -> Option<&'static str> {
    FUNCTIONS.into_iter().find(|f| *f == name)
}

/// Arguments, evaluated.
pub(super) struct Given {
    pub plain: Vec<Value>,
    pub named: Vec<(String, Value)>,
}

impl Given {
    /// The argument that is `at` that place or has that name.
    pub fn get(&self, at: usize, name: &str) -> Option<Value> {
        let named = || self.named.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        self.plain.get(at).or_else(named).cloned()
    }

    /// As [`Given::get`]; `of` says of what the argument is missing.
    pub fn required(&self, at: usize, name: &str, of: &str) -> Result<Value> {
        self.get(at, name).ok_or_else(|| fault(format!("{of} needs the argument {name:?}")))
    }

    /// A text.
    pub fn text(&self, at: usize, name: &str, of: &str) -> Result<Rc<str>> {
        match self.required(at, name, of)? {
            Value::Str(text) | Value::Safe(text) => Ok(text),
            other => Err(fault(format!("{of} needs a text as {name:?}, not {}", other.type_name()))),
        }
    }

    /// A whole number, or what it is by default.
    pub fn int(&self, at: usize, name: &str, default: i64) -> Result<i64> {
        match self.get(at, name) {
            None => Ok(default),
            Some(value) => value
                .as_int()
                .ok_or_else(|| fault(format!("{name:?} needs a whole number, not {}", value.type_name()))),
        }
    }

    /// A truth value, or what it is by default.
    pub fn flag(&self, at: usize, name: &str, default: bool) -> bool {
        self.get(at, name).map_or(default, |value| value.is_true())
    }
}

impl State<'_> {
    pub fn call(&mut self, callee: &Value, given: Given) -> Result<Value> {
        match callee {
            Value::Run(Run::Macro(at)) => self.call_macro(*at, given),
            Value::Run(Run::Function(name)) => self.call_function(name, &given),
            Value::Run(Run::Method(method)) => {
                let (of, name) = &**method;
                self.method(of, name, &given)
            }
            Value::Run(Run::Loop(at)) => {
                let _ = at;
                Err(fault("recursive loops are not supported"))
            }
            Value::Undefined(name) => Err(fault(format!("{name:?} is undefined and cannot be called"))),
            other => Err(fault(format!("{} cannot be called", other.type_name()))),
        }
    }

    fn call_macro(&mut self, at: usize, given: Given) -> Result<Value> {
        let (code, scope) = (self.macros[at].code, self.macros[at].scope);
        let n_params = code.params.len();
        for (name, _) in &given.named {
            if name != "caller" && code.params.iter().all(|(param, _)| param != name) {
                return Err(fault(format!("the macro {:?} has no parameter {name:?}", code.name)));
            }
        }
        if given.plain.len() > n_params {
            let message =
                format!("the macro {:?} takes {n_params} arguments, not {}", code.name, given.plain.len());
            return Err(fault(message));
        }
        let text = self.capture(|this| {
            this.deeper(|this| {
                this.scoped(scope, |this| {
                    for (i, (name, default)) in code.params.iter().enumerate() {
                        let value = match (given.get(i, name), default) {
                            (Some(value), _) => value,
                            (None, Some(default)) => this.eval(default)?,
                            (None, None) => Value::Undefined(name.as_str().into()),
                        };
                        this.set(name, value)?;
                    }
                    if let Some(caller) = given.get(usize::MAX, "caller") {
                        this.set("caller", caller)?;
                    }
                    this.block(&code.body)
                })
            })
        })?;
        self.text(text)
    }

    fn call_function(&mut self, name: &str, given: &Given) -> Result<Value> {
        match name {
            "range" => self.range(given),
            "raise_exception" => {
                let message = given.required(0, "message", name)?;
                let message = self.str(&message)?;
                let shown: String = message.chars().take(500).collect();
                Err(fault(format!("the template refuses this conversation: {shown}")))
            }
            "strftime_now" => {
                let format = given.text(0, "format", name)?;
                self.room_for(format.len() * 10)?;
                let text = self.clock.format(&format);
                self.text(text)
            }
            _ => {
                let mut entries = match given.plain.first() {
                    Some(first) => self.pairs(first)?,
                    None => Vec::new(),
                };
                for (name, value) in &given.named {
                    entries.push((Value::text(name), value.clone()));
                }
                self.pay_items(entries.len())?;
                if name == "dict" {
                    return Value::dict(entries);
                }
                let attrs = entries.into_iter().map(|(key, value)| Ok((self.str(&key)?, value)));
                let attrs = attrs.collect::<Result<Vec<_>>>()?;
                self.namespaces.push(attrs);
                Ok(Value::Run(Run::Namespace(self.namespaces.len() - 1)))
            }
        }
    }

    /// Keys and values of a dictionary, or pairs of a list.
    fn pairs(&mut self, value: &Value) -> Result<Vec<(Value, Value)>> {
        if let Value::Dict(dict) = value {
            return Ok(dict.entries.clone());
        }
        let mut pairs = Vec::new();
        for item in self.iterate(value)? {
            match &self.iterate(&item)?[..] {
                [key, value] => pairs.push((key.clone(), value.clone())),
                other => return Err(fault(format!("a pair is needed, not {} values", other.len()))),
            }
        }
        Ok(pairs)
    }

    fn range(&mut self, given: &Given) -> Result<Value> {
        let (start, stop) = match given.plain.len() {
            0 | 1 => (0, given.int(0, "stop", 0)?),
            _ => (given.int(0, "start", 0)?, given.int(1, "stop", 0)?),
        };
        let step = given.int(2, "step", 1)?;
        if step == 0 {
            return Err(fault("a range cannot go in steps of 0"));
        }
        let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
        let n = if span <= 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) };
        // Before the list is made: a budget of steps is soon smaller than a range.
        self.pay(n)?;
        Value::list((0..n as i64).map(|i| Value::Int(start + i * step)).collect())
    }

    /// A method of a value.
    fn method(&mut self, of: &Value, name: &str, given: &Given) -> Result<Value> {
        match of {
            Value::Dict(dict) => self.dict_method(dict, name, given),
            Value::List(list) => self.list_method(list, name, given),
            Value::Run(Run::Loop(at)) => self.loop_method(*at, name, given),
            _ => match of.as_str() {
                Some(text) => methods::text_method(self, text, name, given),
                None => Err(fault(format!("{} has no method {name:?}", of.type_name()))),
            },
        }
    }

    fn loop_method(&mut self, at: usize, name: &str, given: &Given) -> Result<Value> {
        let Some(place) = self.loops.get(at).map(|state| state.at) else {
            return Err(fault("the loop has ended"));
        };
        if name == "cycle" {
            let n = given.plain.len().max(1);
            return given.plain.get(place % n).cloned().ok_or_else(|| fault("cycle needs values"));
        }
        let now = Value::sequence(given.plain.clone(), true)?;
        let seen = self.loops[at].seen.replace(now.clone());
        Ok(Value::Bool(match seen {
            Some(seen) => !self.equal(&seen, &now)?,
            None => true,
        }))
    }
}
