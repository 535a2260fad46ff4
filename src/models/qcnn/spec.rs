//! The graph of a quantized CNN as GGUF metadata: what the converter writes and the model reads.
//!
//! Lists with an entry (or as many as stated) per value and per operator, under `qcnn.`:
//! ```text
//! value.height, value.width, value.channels    size of a feature map
//! value.scale, value.zero                      real = scale * (code - zero), codes are i8
//! op.kind                                      a name of `Kind`
//! op.inputs (2)                                values; -1 for none
//! op.output                                    a value
//! op.window (8)                                taps, stride, padding before, dilation: rows, columns each
//! op.clamp (2)                                 least and largest code of the output
//! op.weight_zero                               subtracted from the codes of the weights
//! ```
//! Value 0 is the picture, the last operator's output the logits. Operator i has the tensors `op.i.weight` (I8),
//! `op.i.bias` (I32) and `op.i.scale` (F32, one or one per output), as far as its kind has weights. A file with
//! unsigned codes has 128 subtracted from them and from their zero points, which changes no value.

use crate::container::gguf_write::GgufWriter;
use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::kernels::qconv::STRIP;
use crate::kernels::window::Window;

/// Most operators, and most values.
const MAX_ITEMS: usize = 1 << 12;
/// Most elements of all feature maps together, their channels padded as in memory.
const MAX_ELEMENTS: u64 = 1 << 27;
/// Most inputs of an output, far beyond any network.
const MAX_INPUTS: u64 = 1 << 24;
/// Most multiplications of one operator: about ten seconds.
const MAX_PRODUCTS: u128 = 1 << 38;

/// A feature map and what its codes mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueSpec {
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// `real = scale * (code - zero)`.
    pub scale: f32,
    /// The code of 0.
    pub zero: i32,
}

/// What an operator computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A convolution that mixes channels, or a linear layer.
    Conv,
    /// A convolution of each channel by itself.
    Depthwise,
    /// The sum of two maps.
    Add,
    /// The mean of the taps within the map.
    Average,
    /// The largest of the taps within the map.
    Max,
    /// The map with zeros around it.
    Pad,
    /// The same values under another scale.
    Rescale,
}

/// The kinds by their names in files.
const KINDS: &[(&str, Kind)] = &[
    ("conv", Kind::Conv),
    ("depthwise", Kind::Depthwise),
    ("add", Kind::Add),
    ("average", Kind::Average),
    ("max", Kind::Max),
    ("pad", Kind::Pad),
    ("rescale", Kind::Rescale),
];

/// An operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpSpec {
    /// What it computes.
    pub kind: Kind,
    /// The value, and the second one of a sum.
    pub inputs: [Option<usize>; 2],
    /// The value that it makes.
    pub output: usize,
    /// Where its taps lie.
    pub window: Window,
    /// Least and largest code of the output.
    pub clamp: [i32; 2],
    /// Subtracted from the codes of the weights.
    pub weight_zero: i32,
}

/// A graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphSpec {
    /// Feature maps.
    pub values: Vec<ValueSpec>,
    /// Operators in the order in which they run.
    pub ops: Vec<OpSpec>,
}

fn bad(key: &str, rule: impl Into<String>) -> Error {
    Error::new(Code::BadConfig, rule).key(format!("qcnn.{key}"))
}

impl GraphSpec {
    /// Adds the metadata to a file.
    pub fn put(&self, out: &mut GgufWriter) {
        let value = |f: fn(&ValueSpec) -> i64| self.values.iter().map(f).collect::<Vec<_>>();
        out.ints("qcnn.value.height", value(|v| v.shape[0] as i64));
        out.ints("qcnn.value.width", value(|v| v.shape[1] as i64));
        out.ints("qcnn.value.channels", value(|v| v.shape[2] as i64));
        out.ints("qcnn.value.zero", value(|v| v.zero.into()));
        out.f32s("qcnn.value.scale", self.values.iter().map(|v| v.scale));
        let name = |op: &OpSpec| KINDS.iter().find(|(_, kind)| *kind == op.kind).map_or("", |(name, _)| name);
        out.strs("qcnn.op.kind", self.ops.iter().map(name));
        let input = |i: &Option<usize>| i.map_or(-1, |i| i as i64);
        out.ints("qcnn.op.inputs", self.ops.iter().flat_map(|op| op.inputs.each_ref().map(input)));
        out.ints("qcnn.op.output", self.ops.iter().map(|op| op.output as i64));
        let window = |op: &OpSpec| {
            let Window { size, stride, pad, dilation } = op.window;
            [size, stride, pad, dilation].concat().into_iter().map(|n| n as i64)
        };
        out.ints("qcnn.op.window", self.ops.iter().flat_map(window));
        out.ints("qcnn.op.clamp", self.ops.iter().flat_map(|op| op.clamp.map(i64::from)));
        out.ints("qcnn.op.weight_zero", self.ops.iter().map(|op| op.weight_zero.into()));
    }

    /// Reads the metadata of a file and checks that the graph can be computed.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the key.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let reader = Lists(metadata);
        let n_values = reader.len("value.scale")?;
        let n_ops = reader.len("op.output")?;
        let dims = |key| reader.ints(key, n_values, 1..=1 << 16);
        let (height, width) = (dims("value.height")?, dims("value.width")?);
        let channels = dims("value.channels")?;
        let zero = reader.ints("value.zero", n_values, -128..=127)?;
        let scale = reader.scales("value.scale")?;
        let values = (0..n_values).map(|i| ValueSpec {
            shape: [height[i], width[i], channels[i]].map(|d| d as usize),
            scale: scale[i],
            zero: zero[i] as i32,
        });
        let last = n_values as i64 - 1;
        let kinds = reader.kinds(n_ops)?;
        let inputs = reader.ints("op.inputs", 2 * n_ops, -1..=last)?;
        let output = reader.ints("op.output", n_ops, 1..=last)?;
        let window = reader.ints("op.window", 8 * n_ops, 0..=1 << 10)?;
        let clamp = reader.ints("op.clamp", 2 * n_ops, -128..=127)?;
        let weight_zero = reader.ints("op.weight_zero", n_ops, -128..=127)?;
        let pair = |list: &[i64], i: usize| [list[2 * i], list[2 * i + 1]];
        let ops = (0..n_ops).map(|i| {
            let part = |p: usize| pair(&window, 4 * i + p).map(|n| n as usize);
            OpSpec {
                kind: kinds[i],
                inputs: pair(&inputs, i).map(|v| usize::try_from(v).ok()),
                output: output[i] as usize,
                window: Window { size: part(0), stride: part(1), pad: part(2), dilation: part(3) },
                clamp: pair(&clamp, i).map(|c| c as i32),
                weight_zero: weight_zero[i] as i32,
            }
        });
        let graph = GraphSpec { values: values.collect(), ops: ops.collect() };
        graph.check()?;
        Ok(graph)
    }

    /// Checks what the lists say together.
    fn check(&self) -> Result<()> {
        let elements = |v: &ValueSpec| {
            let [height, width, channels] = v.shape.map(|d| d as u64);
            height * width * channels.next_multiple_of(STRIP as u64)
        };
        if self.values.iter().map(elements).fold(0u64, u64::saturating_add) > MAX_ELEMENTS {
            return Err(bad("value.height", format!("feature maps of more than {MAX_ELEMENTS} elements")));
        }
        if self.values[0].shape[2] != 3 || self.values[0].shape[0] != self.values[0].shape[1] {
            return Err(bad("value.channels", "the input is not a square picture of three channels"));
        }
        let mut known = vec![false; self.values.len()];
        known[0] = true;
        for op in &self.ops {
            self.check_op(op, &known)?;
            if std::mem::replace(&mut known[op.output], true) {
                return Err(bad("op.output", format!("value {} is computed twice", op.output)));
            }
        }
        Ok(())
    }

    fn check_op(&self, op: &OpSpec, known: &[bool]) -> Result<()> {
        let is_known = |i: &Option<usize>| i.is_none_or(|i| known[i]);
        let needs_two = op.kind == Kind::Add;
        if !op.inputs.iter().all(is_known) || op.inputs[0].is_none() || op.inputs[1].is_some() != needs_two {
            return Err(bad("op.inputs", "an operator without the values that it needs"));
        }
        if op.clamp[0] > op.clamp[1] {
            return Err(bad("op.clamp", "the least code is above the largest"));
        }
        let Window { size, stride, dilation, .. } = op.window;
        if [size, stride, dilation].concat().contains(&0) {
            return Err(bad("op.window", "a size, stride or dilation of 0"));
        }
        let out = &self.values[op.output].shape;
        for input in op.inputs.iter().flatten() {
            let shape = &self.values[*input].shape;
            if op.kind != Kind::Conv && shape[2] != out[2] {
                return Err(bad("value.channels", format!("{:?} makes {out:?} of {shape:?}", op.kind)));
            }
            let same_size = matches!(op.kind, Kind::Add | Kind::Rescale);
            if same_size && shape != out {
                return Err(bad("value.height", format!("{:?} makes {out:?} of {shape:?}", op.kind)));
            }
            for axis in 0..2 {
                let first = ((out[axis] - 1) * stride[axis]).checked_sub(op.window.pad[axis]);
                if !same_size && op.kind != Kind::Pad && first.is_some_and(|first| first >= shape[axis]) {
                    return Err(bad("op.window", "outputs lie beyond the map"));
                }
            }
            let per_output =
                if op.kind == Kind::Conv { shape[2] as u64 } else { 1 } * op.window.n_taps() as u64;
            let products = out.iter().map(|&d| d as u128).product::<u128>() * u128::from(per_output);
            if products > MAX_PRODUCTS || per_output > MAX_INPUTS {
                return Err(bad("op.window", format!("{products} products in one operator")));
            }
        }
        Ok(())
    }
}

/// Lists of the metadata, each checked.
struct Lists<'a>(&'a Metadata);

impl Lists<'_> {
    fn array(&self, key: &str) -> Result<&Array> {
        let array = self.0.array(&format!("qcnn.{key}")).map_err(|e| bad(key, e.message))?;
        array.ok_or_else(|| bad(key, "required key is missing"))
    }

    fn len(&self, key: &str) -> Result<usize> {
        match self.array(key)?.len() {
            n @ 1..=MAX_ITEMS => Ok(n),
            n => Err(bad(key, format!("{n} entries, expected 1 to {MAX_ITEMS}"))),
        }
    }

    fn of_len(&self, key: &str, n: usize) -> Result<&Array> {
        let array = self.array(key)?;
        if array.len() == n { Ok(array) } else { Err(bad(key, format!("{} entries, not {n}", array.len()))) }
    }

    fn ints(&self, key: &str, n: usize, range: std::ops::RangeInclusive<i64>) -> Result<Vec<i64>> {
        let array = self.of_len(key, n)?;
        let number = |i| array.i64(i).filter(|v| range.contains(v));
        let numbers = (0..n).map(number).collect::<Option<Vec<_>>>();
        numbers.ok_or_else(|| bad(key, format!("expected integers in {range:?}")))
    }

    fn scales(&self, key: &str) -> Result<Vec<f32>> {
        match self.array(key)? {
            Array::F32(scales) if scales.iter().all(|s| is_scale(*s)) => Ok(scales.clone()),
            _ => Err(bad(key, "expected positive f32")),
        }
    }

    fn kinds(&self, n: usize) -> Result<Vec<Kind>> {
        let Array::Str(names) = self.of_len("op.kind", n)? else {
            return Err(bad("op.kind", "expected strings"));
        };
        let kind = |name: &[u8]| KINDS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, k)| *k);
        names.iter().map(kind).collect::<Option<_>>().ok_or_else(|| bad("op.kind", "an unknown operator"))
    }
}

/// Whether codes can have this scale.
pub fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}
