//! Normalisations over the last dimension.

use super::I;
use crate::kernels::parallel::{self, work};
use crate::kernels::vecmath;

/// Root-mean-square norm: `x / sqrt(mean(x^2) + eps) * weight`.
pub struct RmsNorm {
    /// `[n_embd]`.
    pub weight: Vec<f32>,
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
    /// Normalises each row of `x` into `out`; both `[m, n_embd]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let n = self.weight.len();
        parallel::chunks(out, n, work::NORM, &|first, out| {
            for (x, out) in x[first..].chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                vecmath::rms_norm::<I>(x, &self.weight, self.eps, out);
            }
        });
    }
}

/// Layer norm: `(x - mean) / sqrt(var + eps) * weight + bias`.
pub struct LayerNorm {
    /// `[n_embd]`.
    pub weight: Vec<f32>,
    /// `[n_embd]`; zeros where the model has none.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises each row of `x` into `out`; both `[m, n_embd]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let n = self.weight.len();
        parallel::chunks(out, n, work::NORM, &|first, out| {
            for (x, out) in x[first..].chunks_exact(n).zip(out.chunks_exact_mut(n)) {
                vecmath::layer_norm::<I>(x, &self.weight, &self.bias, self.eps, out);
            }
        });
    }
}

/// A normalisation of one of several kinds.
pub enum Norm {
    /// By the root mean square.
    Rms(RmsNorm),
    /// By mean and variance.
    Layer(LayerNorm),
    /// One layer norm per head.
    PerHead(Vec<LayerNorm>),
}

impl Norm {
    /// Normalises each row of `x` into `out`. Rows are as long as the norm's weights: with weights
    /// of one head, each head is normalised by itself.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        match self {
            Norm::Rms(norm) => norm.forward(x, out),
            Norm::Layer(norm) => norm.forward(x, out),
            Norm::PerHead(norms) => {
                let head_dim = norms.first().map_or(1, |n| n.weight.len());
                let heads = x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim));
                for ((x, out), norm) in heads.zip(norms.iter().cycle()) {
                    norm.forward(x, out);
                }
            }
        }
    }

    /// As [`Self::forward`], in place; `scratch` is kept between calls.
    pub fn in_place(&self, x: &mut [f32], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.extend_from_slice(x);
        self.forward(scratch, x);
    }
}
