//! `pattern`: the part of ECMAScript's regular expressions that a grammar can follow.
//!
//! Literals, `.`, sets, `\d \w \s` (of ASCII) and their opposites, groups, `|`, `* + ? {m,n}`, and `^` and `$`
//! at the ends of an alternative. What else there is (look-around, back references, word borders, properties)
//! is an error. `\D \W \S` are written with ASCII characters only: what readers mean beyond differs.

use super::super::expr::Rules;
use super::super::expr::{
    Chars, Expr, MAX_CHAR, MAX_DEPTH, check_repeat, complement, malformed, normalize, without,
};
use super::string::{any_char, char_of};
use crate::error::{Error, Result};

const LINE_ENDS: [(u32, u32); 3] = [(0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)];
const DIGITS: [(u32, u32); 1] = [(0x30, 0x39)];
const WORD: [(u32, u32); 4] = [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)];
const SPACE: [(u32, u32); 2] = [(0x09, 0x0D), (0x20, 0x20)];
const ASCII: [(u32, u32); 1] = [(0x20, 0x7E)];

/// What a JSON string that matches `pattern` may hold between its quotation marks.
pub(super) fn parse(pattern: &str, rules: &mut Rules) -> Result<Expr> {
    let mut parser = Parser { chars: pattern.chars().collect(), at: 0 };
    let any = any_char(rules).repeat(0, None);
    let mut list = Vec::new();
    loop {
        let begins = parser.eat('^');
        let body = parser.sequence(0)?;
        let ends = parser.eat('$');
        let mut parts = Vec::new();
        parts.extend((!begins).then(|| any.clone()));
        parts.push(body);
        parts.extend((!ends).then(|| any.clone()));
        list.push(Expr::Seq(parts));
        if !parser.eat('|') {
            break;
        }
    }
    match parser.peek() {
        None => Ok(Expr::Any(list)),
        Some(c) => Err(parser.unsupported(&format!("{c:?} here"))),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        self.at += 1;
        self.chars.get(self.at - 1).copied()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn unsupported(&self, what: &str) -> Error {
        malformed(format!("the pattern has {what} (character {}), which is not supported", self.at))
    }

    fn alternatives(&mut self, depth: usize) -> Result<Expr> {
        if depth > MAX_DEPTH {
            return Err(super::super::expr::over_budget("too many groups within each other"));
        }
        let mut list = vec![self.sequence(depth)?];
        while self.eat('|') {
            list.push(self.sequence(depth)?);
        }
        Ok(Expr::Any(list))
    }

    fn sequence(&mut self, depth: usize) -> Result<Expr> {
        let mut list = Vec::new();
        while let Some(c) = self.peek() {
            let item = match c {
                '|' | ')' | '$' => break,
                '(' => {
                    self.at += 1;
                    if self.eat('?') && !self.eat(':') {
                        return Err(self.unsupported("a special group"));
                    }
                    let group = self.alternatives(depth + 1)?;
                    if !self.eat(')') {
                        return Err(self.unsupported("an unfinished group"));
                    }
                    group
                }
                '[' => char_of(&self.set()?),
                '.' => {
                    self.at += 1;
                    char_of(&complement(&LINE_ENDS))
                }
                '\\' => char_of(&self.escape()?),
                '*' | '+' | '?' | '{' | '}' | ']' | '^' => {
                    return Err(self.unsupported(&format!("{c:?} here")));
                }
                c => {
                    self.at += 1;
                    char_of(&vec![(u32::from(c), u32::from(c))])
                }
            };
            list.push(self.repeated(item)?);
        }
        Ok(Expr::Seq(list))
    }

    fn repeated(&mut self, item: Expr) -> Result<Expr> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => self.bounds()?,
            _ => return Ok(item),
        };
        self.at += 1;
        // Which way is tried first does not change what matches.
        self.eat('?');
        check_repeat(min, max)?;
        Ok(item.repeat(min, max))
    }

    /// `{m}`, `{m,}` or `{m,n}`, up to its brace.
    fn bounds(&mut self) -> Result<(u32, Option<u32>)> {
        self.at += 1;
        let min = self.number()?;
        let mut max = Some(min);
        if self.eat(',') {
            max = if self.peek() == Some('}') { None } else { Some(self.number()?) };
        }
        if self.peek() == Some('}') { Ok((min, max)) } else { Err(self.unsupported("a brace")) }
    }

    fn number(&mut self) -> Result<u32> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            self.at += 1;
            number = Some(number.unwrap_or(0u32).saturating_mul(10).saturating_add(digit));
        }
        number.ok_or_else(|| self.unsupported("a brace"))
    }

    fn set(&mut self) -> Result<Chars> {
        self.at += 1;
        let negated = self.eat('^');
        let mut ranges: Chars = Vec::new();
        // Readers differ on which characters beyond ASCII are digits, letters and spaces.
        let mut has_class = false;
        loop {
            match self.peek() {
                Some(']') => break,
                None => return Err(self.unsupported("an unfinished set")),
                Some(_) => {}
            }
            let low = self.set_item()?;
            has_class |= !matches!(low[..], [(a, b)] if a == b);
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|&c| c != ']');
            if !is_range {
                ranges.extend(low);
                continue;
            }
            self.at += 1;
            match (&low[..], &self.set_item()?[..]) {
                (&[(a, b)], &[(c, d)]) if a == b && c == d && a <= c => ranges.push((a, c)),
                _ => return Err(self.unsupported("a range without an order")),
            }
        }
        self.at += 1;
        let ranges = normalize(ranges);
        Ok(match (negated, has_class) {
            (false, _) => ranges,
            (true, false) => complement(&ranges),
            (true, true) => without(&ASCII, &ranges),
        })
    }

    fn set_item(&mut self) -> Result<Chars> {
        if self.peek() == Some('\\') {
            return self.escape();
        }
        let c = self.next().map_or(0, u32::from);
        Ok(vec![(c, c)])
    }

    /// The characters that an escape stands for.
    fn escape(&mut self) -> Result<Chars> {
        self.at += 1;
        let Some(c) = self.next() else { return Err(self.unsupported("an unfinished escape")) };
        let code = match c {
            'd' => return Ok(DIGITS.to_vec()),
            'w' => return Ok(WORD.to_vec()),
            's' => return Ok(SPACE.to_vec()),
            'D' => return Ok(without(&ASCII, &DIGITS)),
            'W' => return Ok(without(&ASCII, &WORD)),
            'S' => return Ok(without(&ASCII, &SPACE)),
            'n' => 0x0A,
            'r' => 0x0D,
            't' => 0x09,
            'f' => 0x0C,
            'v' => 0x0B,
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            c if c.is_ascii_punctuation() => u32::from(c),
            c => return Err(self.unsupported(&format!("\\{c}"))),
        };
        Ok(vec![(code, code)])
    }

    fn code(&mut self, n: usize) -> Result<u32> {
        let digits: Option<String> = self.chars.get(self.at..self.at + n).map(|c| c.iter().collect());
        let code = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = code.and_then(|d| u32::from_str_radix(&d, 16).ok()).filter(|&c| c <= MAX_CHAR);
        self.at += n;
        code.ok_or_else(|| self.unsupported("an unfinished escape"))
    }
}
