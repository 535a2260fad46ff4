//! Reads the graph of a .tflite file: a FlatBuffer of tensors and operators.
//!
//! Every offset is checked against the file before it is followed, and nothing is copied but names, shapes
//! and quantization parameters. Own code, because generated accessors for the whole schema are ten times its
//! size and trust offsets unless a second pass has verified them.
//!
//! Source: tensorflow/compiler/mlir/lite/schema/schema.fbs; the FlatBuffers binary format.

use crate::error::{Code, Error, Result};
use std::cell::Cell;

/// Most tensors and most operators.
const MAX_ITEMS: usize = 1 << 16;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 8;

/// Whether a file begins as .tflite does.
pub fn is_tflite(prefix: &[u8]) -> bool {
    prefix.get(4..8) == Some(b"TFL3")
}

/// The first subgraph of a file.
pub struct Graph<'a> {
    /// All tensors.
    pub tensors: Vec<Tensor<'a>>,
    /// Operators in the order in which they run.
    pub operators: Vec<Operator>,
    /// Tensors that come from outside.
    pub inputs: Vec<usize>,
    /// Tensors that are the result.
    pub outputs: Vec<usize>,
}

/// Element types that quantized networks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementType {
    F32,
    I32,
    U8,
    I8,
    /// Any other, by its number in the schema.
    Other(u8),
}

/// A tensor: a weight where `data` is not empty.
pub struct Tensor<'a> {
    /// Its name, for messages.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Type of the elements.
    pub element: ElementType,
    /// Elements, little-endian; empty for what is computed.
    pub data: &'a [u8],
    /// `value = scale * (code - zero)`: one scale, or one for each index of dimension `axis`; none for floats.
    pub scale: Vec<f32>,
    /// One for each scale.
    pub zero: Vec<i64>,
    /// The dimension that has a scale for each index.
    pub axis: usize,
}

/// An operator.
pub struct Operator {
    /// What it computes.
    pub kind: Kind,
    /// Tensors; `None` for an optional one that is absent.
    pub inputs: Vec<Option<usize>>,
    /// Tensors.
    pub outputs: Vec<usize>,
}

/// Clamps that follow an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fused {
    None,
    Relu,
    ReluN1To1,
    Relu6,
}

/// The window of a convolution or of pooling: rows, then columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Whether the output has the size of the input (divided by the stride), with zeros around it.
    pub same: bool,
    /// Inputs between outputs.
    pub stride: [usize; 2],
    /// Inputs between taps.
    pub dilation: [usize; 2],
    /// Taps of pooling; of convolutions the weights tell.
    pub size: [usize; 2],
    /// The clamp.
    pub fused: Fused,
}

/// What operators compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Conv2d(Taps),
    DepthwiseConv2d(Taps),
    AveragePool2d(Taps),
    MaxPool2d(Taps),
    FullyConnected(Fused),
    Add(Fused),
    Mean,
    Pad,
    Reshape,
    Squeeze,
    Softmax,
    Quantize,
    Dequantize,
    Relu,
    Relu6,
    /// Any other, by its number in the schema.
    Other(u32),
}

/// Reads a whole file.
///
/// # Errors
/// [`Code::BadMagic`]; [`Code::BadOffset`] with the place of an offset that leads out of the file;
/// [`Code::LimitExceeded`], [`Code::BadShape`], [`Code::BadValue`], [`Code::UnsupportedArch`].
pub fn parse(bytes: &[u8]) -> Result<Graph<'_>> {
    if !is_tflite(bytes) {
        return Err(Error::new(Code::BadMagic, "the file does not begin as .tflite does").at(0));
    }
    let budget = Cell::new(bytes.len());
    let buffer = Buffer { bytes, budget: &budget };
    let model = buffer.table(buffer.indirect(0)?)?;
    let codes = model.tables(1)?.into_iter().map(|t| operator_code(&t)).collect::<Result<Vec<_>>>()?;
    let buffers = model.tables(4)?;
    let graphs = model.tables(2)?;
    let [graph] = graphs.as_slice() else {
        let rule = format!("{} subgraphs; supported: one", graphs.len());
        return Err(Error::new(Code::UnsupportedArch, rule));
    };
    let tensors = graph.tables(0)?.iter().map(|t| tensor(t, &buffers)).collect::<Result<Vec<_>>>()?;
    let operators =
        graph.tables(3)?.iter().map(|t| operator(t, &codes, tensors.len())).collect::<Result<_>>()?;
    let ids = |field| -> Result<Vec<usize>> {
        graph.ints(field)?.into_iter().map(|i| index(i, tensors.len())).collect()
    };
    let (inputs, outputs) = (ids(1)?, ids(2)?);
    Ok(Graph { tensors, operators, inputs, outputs })
}

fn operator_code(table: &Table) -> Result<u32> {
    // Numbers below 127 stand in the older, narrower field as well, and in old files only there.
    let (narrow, wide) = (table.i8(0, 0)?, table.i32(3, 0)?);
    u32::try_from(wide.max(narrow.into())).map_err(|_| Error::new(Code::BadValue, "a negative operator code"))
}

fn tensor<'a>(table: &Table<'a, '_>, buffers: &[Table<'a, '_>]) -> Result<Tensor<'a>> {
    let name = table.bytes(3)?;
    table.buffer.spend(name.len(), table.at)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let named = |code, rule: &str| Error::new(code, rule).tensor(name.clone());
    let shape = table.ints(0)?;
    if shape.len() > MAX_DIMS {
        return Err(named(Code::BadShape, "too many dimensions"));
    }
    let shape = shape.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<Vec<_>>>();
    let shape = shape.ok_or_else(|| named(Code::BadShape, "a negative dimension"))?;
    let element = match table.i8(1, 0)? {
        0 => ElementType::F32,
        2 => ElementType::I32,
        3 => ElementType::U8,
        9 => ElementType::I8,
        other => ElementType::Other(other as u8),
    };
    let buffer = buffers
        .get(table.i32(2, 0)? as u32 as usize)
        .ok_or_else(|| named(Code::BadOffset, "its buffer is not in the file"))?;
    let (mut scale, mut zero, mut axis) = (Vec::new(), Vec::new(), 0);
    if let Some(quantization) = table.table(4)? {
        scale = quantization.floats(2)?;
        zero = quantization.longs(3)?;
        axis = quantization.i32(6, 0)?.try_into().unwrap_or(usize::MAX);
    }
    if zero.len() < scale.len() {
        zero.resize(scale.len(), 0);
    }
    Ok(Tensor { data: buffer.bytes(0)?, name, shape, element, scale, zero, axis })
}

fn operator(table: &Table, codes: &[u32], n_tensors: usize) -> Result<Operator> {
    let code = codes.get(table.i32(0, 0)? as u32 as usize);
    let code = *code.ok_or_else(|| Error::new(Code::BadOffset, "an operator without a code"))?;
    let options = table.table(4)?;
    let optional = |i: i32| if i == -1 { Ok(None) } else { index(i, n_tensors).map(Some) };
    Ok(Operator {
        kind: kind(code, options.as_ref())?,
        inputs: table.ints(1)?.into_iter().map(optional).collect::<Result<_>>()?,
        outputs: table.ints(2)?.into_iter().map(|i| index(i, n_tensors)).collect::<Result<_>>()?,
    })
}

fn index(i: i32, len: usize) -> Result<usize> {
    let found = usize::try_from(i).ok().filter(|&i| i < len);
    found.ok_or_else(|| Error::new(Code::BadOffset, format!("tensor {i} of {len}")))
}

fn kind(code: u32, options: Option<&Table>) -> Result<Kind> {
    let int = |field, default| options.map_or(Ok(default), |o| o.i32(field, default));
    let byte = |field| options.map_or(Ok(0), |o| o.i8(field, 0));
    let positive = |value: i32| {
        let ok = usize::try_from(value).ok().filter(|v| (1..=1024).contains(v));
        ok.ok_or_else(|| Error::new(Code::BadValue, format!("a window of {value} is not in 1 ..= 1024")))
    };
    let fused = |field| match byte(field)? {
        0 => Ok(Fused::None),
        1 => Ok(Fused::Relu),
        2 => Ok(Fused::ReluN1To1),
        3 => Ok(Fused::Relu6),
        other => Err(Error::new(Code::UnsupportedArch, format!("fused activation {other}"))),
    };
    // `at`: fields of the dilation, the size and the activation. In the schema columns come before rows.
    let taps = |dilation: Option<usize>, size: Option<usize>, activation: usize| -> Result<Taps> {
        let pair = |field: Option<usize>| match field {
            Some(field) => Ok([positive(int(field + 1, 1)?)?, positive(int(field, 1)?)?]),
            None => Ok([1, 1]),
        };
        Ok(Taps {
            same: byte(0)? == 0,
            stride: pair(Some(1))?,
            dilation: pair(dilation)?,
            size: pair(size)?,
            fused: fused(activation)?,
        })
    };
    Ok(match code {
        0 => Kind::Add(fused(0)?),
        1 => Kind::AveragePool2d(taps(None, Some(3), 5)?),
        3 => Kind::Conv2d(taps(Some(4), None, 3)?),
        4 => Kind::DepthwiseConv2d(taps(Some(5), None, 4)?),
        6 => Kind::Dequantize,
        9 => Kind::FullyConnected(fused(0)?),
        17 => Kind::MaxPool2d(taps(None, Some(3), 5)?),
        19 => Kind::Relu,
        21 => Kind::Relu6,
        22 => Kind::Reshape,
        25 => Kind::Softmax,
        34 => Kind::Pad,
        40 => Kind::Mean,
        43 => Kind::Squeeze,
        114 => Kind::Quantize,
        other => Kind::Other(other),
    })
}

/// The bytes of a file.
#[derive(Clone, Copy)]
struct Buffer<'a, 'b> {
    bytes: &'a [u8],
    /// Bytes that may still be copied: offsets may share what they lead to, and a small file must not
    /// become a large graph.
    budget: &'b Cell<usize>,
}

impl<'a, 'b> Buffer<'a, 'b> {
    fn get<const N: usize>(self, at: usize) -> Result<[u8; N]> {
        let bytes = at.checked_add(N).and_then(|end| self.bytes.get(at..end));
        bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| outside(at))
    }

    /// Where the offset at `at` leads.
    fn indirect(self, at: usize) -> Result<usize> {
        let offset = u32::from_le_bytes(self.get(at)?) as usize;
        at.checked_add(offset).filter(|&to| to < self.bytes.len()).ok_or_else(|| outside(at))
    }

    fn table(self, at: usize) -> Result<Table<'a, 'b>> {
        let back = i32::from_le_bytes(self.get(at)?);
        let vtable = i64::try_from(at).ok().map(|at| at - i64::from(back));
        let vtable = vtable.and_then(|v| usize::try_from(v).ok()).ok_or_else(|| outside(at))?;
        let len = u16::from_le_bytes(self.get(vtable)?).into();
        Ok(Table { buffer: self, at, vtable, len })
    }

    fn spend(self, n_bytes: usize, at: usize) -> Result<()> {
        let left = self.budget.get().checked_sub(n_bytes).ok_or_else(|| {
            Error::new(Code::LimitExceeded, "the graph is larger than the file").at(at as u64)
        })?;
        self.budget.set(left);
        Ok(())
    }

    /// First element and length of a vector of elements of `size` bytes.
    fn vector(self, at: usize, size: usize) -> Result<(usize, usize)> {
        let len = u32::from_le_bytes(self.get(at)?) as usize;
        let first = at + 4;
        let end = len.checked_mul(size).and_then(|n| n.checked_add(first));
        match end {
            Some(end) if end <= self.bytes.len() => Ok((first, len)),
            _ => Err(outside(at)),
        }
    }
}

fn outside(at: usize) -> Error {
    Error::new(Code::BadOffset, "an offset leads out of the file").at(at as u64)
}

/// A table: fields at places that its vtable lists.
struct Table<'a, 'b> {
    buffer: Buffer<'a, 'b>,
    at: usize,
    vtable: usize,
    /// Bytes of the vtable.
    len: usize,
}

impl<'a, 'b> Table<'a, 'b> {
    /// Where a field is; `None` where it is absent.
    fn field(&self, field: usize) -> Result<Option<usize>> {
        let entry = 4 + 2 * field;
        if entry + 2 > self.len {
            return Ok(None);
        }
        match u16::from_le_bytes(self.buffer.get(self.vtable + entry)?) {
            0 => Ok(None),
            offset => Ok(Some(self.at + usize::from(offset))),
        }
    }

    fn i8(&self, field: usize, default: i8) -> Result<i8> {
        let at = self.field(field)?;
        at.map_or(Ok(default), |at| Ok(i8::from_le_bytes(self.buffer.get(at)?)))
    }

    fn i32(&self, field: usize, default: i32) -> Result<i32> {
        let at = self.field(field)?;
        at.map_or(Ok(default), |at| Ok(i32::from_le_bytes(self.buffer.get(at)?)))
    }

    fn table(&self, field: usize) -> Result<Option<Table<'a, 'b>>> {
        let at = self.field(field)?;
        at.map(|at| self.buffer.table(self.buffer.indirect(at)?)).transpose()
    }

    fn tables(&self, field: usize) -> Result<Vec<Table<'a, 'b>>> {
        let Some(at) = self.field(field)? else { return Ok(Vec::new()) };
        let (first, len) = self.buffer.vector(self.buffer.indirect(at)?, 4)?;
        if len > MAX_ITEMS {
            return Err(Error::new(Code::LimitExceeded, format!("{len} of {MAX_ITEMS} items")).at(at as u64));
        }
        self.buffer.spend(4 * len, at)?;
        (0..len).map(|i| self.buffer.table(self.buffer.indirect(first + 4 * i)?)).collect()
    }

    /// A vector of bytes, or a string.
    fn bytes(&self, field: usize) -> Result<&'a [u8]> {
        let Some(at) = self.field(field)? else { return Ok(&[]) };
        let (first, len) = self.buffer.vector(self.buffer.indirect(at)?, 1)?;
        Ok(&self.buffer.bytes[first..first + len])
    }

    fn numbers<const N: usize, T>(&self, field: usize, read: fn([u8; N]) -> T) -> Result<Vec<T>> {
        let Some(at) = self.field(field)? else { return Ok(Vec::new()) };
        let (first, len) = self.buffer.vector(self.buffer.indirect(at)?, N)?;
        if len > MAX_ITEMS {
            return Err(Error::new(Code::LimitExceeded, format!("{len} of {MAX_ITEMS} items")).at(at as u64));
        }
        self.buffer.spend(N * len, at)?;
        (0..len).map(|i| Ok(read(self.buffer.get(first + N * i)?))).collect()
    }

    fn ints(&self, field: usize) -> Result<Vec<i32>> {
        self.numbers(field, i32::from_le_bytes)
    }

    fn longs(&self, field: usize) -> Result<Vec<i64>> {
        self.numbers(field, i64::from_le_bytes)
    }

    fn floats(&self, field: usize) -> Result<Vec<f32>> {
        self.numbers(field, f32::from_le_bytes)
    }
}
