//! Bytes to names, shapes, types and byte ranges: GGUF and safetensors.

pub mod gguf;
mod metadata;
pub mod reader;
pub mod safetensors;
pub mod stream;

pub use metadata::{Array, Metadata, StrArray, Value};

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
