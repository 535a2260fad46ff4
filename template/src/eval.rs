//! Expressions at work.

use super::ast::{Args, Expr};
use super::call::Given;
use super::fault;
use super::methods;
use super::state::State;
use super::value::{Run, Value, size};
use crate::error::Result;
use std::rc::Rc;

impl<'t> State<'t> {
    pub fn eval(&mut self, expr: &'t Expr) -> Result<Value> {
        self.deeper(|this| this.eval_inner(expr))
    }

    fn eval_inner(&mut self, expr: &'t Expr) -> Result<Value> {
        match expr {
            Expr::Const(value) => Ok(value.clone()),
            Expr::Name(name) => self.lookup(name),
            Expr::List(items) => {
                let items = self.eval_all(items)?;
                self.list(items)
            }
            Expr::Tuple(items) => {
                let items = self.eval_all(items)?;
                Value::sequence(items, true)
            }
            Expr::Dict(entries) => self.dict(entries),
            Expr::Attr(of, name) => {
                let of = self.eval(of)?;
                self.attr(&of, name)
            }
            Expr::Item(of, key) => {
                let (of, key) = (self.eval(of)?, self.eval(key)?);
                self.item(&of, &key)
            }
            Expr::Slice(of, bounds) => self.slice(of, bounds),
            Expr::Call(callee, args) => {
                let callee = self.eval(callee)?;
                let given = self.given(args)?;
                self.call(&callee, given)
            }
            Expr::Filter(of, name, args) => {
                let of = self.eval(of)?;
                let given = self.given(args)?;
                self.filter(name, of, given)
            }
            Expr::Test(of, name, args) => {
                let of = self.eval(of)?;
                let given = self.given(args)?;
                Ok(Value::Bool(self.test(name, &of, &given)?))
            }
            Expr::Not(of) => Ok(Value::Bool(!self.eval(of)?.is_true())),
            Expr::Negative(of) => {
                let of = self.eval(of)?;
                match &of {
                    Value::Float(f) => Ok(Value::Float(-f)),
                    _ => match of.as_int().and_then(i64::checked_neg) {
                        Some(i) => Ok(Value::Int(i)),
                        None => Err(fault(format!("{} has no negative", of.type_name()))),
                    },
                }
            }
            Expr::Positive(of) => {
                let of = self.eval(of)?;
                match of.as_number() {
                    Some(_) => Ok(of),
                    None => Err(fault(format!("+ does not take {}", of.type_name()))),
                }
            }
            Expr::Binary(op, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                self.binary(*op, &left, &right)
            }
            Expr::Concat(parts) => {
                let mut text = String::new();
                for part in parts {
                    let value = self.eval(part)?;
                    let part = self.str(&value)?;
                    self.room_for(text.len() + part.len())?;
                    text.push_str(&part);
                }
                Ok(Value::from(text))
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (cmp, right) in rest {
                    let right = self.eval(right)?;
                    if !self.compare(*cmp, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(left, right) => match self.eval(left)? {
                left if left.is_true() => self.eval(right),
                left => Ok(left),
            },
            Expr::Or(left, right) => match self.eval(left)? {
                left if left.is_true() => Ok(left),
                _ => self.eval(right),
            },
            Expr::Choice(parts) => {
                let (condition, then, otherwise) = &**parts;
                if self.eval(condition)?.is_true() {
                    return self.eval(then);
                }
                match otherwise {
                    Some(otherwise) => self.eval(otherwise),
                    None => Ok(Value::Undefined("the value of an if without else".into())),
                }
            }
        }
    }

    fn eval_all(&mut self, exprs: &'t [Expr]) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    /// Evaluates the arguments of a call.
    pub fn given(&mut self, args: &'t Args) -> Result<Given> {
        let plain = self.eval_all(&args.plain)?;
        let named = args.named.iter().map(|(name, expr)| Ok((name.clone(), self.eval(expr)?)));
        Ok(Given { plain, named: named.collect::<Result<_>>()? })
    }

    fn dict(&mut self, entries: &'t [(Expr, Expr)]) -> Result<Value> {
        let mut values: Vec<(Value, Value)> = Vec::new();
        for (key, value) in entries {
            let (key, value) = (self.eval(key)?, self.eval(value)?);
            match self.find_key(&values, &key)? {
                Some(at) => values[at].1 = value,
                None => values.push((key, value)),
            }
        }
        Value::dict(values)
    }

    /// `of.name`.
    pub fn attr(&mut self, of: &Value, name: &str) -> Result<Value> {
        if name.starts_with("__") {
            return Err(fault(format!("the attribute {name:?} is out of reach")));
        }
        if methods::has(of, name) {
            return Ok(Value::Run(Run::Method(Rc::new((of.clone(), name.to_string())))));
        }
        match of {
            Value::Dict(_) => self.item(of, &Value::text(name)),
            Value::Run(Run::Namespace(at)) => {
                let attrs = &self.namespaces[*at];
                let found = attrs.iter().find(|(n, _)| **n == *name).map(|(_, value)| value.clone());
                self.pay_items(self.namespaces[*at].len())?;
                Ok(found.unwrap_or_else(|| Value::Undefined(name.into())))
            }
            Value::Run(Run::Loop(at)) => self.loop_attr(*at, name),
            Value::Run(Run::Macro(at)) if name == "name" => Ok(Value::text(&self.macros[*at].code.name)),
            Value::Undefined(missing) => {
                Err(fault(format!("{missing:?} is undefined, so it has no {name:?}")))
            }
            _ => Ok(Value::Undefined(name.into())),
        }
    }

    /// `of[key]`.
    pub fn item(&mut self, of: &Value, key: &Value) -> Result<Value> {
        let found = match (of, key) {
            (Value::Dict(dict), _) => self.find_key(&dict.entries, key)?.map(|at| dict.entries[at].1.clone()),
            (Value::List(list), _) if key.as_int().is_some() => {
                index(key, list.items.len()).map(|at| list.items[at].clone())
            }
            (Value::Str(text) | Value::Safe(text), _) if key.as_int().is_some() => {
                self.pay_bytes(text.len())?;
                let at = index(key, text.chars().count());
                at.and_then(|at| text.chars().nth(at)).map(|c| Value::from(c.to_string()))
            }
            (Value::Undefined(missing), _) => {
                let key = self.repr(key)?;
                return Err(fault(format!("{missing:?} is undefined, so it has no [{key}]")));
            }
            _ => None,
        };
        match (found, key.as_str()) {
            (Some(value), _) => Ok(value),
            (None, Some(name)) if !matches!(of, Value::Dict(_)) || methods::has(of, name) => {
                self.attr(of, name)
            }
            (None, _) => {
                let name = self.repr(key)?;
                Ok(Value::Undefined(name.into()))
            }
        }
    }

    fn slice(&mut self, of: &'t Expr, bounds: &'t [Option<Expr>; 3]) -> Result<Value> {
        let of = self.eval(of)?;
        let mut limits = [None; 3];
        for (limit, bound) in limits.iter_mut().zip(bounds) {
            let Some(bound) = bound else { continue };
            *limit = match self.eval(bound)? {
                Value::None => None,
                value => match value.as_int() {
                    Some(i) => Some(i),
                    None => return Err(fault(format!("{} is no index of a slice", value.type_name()))),
                },
            };
        }
        match &of {
            Value::List(list) => {
                let places = places(limits, list.items.len())?;
                let items = places.map(|i| list.items[i].clone()).collect::<Vec<_>>();
                self.pay_items(items.len())?;
                Value::sequence(items, list.is_tuple)
            }
            Value::Str(text) | Value::Safe(text) => {
                self.room_for(4 * text.len().min(super::MAX_TEXT_BYTES / 4))?;
                let chars: Vec<char> = text.chars().collect();
                let text: String = places(limits, chars.len())?.map(|i| chars[i]).collect();
                Ok(Value::from(text))
            }
            other => Err(fault(format!("{} has no slices", other.type_name()))),
        }
    }

    fn loop_attr(&mut self, at: usize, name: &str) -> Result<Value> {
        let Some(state) = self.loops.get(at) else {
            return Ok(Value::Undefined(name.into()));
        };
        let (i, n) = (state.at, state.items.items.len());
        let number = |n: usize| Ok(Value::Int(n as i64));
        let neighbour = |i: Option<usize>| {
            let item = i.and_then(|i| state.items.items.get(i)).cloned();
            Ok(item.unwrap_or_else(|| Value::Undefined(name.into())))
        };
        match name {
            "index" => number(i + 1),
            "index0" => number(i),
            "revindex" => number(n - i),
            "revindex0" => number(n - i - 1),
            "length" => number(n),
            "first" => Ok(Value::Bool(i == 0)),
            "last" => Ok(Value::Bool(i + 1 == n)),
            // Only recursive loops count theirs.
            "depth" => number(1),
            "depth0" => number(0),
            "previtem" => neighbour(i.checked_sub(1)),
            "nextitem" => neighbour(Some(i + 1)),
            _ => Ok(Value::Undefined(name.into())),
        }
    }
}

/// A place counted from either end.
fn index(key: &Value, len: usize) -> Option<usize> {
    let i = key.as_int()?;
    let i = if i < 0 { i.checked_add(len as i64)? } else { i };
    usize::try_from(i).ok().filter(|&i| i < len)
}

/// The places that a slice `[start:stop:step]` takes out of `len`, as Python counts them.
fn places(limits: [Option<i64>; 3], len: usize) -> Result<Box<dyn Iterator<Item = usize>>> {
    let len = len as i64;
    let [start, stop, step] = limits;
    let step = step.unwrap_or(1);
    let clamp = |at: i64, low: i64, high: i64| {
        let at = if at < 0 { at.saturating_add(len) } else { at };
        at.clamp(low, high)
    };
    match step {
        0 => Err(fault("a slice cannot go in steps of 0")),
        1.. => {
            let (start, stop) = (clamp(start.unwrap_or(0), 0, len), clamp(stop.unwrap_or(len), 0, len));
            Ok(Box::new((start..stop.max(start)).step_by(size(step)).map(|i| i as usize)))
        }
        _ => {
            let start = start.map_or(len - 1, |at| clamp(at, -1, len - 1));
            let stop = stop.map_or(-1, |at| clamp(at, -1, len - 1));
            let back = size(step.saturating_neg());
            Ok(Box::new((stop + 1..=start).rev().step_by(back).map(|i| i as usize)))
        }
    }
}
