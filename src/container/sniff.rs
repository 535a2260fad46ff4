//! Which container a file is, and a helpful word where it is none.

use super::{ContainerKind, limits};
use crate::error::{Code, Error, Result};

/// What the first line of a Git LFS pointer (the stand-in for a file kept elsewhere) begins with.
const LFS: &[u8] = b"version https://git-lfs";

/// First bytes of files that people take for models, and what to call them.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"FUGG", "a byte-swapped GGUF file: convert it to little-endian"),
    (b"lmgg", "a legacy GGML file: convert it to GGUF"),
    (b"ggml", "a legacy GGML file: convert it to GGUF"),
    (b"fmgg", "a legacy GGMF file: convert it to GGUF"),
    (b"ggmf", "a legacy GGMF file: convert it to GGUF"),
    (b"tjgg", "a legacy GGJT file: convert it to GGUF"),
    (b"ggjt", "a legacy GGJT file: convert it to GGUF"),
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint): convert it to GGUF or safetensors"),
    (b"\x1f\x8b", "gzip-compressed: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed: unpack it first"),
    (b"\x80\x02", "a Python pickle: convert it to safetensors"),
    (b"\x80\x04", "a Python pickle: convert it to safetensors"),
    (b"\x93NUMPY", "a NumPy array: convert it to safetensors"),
    (b"\x89HDF", "an HDF5 file: convert it to safetensors"),
    (b"\0asm", "a WebAssembly module"),
    (LFS, "a Git LFS pointer, not the file itself: download the file it stands for"),
];

/// Tells the container from a file's first bytes; `None` while there are too few of them (at
/// most 24 are needed).
///
/// A safetensors file has no magic number. What is neither GGUF nor known to be something else
/// counts as safetensors when the header length in its first eight bytes is possible, or when a
/// JSON object follows it: its parser then says what is wrong.
///
/// # Errors
/// [`Code::BadMagic`], with a guess at what the file is.
pub fn sniff(prefix: &[u8]) -> Result<Option<ContainerKind>> {
    if prefix.starts_with(b"GGUF") {
        return Ok(Some(ContainerKind::Gguf));
    }
    let impossible_header = first_u64(prefix) > limits::HEADER_BYTES;
    if impossible_header {
        if let Some(what) = foreign(prefix) {
            return Err(bad_magic(what));
        }
        if LFS.starts_with(prefix) {
            return Ok(None);
        }
    }
    match prefix.get(8) {
        None => Ok(None),
        Some(b'{') => Ok(Some(ContainerKind::Safetensors)),
        Some(byte) if !impossible_header && (byte.is_ascii_whitespace() || foreign(prefix).is_none()) => {
            Ok(Some(ContainerKind::Safetensors))
        }
        Some(_) => Err(bad_magic(&foreign(prefix).map_or_else(|| describe(prefix), str::to_string))),
    }
}

/// The first eight bytes as a number; bytes yet to come count as zero, which makes it a lower bound.
fn first_u64(prefix: &[u8]) -> u64 {
    prefix.iter().take(8).rev().fold(0, |n, &b| n << 8 | u64::from(b))
}

fn foreign(prefix: &[u8]) -> Option<&'static str> {
    if let Some((_, what)) = FOREIGN.iter().find(|(magic, _)| prefix.starts_with(magic)) {
        return Some(what);
    }
    match prefix.trim_ascii_start().first() {
        Some(b'<') => Some("an HTML or XML page: check the URL"),
        Some(b'{' | b'[') => Some("JSON, not weights"),
        _ if prefix.get(4..8) == Some(b"TFL3") => Some("a TensorFlow Lite model"),
        _ => None,
    }
}

/// The first bytes in words: as text where they are text.
fn describe(prefix: &[u8]) -> String {
    let head = &prefix[..prefix.len().min(24)];
    match str::from_utf8(head) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            format!("text: {text:?}")
        }
        _ => format!("something that begins with the bytes {:02x?}", &head[..head.len().min(8)]),
    }
}

fn bad_magic(what: &str) -> Error {
    Error::new(Code::BadMagic, format!("neither GGUF nor safetensors, this looks like {what}")).at(0)
}
