//! A template's text as tokens.
//!
//! White space follows Jinja's lexer with `trim_blocks` and `lstrip_blocks`: the newline after a block is
//! dropped, and so are blanks before a block that begins its line; `-` strips more, `+` keeps all.

use super::fault;
use crate::error::Result;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tok {
    Data(String),
    VarBegin,
    VarEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    Op(&'static str),
}

pub(super) struct Token {
    pub tok: Tok,
    pub line: u32,
}

/// Longer operators first.
const OPS: [&str; 27] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";", "!",
];

struct Lexer<'a> {
    source: &'a str,
    pos: usize,
    line: u32,
    /// Whether the token before this place ended with a newline.
    line_starting: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq)]
enum Opening {
    Variable,
    Block,
    Comment,
}

/// Cuts a template into tokens.
pub(super) fn lex(source: &str) -> Result<Vec<Token>> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // One newline at the end does not count.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, pos: 0, line: 1, line_starting: true, tokens: Vec::new() };
    while lexer.data()? {}
    Ok(lexer.tokens)
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.pos..]
    }

    fn push(&mut self, tok: Tok) {
        self.tokens.push(Token { tok, line: self.line });
    }

    /// Goes on by `n` bytes, counting lines.
    fn advance(&mut self, n: usize) {
        let passed = &self.source.as_bytes()[self.pos..self.pos + n];
        self.line += passed.iter().filter(|&&b| b == b'\n').count() as u32;
        self.line_starting = passed.last() == Some(&b'\n');
        self.pos += n;
    }

    /// Reads text and what follows it; false at the end.
    fn data(&mut self) -> Result<bool> {
        let rest = self.rest();
        let Some((at, opening)) = next_opening(rest) else {
            if !rest.is_empty() {
                self.push(Tok::Data(rest.to_string()));
            }
            return Ok(false);
        };
        let sign = rest.as_bytes().get(at + 2).copied().filter(|b| matches!(b, b'-' | b'+'));
        let text = self.before(&rest[..at], opening, sign);
        if !text.is_empty() {
            self.push(Tok::Data(text.to_string()));
        }
        self.advance(at + 2 + usize::from(sign.is_some()));
        match opening {
            Opening::Comment => self.comment()?,
            Opening::Variable => {
                self.push(Tok::VarBegin);
                self.inside(Opening::Variable)?;
            }
            Opening::Block => match raw_head(self.rest()) {
                Some(n) => self.raw(n)?,
                None => {
                    self.push(Tok::BlockBegin);
                    self.inside(Opening::Block)?;
                }
            },
        }
        Ok(true)
    }

    /// The text before an opening, less the white space that the opening takes.
    fn before<'t>(&self, text: &'t str, opening: Opening, sign: Option<u8>) -> &'t str {
        if sign == Some(b'-') {
            return text.trim_end();
        }
        if sign == Some(b'+') || opening == Opening::Variable {
            return text;
        }
        let line_start = text.rfind('\n').map_or(0, |i| i + 1);
        let on_own_line = line_start > 0 || self.line_starting;
        if on_own_line && text[line_start..].chars().all(char::is_whitespace) {
            &text[..line_start]
        } else {
            text
        }
    }

    /// Skips what follows a closing mark: all white space after `-`, one newline after a plain one.
    fn after(&mut self, sign: Option<u8>, trims_newline: bool) {
        let rest = self.rest();
        match sign {
            Some(b'-') => self.advance_space(),
            None if trims_newline && rest.starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    fn advance_space(&mut self) {
        let rest = self.rest();
        let n = rest.len() - rest.trim_start().len();
        if n > 0 {
            self.advance(n);
        }
    }

    fn comment(&mut self) -> Result<()> {
        let rest = self.rest();
        let end =
            rest.find("#}").ok_or_else(|| fault(format!("line {}: a comment has no end", self.line)))?;
        let sign = rest[..end].bytes().last().filter(|b| matches!(b, b'-' | b'+'));
        self.advance(end + 2);
        self.after(sign, true);
        Ok(())
    }

    /// Text up to `{% endraw %}`, after `head` bytes that end the `{% raw %}`.
    fn raw(&mut self, head: usize) -> Result<()> {
        let strips = self.rest().as_bytes()[head - 3] == b'-';
        self.advance(head);
        if strips {
            self.advance_space();
        }
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let at = from + found;
            let sign = rest.as_bytes().get(at + 2).copied().filter(|b| matches!(b, b'-' | b'+'));
            let inner = at + 2 + usize::from(sign.is_some());
            if let Some((n, closing)) = word_then_end(&rest[inner..], "endraw") {
                let text = self.before(&rest[..at], Opening::Block, sign).to_string();
                if !text.is_empty() {
                    self.push(Tok::Data(text));
                }
                self.advance(inner + n);
                self.after(closing, true);
                return Ok(());
            }
            from = at + 2;
        }
        Err(fault(format!("line {}: {{% raw %}} has no end", self.line)))
    }

    /// The tokens of a block or of an output, up to and with its end.
    fn inside(&mut self, opening: Opening) -> Result<()> {
        let (end, tok) = match opening {
            Opening::Variable => ("}}", Tok::VarEnd),
            _ => ("%}", Tok::BlockEnd),
        };
        let mut brackets: Vec<char> = Vec::new();
        loop {
            self.advance_space();
            let rest = self.rest();
            if brackets.is_empty() {
                let sign = rest.bytes().next().filter(|&b| b == b'-' || (b == b'+' && end == "%}"));
                let skip = usize::from(sign.is_some());
                let (skip, sign) = if rest.is_char_boundary(skip) && rest[skip..].starts_with(end) {
                    (skip, sign)
                } else {
                    (0, None)
                };
                if rest[skip..].starts_with(end) {
                    self.push(tok);
                    self.advance(skip + 2);
                    self.after(sign, end == "%}");
                    return Ok(());
                }
            }
            let Some(c) = rest.chars().next() else {
                return Err(fault(format!("line {}: {end} is missing", self.line)));
            };
            let (tok, n) = if c == '"' || c == '\'' {
                string(rest, self.line)?
            } else if c.is_ascii_digit() {
                number(rest, matches!(self.tokens.last(), Some(Token { tok: Tok::Op("."), .. })), self.line)?
            } else if c.is_alphabetic() || c == '_' {
                let n = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (Tok::Name(rest[..n].to_string()), n)
            } else {
                let op = OPS.iter().find(|op| rest.starts_with(**op));
                let op = *op.ok_or_else(|| fault(format!("line {}: {c:?} is not expected", self.line)))?;
                balance(&mut brackets, op, self.line)?;
                (Tok::Op(op), op.len())
            };
            self.push(tok);
            self.advance(n);
        }
    }
}

fn balance(brackets: &mut Vec<char>, op: &str, line: u32) -> Result<()> {
    match op {
        "(" => brackets.push(')'),
        "[" => brackets.push(']'),
        "{" => brackets.push('}'),
        ")" | "]" | "}" if brackets.pop().is_none_or(|open| !op.starts_with(open)) => {
            return Err(fault(format!("line {line}: {op:?} closes nothing")));
        }
        _ => {}
    }
    Ok(())
}

fn next_opening(text: &str) -> Option<(usize, Opening)> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).find_map(|i| match (bytes[i], bytes[i + 1]) {
        (b'{', b'{') => Some((i, Opening::Variable)),
        (b'{', b'%') => Some((i, Opening::Block)),
        (b'{', b'#') => Some((i, Opening::Comment)),
        _ => None,
    })
}

/// Bytes of `raw %}`, blanks included, if that is what follows.
fn raw_head(text: &str) -> Option<usize> {
    match word_then_end(text, "raw") {
        Some((n, None | Some(b'-'))) => Some(n),
        _ => None,
    }
}

/// The length of `word`, a sign and `%}`, with blanks between, and the sign.
fn word_then_end(text: &str, word: &str) -> Option<(usize, Option<u8>)> {
    let after_word = text.trim_start().strip_prefix(word)?;
    let tail = after_word.trim_start();
    let sign = tail.bytes().next().filter(|b| matches!(b, b'-' | b'+'));
    let tail = tail[usize::from(sign.is_some())..].strip_prefix("%}")?;
    Some((text.len() - tail.len(), sign))
}

/// A string literal, its escapes resolved, and its length in the source.
fn string(text: &str, line: u32) -> Result<(Tok, usize)> {
    let mut chars = text.char_indices();
    let quote = chars.next().map_or('"', |(_, c)| c);
    let mut value = String::new();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((Tok::Str(value), at + 1));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        let Some((_, escaped)) = chars.next() else { break };
        match escaped {
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'r' => value.push('\r'),
            'a' => value.push('\u{7}'),
            'b' => value.push('\u{8}'),
            'f' => value.push('\u{c}'),
            'v' => value.push('\u{b}'),
            '\n' => {}
            '\\' | '\'' | '"' => value.push(escaped),
            'x' | 'u' | 'U' => {
                let digits = match escaped {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                value.push(code_point(&mut chars, digits, line)?);
            }
            '0'..='7' => value.push(octal(&mut chars, escaped)),
            other => value.extend(['\\', other]),
        }
    }
    Err(fault(format!("line {line}: a string has no end")))
}

fn code_point(chars: &mut std::str::CharIndices, digits: usize, line: u32) -> Result<char> {
    let mut code = 0u32;
    for _ in 0..digits {
        let digit = chars.next().and_then(|(_, c)| c.to_digit(16));
        code = match digit {
            Some(digit) => code << 4 | digit,
            None => return Err(fault(format!("line {line}: an escape of a string lacks digits"))),
        };
    }
    char::from_u32(code).ok_or_else(|| fault(format!("line {line}: an escape of a string is no character")))
}

fn octal(chars: &mut std::str::CharIndices, first: char) -> char {
    let mut code = first.to_digit(8).unwrap_or(0);
    for _ in 0..2 {
        let mut ahead = chars.clone();
        match ahead.next().and_then(|(_, c)| c.to_digit(8)) {
            Some(digit) => code = code * 8 + digit,
            None => break,
        }
        *chars = ahead;
    }
    char::from_u32(code).unwrap_or('?')
}

/// A number; after a dot only an integer, so that `a.0.5` names items.
fn number(text: &str, after_dot: bool, line: u32) -> Result<(Tok, usize)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let wrong = |what: &str| fault(format!("line {line}: {what:?} is not a number that fits"));
    let mut n = digits(text);
    let mut is_float = false;
    if !after_dot {
        let tail = &text[n..];
        if tail.len() > 1 && tail.starts_with('.') && tail.as_bytes()[1].is_ascii_digit() {
            n += 1 + digits(&tail[1..]);
            is_float = true;
        }
        let tail = &text[n..];
        if tail.starts_with(['e', 'E']) {
            let sign = usize::from(tail[1..].starts_with(['+', '-']));
            let power = digits(&tail[1 + sign..]);
            if power > 0 {
                n += 1 + sign + power;
                is_float = true;
            }
        }
    }
    let plain = text[..n].replace('_', "");
    let tok = if is_float {
        Tok::Float(plain.parse().map_err(|_| wrong(&plain))?)
    } else {
        Tok::Int(plain.parse().map_err(|_| wrong(&plain))?)
    };
    Ok((tok, n))
}
