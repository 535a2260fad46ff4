//! GGUF version 2 and 3: header, metadata, tensor list.
//!
//! The parser keeps its state between calls, so a header that arrives in pieces is read once.
//! Nothing is allocated on the strength of a declared count: memory grows with the bytes that
//! have arrived.
//!
//! Stricter than the specification where a reader of untrusted files should be: tensors must
//! follow each other without hole or overlap (as ggml demands too), keys and names must be
//! unique, arrays do not nest, bools are 0 or 1, and counts obey [`limits`].
//!
//! Source: GGUF specification, <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::reader::{Read, Reader, Stop, truncated};
use super::{Array, ContainerKind, Header, Metadata, StrArray, TensorInfo, Value};
use super::{check_unique, limits, n_elements};
use crate::error::{Code, Error, Result};
use crate::quant::DType;

/// Metadata value types as GGUF numbers them.
pub(super) mod value_type {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}
use value_type as vt;

/// The four bytes with which a GGUF file begins.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Alignment of tensor data where `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u32 = 32;
/// The metadata key that changes it.
const ALIGNMENT_KEY: &str = "general.alignment";

/// Fewest bytes of a metadata entry: key length, type, value. (An empty key has its own verdict.)
const MIN_ENTRY_BYTES: u64 = 8 + 4 + 1;
/// Fewest bytes of a tensor's entry: name length, dimension count, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 4 + 4 + 8;

/// Parses a header from a file's first bytes; `None` while they do not hold all of it.
/// `file_len` is the length of the whole file, where it is known for certain.
///
/// # Errors
/// A typed error that names the offending key or tensor and the byte offset;
/// [`Code::Truncated`] where `file_len` is too short for what the header declares.
pub fn parse(prefix: &[u8], file_len: Option<u64>) -> Result<Option<Header>> {
    let file_len = file_len.map(|len| len.max(prefix.len() as u64));
    Parser::default().advance(prefix, file_len)
}

/// `offset` rounded up to a multiple of `alignment`, a power of two.
pub(super) fn pad(offset: u64, alignment: u32) -> Option<u64> {
    let mask = u64::from(alignment) - 1;
    offset.checked_add(mask).map(|n| n & !mask)
}

/// Parsing state: everything read so far, and how far that is.
#[derive(Default)]
pub(super) struct Parser {
    /// Offset of the first byte not yet consumed.
    pos: u64,
    /// Least number of bytes from the start of the file with which to call again.
    needed: u64,
    counts: Option<Counts>,
    metadata: Metadata,
    strings: Option<Strings>,
    layout: Option<Layout>,
    tensors: Vec<TensorInfo>,
}

#[derive(Clone, Copy)]
struct Counts {
    n_tensors: u64,
    n_entries: u64,
}

/// A string array of which some elements are still to come.
struct Strings {
    key: String,
    left: u64,
    array: StrArray,
}

/// Where the next tensor's data must begin, relative to the data section.
#[derive(Clone, Copy)]
struct Layout {
    alignment: u32,
    next_offset: u64,
}

impl Parser {
    /// Offset of the first byte not yet consumed: where the bytes of the next call begin.
    pub fn pos(&self) -> u64 {
        self.pos
    }

    /// Least number of bytes from the start of the file with which to call again.
    pub fn needed(&self) -> u64 {
        self.needed
    }

    /// Reads on. `bytes` begin at [`Parser::pos`].
    pub fn advance(&mut self, bytes: &[u8], file_len: Option<u64>) -> Result<Option<Header>> {
        let mut reader = Reader::new(bytes, self.pos, file_len);
        loop {
            match self.item(&mut reader) {
                Ok(true) => self.pos = reader.offset(),
                Ok(false) => return self.finish(file_len).map(Some),
                Err(Stop::Short { needed }) => {
                    self.needed = needed;
                    return Ok(None);
                }
                Err(Stop::Bad(error)) => return Err(error),
            }
        }
    }

    /// Reads one item, whole or not at all; false where there is none left.
    fn item(&mut self, reader: &mut Reader) -> Read<bool> {
        let Some(counts) = self.counts else {
            self.counts = Some(read_counts(reader)?);
            return Ok(true);
        };
        if let Some(strings) = &mut self.strings {
            let string = reader.string(limits::STRING_BYTES, Code::LimitExceeded);
            strings.array.push(string.map_err(|s| s.key(&strings.key))?);
            strings.left -= 1;
            self.close_strings();
        } else if (self.metadata.len() as u64) < counts.n_entries {
            match read_entry(reader)? {
                Entry::Value(key, value) => self.metadata.push(key, value),
                Entry::Strings(strings) => {
                    self.strings = Some(strings);
                    self.close_strings();
                }
            }
        } else if (self.tensors.len() as u64) < counts.n_tensors {
            let mut layout = self.layout()?;
            self.tensors.push(read_tensor(reader, &mut layout)?);
            self.layout = Some(layout);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn close_strings(&mut self) {
        if let Some(strings) = self.strings.take_if(|s| s.left == 0) {
            self.metadata.push(strings.key, Value::Array(Array::Str(strings.array)));
        }
    }

    /// The layout so far; on the first call, from the then complete metadata.
    fn layout(&self) -> Result<Layout> {
        match self.layout {
            Some(layout) => Ok(layout),
            None => {
                check_unique(self.metadata.iter().map(|(k, _)| k), |key| {
                    Error::new(Code::Duplicate, "the metadata key occurs twice").key(key)
                })?;
                Ok(Layout { alignment: alignment(&self.metadata)?, next_offset: 0 })
            }
        }
    }

    fn finish(&mut self, file_len: Option<u64>) -> Result<Header> {
        let layout = self.layout()?;
        check_unique(self.tensors.iter().map(|t| t.name.as_str()), |name| {
            Error::new(Code::Duplicate, "the tensor name occurs twice").tensor(name)
        })?;
        let too_large = || Error::new(Code::Overflow, "the tensor data is too large");
        let data_offset = pad(self.pos, layout.alignment).ok_or_else(too_large)?;
        let mut end_offset = self.pos;
        for tensor in &mut self.tensors {
            tensor.offset = tensor.offset.checked_add(data_offset).ok_or_else(too_large)?;
            let end = tensor.offset.checked_add(tensor.n_bytes).ok_or_else(too_large)?;
            if tensor.n_bytes > 0 {
                end_offset = end;
            }
            if let Some(len) = file_len.filter(|&len| end_offset > len) {
                return Err(truncated(end_offset, len).tensor(&tensor.name));
            }
        }
        Ok(Header {
            kind: ContainerKind::Gguf,
            metadata: std::mem::take(&mut self.metadata),
            tensors: std::mem::take(&mut self.tensors),
            data_offset,
            end_offset,
        })
    }
}

fn read_counts(reader: &mut Reader) -> Read<Counts> {
    if reader.take(4)? != MAGIC {
        return Err(Error::new(Code::BadMagic, "a GGUF file begins with \"GGUF\"").at(0).into());
    }
    let at = reader.offset();
    let version = reader.u32()?;
    if !matches!(version, 2 | 3) {
        let message = match version.swap_bytes() {
            1..=255 => "this is a big-endian GGUF file: convert it to little-endian".to_string(),
            _ => format!("GGUF version {version} is not supported; versions 2 and 3 are"),
        };
        return Err(Error::new(Code::UnsupportedVersion, message).at(at).into());
    }
    let n_tensors = read_count(reader, limits::TENSORS, "tensors")?;
    let n_entries = read_count(reader, limits::ENTRIES, "metadata entries")?;
    reader.claim(n_entries * MIN_ENTRY_BYTES + n_tensors * MIN_TENSOR_BYTES, 1)?;
    Ok(Counts { n_tensors, n_entries })
}

fn read_count(reader: &mut Reader, limit: u64, what: &str) -> Read<u64> {
    let at = reader.offset();
    match reader.u64()? {
        n if n > limit => {
            Err(Error::new(Code::LimitExceeded, format!("{n} {what}, the limit is {limit}")).at(at).into())
        }
        n => Ok(n),
    }
}

enum Entry {
    Value(String, Value),
    Strings(Strings),
}

fn read_entry(reader: &mut Reader) -> Read<Entry> {
    let at = reader.offset();
    let key = reader.string(limits::KEY_BYTES, Code::LimitExceeded)?;
    let key = match str::from_utf8(key) {
        Ok("") => return Err(Error::new(Code::BadKey, "empty metadata key").at(at).into()),
        Ok(key) => key,
        Err(e) => {
            return Err(Error::new(Code::BadKey, "a metadata key is not UTF-8").at(at).source(e).into());
        }
    };
    read_value(reader, key).map_err(|stop| stop.key(key))
}

fn read_value(reader: &mut Reader, key: &str) -> Read<Entry> {
    let at = reader.offset();
    let id = reader.u32()?;
    if key == ALIGNMENT_KEY && id != vt::U32 {
        return Err(Error::new(Code::BadAlignment, "the alignment is not of type u32").at(at).into());
    }
    let value = match id {
        vt::U8 => Value::U64(reader.u8()?.into()),
        vt::I8 => Value::I64(i8::from_le_bytes(array(reader.take(1)?)).into()),
        vt::U16 => Value::U64(u16::from_le_bytes(array(reader.take(2)?)).into()),
        vt::I16 => Value::I64(i16::from_le_bytes(array(reader.take(2)?)).into()),
        vt::U32 => Value::U64(reader.u32()?.into()),
        vt::I32 => Value::I64(i32::from_le_bytes(array(reader.take(4)?)).into()),
        vt::F32 => Value::F32(f32::from_le_bytes(array(reader.take(4)?))),
        vt::BOOL => Value::Bool(read_bools(reader, 1)?[0]),
        vt::STRING => Value::Str(reader.string(limits::STRING_BYTES, Code::LimitExceeded)?.to_vec()),
        vt::ARRAY => return read_array(reader, key),
        vt::U64 => Value::U64(reader.u64()?),
        vt::I64 => Value::I64(i64::from_le_bytes(array(reader.take(8)?))),
        vt::F64 => Value::F64(f64::from_le_bytes(array(reader.take(8)?))),
        id => {
            let message = format!("unknown metadata value type {id}");
            return Err(Error::new(Code::BadType, message).at(at).into());
        }
    };
    Ok(Entry::Value(key.to_string(), value))
}

fn read_array(reader: &mut Reader, key: &str) -> Read<Entry> {
    let at = reader.offset();
    let element = reader.u32()?;
    let count = read_count(reader, limits::ARRAY_LEN, "array elements")?;
    let array = match element {
        vt::U8 => Array::U8(reader.take(count)?.to_vec()),
        vt::I8 => Array::I8(numbers(reader, count, i8::from_le_bytes)?),
        vt::U16 => Array::U16(numbers(reader, count, u16::from_le_bytes)?),
        vt::I16 => Array::I16(numbers(reader, count, i16::from_le_bytes)?),
        vt::U32 => Array::U64(numbers(reader, count, |b| u32::from_le_bytes(b).into())?),
        vt::I32 => Array::I64(numbers(reader, count, |b| i32::from_le_bytes(b).into())?),
        vt::F32 => Array::F32(numbers(reader, count, f32::from_le_bytes)?),
        vt::BOOL => Array::Bool(read_bools(reader, count)?),
        vt::U64 => Array::U64(numbers(reader, count, u64::from_le_bytes)?),
        vt::I64 => Array::I64(numbers(reader, count, i64::from_le_bytes)?),
        vt::F64 => Array::F64(numbers(reader, count, f64::from_le_bytes)?),
        vt::STRING => {
            reader.claim(count, size_of::<u64>() as u64)?;
            let strings = Strings { key: key.to_string(), left: count, array: StrArray::default() };
            return Ok(Entry::Strings(strings));
        }
        vt::ARRAY => {
            return Err(Error::new(Code::BadType, "arrays of arrays are not supported").at(at).into());
        }
        id => {
            return Err(Error::new(Code::BadType, format!("unknown array element type {id}")).at(at).into());
        }
    };
    Ok(Entry::Value(key.to_string(), Value::Array(array)))
}

/// `count` little-endian numbers of `N` bytes; allocates once all their bytes are there.
fn numbers<T, const N: usize>(
    reader: &mut Reader,
    count: u64,
    decode: impl Fn([u8; N]) -> T,
) -> Read<Vec<T>> {
    let bytes = reader.take(count.saturating_mul(N as u64))?;
    Ok(bytes.chunks_exact(N).map(|b| decode(array(b))).collect())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

fn read_bools(reader: &mut Reader, count: u64) -> Read<Vec<bool>> {
    let at = reader.offset();
    let bytes = reader.take(count)?;
    match bytes.iter().position(|&b| b > 1) {
        None => Ok(bytes.iter().map(|&b| b == 1).collect()),
        Some(i) => {
            let message = format!("a bool is 0 or 1, not {}", bytes[i]);
            Err(Error::new(Code::BadValue, message).at(at.saturating_add(i as u64)).into())
        }
    }
}

/// The alignment of tensor data that the metadata ask for.
pub(super) fn alignment(metadata: &Metadata) -> Result<u32> {
    let n = match metadata.get(ALIGNMENT_KEY) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(Value::U64(n)) => u32::try_from(*n).ok(),
        Some(_) => None,
    };
    n.filter(|n| n.is_power_of_two() && *n <= limits::ALIGNMENT).ok_or_else(|| {
        let message = format!("the alignment is not a power of two of at most {}", limits::ALIGNMENT);
        Error::new(Code::BadAlignment, message).key(ALIGNMENT_KEY)
    })
}

fn read_tensor(reader: &mut Reader, layout: &mut Layout) -> Read<TensorInfo> {
    let at = reader.offset();
    let name = reader.string(limits::GGUF_NAME_BYTES, Code::BadName)?;
    match str::from_utf8(name) {
        Ok(name) if !name.is_empty() && !name.contains('\0') => {
            read_tensor_named(reader, name, layout).map_err(|stop| stop.tensor(name))
        }
        _ => Err(Error::new(Code::BadName, "a tensor name is empty, not UTF-8 or holds NUL").at(at).into()),
    }
}

fn read_tensor_named(reader: &mut Reader, name: &str, layout: &mut Layout) -> Read<TensorInfo> {
    let at = reader.offset();
    let n_dims = reader.u32()?;
    if n_dims > limits::GGUF_DIMS {
        let message = format!("{n_dims} dimensions, the limit is {}", limits::GGUF_DIMS);
        return Err(Error::new(Code::BadShape, message).at(at).into());
    }
    let shape_at = reader.offset();
    let mut shape = (0..n_dims).map(|_| reader.u64()).collect::<Read<Vec<u64>>>()?;
    // GGUF writes the innermost dimension first.
    shape.reverse();
    let type_at = reader.offset();
    let dtype = DType(reader.u32()?);
    let offset_at = reader.offset();
    let offset = reader.u64()?;

    let n_bytes = data_bytes(&shape, dtype).map_err(|e| {
        let at = if e.code == Code::BadType { type_at } else { shape_at };
        e.at(at)
    })?;
    if offset != layout.next_offset {
        let message = format!("data at offset {offset} of the data section, expected {}", layout.next_offset);
        return Err(Error::new(Code::BadOffset, message).at(offset_at).into());
    }
    layout.next_offset = offset
        .checked_add(n_bytes)
        .and_then(|end| pad(end, layout.alignment))
        .filter(|&end| end <= i64::MAX as u64)
        .ok_or_else(|| Error::new(Code::Overflow, "the sum of tensor bytes overflows").at(offset_at))?;
    let shape = shape.iter().map(|&dim| dim as usize).collect();
    Ok(TensorInfo { name: name.to_string(), dtype, shape, offset, n_bytes })
}

/// Bytes of a tensor's data; `shape` is outermost first.
pub(super) fn data_bytes(shape: &[u64], dtype: DType) -> Result<u64> {
    let n_elements = n_elements(shape)?;
    let Some(format) = dtype.format() else {
        return Err(Error::new(Code::BadType, format!("tensor type {} is unknown or was removed", dtype.0)));
    };
    let row_len = shape.last().copied().unwrap_or(1);
    if !row_len.is_multiple_of(format.block_len as u64) {
        let message =
            format!("rows of {row_len} are not whole {} blocks of {}", format.name, format.block_len);
        return Err(Error::new(Code::BadShape, message));
    }
    dtype
        .bytes_for(n_elements)
        .ok_or_else(|| Error::new(Code::Overflow, format!("shape {shape:?} is too large")))
}
