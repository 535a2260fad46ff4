//! The normalizers of `tokenizer.json` that stand before byte-level BPE and Unigram.
//!
//! Source: <https://huggingface.co/docs/tokenizers/api/normalizers>. Where a regular expression is part of one, the few
//! that occur are known by their text.

use super::unicode::is_space;
use super::vocab::invalid;
use crate::error::Result;
use serde_json::Value;

/// Key of the normalizer in errors.
pub(super) const NORMALIZER: &str = "normalizer";

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Unicode's simple and special lower case.
    Lowercase,
    /// Each run of white space becomes one space.
    MergeSpaces,
    /// Each run of two or more spaces becomes this text.
    MergeRuns(String),
    /// These characters go.
    Remove(Vec<char>),
    /// One text becomes another.
    Replace(String, String),
    /// White space at the start goes.
    StripLeft,
    /// White space at the end goes.
    StripRight,
    /// This text is put before any that is not empty.
    Prepend(String),
}

/// Steps, and the table of a `Precompiled` one, decoded.
#[derive(Default)]
pub(super) struct Normalizer {
    pub steps: Vec<Step>,
    pub charsmap: Option<Vec<u8>>,
}

impl Normalizer {
    /// Reads the part of a file. NFC and NFKC are passed over: text from keyboards and pages is composed already.
    ///
    /// # Errors
    /// `TokenizerInvalid` for a kind that is not supported.
    pub fn read(part: Option<&Value>) -> Result<Normalizer> {
        let mut normalizer = Normalizer::default();
        if let Some(part) = part.filter(|part| !part.is_null()) {
            normalizer.push(part, true)?;
        }
        Ok(normalizer)
    }

    fn push(&mut self, part: &Value, is_outer: bool) -> Result<()> {
        let text = |name: &str| part.get(name).and_then(Value::as_str);
        let flag = |name: &str| part.get(name).and_then(Value::as_bool).unwrap_or(true);
        let unsupported = || invalid(NORMALIZER, format!("{part} is not supported"));
        match text("type") {
            Some("Sequence") if is_outer => {
                let parts = part.get("normalizers").and_then(Value::as_array).ok_or_else(unsupported)?;
                parts.iter().try_for_each(|part| self.push(part, false))?;
            }
            Some("NFC" | "NFKC") => {}
            Some("Lowercase") => self.steps.push(Step::Lowercase),
            Some("Strip") => {
                self.steps.extend(flag("strip_left").then_some(Step::StripLeft));
                self.steps.extend(flag("strip_right").then_some(Step::StripRight));
            }
            Some("Prepend") => {
                self.steps.push(Step::Prepend(text("prepend").ok_or_else(unsupported)?.into()))
            }
            Some("Replace") => {
                let content = text("content").ok_or_else(unsupported)?;
                let pattern = part.get("pattern").ok_or_else(unsupported)?;
                self.steps.push(replacement(pattern, content).ok_or_else(unsupported)?);
            }
            Some("Precompiled") if self.charsmap.is_none() => {
                let table = text("precompiled_charsmap").ok_or_else(unsupported)?;
                let what = "the table of a Precompiled normalizer is not base64";
                self.charsmap = Some(base64(table).ok_or_else(|| invalid(NORMALIZER, what))?);
            }
            _ => return Err(unsupported()),
        }
        Ok(())
    }
}

impl Step {
    /// The text after it.
    pub fn apply(&self, text: String) -> String {
        match self {
            Step::Lowercase => text.to_lowercase(),
            Step::MergeSpaces => merge(&text, is_space, 1, " "),
            Step::MergeRuns(by) => merge(&text, |c| c == ' ', 2, by),
            Step::Remove(chars) => text.replace(|c| chars.contains(&c), ""),
            Step::Replace(from, to) => text.replace(from, to),
            Step::StripLeft => text.trim_start().into(),
            Step::StripRight => text.trim_end().into(),
            Step::Prepend(_) if text.is_empty() => text,
            Step::Prepend(before) => format!("{before}{text}"),
        }
    }
}

/// Replaces runs of at least `n` characters.
fn merge(text: &str, wanted: impl Fn(char) -> bool, n: usize, by: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let run = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        if run > 0 && rest[..run].chars().take(n).count() == n {
            out.push_str(by);
            rest = &rest[run..];
        } else {
            let len = run.max(c.len_utf8());
            out.push_str(&rest[..len]);
            rest = &rest[len..];
        }
    }
    out
}

/// The step that a pattern and what replaces it stand for.
fn replacement(pattern: &Value, content: &str) -> Option<Step> {
    if let Some(text) = pattern.get("String").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        return Some(Step::Replace(text.into(), content.into()));
    }
    match (pattern.get("Regex")?.as_str()?, content) {
        (r"\s+", " ") => Some(Step::MergeSpaces),
        (" {2,}", _) => Some(Step::MergeRuns(content.into())),
        (set, "") => Some(Step::Remove(characters(set)?)),
        _ => None,
    }
}

/// The characters of a regular expression that is one set of single ASCII punctuation marks.
fn characters(set: &str) -> Option<Vec<char>> {
    let inner = set.strip_prefix('[')?.strip_suffix(']')?;
    let mut chars = Vec::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        let c = if c == '\\' { rest.next()? } else { c };
        // A range or a class is more than a set of marks.
        if !c.is_ascii_punctuation() || c == '-' && !inner.contains("\\-") {
            return None;
        }
        chars.push(c);
    }
    (!chars.is_empty()).then_some(chars)
}

/// Bytes of a base64 text (RFC 4648, section 4).
fn base64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for &c in group {
            bits = bits << 6 | u32::from(value(c)?);
        }
        match group.len() {
            4 => out.extend(&bits.to_be_bytes()[1..]),
            3 => out.extend(&(bits >> 2).to_be_bytes()[2..]),
            2 => out.push((bits >> 4) as u8),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn normalized(part: Value, text: &str) -> String {
        let normalizer = Normalizer::read(Some(&part)).unwrap();
        normalizer.steps.iter().fold(text.into(), |text, step| step.apply(text))
    }

    #[test]
    fn steps_do_what_their_names_say() {
        let clip = json!({"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Lowercase"},
        ]});
        assert_eq!(normalized(clip, "A\t\n Photo  OF\u{a0}É"), "a photo of é");
        let siglip = json!({"type": "Sequence", "normalizers": [
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": "[!\"\\#\\$%\\&'\\(\\)\\*\\+,\\-\\.:;=\\?@\\[\\\\\\]\\^_`\\{\\|\\}\\~]"}, "content": ""},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]});
        assert_eq!(normalized(siglip, "  It's a [dog]-house! "), "its a doghouse");
        let spaces = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"});
        assert_eq!(normalized(spaces, "a  b c   "), "a▁b c▁");
        let prepend = json!({"type": "Prepend", "prepend": "▁"});
        assert_eq!((normalized(prepend.clone(), "a"), normalized(prepend, "")), ("▁a".into(), "".into()));
    }

    #[test]
    fn unknown_steps_are_refused() {
        for part in [
            json!({"type": "StripAccents"}),
            json!({"type": "Replace", "pattern": {"Regex": "[a-z]"}, "content": ""}),
            json!({"type": "Replace", "pattern": {"Regex": "[!-/]"}, "content": ""}),
            json!({"type": "Precompiled", "precompiled_charsmap": "?"}),
            json!({"type": "Sequence", "normalizers": [{"type": "Sequence", "normalizers": []}]}),
            json!("Lowercase"),
        ] {
            assert!(Normalizer::read(Some(&part)).is_err(), "{part}");
        }
        assert_eq!(base64("TWFu").unwrap(), b"Man");
        assert_eq!(base64("TWE=").unwrap(), b"Ma");
        assert_eq!(base64("TQ==").unwrap(), b"M");
    }
}
