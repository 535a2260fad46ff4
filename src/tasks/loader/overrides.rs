//! Types for single tensors, by patterns of their names.

use crate::error::{Code, Error, Result};
use crate::quant::DType;
use crate::quantizer::writable;

/// A tensor type for the tensors whose names fit a pattern.
pub(super) struct Override {
    pattern: String,
    pub(super) dtype: DType,
}

impl Override {
    pub(super) fn parse(given: &str) -> Result<Self> {
        let bad = |rule: String| Error::new(Code::BadArgument, rule).key("overrides");
        let (pattern, name) =
            given.rsplit_once('=').ok_or_else(|| bad(format!("{given:?} is not PATTERN=TYPE")))?;
        if pattern.is_empty() {
            return Err(bad(format!("{given:?} names no tensors")));
        }
        let dtype = writable(name, "overrides").map_err(|e| bad(e.message))?;
        Ok(Override { pattern: pattern.into(), dtype })
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}
