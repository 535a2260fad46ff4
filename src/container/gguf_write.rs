//! Writes GGUF version 3: for the quantizer, for generated models and for tests.

use std::io::Write;

use super::gguf::{MAGIC, alignment, data_bytes, pad, value_type as vt};
use super::{Array, Metadata, StrArray, Value, check_unique, limits};
use crate::error::{Code, Error, Result};
use crate::quant::DType;

const VERSION: u32 = 3;

/// Collects metadata and tensor declarations, then writes the file: all at once with
/// [`GgufWriter::to_bytes`], or header first and data as it comes with [`GgufWriter::begin`].
#[derive(Default)]
pub struct GgufWriter {
    metadata: Metadata,
    tensors: Vec<Declared>,
}

struct Declared {
    name: String,
    dtype: DType,
    /// Outermost first.
    shape: Vec<u64>,
    n_bytes: u64,
}

impl GgufWriter {
    /// A file with neither metadata nor tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metadata entry. Integers are written with 32 bits where they fit, as nearly
    /// every GGUF key demands, else with 64.
    pub fn put(&mut self, key: &str, value: Value) -> &mut Self {
        self.metadata.push(key.to_string(), value);
        self
    }

    /// Adds an unsigned integer.
    pub fn uint(&mut self, key: &str, value: u64) -> &mut Self {
        self.put(key, Value::U64(value))
    }

    /// Adds an f32.
    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.put(key, Value::F32(value))
    }

    /// Adds a bool.
    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.put(key, Value::Bool(value))
    }

    /// Adds a string.
    pub fn str(&mut self, key: &str, value: &str) -> &mut Self {
        self.put(key, Value::Str(value.as_bytes().to_vec()))
    }

    /// Adds an array of strings.
    pub fn strs<S: AsRef<[u8]>>(&mut self, key: &str, values: impl IntoIterator<Item = S>) -> &mut Self {
        self.put(key, Value::Array(Array::Str(values.into_iter().collect::<StrArray>())))
    }

    /// Adds an array of signed integers.
    pub fn ints(&mut self, key: &str, values: impl IntoIterator<Item = i64>) -> &mut Self {
        self.put(key, Value::Array(Array::I64(values.into_iter().collect())))
    }

    /// Adds an array of f32.
    pub fn f32s(&mut self, key: &str, values: impl IntoIterator<Item = f32>) -> &mut Self {
        self.put(key, Value::Array(Array::F32(values.into_iter().collect())))
    }

    /// Declares the next tensor; `shape` is outermost first. Its data follows in the order of
    /// declaration.
    ///
    /// # Errors
    /// [`Code::BadName`], [`Code::BadType`], [`Code::BadShape`] or [`Code::Overflow`] with the
    /// tensor: what [`super::gguf::parse`] would refuse.
    pub fn tensor(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<&mut Self> {
        self.declare(name, dtype, shape).map_err(|e| e.tensor(name))
    }

    fn declare(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<&mut Self> {
        if name.is_empty() || name.len() as u64 > limits::GGUF_NAME_BYTES || name.contains('\0') {
            let limit = limits::GGUF_NAME_BYTES;
            let message = format!("a GGUF tensor name has 1 to {limit} bytes and no NUL");
            return Err(Error::new(Code::BadName, message));
        }
        if shape.len() > limits::GGUF_DIMS as usize {
            let message = format!("{} dimensions, the limit is {}", shape.len(), limits::GGUF_DIMS);
            return Err(Error::new(Code::BadShape, message));
        }
        let shape: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
        let n_bytes = data_bytes(&shape, dtype)?;
        self.tensors.push(Declared { name: name.to_string(), dtype, shape, n_bytes });
        Ok(self)
    }

    /// Writes the header; tensor data then goes to the returned writer.
    ///
    /// # Errors
    /// [`Code::Io`]; [`Code::Duplicate`], [`Code::BadKey`] or [`Code::BadAlignment`] where the
    /// header would not be valid.
    pub fn begin<W: Write>(&self, mut out: W) -> Result<GgufData<W>> {
        let mut header = self.header()?;
        let alignment = alignment(&self.metadata)?;
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        write_all(&mut out, &header)?;
        let sizes = self.tensors.iter().map(|t| t.n_bytes).collect();
        Ok(GgufData { out, alignment, sizes, idx: 0, written: 0 })
    }

    /// The whole file. `data` holds the bytes of each tensor in the order of declaration.
    ///
    /// # Errors
    /// As [`GgufWriter::begin`] and [`GgufData::write`].
    pub fn to_bytes(&self, data: &[&[u8]]) -> Result<Vec<u8>> {
        let mut out = self.begin(Vec::new())?;
        for bytes in data {
            out.write(bytes)?;
        }
        out.finish()
    }

    /// Bytes before the tensor data, without those that pad them to the alignment.
    ///
    /// # Errors
    /// As [`GgufWriter::begin`].
    pub fn header_bytes(&self) -> Result<u64> {
        Ok(self.header()?.len() as u64)
    }

    /// Everything before the tensor data and the padding.
    fn header(&self) -> Result<Vec<u8>> {
        check_unique(self.metadata.iter().map(|(k, _)| k), |key| {
            Error::new(Code::Duplicate, "the metadata key occurs twice").key(key)
        })?;
        check_unique(self.tensors.iter().map(|t| t.name.as_str()), |name| {
            Error::new(Code::Duplicate, "the tensor name occurs twice").tensor(name)
        })?;
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            if key.is_empty() || key.len() as u64 > limits::KEY_BYTES {
                return Err(Error::new(Code::BadKey, "a metadata key is empty or too long").key(key));
            }
            put_string(&mut out, key.as_bytes());
            put_value(&mut out, value);
        }
        let alignment = alignment(&self.metadata)?;
        let mut offset = 0;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes());
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.dtype.0.to_le_bytes());
            out.extend(u64::to_le_bytes(offset));
            offset = offset
                .checked_add(tensor.n_bytes)
                .and_then(|end| pad(end, alignment))
                .ok_or_else(|| Error::new(Code::Overflow, "the sum of tensor bytes overflows"))?;
        }
        Ok(out)
    }
}

/// Writes tensor data after a header, with padding between tensors.
pub struct GgufData<W: Write> {
    out: W,
    alignment: u32,
    sizes: Vec<u64>,
    /// The tensor being written.
    idx: usize,
    /// Bytes of it written so far.
    written: u64,
}

impl<W: Write> GgufData<W> {
    /// Writes the next bytes of the current tensor; a tensor may come in several calls, and no
    /// call may go beyond its end.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where more bytes come than declared; [`Code::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if !bytes.is_empty() {
            self.skip_empty();
        }
        let left = self.sizes.get(self.idx).map_or(0, |n| n - self.written);
        if bytes.len() as u64 > left {
            let message = format!("{} bytes of data where tensor {} takes {left}", bytes.len(), self.idx);
            return Err(Error::new(Code::BadArgument, message));
        }
        write_all(&mut self.out, bytes)?;
        self.written += bytes.len() as u64;
        self.close_tensor()
    }

    /// Where the bytes go.
    pub fn inner_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Moves past tensors without elements: they have no data to wait for.
    fn skip_empty(&mut self) {
        while self.sizes.get(self.idx) == Some(&0) {
            self.idx += 1;
        }
    }

    /// Pads and moves on once the current tensor is complete.
    fn close_tensor(&mut self) -> Result<()> {
        if self.sizes.get(self.idx) == Some(&self.written) {
            let n_padding = self.written.next_multiple_of(self.alignment.into()) - self.written;
            write_all(&mut self.out, &vec![0; n_padding as usize])?;
            self.idx += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Ends the file and gives the writer back.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where data is missing; [`Code::Io`].
    pub fn finish(mut self) -> Result<W> {
        self.skip_empty();
        if self.idx < self.sizes.len() {
            let message = format!("{} of {} tensors have data", self.idx, self.sizes.len());
            return Err(Error::new(Code::BadArgument, message));
        }
        self.out.flush().map_err(io)?;
        Ok(self.out)
    }
}

fn write_all(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(io)
}

fn io(e: std::io::Error) -> Error {
    Error::new(Code::Io, format!("writing failed: {e}")).source(e)
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        &Value::U64(v) => match u32::try_from(v) {
            Ok(v) => put_tagged(out, vt::U32, &v.to_le_bytes()),
            Err(_) => put_tagged(out, vt::U64, &v.to_le_bytes()),
        },
        &Value::I64(v) => match i32::try_from(v) {
            Ok(v) => put_tagged(out, vt::I32, &v.to_le_bytes()),
            Err(_) => put_tagged(out, vt::I64, &v.to_le_bytes()),
        },
        Value::F32(v) => put_tagged(out, vt::F32, &v.to_le_bytes()),
        Value::F64(v) => put_tagged(out, vt::F64, &v.to_le_bytes()),
        Value::Bool(v) => put_tagged(out, vt::BOOL, &[*v as u8]),
        Value::Str(v) => {
            put_tagged(out, vt::STRING, &[]);
            put_string(out, v);
        }
        Value::Array(array) => {
            put_tagged(out, vt::ARRAY, &[]);
            put_array(out, array);
        }
    }
}

fn put_tagged(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    out.extend(tag.to_le_bytes());
    out.extend(bytes);
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    match array {
        Array::U8(v) => put_elements(out, vt::U8, v, |x| x.to_le_bytes()),
        Array::I8(v) => put_elements(out, vt::I8, v, |x| x.to_le_bytes()),
        Array::U16(v) => put_elements(out, vt::U16, v, |x| x.to_le_bytes()),
        Array::I16(v) => put_elements(out, vt::I16, v, |x| x.to_le_bytes()),
        Array::U64(v) if v.iter().all(|&x| x <= u32::MAX.into()) => {
            put_elements(out, vt::U32, v, |x| (x as u32).to_le_bytes())
        }
        Array::U64(v) => put_elements(out, vt::U64, v, |x| x.to_le_bytes()),
        Array::I64(v) if v.iter().all(|&x| i32::try_from(x).is_ok()) => {
            put_elements(out, vt::I32, v, |x| (x as i32).to_le_bytes())
        }
        Array::I64(v) => put_elements(out, vt::I64, v, |x| x.to_le_bytes()),
        Array::F32(v) => put_elements(out, vt::F32, v, |x| x.to_le_bytes()),
        Array::F64(v) => put_elements(out, vt::F64, v, |x| x.to_le_bytes()),
        Array::Bool(v) => put_elements(out, vt::BOOL, v, |x| [x as u8]),
        Array::Str(v) => {
            put_tagged(out, vt::STRING, &(v.len() as u64).to_le_bytes());
            v.iter().for_each(|s| put_string(out, s));
        }
    }
}

fn put_elements<T: Copy, const N: usize>(out: &mut Vec<u8>, tag: u32, v: &[T], bytes: fn(T) -> [u8; N]) {
    put_tagged(out, tag, &(v.len() as u64).to_le_bytes());
    v.iter().for_each(|&x| out.extend(bytes(x)));
}
