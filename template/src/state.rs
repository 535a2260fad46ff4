//! A rendering under way: variables, output, and the budget that every step is paid from.

use super::ast::{Block, Macro};
use super::value::{List, Run, Value};
use super::{Clock, FUEL, MAX_TEXT_BYTES, budget, fault};
use crate::error::Result;
use std::rc::Rc;

/// Calls and expressions in one another; see `MAX_CHAIN` for why there is a limit.
const MAX_DEPTH: u32 = 160;
/// Scopes, namespaces and macros that may be alive.
const MAX_SCOPES: usize = 50_000;

/// Names that belong together, and the scope around them.
pub(super) struct Scope {
    parent: Option<usize>,
    vars: Vec<(Rc<str>, Value)>,
}

pub(super) struct MacroValue<'t> {
    pub code: &'t Macro,
    /// The scope in which it was defined.
    pub scope: usize,
}

/// A loop under way.
pub(super) struct LoopState {
    pub items: Rc<List>,
    pub at: usize,
    /// What `loop.changed` saw last.
    pub seen: Option<Value>,
}

pub(super) struct State<'t> {
    fuel: u64,
    depth: u32,
    /// The outputs under way: the template's own, and those of macros and blocks that are set.
    outputs: Vec<String>,
    scopes: Vec<Scope>,
    pub scope: usize,
    pub macros: Vec<MacroValue<'t>>,
    pub namespaces: Vec<Vec<(Rc<str>, Value)>>,
    pub loops: Vec<LoopState>,
    pub clock: Clock,
}

impl<'t> State<'t> {
    pub fn new(vars: Vec<(String, Value)>, clock: Clock) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (Rc::from(name), value)).collect();
        State {
            fuel: FUEL,
            depth: 0,
            outputs: vec![String::new()],
            // What the caller gives and what the template sets.
            scopes: vec![Scope { parent: None, vars }, Scope { parent: Some(0), vars: Vec::new() }],
            scope: 1,
            macros: Vec::new(),
            namespaces: Vec::new(),
            loops: Vec::new(),
            clock,
        }
    }

    pub fn run(mut self, block: &'t Block) -> Result<String> {
        self.block(block)?;
        Ok(self.outputs.pop().unwrap_or_default())
    }

    /// Pays for steps.
    pub fn pay(&mut self, steps: u64) -> Result<()> {
        self.fuel = self
            .fuel
            .checked_sub(steps)
            .ok_or_else(|| budget(format!("the template takes more than the {FUEL} steps that it may")))?;
        Ok(())
    }

    /// Pays for reading or writing a text.
    pub fn pay_bytes(&mut self, n_bytes: usize) -> Result<()> {
        self.pay(n_bytes as u64 / 64)
    }

    /// Pays for looking at values.
    pub fn pay_items(&mut self, n_items: usize) -> Result<()> {
        self.pay(n_items as u64 / 8)
    }

    /// Pays for a text before it is made.
    pub fn room_for(&mut self, n_bytes: usize) -> Result<()> {
        if n_bytes > MAX_TEXT_BYTES {
            return Err(budget(format!("a text of {n_bytes} bytes, {MAX_TEXT_BYTES} are allowed")));
        }
        self.pay_bytes(n_bytes)
    }

    /// A new text.
    pub fn text(&mut self, text: String) -> Result<Value> {
        self.room_for(text.len())?;
        Ok(Value::from(text))
    }

    /// A new list.
    pub fn list(&mut self, items: Vec<Value>) -> Result<Value> {
        self.pay_items(items.len())?;
        Value::list(items)
    }

    /// Writes to the output.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.pay_bytes(text.len())?;
        if let Some(output) = self.outputs.last_mut() {
            if output.len() + text.len() > MAX_TEXT_BYTES {
                return Err(budget(format!("the result is longer than {MAX_TEXT_BYTES} bytes")));
            }
            output.push_str(text);
        }
        Ok(())
    }

    /// Runs something whose output is not the template's; gives that output.
    pub fn capture<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<String> {
        self.outputs.push(String::new());
        let result = run(self);
        let output = self.outputs.pop().unwrap_or_default();
        result.map(|_| output)
    }

    /// Runs something that nests.
    pub fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.pay(1)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(budget(format!("calls and expressions nest deeper than {MAX_DEPTH}")));
        }
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Runs something in a new scope within `parent`.
    pub fn scoped<T>(&mut self, parent: usize, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.scopes.len() >= MAX_SCOPES {
            return Err(budget(format!("more than {MAX_SCOPES} scopes")));
        }
        let (outer, own) = (self.scope, self.scopes.len());
        let n_macros = self.macros.len();
        self.scopes.push(Scope { parent: Some(parent), vars: Vec::new() });
        self.scope = own;
        let result = run(self);
        self.scope = outer;
        // A macro made in here may be called later on, and needs its scope then.
        if self.macros.len() == n_macros {
            self.scopes.truncate(own);
        }
        result
    }

    /// The value of a name: a variable, or a function that every template has.
    pub fn lookup(&mut self, name: &str) -> Result<Value> {
        let mut at = Some(self.scope);
        let mut n_looked = 0;
        let mut found = None;
        while let Some(scope) = at.map(|i| &self.scopes[i]) {
            n_looked += scope.vars.len();
            found = scope.vars.iter().find(|(n, _)| **n == *name).map(|(_, value)| value.clone());
            if found.is_some() {
                break;
            }
            at = scope.parent;
        }
        self.pay_items(n_looked)?;
        Ok(match (found, super::call::function(name)) {
            (Some(value), _) => value,
            (None, Some(function)) => Value::Run(Run::Function(function)),
            (None, None) => Value::Undefined(name.into()),
        })
    }

    /// Sets a variable of the innermost scope.
    pub fn set(&mut self, name: &str, value: Value) -> Result<()> {
        let vars = &mut self.scopes[self.scope].vars;
        let n_vars = vars.len();
        match vars.iter_mut().find(|(n, _)| **n == *name) {
            Some((_, old)) => *old = value,
            None => vars.push((name.into(), value)),
        }
        self.pay_items(n_vars)
    }

    /// Sets an attribute of a namespace.
    pub fn set_attr(&mut self, name: &str, attr: &str, value: Value) -> Result<()> {
        let Value::Run(Run::Namespace(at)) = self.lookup(name)? else {
            return Err(fault(format!("{name:?} is no namespace, so {attr:?} of it cannot be set")));
        };
        let attrs = &mut self.namespaces[at];
        let n_attrs = attrs.len();
        match attrs.iter_mut().find(|(n, _)| **n == *attr) {
            Some((_, old)) => *old = value,
            None => attrs.push((attr.into(), value)),
        }
        self.pay_items(n_attrs)
    }

    /// The values that a loop over `value` meets.
    pub fn iterate(&mut self, value: &Value) -> Result<Vec<Value>> {
        let items: Vec<Value> = match value {
            Value::List(list) => list.items.clone(),
            Value::Dict(dict) => dict.entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::Str(text) | Value::Safe(text) => {
                self.pay(text.len() as u64)?;
                text.chars().map(|c| Value::text(c.encode_utf8(&mut [0; 4]))).collect()
            }
            Value::Undefined(_) => Vec::new(),
            other => return Err(fault(format!("{} cannot be gone through", other.type_name()))),
        };
        self.pay_items(items.len())?;
        Ok(items)
    }
}
