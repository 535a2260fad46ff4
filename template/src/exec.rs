//! Statements at work.

use super::ast::{Args, Block, Expr, For, Macro, Stmt, Target};
use super::state::{LoopState, MacroValue, State};
use super::value::{Run, Value};
use super::{at_line, fault};
use crate::error::Result;

/// Where control goes after a statement.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

impl<'t> State<'t> {
    pub fn block(&mut self, block: &'t Block) -> Result<Flow> {
        for stmt in block {
            let flow = self.deeper(|this| this.statement(stmt))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &'t Stmt) -> Result<Flow> {
        match stmt {
            Stmt::Text(text) => self.write(text)?,
            Stmt::Output(line, expr) => self.output(expr).map_err(|e| at_line(e, *line))?,
            Stmt::If(line, branches, otherwise) => {
                for (condition, block) in branches {
                    if self.eval(condition).map_err(|e| at_line(e, *line))?.is_true() {
                        return self.block(block);
                    }
                }
                return self.block(otherwise);
            }
            Stmt::For(line, code) => return self.for_loop(code).map_err(|e| at_line(e, *line)),
            Stmt::Set(line, target, expr) => {
                let value = self.eval(expr).map_err(|e| at_line(e, *line))?;
                self.assign(target, value).map_err(|e| at_line(e, *line))?;
            }
            Stmt::SetBlock(line, target, filters, block) => {
                let value = self.filtered(filters, block).map_err(|e| at_line(e, *line))?;
                self.assign(target, value).map_err(|e| at_line(e, *line))?;
            }
            Stmt::Filter(line, filters, block) => {
                let value = self.filtered(filters, block).map_err(|e| at_line(e, *line))?;
                let text = self.str(&value)?;
                self.write(&text)?;
            }
            Stmt::With(line, bindings, block) => {
                return self.with(bindings, block).map_err(|e| at_line(e, *line));
            }
            Stmt::Macro(code) => {
                let value = self.new_macro(code);
                self.set(&code.name, value)?;
            }
            Stmt::Call(line, call, body) => {
                let value = self.call_block(call, body).map_err(|e| at_line(e, *line))?;
                let text = self.str(&value)?;
                self.write(&text)?;
            }
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn output(&mut self, expr: &'t Expr) -> Result<()> {
        match self.eval(expr)? {
            Value::Str(text) | Value::Safe(text) => self.write(&text),
            value => {
                let text = self.str(&value)?;
                self.write(&text)
            }
        }
    }

    fn for_loop(&mut self, code: &'t For) -> Result<Flow> {
        let over = self.eval(&code.over)?;
        let mut items = self.iterate(&over)?;
        if let Some(condition) = &code.condition {
            let mut kept = Vec::new();
            for item in items {
                let holds = self.scoped(self.scope, |this| {
                    this.assign(&code.target, item.clone())?;
                    Ok(this.eval(condition)?.is_true())
                })?;
                if holds {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.scoped(self.scope, |this| this.block(&code.otherwise));
        }
        let Value::List(items) = self.list(items)? else { return Ok(Flow::Next) };
        let place = self.loops.len();
        self.loops.push(LoopState { items: items.clone(), at: 0, seen: None });
        for (at, item) in items.items.iter().enumerate() {
            self.loops[place].at = at;
            let flow = self.scoped(self.scope, |this| {
                this.set("loop", Value::Run(Run::Loop(place)))?;
                this.assign(&code.target, item.clone())?;
                this.block(&code.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        self.loops.truncate(place);
        Ok(Flow::Next)
    }

    fn with(&mut self, bindings: &'t [(Target, Expr)], block: &'t Block) -> Result<Flow> {
        let values = bindings.iter().map(|(_, expr)| self.eval(expr)).collect::<Result<Vec<_>>>()?;
        self.scoped(self.scope, |this| {
            for ((target, _), value) in bindings.iter().zip(values) {
                this.assign(target, value)?;
            }
            this.block(block)
        })
    }

    /// The output of a block, through filters.
    fn filtered(&mut self, filters: &'t [(String, Args)], block: &'t Block) -> Result<Value> {
        let text = self.capture(|this| this.scoped(this.scope, |this| this.block(block)))?;
        let mut value = self.text(text)?;
        for (name, args) in filters {
            let given = self.given(args)?;
            value = self.filter(name, value, given)?;
        }
        Ok(value)
    }

    fn new_macro(&mut self, code: &'t Macro) -> Value {
        self.macros.push(MacroValue { code, scope: self.scope });
        Value::Run(Run::Macro(self.macros.len() - 1))
    }

    fn call_block(&mut self, call: &'t Expr, body: &'t Macro) -> Result<Value> {
        let Expr::Call(callee, args) = call else { return Err(fault("a call is missing")) };
        let caller = self.new_macro(body);
        let callee = self.eval(callee)?;
        let mut given = self.given(args)?;
        given.named.push(("caller".into(), caller));
        self.call(&callee, given)
    }

    fn assign(&mut self, target: &'t Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.set(name, value),
            Target::Attr(name, attr) => self.set_attr(name, attr, value),
            Target::Many(targets) => {
                let values = self.iterate(&value)?;
                if values.len() != targets.len() {
                    let what = format!("{} values for {} names", values.len(), targets.len());
                    return Err(fault(what));
                }
                targets.iter().zip(values).try_for_each(|(target, value)| self.assign(target, value))
            }
        }
    }
}
