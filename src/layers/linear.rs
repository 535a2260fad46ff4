//! `y = x W^T * scale + b`.

use super::{Lora, observe};
use crate::kernels::{Product, act::Activations, matmul_many};
use crate::repack::PackedWeights;

/// A matrix product with an optional scale and bias.
pub struct Linear {
    /// The name of the weight in its file.
    pub name: Box<str>,
    /// `[n, k]`.
    pub weight: PackedWeights,
    /// `[n]`.
    pub bias: Option<Vec<f32>>,
    /// Of the whole matrix, for files whose blocks hold only a part of the scale.
    pub scale: Option<f32>,
    /// What adapters add.
    pub lora: Vec<Lora>,
}

impl Linear {
    /// `out[m, n] = act[m, k] . weight^T * scale + bias`, plus what adapters add.
    pub fn forward(&self, act: &mut Activations, out: &mut [f32]) {
        Linear::forward_all([self], act, [out]);
    }

    /// [`Self::forward`] of several layers on the same input, which is quicker than one after
    /// another: their products are shared among threads as one.
    pub fn forward_all<const N: usize>(
        layers: [&Linear; N],
        act: &mut Activations,
        mut outs: [&mut [f32]; N],
    ) {
        layers.iter().for_each(|layer| observe::seen(&layer.name, act));
        let mut outs_left = outs.iter_mut();
        let mut products = layers.map(|layer| match outs_left.next() {
            Some(out) => Product {
                w: &layer.weight,
                out,
                bias: layer.bias.as_deref().filter(|_| layer.scale.is_none()),
            },
            None => unreachable!("N of each"),
        });
        matmul_many(act, None, &mut products);
        for (layer, out) in layers.iter().zip(outs) {
            layer.scale_and_bias(out);
            layer.lora.iter().for_each(|lora| lora.add(act, out));
        }
    }

    /// What products with a scale lack; others have their bias.
    fn scale_and_bias(&self, out: &mut [f32]) {
        let Some(scale) = self.scale else { return };
        out.iter_mut().for_each(|o| *o *= scale);
        for row in out.chunks_exact_mut(self.n()) {
            if let Some(bias) = &self.bias {
                row.iter_mut().zip(bias).for_each(|(o, b)| *o += b);
            }
        }
    }

    /// Outputs.
    pub fn n(&self) -> usize {
        self.weight.n()
    }
}
