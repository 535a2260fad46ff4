//! Hyperparameters from GGUF metadata, each checked against its domain.

use crate::container::{Array, Metadata, Value};
use crate::error::{Code, Error, Result};

/// Largest value that any dimension may have; products of two stay far below 2^53.
const MAX_DIM: u64 = 1 << 24;
/// Most layers that a file may declare.
const MAX_LAYERS: u64 = 1024;

/// Reads `ARCH.name` keys.
pub struct Reader<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Reader<'a> {
    /// A reader of one architecture's keys.
    pub fn new(metadata: &'a Metadata, architecture: &'a str) -> Self {
        Reader { metadata, architecture }
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// An error about `ARCH.name`.
    pub fn bad(&self, name: &str, rule: impl Into<String>) -> Error {
        Error::new(Code::BadConfig, rule).key(self.key(name))
    }

    fn as_config<T>(&self, name: &str, value: Result<T>) -> Result<T> {
        value.map_err(|e| self.bad(name, e.message))
    }

    /// A dimension in `1 ..= 2^24`, or `None` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn optional_dim(&self, name: &str) -> Result<Option<usize>> {
        match self.as_config(name, self.metadata.u64(&self.key(name)))? {
            Some(v) if v == 0 || v > MAX_DIM => Err(self.bad(name, format!("{v} is not in 1 ..= {MAX_DIM}"))),
            v => Ok(v.map(|v| v as usize)),
        }
    }

    /// A count in `0 ..= 2^24`, or `None` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn count(&self, name: &str) -> Result<Option<usize>> {
        match self.as_config(name, self.metadata.u64(&self.key(name)))? {
            Some(v) if v > MAX_DIM => Err(self.bad(name, format!("{v} is more than {MAX_DIM}"))),
            v => Ok(v.map(|v| v as usize)),
        }
    }

    /// An array of `n` bools (or numbers, 0 for false), or `None` where the key is absent or holds
    /// no array.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn bools(&self, name: &str, n: usize) -> Result<Option<Vec<bool>>> {
        let Some(Value::Array(array)) = self.metadata.get(&self.key(name)) else { return Ok(None) };
        if array.len() != n {
            return Err(self.bad(name, format!("{} entries for {n} layers", array.len())));
        }
        let bools = match array {
            Array::Bool(bools) => Some(bools.clone()),
            other => (0..n).map(|i| other.i64(i).map(|v| v != 0)).collect(),
        };
        bools.map(Some).ok_or_else(|| self.bad(name, "expected bools"))
    }

    /// A dimension that must be there.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn dim(&self, name: &str) -> Result<usize> {
        self.optional_dim(name)?.ok_or_else(|| self.bad(name, "required key is missing"))
    }

    /// The number of layers.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn n_layer(&self) -> Result<usize> {
        let n = self.dim("block_count")?;
        if n as u64 > MAX_LAYERS {
            return Err(self.bad("block_count", format!("{n} is more than {MAX_LAYERS}")));
        }
        Ok(n)
    }

    /// A finite number above zero, or `default` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn positive(&self, name: &str, default: f32) -> Result<f32> {
        match self.as_config(name, self.metadata.f32(&self.key(name)))? {
            Some(v) if !v.is_finite() || v <= 0.0 => Err(self.bad(name, format!("{v} is not above zero"))),
            v => Ok(v.unwrap_or(default)),
        }
    }

    /// A finite number, or `None` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        match self.as_config(name, self.metadata.f32(&self.key(name)))? {
            Some(v) if !v.is_finite() => Err(self.bad(name, format!("{v} is not finite"))),
            v => Ok(v),
        }
    }

    /// A bool, or `None` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn bool(&self, name: &str) -> Result<Option<bool>> {
        self.as_config(name, self.metadata.bool(&self.key(name)))
    }

    /// One number per layer, each up to 2^24: an array of `n_layer`, or one number for all of them.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn per_layer(&self, name: &str, n_layer: usize) -> Result<Vec<usize>> {
        let array = match self.metadata.get(&self.key(name)) {
            Some(Value::Array(array)) => array,
            _ => return Ok(vec![self.dim(name)?; n_layer]),
        };
        if array.len() != n_layer {
            return Err(self.bad(name, format!("{} values for {n_layer} layers", array.len())));
        }
        let value = |i| match array.i64(i) {
            Some(v) if (0..=MAX_DIM as i64).contains(&v) => Ok(v as usize),
            _ => Err(self.bad(name, format!("the value of layer {i} is not in 0 ..= {MAX_DIM}"))),
        };
        (0..n_layer).map(value).collect()
    }

    /// A string, or `None` where absent.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn str(&self, name: &str) -> Result<Option<&'a str>> {
        self.as_config(name, self.metadata.str(&self.key(name)))
    }
}
