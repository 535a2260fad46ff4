//! Expressions, with Jinja's precedence; `statements.rs` has the rest of the grammar.

use super::ast::{Args, Block, Cmp, Expr, Op};
use super::lexer::{Tok, Token};
use super::value::Value;
use super::{budget, fault};
use crate::error::{Error, Result};

/// How deep expressions and statements may nest, and how many operators of one kind may follow one
/// another: trees deeper than this could exhaust the stack.
const MAX_NESTING: usize = 32;
const MAX_CHAIN: usize = 96;

pub(super) struct Parser {
    tokens: Vec<Token>,
    next: usize,
    nesting: usize,
}

/// Reads a whole template.
pub(super) fn parse(tokens: Vec<Token>) -> Result<Block> {
    let mut parser = Parser { tokens, next: 0, nesting: 0 };
    let (block, end) = parser.block(&[])?;
    match end {
        None => Ok(block),
        Some(tag) => Err(parser.wrong(format!("{{% {tag} %}} ends nothing"))),
    }
}

impl Parser {
    pub fn line(&self) -> u32 {
        let last = self.next.min(self.tokens.len().saturating_sub(1));
        self.tokens.get(last).map_or(1, |t| t.line)
    }

    pub fn wrong(&self, message: impl std::fmt::Display) -> Error {
        fault(format!("line {}: {message}", self.line()))
    }

    pub fn peek(&self) -> Option<&Tok> {
        self.tokens.get(self.next).map(|t| &t.tok)
    }

    pub fn take(&mut self) -> Option<Tok> {
        let tok = self.tokens.get(self.next)?.tok.clone();
        self.next += 1;
        Some(tok)
    }

    pub fn at_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Tok::Op(o)) if *o == op)
    }

    pub fn at_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Tok::Name(n)) if n == name)
    }

    pub fn eat_op(&mut self, op: &str) -> bool {
        let found = self.at_op(op);
        self.next += usize::from(found);
        found
    }

    pub fn eat_name(&mut self, name: &str) -> bool {
        let found = self.at_name(name);
        self.next += usize::from(found);
        found
    }

    pub fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.eat_op(op) { Ok(()) } else { Err(self.wrong(format!("{op:?} is missing"))) }
    }

    pub fn expect(&mut self, tok: &Tok) -> Result<()> {
        if self.peek() == Some(tok) {
            self.next += 1;
            return Ok(());
        }
        Err(self.wrong(match self.peek() {
            Some(found) => format!("{} is not expected here", shown(found)),
            None => "the template ends too early".to_string(),
        }))
    }

    pub fn name(&mut self) -> Result<String> {
        match self.take() {
            Some(Tok::Name(name)) => Ok(name),
            _ => {
                self.next -= 1;
                Err(self.wrong("a name is missing"))
            }
        }
    }

    /// Runs `read` one level deeper.
    pub fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(budget(format!("line {}: nests deeper than {MAX_NESTING}", self.line())));
        }
        let result = read(self);
        self.nesting -= 1;
        result
    }

    fn chain(&self, n: &mut usize) -> Result<()> {
        *n += 1;
        if *n > MAX_CHAIN {
            let message = format!("line {}: more than {MAX_CHAIN} operators in a row", self.line());
            return Err(budget(message));
        }
        Ok(())
    }

    /// An expression; a comma makes a tuple where the grammar allows one.
    pub fn tuple(&mut self) -> Result<Expr> {
        let first = self.expr()?;
        if !self.at_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.eat_op(",") {
            if matches!(self.peek(), None | Some(Tok::VarEnd | Tok::BlockEnd | Tok::Op(")" | "]" | "="))) {
                break;
            }
            items.push(self.expr()?);
        }
        Ok(Expr::Tuple(items))
    }

    /// What a loop goes over: an `if` after it is the loop's own.
    pub fn loop_source(&mut self) -> Result<Expr> {
        let first = self.nested(Self::or)?;
        if !self.at_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.eat_op(",") {
            items.push(self.nested(Self::or)?);
        }
        Ok(Expr::Tuple(items))
    }

    pub fn expr(&mut self) -> Result<Expr> {
        self.nested(Self::choice)
    }

    fn choice(&mut self) -> Result<Expr> {
        let mut value = self.or()?;
        let mut n = 0;
        while self.eat_name("if") {
            self.chain(&mut n)?;
            let condition = self.or()?;
            let otherwise = if self.eat_name("else") { Some(self.expr()?) } else { None };
            value = Expr::Choice(Box::new((condition, value, otherwise)));
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        let mut left = self.and()?;
        let mut n = 0;
        while self.eat_name("or") {
            self.chain(&mut n)?;
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let mut left = self.not()?;
        let mut n = 0;
        while self.eat_name("and") {
            self.chain(&mut n)?;
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        if self.eat_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(cmp) = self.comparison() {
            rest.push((cmp, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn comparison(&mut self) -> Option<Cmp> {
        let cmp = match self.peek()? {
            Tok::Op("==") => Cmp::Eq,
            Tok::Op("!=") => Cmp::Ne,
            Tok::Op("<") => Cmp::Lt,
            Tok::Op("<=") => Cmp::Le,
            Tok::Op(">") => Cmp::Gt,
            Tok::Op(">=") => Cmp::Ge,
            Tok::Name(name) if name == "in" => Cmp::In,
            Tok::Name(name) if name == "not" => {
                let next = self.tokens.get(self.next + 1).map(|t| &t.tok);
                if !matches!(next, Some(Tok::Name(name)) if name == "in") {
                    return None;
                }
                self.next += 1;
                Cmp::NotIn
            }
            _ => return None,
        };
        self.next += 1;
        Some(cmp)
    }

    fn sum(&mut self) -> Result<Expr> {
        self.left_binary(Self::concat, &[("+", Op::Add), ("-", Op::Sub)])
    }

    fn concat(&mut self) -> Result<Expr> {
        let first = self.product()?;
        if !self.at_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.eat_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let ops = [("*", Op::Mul), ("/", Op::Div), ("//", Op::FloorDiv), ("%", Op::Rem)];
        self.left_binary(Self::power, &ops)
    }

    fn power(&mut self) -> Result<Expr> {
        self.left_binary(|this| this.unary(true), &[("**", Op::Pow)])
    }

    fn left_binary(
        &mut self,
        mut operand: impl FnMut(&mut Self) -> Result<Expr>,
        ops: &[(&str, Op)],
    ) -> Result<Expr> {
        let mut left = operand(self)?;
        let mut n = 0;
        while let Some(&(_, op)) = ops.iter().find(|(text, _)| self.at_op(text)) {
            self.next += 1;
            self.chain(&mut n)?;
            left = Expr::Binary(op, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let mut n = 0;
        let mut expr = if self.eat_op("-") {
            Expr::Negative(Box::new(self.nested(|this| this.unary(false))?))
        } else if self.eat_op("+") {
            Expr::Positive(Box::new(self.nested(|this| this.unary(false))?))
        } else {
            self.primary()?
        };
        expr = self.postfix(expr, &mut n)?;
        if with_filters {
            expr = self.filters(expr, &mut n)?;
        }
        Ok(expr)
    }

    fn postfix(&mut self, mut expr: Expr, n: &mut usize) -> Result<Expr> {
        loop {
            if self.eat_op(".") {
                self.chain(n)?;
                expr = match self.take() {
                    Some(Tok::Name(name)) => Expr::Attr(Box::new(expr), name),
                    Some(Tok::Int(i)) => Expr::Item(Box::new(expr), Box::new(Expr::Const(Value::Int(i)))),
                    _ => return Err(self.wrong("a name is missing after the dot")),
                };
            } else if self.eat_op("[") {
                self.chain(n)?;
                expr = self.subscript(expr)?;
            } else if self.at_op("(") {
                self.chain(n)?;
                expr = Expr::Call(Box::new(expr), self.args()?);
            } else {
                return Ok(expr);
            }
        }
    }

    fn subscript(&mut self, of: Expr) -> Result<Expr> {
        let start = if self.at_op(":") { None } else { Some(self.expr()?) };
        if !self.eat_op(":") {
            self.expect_op("]")?;
            let item = start.ok_or_else(|| self.wrong("an index is missing"))?;
            return Ok(Expr::Item(Box::new(of), Box::new(item)));
        }
        let bound = |this: &mut Self| match this.at_op(":") || this.at_op("]") {
            true => Ok(None),
            false => this.expr().map(Some),
        };
        let stop = bound(self)?;
        let step = if self.eat_op(":") { bound(self)? } else { None };
        self.expect_op("]")?;
        Ok(Expr::Slice(Box::new(of), Box::new([start, stop, step])))
    }

    fn filters(&mut self, mut expr: Expr, n: &mut usize) -> Result<Expr> {
        loop {
            if self.eat_op("|") {
                self.chain(n)?;
                let (name, args) = self.filter_call()?;
                expr = Expr::Filter(Box::new(expr), name, args);
            } else if self.eat_name("is") {
                self.chain(n)?;
                expr = self.test(expr)?;
            } else if self.at_op("(") {
                self.chain(n)?;
                expr = Expr::Call(Box::new(expr), self.args()?);
            } else {
                return Ok(expr);
            }
        }
    }

    /// A filter's name and arguments, after the bar.
    pub fn filter_call(&mut self) -> Result<(String, Args)> {
        let mut name = self.name()?;
        while self.eat_op(".") {
            name = format!("{name}.{}", self.name()?);
        }
        let args = if self.at_op("(") { self.args()? } else { Args::default() };
        Ok((name, args))
    }

    fn test(&mut self, of: Expr) -> Result<Expr> {
        let negated = self.eat_name("not");
        let name = self.name()?;
        let mut args = Args::default();
        let takes_one = match self.peek() {
            Some(Tok::Op("(")) => {
                args = self.args()?;
                false
            }
            Some(Tok::Name(name)) => {
                !matches!(name.as_str(), "else" | "or" | "and" | "is" | "if" | "not" | "in")
            }
            Some(Tok::Str(_) | Tok::Int(_) | Tok::Float(_) | Tok::Op("[" | "{")) => true,
            _ => false,
        };
        if takes_one {
            let mut n = 0;
            let value = self.primary()?;
            args.plain.push(self.postfix(value, &mut n)?);
        }
        let test = Expr::Test(Box::new(of), name, args);
        Ok(if negated { Expr::Not(Box::new(test)) } else { test })
    }

    /// Arguments in parentheses.
    pub fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        while !self.eat_op(")") {
            let next = self.tokens.get(self.next + 1).map(|t| &t.tok);
            if let (Some(Tok::Name(name)), Some(Tok::Op("="))) = (self.peek(), next) {
                let name = name.clone();
                self.next += 2;
                args.named.push((name, self.expr()?));
            } else if self.at_op("*") || self.at_op("**") {
                return Err(self.wrong("arguments with * are not supported"));
            } else if args.named.is_empty() {
                args.plain.push(self.expr()?);
            } else {
                return Err(self.wrong("an argument without a name follows one with"));
            }
            if !self.at_op(")") {
                self.expect_op(",")?;
            }
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr> {
        let value = match self.take() {
            Some(Tok::Name(name)) => match name.as_str() {
                "true" | "True" => Value::Bool(true),
                "false" | "False" => Value::Bool(false),
                "none" | "None" => Value::None,
                _ => return Ok(Expr::Name(name)),
            },
            Some(Tok::Str(mut text)) => {
                while let Some(Tok::Str(more)) = self.peek() {
                    text.push_str(more);
                    self.next += 1;
                }
                Value::from(text)
            }
            Some(Tok::Int(i)) => Value::Int(i),
            Some(Tok::Float(f)) => Value::Float(f),
            Some(Tok::Op("(")) => return self.parenthesized(),
            Some(Tok::Op("[")) => return Ok(Expr::List(self.items("]")?)),
            Some(Tok::Op("{")) => return self.dict(),
            other => {
                self.next -= usize::from(other.is_some());
                return Err(self.wrong(match other {
                    Some(tok) => format!("{} is not expected here", shown(&tok)),
                    None => "the template ends too early".into(),
                }));
            }
        };
        Ok(Expr::Const(value))
    }

    fn parenthesized(&mut self) -> Result<Expr> {
        if self.eat_op(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let inner = self.tuple()?;
        self.expect_op(")")?;
        Ok(inner)
    }

    fn items(&mut self, end: &str) -> Result<Vec<Expr>> {
        let mut items = Vec::new();
        while !self.eat_op(end) {
            items.push(self.expr()?);
            if !self.at_op(end) {
                self.expect_op(",")?;
            }
        }
        Ok(items)
    }

    fn dict(&mut self) -> Result<Expr> {
        let mut entries = Vec::new();
        while !self.eat_op("}") {
            let key = self.expr()?;
            self.expect_op(":")?;
            entries.push((key, self.expr()?));
            if !self.at_op("}") {
                self.expect_op(",")?;
            }
        }
        Ok(Expr::Dict(entries))
    }
}

fn shown(tok: &Tok) -> String {
    match tok {
        Tok::Name(name) => format!("{name:?}"),
        Tok::Op(op) => format!("{op:?}"),
        Tok::Str(_) => "a string".into(),
        Tok::Int(_) | Tok::Float(_) => "a number".into(),
        Tok::VarEnd => "\"}}\"".into(),
        Tok::BlockEnd => "\"%}\"".into(),
        Tok::VarBegin | Tok::BlockBegin | Tok::Data(_) => "text".into(),
    }
}
