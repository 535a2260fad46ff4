//! Convolutions over pictures and feature maps, and what stands between them.

use super::{Activation, I, Linear, Mode};
use crate::kernels::act::Activations;
use crate::kernels::parallel::{self, work};
use crate::kernels::window::Window;
use crate::kernels::{depthwise, matmul, vecmath};
use crate::repack::PackedWeights;

/// Floats that the taps of some outputs take at most, laid out as rows of a matrix.
const GATHERED: usize = 1 << 20;

/// Values of channels at places, `[height, width, channels]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeatureMap {
    /// Rows, columns, channels.
    pub shape: [usize; 3],
    /// As many as the shape says.
    pub data: Vec<f32>,
}

impl FeatureMap {
    /// A picture `[channels, height, width]` as a map.
    ///
    /// # Panics
    /// Where there are not so many pixels: a bug in the caller.
    pub fn from_planes(planes: &[f32], height: usize, width: usize) -> Self {
        let n = height * width;
        assert!(n > 0 && planes.len().is_multiple_of(n), "whole planes");
        let channels = planes.len() / n;
        let mut data = vec![0f32; planes.len()];
        for (c, plane) in planes.chunks_exact(n).enumerate() {
            data.chunks_exact_mut(channels).zip(plane).for_each(|(to, x)| to[c] = *x);
        }
        FeatureMap { shape: [height, width, channels], data }
    }

    /// `x = f(x + other)`.
    pub fn add(&mut self, other: &FeatureMap, activation: Option<Activation>) {
        vecmath::add::<I>(&mut self.data, &other.data);
        if let Some(activation) = activation {
            activation.apply(&mut self.data);
        }
    }

    /// Multiplies each channel.
    pub fn scale(&mut self, factors: &[f32]) {
        self.data.chunks_exact_mut(factors.len()).for_each(|row| vecmath::mul::<I>(row, factors));
    }

    fn reshape(&mut self, shape: [usize; 3]) {
        self.shape = shape;
        self.data.resize(shape.iter().product(), 0.0);
    }

    /// The mean of each channel, as a map of one place.
    pub fn mean(&self) -> FeatureMap {
        let [height, width, channels] = self.shape;
        let mut data = vec![0f32; channels];
        for row in self.data.chunks_exact(channels) {
            vecmath::add::<I>(&mut data, row);
        }
        let n = (height * width) as f32;
        data.iter_mut().for_each(|sum| *sum /= n);
        FeatureMap { shape: [1, 1, channels], data }
    }
}

/// What lies beyond the edges: zeros, so many that the output has a certain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many before and after.
    Fixed(usize, usize),
    /// As many as make outputs = inputs / stride, the odd one at the end (TensorFlow's "same").
    Same,
}

/// The weights of a convolution.
pub enum Filter {
    /// Every output reads every channel: `[n, channels * rows * columns]`, as files have it. The rows may be
    /// longer, with zeros at the end.
    Dense(PackedWeights),
    /// Every output reads its own channel: `[taps, channels]`.
    Depthwise(Vec<f32>),
    /// The same in 8 bits; what they count in is part of the scale.
    DepthwiseCodes(Vec<i8>),
}

/// `f(scale * (W * x) + bias)`, where a batch norm has been folded into scale and bias.
pub struct Conv2d {
    /// The weights.
    pub filter: Filter,
    /// Taps: rows, columns.
    pub size: [usize; 2],
    /// Inputs between outputs, in both directions.
    pub stride: usize,
    /// Beyond the edges.
    pub padding: Padding,
    /// Of each output; none where all are 1.
    pub scale: Option<Vec<f32>>,
    /// Of each output.
    pub bias: Vec<f32>,
    /// What follows.
    pub activation: Option<Activation>,
}

impl Conv2d {
    /// Outputs per place.
    pub fn n(&self) -> usize {
        self.bias.len()
    }

    /// Rows and columns of the output, and where the taps lie.
    fn place(&self, input: [usize; 3]) -> ([usize; 2], Window) {
        let mut window = Window { size: self.size, ..Window::square(1, self.stride, 0) };
        let mut out = [0; 2];
        for axis in 0..2 {
            (out[axis], window.pad[axis]) = self.padding.place(input[axis], self.size[axis], self.stride);
        }
        (out, window)
    }

    /// Convolves `input` into `out`.
    pub fn forward(&self, input: &FeatureMap, act: &mut Activations, mode: Mode, out: &mut FeatureMap) {
        let ([height, width], window) = self.place(input.shape);
        out.reshape([height, width, self.n()]);
        match &self.filter {
            Filter::Dense(weights) => {
                self.dense(weights, input, &window, act, mode, out);
                parallel::chunks(&mut out.data, self.n(), work::EXP, &|_, rows| self.finish(rows));
            }
            Filter::Depthwise(weights) => self.depthwise(weights, input, &window, out),
            Filter::DepthwiseCodes(codes) => {
                // A few thousand of them, spread out where the kernels read them thousands of times.
                let weights: Vec<f32> = codes.iter().map(|&c| c.into()).collect();
                self.depthwise(&weights, input, &window, out);
            }
        }
    }

    fn depthwise(&self, weights: &[f32], input: &FeatureMap, window: &Window, out: &mut FeatureMap) {
        let width = out.shape[1];
        let row_len = width * self.n();
        let per_value = window.n_taps() * 8 + work::EXP;
        parallel::chunks(&mut out.data, row_len, per_value, &|first, rows| {
            for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
                let y = first / row_len + i;
                depthwise::row::<I>(&input.data, input.shape, weights, window, y, row);
                self.finish(row);
            }
        });
    }

    /// As a matrix product, some outputs at a time.
    fn dense(
        &self,
        weights: &PackedWeights,
        input: &FeatureMap,
        window: &Window,
        act: &mut Activations,
        mode: Mode,
        out: &mut FeatureMap,
    ) {
        let (k, n) = (weights.k(), self.n());
        let [_, width, channels] = out.shape;
        let block = (GATHERED / k).max(1);
        for (i, out) in out.data.chunks_mut(block * channels).enumerate() {
            let (first, m) = (i * block, out.len() / n);
            let rows = act.fill(m, k, mode.is_integer());
            if window.is_point() && input.shape[2] == k {
                rows.copy_from_slice(&input.data[first * k..][..m * k]);
            } else {
                parallel::chunks(rows, k, work::ADD, &|at, rows| {
                    for (i, row) in rows.chunks_exact_mut(k).enumerate() {
                        gather(input, window, width, first + at / k + i, row);
                    }
                });
            }
            matmul(act, weights, out);
        }
    }

    /// What follows the sums of some places.
    fn finish(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.bias.len()) {
            if let Some(scale) = &self.scale {
                vecmath::mul::<I>(row, scale);
            }
            vecmath::add::<I>(row, &self.bias);
        }
        if let Some(activation) = self.activation {
            activation.apply(rows);
        }
    }
}

impl Padding {
    /// As many on either side as keep the size where the stride is 1.
    pub fn centred(size: usize) -> Self {
        Padding::Fixed(size / 2, size / 2)
    }

    /// Outputs along an axis of `len` inputs, and zeros before the first input.
    fn place(self, len: usize, size: usize, stride: usize) -> (usize, usize) {
        match self {
            Padding::Fixed(before, after) => {
                ((len + before + after).saturating_sub(size) / stride + 1, before)
            }
            Padding::Same => {
                let out = len.div_ceil(stride);
                (out, ((out - 1) * stride + size).saturating_sub(len) / 2)
            }
        }
    }
}

/// The taps of one output in the order of the weights: channels, rows, columns; zeros after the last.
fn gather(input: &FeatureMap, window: &Window, out_width: usize, output: usize, to: &mut [f32]) {
    let [height, width, channels] = input.shape;
    let n_taps = window.n_taps();
    to.fill(0.0);
    for tap in 0..n_taps {
        let iy = window.input(0, output / out_width, tap / window.size[1], height);
        let ix = window.input(1, output % out_width, tap % window.size[1], width);
        let (Some(iy), Some(ix)) = (iy, ix) else { continue };
        let from = &input.data[(iy * width + ix) * channels..][..channels];
        to[tap..].iter_mut().step_by(n_taps).zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// The largest of the taps within the map, for each channel.
pub fn max_pool(input: &FeatureMap, size: usize, stride: usize, padding: Padding, out: &mut FeatureMap) {
    let [height, width, channels] = input.shape;
    let (rows, pad_y) = padding.place(height, size, stride);
    let (columns, pad_x) = padding.place(width, size, stride);
    let window = Window { pad: [pad_y, pad_x], ..Window::square(size, stride, 0) };
    out.reshape([rows, columns, channels]);
    let per_value = window.n_taps() * work::ADD;
    parallel::chunks(&mut out.data, channels, per_value, &|first, places| {
        for (i, out) in places.chunks_exact_mut(channels).enumerate() {
            let output = first / channels + i;
            out.fill(f32::NEG_INFINITY);
            for tap in 0..window.n_taps() {
                let iy = window.input(0, output / columns, tap / size, height);
                let ix = window.input(1, output % columns, tap % size, width);
                let (Some(iy), Some(ix)) = (iy, ix) else { continue };
                let from = &input.data[(iy * width + ix) * channels..][..channels];
                // NaN stays, as it does in the activations.
                out.iter_mut().zip(from).for_each(|(o, &x)| *o = if *o > x { *o } else { x });
            }
        }
    });
}

/// Squeeze and excitation (Hu et al. 2017, arXiv 1709.01507): each channel times a gate that the means of all
/// channels open.
pub struct SqueezeExcite {
    /// `[n_reduced, channels]`.
    pub reduce: Linear,
    /// `[channels, n_reduced]`.
    pub expand: Linear,
    /// Between the two.
    pub activation: Activation,
    /// Of the gate.
    pub gate: Activation,
}

impl SqueezeExcite {
    /// Changes the map in place.
    pub fn forward(&self, map: &mut FeatureMap, act: &mut Activations, mode: Mode) {
        let channels = map.shape[2];
        let layer = |linear: &Linear, x: &[f32], f: Activation, act: &mut Activations| {
            let mut out = padded_product(linear, x, act, mode);
            f.apply(&mut out);
            out
        };
        let reduced = layer(&self.reduce, &map.mean().data, self.activation, act);
        let gate = layer(&self.expand, &reduced, self.gate, act);
        parallel::chunks(&mut map.data, channels, work::ADD, &|_, rows| {
            rows.chunks_exact_mut(channels).for_each(|row| vecmath::mul::<I>(row, &gate));
        });
    }
}

/// One row through a layer whose rows may have zeros at their end.
pub fn padded_product(linear: &Linear, x: &[f32], act: &mut Activations, mode: Mode) -> Vec<f32> {
    let row = act.fill(1, linear.weight.k(), mode.is_integer());
    row[..x.len()].copy_from_slice(x);
    row[x.len()..].fill(0.0);
    let mut out = vec![0f32; linear.n()];
    linear.forward(act, &mut out);
    out
}
