//! Keeps texts of messages apart from what the template says.
//!
//! A message may hold the text of a special token. Before a template gets it, every character of such a place
//! is put between two marks; after rendering these tell which parts of the prompt are plain text, and are
//! taken out.
//! Where there is no such place, nothing is changed, so that templates may look at what messages say.

use super::ChatPrompt;
use crate::error::{Code, Error, Result};
use crate::template::{Value, failed};
use crate::tokenizer::Tokenizer;

/// Two characters that occur nowhere else.
pub(super) struct Marks {
    open: char,
    close: char,
}

impl Marks {
    /// Chooses two characters of Unicode's range for private use (U+F800 and following).
    pub fn choose<'a>(source: &str, values: impl Iterator<Item = &'a Value> + Clone) -> Result<Marks> {
        let mut free = ('\u{f800}'..='\u{f8ff}')
            .filter(|&c| !source.contains(c) && !values.clone().any(|value| holds(value, c)));
        match (free.next(), free.next()) {
            (Some(open), Some(close)) => Ok(Marks { open, close }),
            _ => Err(Error::new(Code::BadArgument, "the messages use too many characters for private use")
                .key("messages")),
        }
    }

    /// A value with marks around every part of a text that could be a special token. The names of roles stay
    /// as they are: they are checked, and templates build special tokens of them.
    pub fn guard(&self, tokenizer: &Tokenizer, value: &Value) -> Result<Value> {
        match value {
            Value::Str(text) => {
                Ok(self.guard_text(tokenizer, text).map_or_else(|| value.clone(), Value::from))
            }
            Value::List(list) => {
                let items =
                    list.items.iter().map(|item| self.guard(tokenizer, item)).collect::<Result<_>>()?;
                Value::list(items).map_err(failed)
            }
            Value::Dict(dict) => {
                let entries = dict.entries.iter().map(|(key, value)| match key.as_str() {
                    Some("role") => Ok((key.clone(), value.clone())),
                    _ => Ok((self.guard(tokenizer, key)?, self.guard(tokenizer, value)?)),
                });
                Value::dict(entries.collect::<Result<_>>()?).map_err(failed)
            }
            other => Ok(other.clone()),
        }
    }

    fn guard_text(&self, tokenizer: &Tokenizer, text: &str) -> Option<String> {
        let ranges = tokenizer.control_texts(text);
        if ranges.is_empty() {
            return None;
        }
        let mut guarded = String::new();
        let mut from = 0;
        for (start, end) in ranges {
            guarded.push_str(&text[from..start]);
            text[start..end].chars().for_each(|c| guarded.extend([self.open, c, self.close]));
            from = end;
        }
        guarded.push_str(&text[from..]);
        Some(guarded)
    }

    /// A rendered text without its marks, and the parts that were between them. However a template cuts and
    /// joins texts, a mark without its partner beside the same character says nothing.
    pub fn lift(&self, rendered: &str) -> ChatPrompt {
        // A template that writes JSON in ASCII has written marks as escapes.
        let escape = |mark: char| format!("\\u{:04x}", mark as u32);
        let rendered = rendered.replace(&escape(self.open), &self.open.to_string());
        let mut rest = &*rendered.replace(&escape(self.close), &self.close.to_string());
        let mut text = String::with_capacity(rest.len());
        let mut plain: Vec<(usize, usize)> = Vec::new();
        while let Some(at) = rest.find([self.open, self.close]) {
            text.push_str(&rest[..at]);
            let mut after = rest[at..].chars();
            let is_open = after.next() == Some(self.open);
            rest = after.as_str();
            let Some(c) = after.next().filter(|c| is_open && ![self.open, self.close].contains(c)) else {
                continue;
            };
            let Some(closed) = after.as_str().strip_prefix(self.close) else { continue };
            let range = (text.len(), text.len() + c.len_utf8());
            match plain.last_mut() {
                Some(last) if last.1 == range.0 => last.1 = range.1,
                _ => plain.push(range),
            }
            text.push(c);
            rest = closed;
        }
        text.push_str(rest);
        ChatPrompt { text, plain }
    }
}

fn holds(value: &Value, c: char) -> bool {
    match value {
        Value::Str(text) => text.contains(c) || text.contains(&format!("\\u{:04x}", c as u32)),
        Value::List(list) => list.items.iter().any(|item| holds(item, c)),
        Value::Dict(dict) => dict.entries.iter().any(|(key, value)| holds(key, c) || holds(value, c)),
        _ => false,
    }
}
