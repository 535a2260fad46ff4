//! The grammar of statements.

use super::ast::{Args, Block, Expr, For, Macro, Stmt, Target};
use super::lexer::Tok;
use super::parser::Parser;
use super::value::Value;
use crate::error::Result;

impl Parser {
    /// Statements up to one of the tags in `ends`, whose name has been read then, or up to the end.
    pub fn block(&mut self, ends: &[&'static str]) -> Result<(Block, Option<String>)> {
        let mut block = Vec::new();
        loop {
            match self.take() {
                None => return Ok((block, None)),
                Some(Tok::Data(text)) => block.push(Stmt::Text(text)),
                Some(Tok::VarBegin) => {
                    let line = self.line();
                    let value = self.tuple()?;
                    self.expect(&Tok::VarEnd)?;
                    block.push(Stmt::Output(line, value));
                }
                Some(Tok::BlockBegin) => {
                    let tag = self.name()?;
                    if ends.contains(&tag.as_str()) {
                        return Ok((block, Some(tag)));
                    }
                    let stmt = self.nested(|this| this.statement(&tag))?;
                    block.push(stmt);
                }
                Some(_) => return Err(self.wrong("text is missing")),
            }
        }
    }

    /// The body of a statement up to its end tag, that included.
    fn body(&mut self, end: &'static str) -> Result<Block> {
        self.expect(&Tok::BlockEnd)?;
        let (block, found) = self.block(&[end])?;
        if found.is_none() {
            return Err(self.wrong(format!("{{% {end} %}} is missing")));
        }
        self.expect(&Tok::BlockEnd)?;
        Ok(block)
    }

    fn statement(&mut self, tag: &str) -> Result<Stmt> {
        let line = self.line();
        match tag {
            "if" => self.if_statement(line),
            "for" => self.for_statement(line),
            "set" => self.set_statement(line),
            "macro" => {
                let name = self.name()?;
                let params = self.params()?;
                let body = self.body("endmacro")?;
                Ok(Stmt::Macro(Box::new(Macro { name, params, body })))
            }
            "call" => {
                let params = if self.at_op("(") { self.params()? } else { Vec::new() };
                let call = self.expr()?;
                if !matches!(call, Expr::Call(..)) {
                    return Err(self.wrong("a call is missing"));
                }
                let body = self.body("endcall")?;
                Ok(Stmt::Call(line, call, Box::new(Macro { name: "caller".into(), params, body })))
            }
            "filter" => {
                let mut filters = vec![self.filter_call()?];
                self.more_filters(&mut filters)?;
                Ok(Stmt::Filter(line, filters, self.body("endfilter")?))
            }
            "with" => self.with_statement(line),
            // What the assistant wrote is only marked for those who train; its variables stay inside.
            "generation" => Ok(Stmt::With(line, Vec::new(), self.body("endgeneration")?)),
            "break" | "continue" => {
                self.expect(&Tok::BlockEnd)?;
                Ok(if tag == "break" { Stmt::Break } else { Stmt::Continue })
            }
            "autoescape" => {
                let on = self.expr()?;
                if !matches!(on, Expr::Const(Value::Bool(false))) {
                    return Err(self.wrong("autoescape is not supported"));
                }
                Ok(Stmt::With(line, Vec::new(), self.body("endautoescape")?))
            }
            other => Err(self.wrong(format!("{{% {other} %}} is not known here"))),
        }
    }

    fn if_statement(&mut self, line: u32) -> Result<Stmt> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple()?;
            self.expect(&Tok::BlockEnd)?;
            let (block, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, block));
            match end.as_deref() {
                Some("elif") => {}
                Some("else") => return Ok(Stmt::If(line, branches, self.body("endif")?)),
                Some(_) => {
                    self.expect(&Tok::BlockEnd)?;
                    return Ok(Stmt::If(line, branches, Vec::new()));
                }
                None => return Err(self.wrong(format!("the if of line {line} has no {{% endif %}}"))),
            }
        }
    }

    fn for_statement(&mut self, line: u32) -> Result<Stmt> {
        let target = self.target(false)?;
        if !self.eat_name("in") {
            return Err(self.wrong("\"in\" is missing"));
        }
        let over = self.loop_source()?;
        let condition = if self.eat_name("if") { Some(self.expr()?) } else { None };
        if self.at_name("recursive") {
            return Err(self.wrong("recursive loops are not supported"));
        }
        self.expect(&Tok::BlockEnd)?;
        let (body, end) = self.block(&["else", "endfor"])?;
        let otherwise = match end.as_deref() {
            Some("else") => self.body("endfor")?,
            Some(_) => {
                self.expect(&Tok::BlockEnd)?;
                Vec::new()
            }
            None => return Err(self.wrong(format!("the for of line {line} has no {{% endfor %}}"))),
        };
        Ok(Stmt::For(line, Box::new(For { target, over, condition, body, otherwise })))
    }

    fn set_statement(&mut self, line: u32) -> Result<Stmt> {
        let target = self.target(true)?;
        if self.eat_op("=") {
            let value = self.tuple()?;
            self.expect(&Tok::BlockEnd)?;
            return Ok(Stmt::Set(line, target, value));
        }
        let mut filters = Vec::new();
        self.more_filters(&mut filters)?;
        Ok(Stmt::SetBlock(line, target, filters, self.body("endset")?))
    }

    fn with_statement(&mut self, line: u32) -> Result<Stmt> {
        let mut bindings = Vec::new();
        while self.peek() != Some(&Tok::BlockEnd) {
            let target = self.target(false)?;
            self.expect_op("=")?;
            bindings.push((target, self.expr()?));
            if self.peek() != Some(&Tok::BlockEnd) {
                self.expect_op(",")?;
            }
        }
        Ok(Stmt::With(line, bindings, self.body("endwith")?))
    }

    fn more_filters(&mut self, filters: &mut Vec<(String, Args)>) -> Result<()> {
        while self.eat_op("|") {
            filters.push(self.filter_call()?);
        }
        Ok(())
    }

    fn params(&mut self) -> Result<Vec<(String, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut params = Vec::new();
        while !self.eat_op(")") {
            let name = self.name()?;
            let default = if self.eat_op("=") { Some(self.expr()?) } else { None };
            params.push((name, default));
            if !self.at_op(")") {
                self.expect_op(",")?;
            }
        }
        Ok(params)
    }

    /// Names to assign to: one, or several with commas.
    fn target(&mut self, attributes: bool) -> Result<Target> {
        let first = self.one_target(attributes)?;
        if !self.at_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.eat_op(",") {
            if self.at_name("in") || self.at_op("=") || self.at_op(")") {
                break;
            }
            targets.push(self.one_target(attributes)?);
        }
        Ok(Target::Many(targets))
    }

    fn one_target(&mut self, attributes: bool) -> Result<Target> {
        if self.eat_op("(") {
            let inner = self.nested(|this| this.target(attributes))?;
            self.expect_op(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        if matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None" | "loop") {
            return Err(self.wrong(format!("{name:?} cannot be assigned to")));
        }
        if attributes && self.eat_op(".") {
            return Ok(Target::Attr(name, self.name()?));
        }
        Ok(Target::Name(name))
    }
}
