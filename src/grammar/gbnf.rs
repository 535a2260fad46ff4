//! Reads llama.cpp's grammar format, GBNF.
//!
//! Source: the format's description in llama.cpp, grammars/README.md. Rules `name ::= alternatives`, literals
//! `"..."`, sets `[a-z]` and `[^...]`, `.` for any character, groups, `|`, `*` `+` `?` `{m}` `{m,}` `{m,n}`,
//! comments `#`, escapes `\n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH`. A rule ends with its line, except
//! within parentheses and after `|` and `::=`. Names of tokens (`<...>`) are not supported.

use super::expr::{Chars, Expr, MAX_CHAR, MAX_DEPTH, Rules, check_repeat, complement, malformed, normalize};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Longer grammars are refused.
const MAX_LEN: usize = 4 << 20;

/// Reads a grammar.
///
/// # Errors
/// `GrammarError` with the offset of the fault, `GrammarBudget` for one that is too long or repeats too often.
pub(super) fn parse(text: &str) -> Result<Rules> {
    if text.len() > MAX_LEN {
        return Err(super::expr::over_budget(format!(
            "a grammar of {} bytes, at most {MAX_LEN}",
            text.len()
        )));
    }
    let mut parser = Parser { text, at: 0, names: HashMap::new(), rules: Vec::new() };
    parser.grammar().map_err(|error| error.at(parser.at as u64))?;
    let mut rules = Rules::default();
    let mut names: Vec<(&str, u32)> = parser.names.into_iter().collect();
    names.sort_unstable_by_key(|name| name.1);
    let mut root = None;
    for ((name, id), body) in names.into_iter().zip(parser.rules) {
        let body = body.ok_or_else(|| malformed(format!("rule {name:?} is used but not defined")))?;
        root = root.or((name == "root").then_some(id));
        rules.add(name, body);
    }
    rules.root = root.ok_or_else(|| malformed("there is no rule \"root\""))?;
    Ok(rules)
}

struct Parser<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
    names: HashMap<&'a str, u32>,
    /// What each rule stands for, once it is defined.
    rules: Vec<Option<Expr>>,
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    /// Skips white space and comments; ends of lines only where they mean nothing.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<&'a str> {
        let rest = &self.text[self.at..];
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        if name.is_empty() {
            return Err(self.unexpected("a name of a rule"));
        }
        self.at += name.len();
        Ok(name)
    }

    fn unexpected(&self, wanted: &str) -> Error {
        match self.peek() {
            Some(c) => malformed(format!("expected {wanted}, found {c:?}")),
            None => malformed(format!("expected {wanted}, found the end of the grammar")),
        }
    }

    fn rule_id(&mut self, name: &'a str) -> u32 {
        let id = *self.names.entry(name).or_insert(self.rules.len() as u32);
        if id as usize == self.rules.len() {
            self.rules.push(None);
        }
        id
    }

    fn grammar(&mut self) -> Result<()> {
        self.space(true);
        while self.peek().is_some() {
            let name = self.name()?;
            let id = self.rule_id(name);
            self.space(false);
            if !self.eat("::=") {
                return Err(self.unexpected("::="));
            }
            self.space(true);
            let body = self.alternatives(0)?;
            if self.rules[id as usize].replace(body).is_some() {
                return Err(malformed(format!("rule {name:?} is defined twice")));
            }
            if !matches!(self.peek(), None | Some('\n' | '\r')) {
                return Err(self.unexpected("the end of the line"));
            }
            self.space(true);
        }
        Ok(())
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH {
            return Err(super::expr::over_budget(format!("more than {MAX_DEPTH} groups within each other")));
        }
        let mut list = vec![self.sequence(depth)?];
        while self.eat("|") {
            self.space(true);
            list.push(self.sequence(depth)?);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::Any(list) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Expr> {
        let mut list = Vec::new();
        while let Some(c) = self.peek() {
            let item = match c {
                '"' => self.literal()?,
                '[' => self.set()?,
                '.' => {
                    self.at += 1;
                    Expr::Chars(vec![(0, MAX_CHAR)])
                }
                '(' => {
                    self.at += 1;
                    self.space(true);
                    let group = self.alternatives(depth + 1)?;
                    if !self.eat(")") {
                        return Err(self.unexpected("\")\""));
                    }
                    group
                }
                '<' | '!' => return Err(malformed("names of tokens are not supported in grammars")),
                c if is_name(c) => {
                    let name = self.name()?;
                    Expr::Rule(self.rule_id(name))
                }
                _ => break,
            };
            self.space(depth > 0);
            list.push(self.repeated(item)?);
            self.space(depth > 0);
        }
        Ok(if list.len() == 1 { list.remove(0) } else { Expr::Seq(list) })
    }

    /// The repetitions that follow an item, one within the other.
    fn repeated(&mut self, mut item: Expr) -> Result<Expr> {
        for _ in 0..4 {
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds()?,
                _ => return Ok(item),
            };
            self.at += 1;
            self.space(false);
            check_repeat(min, max)?;
            item = item.repeat(min, max);
        }
        Err(malformed("a repetition of a repetition of a repetition"))
    }

    /// `{m}`, `{m,}` or `{m,n}`, up to its brace.
    fn bounds(&mut self) -> Result<(u32, Option<u32>)> {
        self.at += 1;
        self.space(false);
        let min = self.number()?;
        self.space(false);
        let mut max = Some(min);
        if self.eat(",") {
            self.space(false);
            max = if self.peek() == Some('}') { None } else { Some(self.number()?) };
            self.space(false);
        }
        if self.peek() == Some('}') { Ok((min, max)) } else { Err(self.unexpected("\"}\"")) }
    }

    fn number(&mut self) -> Result<u32> {
        let rest = &self.text[self.at..];
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        if digits.is_empty() {
            return Err(self.unexpected("a number"));
        }
        self.at += digits.len();
        digits.parse().map_err(|_| super::expr::over_budget(format!("a repetition of {digits}")))
    }

    fn literal(&mut self) -> Result<Expr> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => break,
                Some('\n' | '\r') | None => return Err(self.unexpected("the end of the literal")),
                Some(_) => {
                    let c = self.character()?;
                    let c =
                        char::from_u32(c).ok_or_else(|| malformed(format!("U+{c:04X} is no character")))?;
                    text.push(c);
                }
            }
        }
        self.at += 1;
        Ok(Expr::Text(text))
    }

    fn set(&mut self) -> Result<Expr> {
        self.at += 1;
        let negated = self.eat("^");
        let mut ranges: Chars = Vec::new();
        loop {
            match self.peek() {
                Some(']') => break,
                None => return Err(self.unexpected("\"]\"")),
                Some(_) => {
                    let low = self.character()?;
                    let mut high = low;
                    let rest = &self.text[self.at..];
                    if rest.starts_with('-') && !rest.starts_with("-]") {
                        self.at += 1;
                        high = self.character()?;
                    }
                    if high < low {
                        return Err(malformed(format!("the range U+{low:04X} to U+{high:04X} is empty")));
                    }
                    ranges.push((low, high));
                }
            }
        }
        self.at += 1;
        let ranges = normalize(ranges);
        Ok(Expr::Chars(if negated { complement(&ranges) } else { ranges }))
    }

    /// One character of a literal or a set, which may be written as an escape.
    fn character(&mut self) -> Result<u32> {
        let unfinished = || malformed("an unfinished escape");
        let c = self.next().ok_or_else(unfinished)?;
        if c != '\\' {
            return Ok(u32::from(c));
        }
        let n_digits = match self.next().ok_or_else(unfinished)? {
            'n' => return Ok(10),
            'r' => return Ok(13),
            't' => return Ok(9),
            c @ ('\\' | '"' | '[' | ']' | '-' | '^') => return Ok(u32::from(c)),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c => return Err(malformed(format!("there is no escape \\{c}"))),
        };
        let digits = self.text.get(self.at..self.at + n_digits).ok_or_else(unfinished)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(malformed(format!("{digits:?} are not {n_digits} hexadecimal digits")));
        }
        self.at += n_digits;
        match u32::from_str_radix(digits, 16) {
            Ok(c) if c <= MAX_CHAR => Ok(c),
            _ => Err(malformed(format!("U+{digits} is no character"))),
        }
    }
}
