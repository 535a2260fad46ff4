//! Jinja's tests: what stands after `is`.

use super::ast::Cmp;
use super::call::Given;
use super::fault;
use super::methods;
use super::state::State;
use super::value::{Run, Value};
use crate::error::Result;

impl State<'_> {
    /// `value is name(args)`.
    pub fn test(&mut self, name: &str, value: &Value, given: &Given) -> Result<bool> {
        let cmp = match name {
            "eq" | "equalto" | "==" => Some(Cmp::Eq),
            "ne" | "!=" => Some(Cmp::Ne),
            "lt" | "lessthan" | "<" => Some(Cmp::Lt),
            "le" | "<=" => Some(Cmp::Le),
            "gt" | "greaterthan" | ">" => Some(Cmp::Gt),
            "ge" | ">=" => Some(Cmp::Ge),
            "in" => Some(Cmp::In),
            _ => None,
        };
        if let Some(cmp) = cmp {
            let other = given.required(0, "other", name)?;
            return self.compare(cmp, value, &other);
        }
        Ok(match name {
            "defined" => value.is_defined(),
            "undefined" => !value.is_defined(),
            "none" => matches!(value, Value::None),
            "string" => value.as_str().is_some(),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_number().is_some(),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" => {
                matches!(value, Value::List(_) | Value::Dict(_) | Value::Undefined(_))
                    || value.as_str().is_some()
            }
            "iterable" => {
                matches!(value, Value::List(_) | Value::Dict(_) | Value::Undefined(_))
                    || value.as_str().is_some()
            }
            "callable" => {
                matches!(value, Value::Run(Run::Macro(_) | Run::Function(_) | Run::Method(_)))
                    || matches!(value, Value::Undefined(_))
            }
            "escaped" => matches!(value, Value::Safe(_)),
            "sameas" => {
                let other = given.required(0, "other", name)?;
                value.type_name() == other.type_name() && self.equal(value, &other)?
            }
            "odd" | "even" => match value.as_int() {
                Some(i) => (i % 2 != 0) == (name == "odd"),
                None => return Err(fault(format!("{} is neither odd nor even", value.type_name()))),
            },
            "divisibleby" => {
                let other = given.required(0, "num", name)?;
                match (value.as_int(), other.as_int()) {
                    (Some(a), Some(b)) if b != 0 => a.checked_rem(b).unwrap_or(0) == 0,
                    _ => return Err(fault("divisibleby takes whole numbers other than 0")),
                }
            }
            "lower" | "upper" => {
                let text = self.str(value)?;
                self.pay_bytes(text.len())?;
                methods::is_cased(&text, name == "upper")
            }
            "filter" => value.as_str().is_some_and(super::filters::is_known),
            other => return Err(fault(format!("the test {other:?} is not known here"))),
        })
    }
}
