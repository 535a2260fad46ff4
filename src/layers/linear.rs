//! `y = x W^T + b`.

use crate::kernels::{act::Activations, matmul};
use crate::repack::PackedWeights;

/// A matrix product with an optional bias.
pub struct Linear {
    /// `[n, k]`.
    pub weight: PackedWeights,
    /// `[n]`.
    pub bias: Option<Vec<f32>>,
}

impl Linear {
    /// `out[m, n] = act[m, k] . weight^T + bias`.
    pub fn forward(&self, act: &mut Activations, out: &mut [f32]) {
        matmul(act, &self.weight, out);
        if let Some(bias) = &self.bias {
            for row in out.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
            }
        }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.weight.n()
    }
}
