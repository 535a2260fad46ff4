//! Convolutional networks that were quantized with their activations: every tensor has a scale and a zero
//! point fixed in the file, and the forward pass is integers from the picture to the logits.
//!
//! Source: Jacob et al. 2017 (arXiv 1712.05877); rounding as XNNPACK has it.

pub mod spec;

use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::kernels::qconv::{Dense, Depthwise, Map, Requantize, STRIP, Zeros};
use crate::layers::quantized::{self as layers, Codes, Sum};
use crate::models::Weights;
use spec::{GraphSpec, Kind, OpSpec, ValueSpec, is_scale};

/// A quantized CNN.
pub struct QuantizedCnn {
    graph: GraphSpec,
    steps: Vec<Step>,
    /// Which values have no channels but those that count.
    is_dense: Vec<bool>,
    /// After which step a value's buffer is free.
    last_use: Vec<usize>,
    values: Vec<Vec<u8>>,
    /// Buffers that are in no use, the last used at the end: it may still be in the cache.
    free: Vec<Vec<u8>>,
}

/// An operator's weights and constants.
enum Step {
    Dense(Dense),
    Depthwise(Depthwise),
    Add(Sum),
    /// Multiplies the sum of all taps.
    Average(f32),
    Max,
    Pad,
    Rescale(f32),
}

impl QuantizedCnn {
    /// Reads the graph and takes the tensors.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`, `NonFiniteWeight`.
    pub fn build(metadata: &Metadata, weights: &mut Weights) -> Result<Self> {
        let graph = GraphSpec::read(metadata)?;
        let steps = graph.ops.iter().enumerate().map(|(i, op)| step(&graph, i, op, weights));
        let steps = steps.collect::<Result<_>>()?;
        let mut last_use = vec![0; graph.values.len()];
        for (i, op) in graph.ops.iter().enumerate() {
            op.inputs.iter().flatten().for_each(|&v| last_use[v] = i);
        }
        let values = graph.values.iter().map(|_| Vec::new()).collect();
        let is_dense = dense_values(&graph);
        Ok(QuantizedCnn { graph, steps, is_dense, last_use, values, free: Vec::new() })
    }

    /// Side of the input, pixels.
    pub fn image_size(&self) -> usize {
        self.graph.values[0].shape[0]
    }

    /// Classes.
    pub fn n_class(&self) -> usize {
        let [height, width, channels] = self.output().shape;
        height * width * channels
    }

    /// Length of [`Self::features`].
    pub fn n_embd(&self) -> usize {
        let [height, width, channels] = self.graph.values[self.classifier().1].shape;
        height * width * channels
    }

    /// The last operator with weights that mixes channels, and the value that it reads.
    fn classifier(&self) -> (usize, usize) {
        let i = self.steps.iter().rposition(|step| matches!(step, Step::Dense(_))).unwrap_or(0);
        (i, self.graph.ops[i].inputs[0].unwrap_or(0))
    }

    /// The scale and the zero point of the input, for codes 0 ..= 255: what preprocessing has to reach.
    pub fn input(&self) -> (f32, i32) {
        (self.graph.values[0].scale, self.graph.values[0].zero + 128)
    }

    fn output(&self) -> ValueSpec {
        // A graph has operators: its lists are not empty.
        self.graph.ops.last().map_or(self.graph.values[0], |op| self.graph.values[op.output])
    }

    /// Logits of pixels `[3, image_size, image_size]`, which are real values in the scale of the input.
    ///
    /// # Panics
    /// Where there is another number of pixels: a bug in the caller.
    pub fn logits(&mut self, pixels: &[f32]) -> Vec<f32> {
        self.run(pixels, self.steps.len());
        self.graph.ops.last().map_or(Vec::new(), |op| self.real(op.output))
    }

    /// What the codes of a value mean.
    fn real(&self, value: usize) -> Vec<f32> {
        let spec = &self.graph.values[value];
        let [height, width, channels] = spec.shape;
        let rows = self.values[value].chunks_exact(self.stride(value)).take(height * width);
        let codes = rows.flat_map(|row| &row[..channels]);
        codes.map(|&code| (f32::from(code) - f32::from(zero_of(spec))) * spec.scale).collect()
    }

    /// Channels from pixel to pixel of a value.
    fn stride(&self, value: usize) -> usize {
        let channels = self.graph.values[value].shape[2];
        if self.is_dense[value] { channels } else { channels.next_multiple_of(STRIP) }
    }

    /// What enters the last operator with weights, the classifier: a feature vector of the picture.
    pub fn features(&mut self, pixels: &[f32]) -> Vec<f32> {
        let (classifier, value) = self.classifier();
        self.run(pixels, classifier);
        self.real(value)
    }

    /// Runs the first `n_steps` operators.
    fn run(&mut self, pixels: &[f32], n_steps: usize) {
        self.free.extend(self.values.iter_mut().map(std::mem::take).filter(|v| v.capacity() > 0));
        let buffer = self.free.pop().unwrap_or_default();
        self.values[0] = quantize(&self.graph.values[0], pixels, self.stride(0), buffer);
        for i in 0..n_steps {
            let op = self.graph.ops[i];
            let spec = &self.graph.values[op.output];
            let mut out = self.free.pop().unwrap_or_default();
            let n = spec.shape[0] * spec.shape[1] * self.stride(op.output);
            // What is left of another value is overwritten, and what is beyond `n` stays: buffers soon have the size of
            // the largest value, and nothing is cleared any more.
            grow(&mut out, n);
            self.compute(i, &op, &mut out[..n]);
            self.values[op.output] = out;
            for input in op.inputs.into_iter().flatten() {
                if self.last_use[input] == i && i + 1 < n_steps {
                    self.free.push(std::mem::take(&mut self.values[input]));
                }
            }
        }
    }

    fn compute(&self, i: usize, op: &OpSpec, out: &mut [u8]) {
        let map = |input: Option<usize>| {
            let value = input.unwrap_or(0);
            let [height, width, channels] = self.graph.values[value].shape;
            let stride = self.stride(value);
            Map { data: &self.values[value][..height * width * stride], height, width, channels, stride }
        };
        let zero_of = |input: Option<usize>| zero_of(&self.graph.values[input.unwrap_or(0)]);
        let (input, zero) = (map(op.inputs[0]), zero_of(op.inputs[0]));
        let spec = &self.graph.values[op.output];
        let codes = codes(op, spec);
        let width = spec.shape[1];
        match &self.steps[i] {
            Step::Dense(dense) => layers::dense(dense, input, &op.window, width, out),
            Step::Depthwise(depthwise) => layers::depthwise(depthwise, input, &op.window, width, out),
            Step::Add(sum) => {
                let second = map(op.inputs[1]);
                sum.forward([input.data, second.data], [zero, zero_of(op.inputs[1])], codes, out);
            }
            Step::Average(scale) => layers::average(input, zero, &op.window, *scale, codes, width, out),
            Step::Max => layers::max(input, zero, &op.window, codes, width, out),
            Step::Pad => layers::pad(input, zero, op.window.pad, codes, width, out),
            Step::Rescale(scale) => layers::rescale(input.data, zero, *scale, codes, out),
        }
    }
}

/// The picture, and what it is under other scales, where only convolutions that mix channels read them: the taps of a row are
/// then one piece.
fn dense_values(graph: &GraphSpec) -> Vec<bool> {
    let mut may_be = vec![true; graph.values.len()];
    for op in graph.ops.iter().rev() {
        for &input in op.inputs.iter().flatten() {
            may_be[input] &= match op.kind {
                Kind::Conv => true,
                Kind::Rescale => may_be[op.output],
                _ => false,
            };
        }
    }
    let mut is_dense = vec![false; graph.values.len()];
    is_dense[0] = may_be[0];
    for op in &graph.ops {
        is_dense[op.output] = op.kind == Kind::Rescale && op.inputs[0].is_some_and(|input| is_dense[input]);
    }
    is_dense
}

/// The zero point of a value's codes as bytes: the file's are signed.
fn zero_of(value: &ValueSpec) -> u8 {
    byte(value.zero)
}

/// A signed code as the byte that stands for it here.
fn byte(code: i32) -> u8 {
    (code + 128).clamp(0, 255) as u8
}

/// The codes that an operator gives.
fn codes(op: &OpSpec, output: &ValueSpec) -> Codes {
    Codes { zero: zero_of(output), clamp: op.clamp.map(byte) }
}

/// Pixels `[3, side, side]` to a map.
fn quantize(spec: &ValueSpec, pixels: &[f32], stride: usize, mut out: Vec<u8>) -> Vec<u8> {
    let n = spec.shape[0] * spec.shape[1];
    assert_eq!(pixels.len(), 3 * n, "pixels are not [3, image_size, image_size]");
    grow(&mut out, n * stride);
    layers::quantize(pixels, n, spec.scale, zero_of(spec), stride, &mut out[..n * stride]);
    out
}

/// Room for `n` values at least.
fn grow(buffer: &mut Vec<u8>, n: usize) {
    if buffer.len() < n {
        buffer.resize(n, 0);
    }
}

/// Takes an operator's tensors.
fn step(graph: &GraphSpec, i: usize, op: &OpSpec, weights: &mut Weights) -> Result<Step> {
    let input = graph.values[op.inputs[0].unwrap_or(0)];
    let output = graph.values[op.output];
    Ok(match op.kind {
        Kind::Conv => {
            let (n, k) = (output.shape[2], op.window.n_taps() * input.shape[2]);
            let (codes, requantize) = parts(weights, i, op, n, k, input, output)?;
            Step::Dense(Dense::new(&codes, k, zeros(op, &input), requantize))
        }
        Kind::Depthwise => {
            let n = output.shape[2];
            let (codes, requantize) = parts(weights, i, op, n, op.window.n_taps(), input, output)?;
            Step::Depthwise(Depthwise::new(&codes, n, zeros(op, &input), requantize))
        }
        Kind::Add => {
            let second = graph.values[op.inputs[1].unwrap_or(0)];
            Step::Add(Sum::new(input.scale, second.scale, output.scale))
        }
        Kind::Average => Step::Average(input.scale / output.scale),
        Kind::Max => Step::Max,
        Kind::Pad => Step::Pad,
        Kind::Rescale => Step::Rescale(input.scale / output.scale),
    })
}

/// The zero points that an operator's sums are to be rid of.
fn zeros(op: &OpSpec, input: &ValueSpec) -> Zeros {
    Zeros { weights: op.weight_zero as i8, input: zero_of(input) }
}

/// The codes of `n` outputs of `k` inputs each, and what follows their sums.
fn parts(
    weights: &mut Weights,
    i: usize,
    op: &OpSpec,
    n: usize,
    k: usize,
    input: ValueSpec,
    output: ValueSpec,
) -> Result<(Vec<i8>, Requantize)> {
    let name = |part: &str| format!("op.{i}.{part}");
    let n_codes = n.checked_mul(k).ok_or_else(|| {
        Error::new(Code::Overflow, format!("{n} x {k} weights do not fit the address space"))
            .tensor(name("weight"))
    })?;
    let codes = weights.raw(&name("weight"), n_codes)?.into_iter().map(|b| b as i8).collect();
    let bias = match weights.has(&name("bias")) {
        true => {
            weights.raw(&name("bias"), 4 * n)?.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
        }
        false => vec![0; n],
    };
    let scale_name = name("scale");
    let n_scales = weights.shape(&scale_name).map_or(n, |s| s.iter().product());
    let mut scale = weights.values(&scale_name, if n_scales == 1 { 1 } else { n })?;
    if !scale.iter().all(|s| is_scale(*s)) {
        return Err(Error::new(Code::NonFiniteWeight, "a scale that is not positive").tensor(scale_name));
    }
    scale.resize(n, scale[0]);
    // In XNNPACK's order, which decides how the last bit of the factor falls.
    scale.iter_mut().for_each(|s| *s = input.scale * *s / output.scale);
    if !scale.iter().all(|s| s.is_finite()) {
        return Err(Error::new(Code::NonFiniteWeight, "scales whose ratio is not finite").tensor(scale_name));
    }
    let Codes { zero, clamp } = self::codes(op, &output);
    Ok((codes, Requantize::new(&bias, &scale, clamp, zero)))
}
