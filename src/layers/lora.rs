//! Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, eq. 3): `y += s B (A x)`.

use crate::kernels::{act::Activations, matmul};
use crate::repack::PackedWeights;
use std::cell::RefCell;

/// What an adapter adds to one matrix `[n, k]`.
pub struct Lora {
    a: PackedWeights,
    b: PackedWeights,
    scale: f32,
    scratch: RefCell<Scratch>,
}

#[derive(Default)]
struct Scratch {
    low: Activations,
    sum: Vec<f32>,
}

impl Lora {
    /// `a` is `[rank, k]`, `b` is `[n, rank]`.
    pub fn new(a: PackedWeights, b: PackedWeights, scale: f32) -> Self {
        Lora { a, b, scale, scratch: RefCell::default() }
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        self.a.n_bytes() + self.b.n_bytes()
    }

    /// `out[m, n] += scale * (act[m, k] . a^T) . b^T`.
    pub fn add(&self, act: &mut Activations, out: &mut [f32]) {
        let Scratch { low, sum } = &mut *self.scratch.borrow_mut();
        // In float from here on: the rank is small, and rounding twice would cost more than it saves.
        matmul(act, &self.a, low.fill(act.m(), self.a.n(), false));
        sum.resize(out.len(), 0.0);
        matmul(low, &self.b, sum);
        out.iter_mut().zip(sum).for_each(|(o, s)| *o += self.scale * *s);
    }
}
