//! safetensors: a JSON header, then tensor data without holes.
//!
//! The header goes through `serde_json` with visitors of our own. The `safetensors` crate
//! would parse it too, but it keeps the last of two tensors with one name without a word,
//! ignores fields it does not know, has no limits below 100 MB, and its errors do not name
//! the tensor.
//!
//! Source: format section of <https://github.com/huggingface/safetensors>.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};

use super::reader::truncated;
use super::{ContainerKind, Header, Metadata, TensorInfo, Value, check_unique, limits, n_elements};
use crate::error::{Code, Error, Result};
use crate::quant::DType;

/// Bytes before the JSON: its length as u64.
const LENGTH_BYTES: u64 = 8;
/// The header key that holds metadata instead of a tensor.
const METADATA_KEY: &str = "__metadata__";
/// Ids of dtypes that GGUF does not have, far from GGUF's own.
const FOREIGN: u32 = 0x5354_0000;

/// A safetensors dtype.
struct Dtype {
    name: &'static str,
    bits: u64,
    dtype: DType,
}

const fn row(name: &'static str, bits: u64, dtype: DType) -> Dtype {
    Dtype { name, bits, dtype }
}

/// Every dtype that the format defines; the second half cannot be used as weights.
const DTYPES: &[Dtype] = &[
    row("F32", 32, DType::F32),
    row("F16", 16, DType::F16),
    row("BF16", 16, DType::BF16),
    row("F64", 64, DType::F64),
    row("I8", 8, DType::I8),
    row("I16", 16, DType::I16),
    row("I32", 32, DType::I32),
    row("I64", 64, DType::I64),
    row("BOOL", 8, DType(FOREIGN)),
    row("U8", 8, DType(FOREIGN + 1)),
    row("U16", 16, DType(FOREIGN + 2)),
    row("U32", 32, DType(FOREIGN + 3)),
    row("U64", 64, DType(FOREIGN + 4)),
    row("F8_E4M3", 8, DType(FOREIGN + 5)),
    row("F8_E5M2", 8, DType(FOREIGN + 6)),
    row("F8_E8M0", 8, DType(FOREIGN + 7)),
    row("F6_E2M3", 6, DType(FOREIGN + 8)),
    row("F6_E3M2", 6, DType(FOREIGN + 9)),
    row("F4", 4, DType(FOREIGN + 10)),
    row("C64", 64, DType(FOREIGN + 11)),
];

/// The safetensors name of a type, as far as safetensors has it.
pub fn dtype_name(dtype: DType) -> Option<&'static str> {
    DTYPES.iter().find(|d| d.dtype == dtype).map(|d| d.name)
}

/// Checks that a tensor's type can be read as numbers by this library.
///
/// # Errors
/// [`Code::UnsupportedDtype`] with the dtype's name and the tensor.
pub fn check_weight(tensor: &TensorInfo) -> Result<()> {
    if tensor.dtype.codec().is_ok() {
        return Ok(());
    }
    let name = dtype_name(tensor.dtype).unwrap_or(tensor.dtype.name());
    Err(Error::new(Code::UnsupportedDtype, format!("dtype {name} cannot be used as a weight"))
        .tensor(&tensor.name))
}

/// Parses a header from a file's first bytes; `None` while they do not hold all of it.
/// `file_len` is the length of the whole file, where it is known for certain.
///
/// # Errors
/// A typed error that names the offending tensor; [`Code::Truncated`] where `file_len` is too
/// short for what the header declares, [`Code::TrailingData`] where bytes follow it.
pub fn parse(prefix: &[u8], file_len: Option<u64>) -> Result<Option<Header>> {
    let file_len = file_len.map(|len| len.max(prefix.len() as u64));
    let needed = needed(prefix, file_len)?;
    let json = usize::try_from(needed).ok().and_then(|n| prefix.get(LENGTH_BYTES as usize..n));
    let Some(json) = json else { return Ok(None) };
    let (metadata, mut tensors) = parse_json(json)?;
    let end_offset = place(&mut tensors, needed)?;
    match file_len.unwrap_or(prefix.len() as u64) {
        len if len > end_offset => Err(trailing(end_offset)),
        len if len < end_offset && file_len.is_some() => Err(truncated(end_offset, len)),
        _ => Ok(Some(Header {
            kind: ContainerKind::Safetensors,
            metadata,
            tensors,
            data_offset: needed,
            end_offset,
        })),
    }
}

/// The error for bytes after the declared data, which ends at `end`.
pub(super) fn trailing(end: u64) -> Error {
    Error::new(Code::TrailingData, format!("bytes follow the tensor data, which ends at byte {end}")).at(end)
}

/// Least number of bytes from the start of the file with which parsing gets further: all of
/// the header, once its length is known.
pub(super) fn needed(prefix: &[u8], file_len: Option<u64>) -> Result<u64> {
    let within = |needed: u64| match file_len {
        Some(len) if len < needed => Err(truncated(needed, len)),
        _ => Ok(needed),
    };
    let Some(length) = prefix.first_chunk::<8>() else {
        return within(LENGTH_BYTES + 1);
    };
    let length = u64::from_le_bytes(*length);
    if length == 0 || length > limits::HEADER_BYTES {
        let message = format!("header length {length} is outside 1..={}", limits::HEADER_BYTES);
        return Err(Error::new(Code::LimitExceeded, message).at(0));
    }
    match prefix.get(LENGTH_BYTES as usize) {
        None | Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => within(LENGTH_BYTES + length),
        Some(_) => Err(Error::new(Code::BadHeader, "the header is not a JSON object").at(LENGTH_BYTES)),
    }
}

fn parse_json(json: &[u8]) -> Result<(Metadata, Vec<TensorInfo>)> {
    let text = str::from_utf8(json).map_err(|e| {
        let at = LENGTH_BYTES + e.valid_up_to() as u64;
        Error::new(Code::BadHeader, "the header is not UTF-8").at(at).source(e)
    })?;
    let mut header = HeaderVisitor::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json.deserialize_map(&mut header).and_then(|()| json.end());
    // A fault found by a visitor comes back as a parse error without its code: the kept one says more.
    match (header.fault, parsed) {
        (Some(fault), _) => return Err(fault),
        (None, Err(e)) => {
            let at = LENGTH_BYTES + byte_of(&e, text) as u64;
            return Err(Error::new(Code::BadHeader, format!("malformed header: {e}")).at(at).source(e));
        }
        (None, Ok(())) => {}
    }
    check_unique(header.tensors.iter().map(|t| t.name.as_str()), |name| {
        Error::new(Code::Duplicate, "the tensor name occurs twice").tensor(name)
    })?;
    check_unique(header.metadata.iter().map(|(k, _)| k), |key| {
        Error::new(Code::Duplicate, "the metadata key occurs twice").key(key)
    })?;
    Ok((header.metadata, header.tensors))
}

/// The byte of `text` at which its parser stopped.
fn byte_of(e: &serde_json::Error, text: &str) -> usize {
    let lines = text.split_inclusive('\n').take(e.line().saturating_sub(1));
    lines.map(str::len).sum::<usize>() + e.column().saturating_sub(1)
}

/// Sorts tensors by offset, checks that they tile the data section, and makes their offsets
/// count from the start of the file. Returns where the data ends.
fn place(tensors: &mut [TensorInfo], data_offset: u64) -> Result<u64> {
    tensors.sort_by_key(|t| (t.offset, t.n_bytes));
    let mut end = 0u64;
    for tensor in tensors {
        if tensor.offset != end {
            let word =
                if tensor.offset < end { "overlaps the tensor before it" } else { "leaves a hole before it" };
            let message = format!("data at {} {word}, expected {end}", tensor.offset);
            return Err(Error::new(Code::BadOffset, message).tensor(&tensor.name));
        }
        let too_large = || Error::new(Code::Overflow, "the tensor data is too large").tensor(&tensor.name);
        end = end.checked_add(tensor.n_bytes).ok_or_else(too_large)?;
        tensor.offset = tensor.offset.checked_add(data_offset).ok_or_else(too_large)?;
    }
    end.checked_add(data_offset).ok_or_else(|| Error::new(Code::Overflow, "the tensor data is too large"))
}

/// The first typed error of a visitor. Visitors can only return their format's own error.
type Fault = Option<Error>;

fn fail<E: serde::de::Error>(fault: &mut Fault, error: Error) -> E {
    let message = error.to_string();
    *fault = Some(error);
    E::custom(message)
}

/// The header object: tensors by name, and metadata.
#[derive(Default)]
struct HeaderVisitor {
    metadata: Metadata,
    has_metadata: bool,
    tensors: Vec<TensorInfo>,
    fault: Fault,
}

impl<'de> Visitor<'de> for &mut HeaderVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Text)? {
            if name == METADATA_KEY {
                if std::mem::replace(&mut self.has_metadata, true) {
                    let error = Error::new(Code::Duplicate, "the metadata occurs twice").key(METADATA_KEY);
                    return Err(fail(&mut self.fault, error));
                }
                map.next_value_seed(MetadataVisitor {
                    metadata: &mut self.metadata,
                    fault: &mut self.fault,
                })?;
                continue;
            }
            if self.tensors.len() as u64 >= limits::TENSORS {
                let message = format!("the limit is {} tensors", limits::TENSORS);
                return Err(fail(&mut self.fault, Error::new(Code::LimitExceeded, message)));
            }
            if name.is_empty() || name.len() as u64 > limits::KEY_BYTES || name.contains('\0') {
                let error = Error::new(Code::BadName, "a tensor name is empty, too long or holds NUL")
                    .tensor(name.chars().take(64).collect::<String>());
                return Err(fail(&mut self.fault, error));
            }
            let tensor = map.next_value_seed(TensorVisitor { name: &name, fault: &mut self.fault })?;
            self.tensors.push(tensor);
        }
        Ok(())
    }
}

/// A string, borrowed from the header where it holds no escape.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> std::result::Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, s: &'de str) -> std::result::Result<Self::Value, E> {
        Ok(Cow::Borrowed(s))
    }

    fn visit_str<E>(self, s: &str) -> std::result::Result<Self::Value, E> {
        Ok(Cow::Owned(s.to_string()))
    }
}

/// `__metadata__`: strings by name.
struct MetadataVisitor<'a> {
    metadata: &'a mut Metadata,
    fault: &'a mut Fault,
}

impl<'de> DeserializeSeed<'de> for MetadataVisitor<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MetadataVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Text)? {
            if self.metadata.len() as u64 >= limits::ENTRIES {
                let message = format!("the limit is {} metadata entries", limits::ENTRIES);
                return Err(fail(self.fault, Error::new(Code::LimitExceeded, message)));
            }
            if key.len() as u64 > limits::KEY_BYTES {
                return Err(fail(
                    self.fault,
                    Error::new(Code::BadKey, "a key in the metadata is too long").key(METADATA_KEY),
                ));
            }
            let value = map.next_value_seed(Text)?;
            self.metadata.push(key.into_owned(), Value::Str(value.as_bytes().to_vec()));
        }
        Ok(())
    }
}

/// One tensor's entry: its dtype, shape and byte range. Its offset is relative to the data section.
struct TensorVisitor<'a> {
    name: &'a str,
    fault: &'a mut Fault,
}

impl<'de> DeserializeSeed<'de> for TensorVisitor<'_> {
    type Value = TensorInfo;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> std::result::Result<TensorInfo, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorVisitor<'_> {
    type Value = TensorInfo;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of dtype, shape and data_offsets")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<TensorInfo, A::Error> {
        let TensorVisitor { name, fault } = self;
        let (mut dtype, mut shape, mut range) = (None, None, None);
        let shape_rule = (Code::BadShape, "the shape is not a short list of whole numbers");
        let range_rule = (Code::BadOffset, "data_offsets are not two whole numbers");
        while let Some(field) = map.next_key_seed(Text)? {
            let is_new = match field.as_ref() {
                "dtype" => dtype.replace(map.next_value_seed(Text)?).is_none(),
                "shape" => {
                    let max_len = limits::SAFETENSORS_DIMS;
                    let list = map.next_value_seed(Naturals {
                        max_len,
                        rule: shape_rule,
                        name,
                        fault: &mut *fault,
                    })?;
                    shape.replace(list).is_none()
                }
                "data_offsets" => {
                    let list = map.next_value_seed(Naturals {
                        max_len: 2,
                        rule: range_rule,
                        name,
                        fault: &mut *fault,
                    })?;
                    range.replace(list).is_none()
                }
                _ => {
                    return Err(A::Error::custom(format_args!("unknown field {field:?} of tensor {name:?}")));
                }
            };
            if !is_new {
                return Err(A::Error::custom(format_args!(
                    "field {field:?} of tensor {name:?} occurs twice"
                )));
            }
        }
        let missing = |field| A::Error::custom(format_args!("tensor {name:?} has no {field}"));
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let range = range.ok_or_else(|| missing("data_offsets"))?;
        tensor_info(name, &dtype, &shape, &range).map_err(|e| fail(fault, e.tensor(name)))
    }
}

fn tensor_info(name: &str, dtype: &str, shape: &[u64], range: &[u64]) -> Result<TensorInfo> {
    let Some(format) = DTYPES.iter().find(|d| d.name == dtype) else {
        return Err(Error::new(Code::UnsupportedDtype, format!("unknown dtype {dtype:?}")));
    };
    let n_bits = n_elements(shape)?
        .checked_mul(format.bits)
        .ok_or_else(|| Error::new(Code::Overflow, format!("shape {shape:?} is too large")))?;
    let &[begin, end] = range else {
        return Err(Error::new(Code::BadOffset, "data_offsets are not two numbers"));
    };
    let n_bytes = end
        .checked_sub(begin)
        .ok_or_else(|| Error::new(Code::BadOffset, format!("data_offsets end at {end}, before {begin}")))?;
    if n_bytes.checked_mul(8) != Some(n_bits) {
        let message = format!(
            "shape {shape:?} of {} takes {n_bits} bits, data_offsets hold {n_bytes} bytes",
            format.name
        );
        return Err(Error::new(Code::BadShape, message));
    }
    let shape = shape.iter().map(|&dim| dim as usize).collect();
    Ok(TensorInfo { name: name.to_string(), dtype: format.dtype, shape, offset: begin, n_bytes })
}

/// A short list of whole numbers, 0 or above; anything else breaks `rule`.
struct Naturals<'a> {
    max_len: usize,
    rule: (Code, &'static str),
    name: &'a str,
    fault: &'a mut Fault,
}

impl<'de> DeserializeSeed<'de> for Naturals<'_> {
    type Value = Vec<u64>;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> std::result::Result<Vec<u64>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Naturals<'_> {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of whole numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Vec<u64>, A::Error> {
        let mut list = Vec::new();
        while let Some(number) = seq.next_element::<serde_json::Number>()? {
            match number.as_u64() {
                Some(n) if list.len() < self.max_len => list.push(n),
                _ => {
                    let error = Error::new(self.rule.0, self.rule.1).tensor(self.name);
                    return Err(fail(self.fault, error));
                }
            }
        }
        Ok(list)
    }
}
