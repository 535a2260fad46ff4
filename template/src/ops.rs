//! Operators, with Python's rules.

use super::ast::{Cmp, Op};
use super::fault;
use super::show::escape;
use super::state::State;
use super::value::{Run, Value, size};
use crate::error::{Error, Result};
use std::cmp::Ordering;

impl State<'_> {
    pub fn binary(&mut self, op: Op, left: &Value, right: &Value) -> Result<Value> {
        match (op, left, right) {
            (Op::Add, Value::Str(_) | Value::Safe(_), Value::Str(_) | Value::Safe(_)) => {
                self.add_texts(left, right)
            }
            (Op::Add, Value::List(a), Value::List(b)) if a.is_tuple == b.is_tuple => {
                self.pay_items(a.items.len() + b.items.len())?;
                Value::sequence([&a.items[..], &b.items[..]].concat(), a.is_tuple)
            }
            (Op::Mul, Value::Str(_) | Value::Safe(_) | Value::List(_), _) => self.repeat(left, right),
            (Op::Mul, _, Value::Str(_) | Value::Safe(_) | Value::List(_)) => self.repeat(right, left),
            (Op::Rem, Value::Str(text) | Value::Safe(text), _) => {
                let args = match right {
                    Value::List(list) if list.is_tuple => list.items.clone(),
                    other => vec![other.clone()],
                };
                self.percent(text, &args)
            }
            _ => arithmetic(op, left, right),
        }
    }

    fn add_texts(&mut self, left: &Value, right: &Value) -> Result<Value> {
        let (a, b) = (left.as_str().unwrap_or_default(), right.as_str().unwrap_or_default());
        // Escaping makes a text at most six times as long.
        let any_safe = matches!(left, Value::Safe(_)) || matches!(right, Value::Safe(_));
        self.room_for((a.len() + b.len()) * if any_safe { 6 } else { 1 })?;
        let side = |value: &Value, text: &str| match value {
            Value::Safe(_) => text.to_string(),
            _ if any_safe => escape(text),
            _ => text.to_string(),
        };
        let text = side(left, a) + &side(right, b);
        Ok(if any_safe { Value::Safe(text.into()) } else { Value::from(text) })
    }

    fn repeat(&mut self, what: &Value, times: &Value) -> Result<Value> {
        let Some(times) = times.as_int() else {
            return Err(refused("*", what, times));
        };
        let times = size(times);
        match what {
            Value::List(list) => {
                let n = list.items.len().saturating_mul(times);
                self.pay_items(n)?;
                Value::sequence(list.items.iter().cycle().take(n).cloned().collect(), list.is_tuple)
            }
            _ => {
                let text = what.as_str().unwrap_or_default();
                self.room_for(text.len().saturating_mul(times))?;
                Ok(Value::from(text.repeat(times)))
            }
        }
    }

    pub fn compare(&mut self, cmp: Cmp, left: &Value, right: &Value) -> Result<bool> {
        Ok(match cmp {
            Cmp::Eq => self.equal(left, right)?,
            Cmp::Ne => !self.equal(left, right)?,
            Cmp::In => self.contains(right, left)?,
            Cmp::NotIn => !self.contains(right, left)?,
            Cmp::Lt => self.order(left, right)? == Some(Ordering::Less),
            Cmp::Gt => self.order(left, right)? == Some(Ordering::Greater),
            Cmp::Le => matches!(self.order(left, right)?, Some(Ordering::Less | Ordering::Equal)),
            Cmp::Ge => matches!(self.order(left, right)?, Some(Ordering::Greater | Ordering::Equal)),
        })
    }

    /// Python's `==`.
    pub fn equal(&mut self, left: &Value, right: &Value) -> Result<bool> {
        self.pay(1)?;
        if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
            self.pay_bytes(a.len().min(b.len()))?;
            return Ok(a == b);
        }
        if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
            return Ok(a == b);
        }
        if let (Some(a), Some(b)) = (left.as_number(), right.as_number()) {
            return Ok(a == b);
        }
        match (left, right) {
            (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => Ok(true),
            (Value::List(a), Value::List(b)) => {
                if a.is_tuple != b.is_tuple || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    let Some(at) = self.find_key(&b.entries, key)? else { return Ok(false) };
                    if !self.equal(value, &b.entries[at].1)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Run(Run::Namespace(a)), Value::Run(Run::Namespace(b))) => Ok(a == b),
            (Value::Run(Run::Macro(a)), Value::Run(Run::Macro(b))) => Ok(a == b),
            _ => Ok(false),
        }
    }

    /// The place of a key in a dictionary.
    pub fn find_key(&mut self, entries: &[(Value, Value)], key: &Value) -> Result<Option<usize>> {
        if matches!(key, Value::List(list) if !list.is_tuple) || matches!(key, Value::Dict(_)) {
            return Err(fault(format!("{} cannot be a key", key.type_name())));
        }
        if let Some(name) = key.as_str() {
            self.pay_items(entries.len())?;
            return Ok(entries.iter().rposition(|(k, _)| k.as_str() == Some(name)));
        }
        for (at, (k, _)) in entries.iter().enumerate() {
            if self.equal(k, key)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Python's `item in of`.
    pub fn contains(&mut self, of: &Value, item: &Value) -> Result<bool> {
        match of {
            Value::Str(text) | Value::Safe(text) => match item.as_str() {
                Some(part) => {
                    self.pay_bytes(text.len())?;
                    Ok(text.contains(part))
                }
                None => Err(fault(format!("{} is in no text", item.type_name()))),
            },
            Value::List(list) => {
                for other in &list.items {
                    if self.equal(other, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Value::Dict(dict) => Ok(self.find_key(&dict.entries, item)?.is_some()),
            Value::Undefined(_) => Ok(false),
            other => Err(fault(format!("nothing is in {}", other.type_name()))),
        }
    }

    /// How two values stand to each other; `None` where one is NaN.
    pub fn order(&mut self, left: &Value, right: &Value) -> Result<Option<Ordering>> {
        self.pay(1)?;
        if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
            self.pay_bytes(a.len().min(b.len()))?;
            return Ok(Some(a.cmp(b)));
        }
        if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
            return Ok(Some(a.cmp(&b)));
        }
        if let (Some(a), Some(b)) = (left.as_number(), right.as_number()) {
            return Ok(a.partial_cmp(&b));
        }
        if let (Value::List(a), Value::List(b)) = (left, right) {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !self.equal(a, b)? {
                    return self.order(a, b);
                }
            }
            return Ok(Some(a.items.len().cmp(&b.items.len())));
        }
        Err(fault(format!("{} and {} have no order", left.type_name(), right.type_name())))
    }
}

fn refused(op: &str, left: &Value, right: &Value) -> Error {
    fault(format!("{op:?} does not take {} and {}", left.type_name(), right.type_name()))
}

fn arithmetic(op: Op, left: &Value, right: &Value) -> Result<Value> {
    let sign = match op {
        Op::Add => "+",
        Op::Sub => "-",
        Op::Mul => "*",
        Op::Div => "/",
        Op::FloorDiv => "//",
        Op::Rem => "%",
        Op::Pow => "**",
    };
    let too_large = || fault(format!("the result of {sign:?} does not fit 64 bits"));
    let zero = || fault("a division by zero");
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        let exact = match op {
            Op::Add => a.checked_add(b),
            Op::Sub => a.checked_sub(b),
            Op::Mul => a.checked_mul(b),
            Op::Div if b == 0 => return Err(zero()),
            Op::Div => return Ok(Value::Float(a as f64 / b as f64)),
            Op::FloorDiv | Op::Rem if b == 0 => return Err(zero()),
            // The quotient goes down, and the remainder has the divisor's sign.
            Op::FloorDiv => a.checked_rem(b).and_then(|rem| {
                let down = i64::from(rem != 0 && (rem < 0) != (b < 0));
                a.checked_div(b).map(|quotient| quotient - down)
            }),
            Op::Rem => {
                a.checked_rem(b).map(|rem| if rem != 0 && (rem < 0) != (b < 0) { rem + b } else { rem })
            }
            Op::Pow if b < 0 => return Ok(Value::Float(libm::pow(a as f64, b as f64))),
            Op::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        };
        return exact.map(Value::Int).ok_or_else(too_large);
    }
    let (Some(a), Some(b)) = (left.as_number(), right.as_number()) else {
        return Err(refused(sign, left, right));
    };
    let rem = |a: f64, b: f64| {
        let rem = a % b;
        if rem != 0.0 && (rem < 0.0) != (b < 0.0) { rem + b } else { rem }
    };
    Ok(Value::Float(match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div | Op::FloorDiv | Op::Rem if b == 0.0 => return Err(zero()),
        Op::Div => a / b,
        Op::FloorDiv => libm::floor(a / b),
        Op::Rem => rem(a, b),
        Op::Pow => libm::pow(a, b),
    }))
}
