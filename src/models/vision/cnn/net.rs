//! A convolutional network as a list of operators on one feature map and a stack of kept ones.

use super::super::{Config, Output, Picture, Values, VisionArch, VisionInfo};
use crate::error::{Code, Error, Result};
use crate::kernels::act::Activations;
use crate::layers::{
    Activation, Conv2d, FeatureMap, Filter, LayerNorm, Linear, Mode, Padding, SqueezeExcite, Workspace,
    max_pool, padded_product,
};
use crate::models::{Tensor, Weights};

/// Longest side of the input, pixels.
const MAX_SIDE: usize = 1024;
/// Longest side of a filter.
const MAX_TAPS: usize = 64;

/// What happens to the map `x`.
pub(super) enum Op {
    /// `x = conv(x)`.
    Conv(Conv2d),
    /// Keeps a copy of x.
    Keep,
    /// The kept map becomes `conv(kept)`.
    Shortcut(Conv2d),
    /// `x = f(x + kept)`.
    Add(Option<Activation>),
    /// Gates the channels.
    SqueezeExcite(SqueezeExcite),
    /// The largest of 3 x 3, every second place.
    MaxPool,
    /// The mean of each channel.
    Mean,
    /// Normalises the channels of each place.
    Norm(LayerNorm),
    /// Multiplies each channel.
    Scale(Vec<f32>),
    /// The channels of the kept map, then those of x.
    Join,
    /// What a family has of its own.
    Own(Box<dyn MapOp>),
}

/// An operator of one family.
pub(super) trait MapOp {
    /// Changes `x`, whose channels stay as many.
    fn apply(&self, x: &mut FeatureMap, w: &mut Workspace, mode: Mode) -> Result<()>;
}

/// Takes tensors and puts operators together; errors name the tensor.
pub(super) struct Builder<'a> {
    pub weights: &'a mut Weights,
    /// Added to variances.
    pub eps: f32,
    ops: Vec<Op>,
    /// Channels of x, and of the kept map.
    channels: usize,
    kept: usize,
    /// Operators up to the last that works on places.
    n_body: Option<usize>,
}

/// A convolution that is wanted: what names do not tell.
#[derive(Clone, Copy)]
pub(super) struct Want<'a> {
    /// The tensors `conv.weight` and `conv.bias`.
    pub conv: &'a str,
    /// The batch norm that follows.
    pub norm: Option<&'a str>,
    /// Inputs between outputs.
    pub stride: usize,
    /// Beyond the edges; `None` for as many zeros as keep the size.
    pub padding: Option<Padding>,
    /// What follows.
    pub activation: Option<Activation>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(weights: &'a mut Weights, eps: f32) -> Self {
        Builder { weights, eps, ops: Vec::new(), channels: 3, kept: 3, n_body: None }
    }

    /// Channels of x.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// Adds a convolution of x.
    pub(super) fn conv(&mut self, want: Want) -> Result<()> {
        let conv = self.take(want, self.channels)?;
        self.channels = conv.n();
        self.ops.push(Op::Conv(conv));
        Ok(())
    }

    /// Keeps a copy of x.
    pub(super) fn keep(&mut self) {
        self.kept = self.channels;
        self.ops.push(Op::Keep);
    }

    /// Adds a convolution of what is kept.
    pub(super) fn shortcut(&mut self, want: Want) -> Result<()> {
        let conv = self.take(want, self.kept)?;
        self.kept = conv.n();
        self.ops.push(Op::Shortcut(conv));
        Ok(())
    }

    /// Adds what is kept; `stem` is named where it does not fit.
    pub(super) fn add(&mut self, activation: Option<Activation>, stem: &str) -> Result<()> {
        if self.kept != self.channels {
            let rule = format!("{} channels meet a residual of {}", self.channels, self.kept);
            return Err(Error::new(Code::ShapeMismatch, rule).tensor(format!("{stem}.weight")));
        }
        self.ops.push(Op::Add(activation));
        Ok(())
    }

    /// Adds squeeze and excitation.
    pub(super) fn squeeze_excite(
        &mut self,
        reduce: &str,
        expand: &str,
        [activation, gate]: [Activation; 2],
    ) -> Result<()> {
        let n = self.weights.shape(&format!("{reduce}.weight")).and_then(|s| s.first().copied()).unwrap_or(1);
        let reduce = linear(self.weights, reduce, n, self.channels)?;
        let expand = linear(self.weights, expand, self.channels, n)?;
        self.ops.push(Op::SqueezeExcite(SqueezeExcite { reduce, expand, activation, gate }));
        Ok(())
    }

    /// Has the kept channels stand before those of x.
    pub(super) fn join(&mut self) {
        self.channels += self.kept;
        self.ops.push(Op::Join);
    }

    /// Adds an operator of the family's own.
    pub(super) fn op(&mut self, op: Box<dyn MapOp>) {
        self.ops.push(Op::Own(op));
    }

    /// Adds pooling by the maximum.
    pub(super) fn max_pool(&mut self) {
        self.ops.push(Op::MaxPool);
    }

    /// Ends the feature maps: what follows works on the mean of each channel.
    pub(super) fn mean(&mut self) {
        self.n_body = Some(self.ops.len());
        self.ops.push(Op::Mean);
    }

    /// Adds a layer norm over channels.
    pub(super) fn norm(&mut self, stem: &str, eps: f32) -> Result<()> {
        let norm = self.weights.layer_norm(stem, self.channels, eps)?;
        self.ops.push(Op::Norm(norm));
        Ok(())
    }

    /// Adds a factor for each channel, where the file has it.
    pub(super) fn optional_scale(&mut self, name: &str) -> Result<()> {
        if let Some(scale) = self.weights.optional_values(name, self.channels)? {
            self.ops.push(Op::Scale(scale));
        }
        Ok(())
    }

    fn take(&mut self, want: Want, channels: usize) -> Result<Conv2d> {
        let name = format!("{}.weight", want.conv);
        let mismatch = |shape: &[usize], rule: &str| {
            Error::new(Code::ShapeMismatch, format!("shape {shape:?}: {rule}")).tensor(&name)
        };
        let (shape, tensor) = self.weights.take(&name)?;
        let [n, per_group, rows, columns] = match shape[..] {
            [n, c, rows, columns] => [n, c, rows, columns],
            [n, c] => [n, c, 1, 1],
            _ => return Err(mismatch(&shape, "expected a convolution's four dimensions")),
        };
        if [n, per_group, rows, columns].contains(&0) || rows != columns || rows > MAX_TAPS {
            return Err(mismatch(&shape, "no filter has such sides"));
        }
        let mut unit = None;
        let filter = match tensor {
            Tensor::Values(values) if per_group == 1 && n == channels => {
                Filter::Depthwise(by_tap(&values, n))
            }
            Tensor::Filters(filters) if per_group == 1 && n == channels => {
                unit = Some(filters.scale);
                Filter::DepthwiseCodes(by_tap(&filters.codes, n))
            }
            Tensor::Matrix(packed) if per_group == channels => Filter::Dense(packed),
            _ if per_group < channels && channels.is_multiple_of(per_group) => {
                let rule = format!("a convolution in groups of {per_group} channels is not supported");
                return Err(Error::new(Code::UnsupportedArch, rule).tensor(&name));
            }
            _ => return Err(mismatch(&shape, &format!("expected {channels} input channels"))),
        };
        let bias = self.weights.optional_values(&format!("{}.bias", want.conv), n)?;
        let (scale, bias) = match want.norm {
            Some(norm) => self.fold(norm, n, bias)?,
            None => (None, bias.unwrap_or_else(|| vec![0.0; n])),
        };
        let scale = match (scale, unit) {
            (Some(mut scale), Some(unit)) => {
                scale.iter_mut().zip(unit).for_each(|(s, unit)| *s *= unit);
                Some(scale)
            }
            (scale, unit) => scale.or(unit),
        };
        let padding = want.padding.unwrap_or(Padding::centred(rows));
        let Want { stride, activation, .. } = want;
        Ok(Conv2d { filter, size: [rows, columns], stride, padding, scale, bias, activation })
    }

    /// A batch norm (Ioffe and Szegedy 2015) as `scale` and `bias` of what it follows:
    /// `g (x + b0 - mean) / sqrt(var + eps) + b`.
    fn fold(&mut self, norm: &str, n: usize, bias: Option<Vec<f32>>) -> Result<(Option<Vec<f32>>, Vec<f32>)> {
        let mut part = |part: &str| self.weights.values(&format!("{norm}.{part}"), n);
        let [g, b, mean, var] = [part("weight")?, part("bias")?, part("running_mean")?, part("running_var")?];
        let bias = bias.unwrap_or_else(|| vec![0.0; n]);
        let scale: Vec<f64> =
            (0..n).map(|i| f64::from(g[i]) / (f64::from(var[i]) + f64::from(self.eps)).sqrt()).collect();
        if scale.iter().any(|s| !s.is_finite()) {
            let rule = "a variance that is negative or not finite";
            return Err(Error::new(Code::NonFiniteWeight, rule).tensor(format!("{norm}.running_var")));
        }
        let shift = |i: usize| f64::from(b[i]) + (f64::from(bias[i]) - f64::from(mean[i])) * scale[i];
        let bias = (0..n).map(|i| shift(i) as f32).collect();
        Ok((Some(scale.into_iter().map(|s| s as f32).collect()), bias))
    }

    /// The network, with the classifier `stem` where the file has it. A tensor that is left over belongs to
    /// something that this network does not have, and is an error.
    pub(super) fn finish(self, config: &Config, stem: &str) -> Result<Box<dyn VisionArch>> {
        let image_size = config.image_size()?.unwrap_or(224);
        if image_size > MAX_SIDE {
            return Err(config.bad("image_size", format!("{image_size} is more than {MAX_SIDE}")));
        }
        let n_class = self.weights.shape(&format!("{stem}.weight")).and_then(|s| s.first().copied());
        let head = n_class.map(|n| linear(self.weights, stem, n, self.channels)).transpose()?;
        if let Some(name) = self.weights.names().find(|n| !n.ends_with(".num_batches_tracked")) {
            let rule = "the network has no place for this tensor: a variant that is not supported";
            return Err(Error::new(Code::UnsupportedArch, rule).tensor(name));
        }
        let counters: Vec<String> = self.weights.names().map(String::from).collect();
        counters.iter().for_each(|name| self.weights.ignore(name));
        let info = VisionInfo {
            image_size,
            stride: 32,
            n_embd: self.channels,
            n_class: n_class.unwrap_or(0),
            labels: config.labels()?,
            ..VisionInfo::default()
        };
        let n_body = self.n_body.unwrap_or(self.ops.len());
        Ok(Box::new(Cnn { info, ops: self.ops, n_body, head, state: State::default() }))
    }
}

/// Linear layer `stem`, or a convolution of one tap.
fn linear(weights: &mut Weights, stem: &str, n: usize, k: usize) -> Result<Linear> {
    let name = format!("{stem}.weight");
    let bias = weights.optional_values(&format!("{stem}.bias"), n)?;
    match weights.take(&name)? {
        (shape, Tensor::Matrix(weight)) if matches!(shape[..], [a, b] | [a, b, 1, 1] if [a, b] == [n, k]) => {
            Ok(Linear { name: name.as_str().into(), weight, bias, scale: None, lora: Vec::new() })
        }
        // A squeeze to one channel: its kernel looks like a depthwise one.
        (shape, _) => {
            let rule = format!("shape {shape:?}, expected {:?}", [n, k]);
            Err(Error::new(Code::ShapeMismatch, rule).tensor(name))
        }
    }
}

/// `[channels, taps]` to `[taps, channels]`.
fn by_tap<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    let n_taps = values.len() / channels;
    (0..values.len()).map(|i| values[i % channels * n_taps + i / channels]).collect()
}

/// A convolutional network.
struct Cnn {
    info: VisionInfo,
    ops: Vec<Op>,
    /// Operators that work on places; those after them on one vector.
    n_body: usize,
    head: Option<Linear>,
    state: State,
}

#[derive(Default)]
struct State {
    x: FeatureMap,
    kept: FeatureMap,
    out: FeatureMap,
    act: Activations,
    work: Workspace,
}

impl State {
    fn run(&mut self, op: &Op, mode: Mode) -> Result<()> {
        let State { x, kept, out, act, work } = self;
        match op {
            Op::Conv(conv) => {
                conv.forward(x, act, mode, out);
                std::mem::swap(x, out);
            }
            Op::Keep => kept.clone_from(x),
            Op::Shortcut(conv) => {
                conv.forward(kept, act, mode, out);
                std::mem::swap(kept, out);
            }
            Op::Add(activation) => x.add(kept, *activation),
            Op::SqueezeExcite(gate) => gate.forward(x, act, mode),
            Op::MaxPool => {
                max_pool(x, 3, 2, Padding::Fixed(1, 1), out);
                std::mem::swap(x, out);
            }
            Op::Mean => *x = x.mean(),
            Op::Norm(norm) => {
                out.shape = x.shape;
                out.data.resize(x.data.len(), 0.0);
                norm.forward(&x.data, &mut out.data);
                std::mem::swap(x, out);
            }
            Op::Scale(scale) => x.scale(scale),
            Op::Join => {
                let [height, width, channels] = x.shape;
                out.shape = [height, width, channels + kept.shape[2]];
                out.data.clear();
                let rows = kept.data.chunks_exact(kept.shape[2]).zip(x.data.chunks_exact(channels));
                rows.for_each(|(kept, x)| out.data.extend(kept.iter().chain(x)));
                std::mem::swap(x, out);
            }
            Op::Own(op) => op.apply(x, work, mode)?,
        }
        Ok(())
    }
}

impl VisionArch for Cnn {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn run(&mut self, picture: Picture, output: Output, mode: Mode) -> Result<Values> {
        let state = &mut self.state;
        state.x = FeatureMap::from_planes(picture.pixels, picture.height, picture.width);
        let n_ops = match output {
            Output::Patches => self.n_body,
            Output::Attention(_) => return Err(self.info.lacks("attention")),
            _ => self.ops.len(),
        };
        self.ops[..n_ops].iter().try_for_each(|op| state.run(op, mode))?;
        let x = &state.x;
        Ok(match (output, &self.head) {
            (Output::Patches, _) => Values { shape: x.shape.to_vec(), values: x.data.clone() },
            (Output::Logits, Some(head)) => {
                let values = padded_product(head, &x.data, &mut state.act, mode);
                Values { shape: vec![values.len()], values }
            }
            (Output::Logits, None) => return Err(self.info.lacks("classification head")),
            _ => Values { shape: vec![x.data.len()], values: x.data.clone() },
        })
    }
}
