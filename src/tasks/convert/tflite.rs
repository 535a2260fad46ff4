//! A quantized .tflite CNN to GGUF: its codes, scales and zero points exactly as they are.

use super::Extras;
use crate::container::gguf_write::GgufWriter;
use crate::container::tflite::{self, ElementType, Fused, Graph, Kind as Op, Operator, Taps, Tensor};
use crate::error::{Code, Error, Result};
use crate::kernels::window::Window;
use crate::models::qcnn::spec::{GraphSpec, Kind, OpSpec, ValueSpec, is_scale};
use crate::quant::DType;
use std::collections::BTreeMap;

/// Converts a whole file. Operators after the logits (softmax, a change of type) are left out.
///
/// # Errors
/// What [`tflite::parse`] refuses; [`Code::UnsupportedArch`] naming the operator, and
/// [`Code::UnsupportedDtype`] naming the tensor, where the network is not of 8-bit integers throughout.
pub fn tflite_to_gguf(bytes: &[u8], extras: &Extras) -> Result<Vec<u8>> {
    let graph = tflite::parse(bytes)?;
    let mut import =
        Import { graph: &graph, spec: GraphSpec::default(), values: BTreeMap::new(), parts: Vec::new() };
    let [input] = graph.inputs.as_slice() else {
        return Err(Error::new(
            Code::UnsupportedArch,
            format!("{} inputs; supported: one", graph.inputs.len()),
        ));
    };
    import.value(*input)?;
    for operator in &graph.operators {
        if matches!(operator.kind, Op::Softmax) {
            break;
        }
        import.operator(operator).map_err(|e| match e.tensor {
            None => e.tensor(import.name(operator)),
            Some(_) => e,
        })?;
    }
    if import.spec.ops.is_empty() {
        return Err(Error::new(Code::UnsupportedArch, "the graph has no operators"));
    }
    import.write(extras)
}

/// What becomes a tensor of the GGUF file.
struct Part {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

struct Import<'a> {
    graph: &'a Graph<'a>,
    spec: GraphSpec,
    /// Values by the tensors that they are.
    values: BTreeMap<usize, usize>,
    parts: Vec<Part>,
}

fn unsupported(rule: impl Into<String>) -> Error {
    Error::new(Code::UnsupportedArch, rule)
}

fn bad_shape(rule: impl Into<String>) -> Error {
    Error::new(Code::BadShape, rule)
}

impl<'a> Import<'a> {
    /// The name of what an operator makes, for messages.
    fn name(&self, operator: &Operator) -> &'a str {
        operator.outputs.first().map_or("", |&t| &self.graph.tensors[t].name)
    }

    fn tensor(&self, operator: &Operator, i: usize) -> Result<&'a Tensor<'a>> {
        let tensor = operator.inputs.get(i).copied().flatten();
        let tensor =
            tensor.ok_or_else(|| unsupported(format!("{:?} without its input {i}", operator.kind)))?;
        Ok(&self.graph.tensors[tensor])
    }

    /// The value that a computed tensor is; makes it where it is new.
    fn value(&mut self, tensor: usize) -> Result<usize> {
        if let Some(&value) = self.values.get(&tensor) {
            return Ok(value);
        }
        let t = &self.graph.tensors[tensor];
        let shape = match t.shape.as_slice() {
            [1, height, width, channels] => [*height, *width, *channels],
            [1, channels] => [1, 1, *channels],
            other => {
                return Err(bad_shape(format!("{other:?} is no feature map of one picture")).tensor(&t.name));
            }
        };
        if shape.contains(&0) || shape.iter().any(|&d| d > 1 << 16) {
            return Err(bad_shape(format!("{shape:?} is no feature map")).tensor(&t.name));
        }
        let (scale, zero) = per_tensor(t)?;
        self.spec.values.push(ValueSpec { shape, scale, zero });
        self.values.insert(tensor, self.spec.values.len() - 1);
        Ok(self.spec.values.len() - 1)
    }

    /// The value of an operator's input, which has been computed.
    fn input(&self, operator: &Operator, i: usize) -> Result<usize> {
        let tensor = operator.inputs.get(i).copied().flatten();
        let known = tensor.and_then(|t| self.values.get(&t)).copied();
        known
            .ok_or_else(|| unsupported(format!("{:?} of a value that is not computed before", operator.kind)))
    }

    fn operator(&mut self, operator: &Operator) -> Result<()> {
        let [output] = operator.outputs.as_slice() else {
            return Err(unsupported(format!("{:?} with {} outputs", operator.kind, operator.outputs.len())));
        };
        let input = self.input(operator, 0)?;
        match operator.kind {
            Op::Reshape | Op::Squeeze => {
                // The order of values stays: the next operator sees the map as it was.
                self.values.insert(*output, input);
                return Ok(());
            }
            Op::Dequantize => {
                return Err(unsupported("a network that goes on in float"));
            }
            _ => {}
        }
        let inputs = match operator.kind {
            Op::Add(_) => [Some(input), Some(self.input(operator, 1)?)],
            _ => [Some(input), None],
        };
        let output = self.value(*output)?;
        let from = self.spec.values[input];
        let to = self.spec.values[output];
        let (kind, window, fused) = self.computation(operator, &from, &to)?;
        let mut op = OpSpec { kind, inputs, output, window, clamp: clamp(fused, &to), weight_zero: 0 };
        if matches!(kind, Kind::Conv | Kind::Depthwise) {
            op.weight_zero = self.weights(operator, kind, &window, &from, &to)?;
        }
        self.spec.ops.push(op);
        Ok(())
    }

    /// What an operator computes, over which taps, and what clamps it.
    fn computation(
        &self,
        operator: &Operator,
        from: &ValueSpec,
        to: &ValueSpec,
    ) -> Result<(Kind, Window, Fused)> {
        let whole = Window { size: [from.shape[0], from.shape[1]], ..Window::POINT };
        Ok(match operator.kind {
            Op::Conv2d(taps) => {
                let [_, height, width, channels] = self.tensor(operator, 1)?.shape[..] else {
                    return Err(bad_shape("a convolution's weights do not have four dimensions"));
                };
                if channels != from.shape[2] {
                    return Err(unsupported("a convolution of groups of channels"));
                }
                (Kind::Conv, window(&taps, [height, width], from, to)?, taps.fused)
            }
            Op::DepthwiseConv2d(taps) => {
                let [1, height, width, channels] = self.tensor(operator, 1)?.shape[..] else {
                    return Err(bad_shape("depthwise weights are not [1, height, width, channels]"));
                };
                if channels != from.shape[2] {
                    return Err(unsupported("a depthwise convolution with a multiplier"));
                }
                (Kind::Depthwise, window(&taps, [height, width], from, to)?, taps.fused)
            }
            Op::FullyConnected(fused) => (Kind::Conv, whole, fused),
            Op::Add(fused) => (Kind::Add, Window::POINT, fused),
            Op::AveragePool2d(taps) => (Kind::Average, window(&taps, taps.size, from, to)?, taps.fused),
            Op::MaxPool2d(taps) => (Kind::Max, window(&taps, taps.size, from, to)?, taps.fused),
            Op::Mean if to.shape[..2] == [1, 1] => (Kind::Average, whole, Fused::None),
            Op::Pad => (Kind::Pad, Window { pad: self.padding(operator)?, ..Window::POINT }, Fused::None),
            Op::Quantize => (Kind::Rescale, Window::POINT, Fused::None),
            Op::Relu => (Kind::Rescale, Window::POINT, Fused::Relu),
            Op::Relu6 => (Kind::Rescale, Window::POINT, Fused::Relu6),
            other => {
                return Err(unsupported(format!("operator {other:?} is not supported in quantized CNNs")));
            }
        })
    }

    /// Rows above and columns left that a padding operator adds.
    fn padding(&self, operator: &Operator) -> Result<[usize; 2]> {
        let tensor = self.tensor(operator, 1)?;
        let (words, _) = tensor.data.as_chunks::<4>();
        let word = |i: usize| words.get(i).map(|w| i32::from_le_bytes(*w));
        let before = |axis: usize| word(2 * axis).and_then(|n| usize::try_from(n).ok()).filter(|&n| n < 1024);
        match (tensor.element, before(1), before(2), before(0), before(3)) {
            (ElementType::I32, Some(y), Some(x), Some(0), Some(0)) => Ok([y, x]),
            _ => Err(unsupported("a padding that is not of rows and columns").tensor(&tensor.name)),
        }
    }

    /// Adds an operator's tensors; the zero point of its weights.
    fn weights(
        &mut self,
        operator: &Operator,
        kind: Kind,
        window: &Window,
        from: &ValueSpec,
        to: &ValueSpec,
    ) -> Result<i32> {
        let (i, n) = (self.spec.ops.len(), to.shape[2]);
        let tensor = self.tensor(operator, 1)?;
        let k = if kind == Kind::Conv { window.n_taps() * from.shape[2] } else { window.n_taps() };
        if tensor.data.len() != n * k {
            let rule = format!("{} codes, expected {n} x {k}", tensor.data.len());
            return Err(bad_shape(rule).tensor(&tensor.name));
        }
        let (flip, zero) = match tensor.element {
            ElementType::U8 => (0x80, -128),
            ElementType::I8 => (0, 0),
            _ => return Err(dtype(tensor)),
        };
        let axis = if kind == Kind::Conv { 0 } else { tensor.shape.len() - 1 };
        if tensor.scale.len() != 1 && (tensor.scale.len() != n || tensor.axis != axis) {
            return Err(unsupported("weights with scales along another dimension").tensor(&tensor.name));
        }
        let zeros = || tensor.zero.iter().take(tensor.scale.len());
        let first = zeros().next().copied().unwrap_or(0);
        if zeros().any(|z| *z != first) || !(-128..=255).contains(&first) {
            return Err(unsupported("weights with several zero points").tensor(&tensor.name));
        }
        if !tensor.scale.iter().all(|s| is_scale(*s)) {
            return Err(Error::new(Code::NonFiniteWeight, "a scale is not positive").tensor(&tensor.name));
        }
        let codes = tensor.data.iter().map(|b| b ^ flip).collect();
        let scales = tensor.scale.iter().flat_map(|s| s.to_le_bytes()).collect();
        self.part(i, "weight", DType::I8, &tensor.shape, codes);
        self.part(i, "scale", DType::F32, &[tensor.scale.len()], scales);
        if operator.inputs.get(2).is_some_and(Option::is_some) {
            let bias = self.tensor(operator, 2)?;
            if bias.element != ElementType::I32 || bias.data.len() != 4 * n {
                return Err(dtype(bias));
            }
            self.part(i, "bias", DType::I32, &[n], bias.data.to_vec());
        }
        Ok(first as i32 + zero)
    }

    fn part(&mut self, i: usize, part: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) {
        self.parts.push(Part { name: format!("op.{i}.{part}"), dtype, shape: shape.to_vec(), bytes });
    }

    fn write(&self, extras: &Extras) -> Result<Vec<u8>> {
        let mut out = GgufWriter::new();
        // The graph says it all: a config would only hide it.
        Extras { config: None, ..extras.clone() }.put("qcnn", &mut out)?;
        self.spec.put(&mut out);
        for part in &self.parts {
            out.tensor(&part.name, part.dtype, &part.shape)?;
        }
        out.to_bytes(&self.parts.iter().map(|p| p.bytes.as_slice()).collect::<Vec<_>>())
    }
}

fn dtype(tensor: &Tensor) -> Error {
    let rule = format!("{:?} where a quantized CNN has 8-bit integers (biases: 32-bit)", tensor.element);
    Error::new(Code::UnsupportedDtype, rule).tensor(&tensor.name)
}

/// The one scale of a tensor, and its zero point for signed codes.
fn per_tensor(tensor: &Tensor) -> Result<(f32, i32)> {
    let offset = match tensor.element {
        ElementType::U8 => 128,
        ElementType::I8 => 0,
        _ => return Err(dtype(tensor)),
    };
    match (tensor.scale.as_slice(), tensor.zero.as_slice()) {
        ([scale], [zero]) if is_scale(*scale) && (offset - 128..=offset + 127).contains(zero) => {
            Ok((*scale, (zero - offset) as i32))
        }
        _ => {
            Err(Error::new(Code::BadValue, "a feature map without one scale and zero point")
                .tensor(&tensor.name))
        }
    }
}

/// The codes that an output may have.
fn clamp(fused: Fused, to: &ValueSpec) -> [i32; 2] {
    let code = |real: f32| (to.zero + (real / to.scale).round().min(1024.0) as i32).clamp(-128, 127);
    let minus_one = (to.zero - (1.0 / to.scale).round().min(1024.0) as i32).clamp(-128, 127);
    match fused {
        Fused::None => [-128, 127],
        Fused::Relu => [code(0.0), 127],
        Fused::ReluN1To1 => [minus_one, code(1.0)],
        Fused::Relu6 => [code(0.0), code(6.0)],
    }
}

/// Where the taps lie, by TensorFlow's rules of padding.
fn window(taps: &Taps, size: [usize; 2], from: &ValueSpec, to: &ValueSpec) -> Result<Window> {
    if size.contains(&0) || size.iter().any(|&s| s > 1024) {
        return Err(bad_shape(format!("a window of {size:?}")));
    }
    let mut window = Window { size, stride: taps.stride, pad: [0, 0], dilation: taps.dilation };
    for axis in 0..2 {
        let (len, stride) = (from.shape[axis], taps.stride[axis]);
        let extent = window.extent(axis);
        let out =
            if taps.same { len.div_ceil(stride) } else { (len + stride).saturating_sub(extent) / stride };
        if out != to.shape[axis] {
            return Err(bad_shape(format!("an output of {:?}, expected {out} along axis {axis}", to.shape)));
        }
        if taps.same {
            window.pad[axis] = ((out - 1) * stride + extent).saturating_sub(len) / 2;
        }
    }
    Ok(window)
}
