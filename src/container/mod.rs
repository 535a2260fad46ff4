//! Bytes to names, shapes, types and byte ranges: GGUF and safetensors.

pub mod gguf;
pub mod gguf_write;
pub mod joining;
pub mod limits;
mod metadata;
pub mod pickle;
pub mod reader;
pub mod safetensors;
pub mod shards;
mod sniff;
pub mod stream;
pub mod tflite;
pub mod torch;
mod zip;

pub use metadata::{Array, Metadata, StrArray, Value};
pub use sniff::sniff;

use crate::error::{Code, Error, Result};
use crate::quant::DType;

/// One tensor as its file declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// The name in the file.
    pub name: String,
    /// The stored type.
    pub dtype: DType,
    /// Dimensions, row-major, outermost first (GGUF's reversed order is turned round on reading).
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub offset: u64,
    /// Bytes of data.
    pub n_bytes: u64,
}

/// Which container a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerKind {
    /// GGUF version 2 or 3.
    Gguf,
    /// safetensors.
    Safetensors,
}

/// Everything a container says before its tensor data.
#[derive(Clone, Debug)]
pub struct Header {
    /// The container.
    pub kind: ContainerKind,
    /// Metadata in file order.
    pub metadata: Metadata,
    /// Tensors, ascending by `offset`.
    pub tensors: Vec<TensorInfo>,
    /// Where the tensor data begins, counted from the start of the file.
    pub data_offset: u64,
    /// Where the declared data ends: the least length of a whole file.
    pub end_offset: u64,
}

impl Header {
    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.n_bytes).fold(0, u64::saturating_add)
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|t| t.name == name)
    }
}

/// The header of a file of either kind, from its first bytes; `None` while there are too few.
/// `file_len` is the length of the whole file, where it is known for certain.
///
/// # Errors
/// As [`sniff`], [`gguf::parse`] and [`safetensors::parse`].
pub fn parse(prefix: &[u8], file_len: Option<u64>) -> Result<Option<Header>> {
    match sniff(prefix)? {
        Some(ContainerKind::Gguf) => gguf::parse(prefix, file_len),
        Some(ContainerKind::Safetensors) => safetensors::parse(prefix, file_len),
        None => match file_len {
            Some(len) if len <= prefix.len() as u64 => Err(reader::truncated(len + 1, len)),
            _ => Ok(None),
        },
    }
}

/// Number of elements of a shape. Zero dimensions do not hide an overflow of the others, so
/// that strides are safe to compute from any accepted shape.
fn n_elements(shape: &[u64]) -> Result<u64> {
    let mut bound = 1u64;
    for &dim in shape {
        let next = if dim > limits::DIM { None } else { bound.checked_mul(dim.max(1)) };
        bound = next.filter(|&n| n <= i64::MAX as u64).ok_or_else(|| overflow(shape))?;
    }
    Ok(if shape.contains(&0) { 0 } else { bound })
}

fn overflow(shape: &[u64]) -> Error {
    Error::new(Code::Overflow, format!("shape {shape:?} is too large"))
}

/// Fails on the first string that occurs twice; `error` makes the error.
fn check_unique<'a>(names: impl Iterator<Item = &'a str>, error: impl Fn(&str) -> Error) -> Result<()> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(w) => Err(error(w[0])),
        None => Ok(()),
    }
}
