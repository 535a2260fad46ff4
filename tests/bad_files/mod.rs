//! Malformed model files as data: what each is, its bytes, and the verdict it must get.
//! Shared by the native tests, the browser tests and the memory test; nothing here touches
//! the file system.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod gguf;
pub mod large;
pub mod located;
pub mod model;
pub mod safetensors;
pub mod tally;

pub use tally::stream;

use bitpane::container;
use bitpane::{Code, Error, Result};

/// One file and its verdict.
pub struct Case {
    /// Row of the fault catalogue.
    pub id: &'static str,
    /// What is wrong with the file.
    pub what: String,
    /// The file.
    pub bytes: Vec<u8>,
    /// The code it is refused with; `None` where it must load.
    pub code: Option<Code>,
    /// Words that the printed error must hold: the offender's name or a hint.
    pub says: &'static str,
}

/// A file that must be refused with `code`.
pub fn bad(id: &'static str, what: impl Into<String>, bytes: Vec<u8>, code: Code) -> Case {
    Case { id, what: what.into(), bytes, code: Some(code), says: "" }
}

/// A file that must load.
pub fn good(id: &'static str, what: impl Into<String>, bytes: Vec<u8>) -> Case {
    Case { id, what: what.into(), bytes, code: None, says: "" }
}

impl Case {
    /// Words that the printed error must hold.
    pub fn says(mut self, words: &'static str) -> Case {
        self.says = words;
        self
    }
}

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = gguf::cases();
    cases.extend(safetensors::cases());
    cases
}

/// Parses `file` at once.
pub fn parse(file: &[u8]) -> Result<()> {
    let len = file.len() as u64;
    let header = container::parse(file, Some(len))?.expect("a whole file gives a header or an error");
    for t in &header.tensors {
        assert!(t.offset >= header.data_offset || t.n_bytes == 0, "{} lies in the header", t.name);
        assert!(t.n_bytes == 0 || t.offset + t.n_bytes <= len, "{} lies outside the file", t.name);
    }
    Ok(())
}

/// The verdicts on `file` of every way to read it, with the name of each way.
pub fn verdicts(file: &[u8]) -> Vec<(String, Result<()>)> {
    let len = Some(file.len() as u64);
    let mut all = vec![("parse".to_string(), parse(file))];
    // One byte at a time costs time in proportion to the file; large files do without.
    let chunks: &[usize] = if file.len() < 100_000 { &[1, 13, 1 << 16] } else { &[1 << 16, usize::MAX] };
    for &chunk in chunks {
        all.push((format!("stream by {chunk}"), stream(file, None, chunk)));
        all.push((format!("stream by {chunk}, length known"), stream(file, len, chunk)));
    }
    all
}

/// Why `verdict` is not the one that `case` demands; `None` where it is.
pub fn complaint(case: &Case, verdict: &Result<()>) -> Option<String> {
    match (verdict, case.code) {
        (Ok(()), None) => None,
        (Err(e), Some(code)) if e.code == code && e.to_string().contains(case.says) => {
            check_offender(case, e)
        }
        (Err(e), _) => Some(format!("got {:?}: {e}", e.code)),
        (Ok(()), Some(_)) => Some("was accepted".into()),
    }
}

/// Every error names a key, a tensor or a byte, and is short enough to be read.
fn check_offender(case: &Case, e: &Error) -> Option<String> {
    let named = e.key.is_some() || e.tensor.is_some() || e.offset.is_some();
    // A limit on the number of tensors, and tensors of an unknown model, have no single offender.
    let exempt = case.says == "tensor names" || case.id == "S10" && e.code == Code::LimitExceeded;
    if e.to_string().len() >= 4096 {
        return Some(format!("says {} bytes", e.to_string().len()));
    }
    (!named && !exempt).then(|| format!("names no key, tensor or byte: {e}"))
}
