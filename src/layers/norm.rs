//! Normalisations over the last dimension.

use super::I;
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
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            vecmath::rms_norm::<I>(x, &self.weight, self.eps, out);
        }
    }
}

/// Layer norm: `(x - mean) / sqrt(var + eps) * weight + bias`.
pub struct LayerNorm {
    /// `[n_embd]`.
    pub weight: Vec<f32>,
    /// `[n_embd]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises each row of `x` into `out`; both `[m, n_embd]`.
    pub fn forward(&self, x: &[f32], out: &mut [f32]) {
        let n = self.weight.len();
        for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
            vecmath::layer_norm::<I>(x, &self.weight, &self.bias, self.eps, out);
        }
    }
}
