//! How much a header may declare. Real files stay far below; a hostile one is refused
//! before anything is allocated for it.

/// Bytes before the tensor data (the same cap as the safetensors library's).
pub const HEADER_BYTES: u64 = 100_000_000;
/// Metadata entries.
pub const ENTRIES: u64 = 65_536;
/// Tensors.
pub const TENSORS: u64 = 65_536;
/// Bytes of a metadata key, and of a tensor name in safetensors.
pub const KEY_BYTES: u64 = 64 << 10;
/// Bytes of one metadata string.
pub const STRING_BYTES: u64 = 64 << 20;
/// Elements of one metadata array.
pub const ARRAY_LEN: u64 = 1 << 26;
/// Bytes of a tensor name in GGUF (ggml keeps names in 64 bytes, the last of them zero).
pub const GGUF_NAME_BYTES: u64 = 63;
/// Dimensions of a tensor in GGUF.
pub const GGUF_DIMS: u32 = 4;
/// Dimensions of a tensor in safetensors.
pub const SAFETENSORS_DIMS: usize = 8;
/// One dimension. The same on 32-bit and 64-bit targets, so that both give the same verdict.
pub const DIM: u64 = u32::MAX as u64;
/// Largest `general.alignment`.
pub const ALIGNMENT: u32 = 1 << 20;
