//! What the layers of a forward pass work on.

use super::{I, Mode, Norm, Rope};
use crate::kernels::act::Activations;
use crate::kernels::parallel::{self, work};
use crate::kernels::vecmath;

/// Tokens that pass through a model together.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How many.
    pub m: usize,
    /// Position of the first.
    pub first_pos: usize,
    /// Tokens that the context has room for.
    pub n_ctx: usize,
    /// How products with integer weights are computed.
    pub mode: Mode,
}

/// The residual stream, the input and output of the layer at work, and buffers, all kept between
/// calls so that no pass allocates once they have grown.
#[derive(Default)]
pub struct Workspace {
    /// Tokens of the batch.
    pub m: usize,
    /// Position of the first of them.
    pub first_pos: usize,
    /// How products with integer weights are computed.
    pub mode: Mode,
    /// Position rotations; layers refer to them by index.
    pub ropes: Vec<Rope>,
    /// The residual stream, `[m, n_embd]`.
    pub x: Vec<f32>,
    /// Input of the next products.
    pub act: Activations,
    /// What the last layer gave, `[m, n_embd]`.
    pub out: Vec<f32>,
    /// An output that waits while another layer works on the same input.
    pub side: Vec<f32>,
    /// Buffers of the layer at work; what they hold does not outlast it.
    pub qkv: Vec<f32>,
    /// As `qkv`.
    pub q: Vec<f32>,
    /// As `qkv`.
    pub k: Vec<f32>,
    /// As `qkv`.
    pub v: Vec<f32>,
    /// As `qkv`.
    pub gate: Vec<f32>,
    /// As `qkv`.
    pub up: Vec<f32>,
    /// As `qkv`; norms use it too.
    pub scratch: Vec<f32>,
    /// How many of the first tokens go on once the next attention layer has taken everybody's keys and values, where
    /// nobody asks for the others.
    pub first_only: Option<usize>,
    /// Where attention layers append their weights, `[n_head, m, m]`, where somebody wants to see them.
    pub map: Option<Vec<f32>>,
    pub(super) moe: super::moe::Scratch,
}

/// `x = x + y`, on all threads.
fn add(x: &mut [f32], y: &[f32]) {
    parallel::chunks(x, 1, work::ADD, &|first, x| vecmath::add::<I>(x, &y[first..][..x.len()]));
}

impl Workspace {
    /// A workspace with these rotations.
    pub fn new(ropes: Vec<Rope>) -> Self {
        Workspace { ropes, ..Workspace::default() }
    }

    /// Begins a batch with a residual stream `n_embd` wide.
    pub fn begin(&mut self, batch: Batch, n_embd: usize) {
        let Batch { m, first_pos, n_ctx, mode } = batch;
        (self.m, self.first_pos, self.mode) = (m, first_pos, mode);
        self.x.resize(m * n_embd, 0.0);
        self.ropes.iter_mut().for_each(|rope| rope.prepare(first_pos, m, n_ctx));
    }

    /// Leaves the tokens behind which go no further. What the few that do are multiplied with need not be rounded, then.
    pub(super) fn narrow(&mut self) {
        let Some(n) = self.first_only.take().filter(|&n| n < self.m) else { return };
        for x in [&mut self.x, &mut self.q] {
            x.truncate(x.len() / self.m * n);
        }
        (self.m, self.mode) = (n, Mode::Float);
    }

    /// Room for the next input, `[m, k]`.
    pub fn fill(&mut self, k: usize) -> &mut [f32] {
        self.act.fill(self.m, k, self.mode.is_integer())
    }

    /// The next input is `norm(x)`.
    pub fn input_norm(&mut self, norm: &Norm) {
        let k = self.x.len() / self.m;
        norm.forward(&self.x, self.act.fill(self.m, k, self.mode.is_integer()));
    }

    /// The next input is `x` itself.
    pub fn input_plain(&mut self) {
        let k = self.x.len() / self.m;
        self.act.fill(self.m, k, self.mode.is_integer()).copy_from_slice(&self.x);
    }

    /// `out = norm(out)`.
    pub fn norm_out(&mut self, norm: &Norm) {
        norm.in_place(&mut self.out, &mut self.scratch);
    }

    /// `out = out * scale`.
    pub fn scale_out(&mut self, scale: f32) {
        if scale != 1.0 {
            self.out.iter_mut().for_each(|o| *o *= scale);
        }
    }

    /// `side = out`.
    pub fn keep_out(&mut self) {
        std::mem::swap(&mut self.out, &mut self.side);
    }

    /// `x = x + out`.
    pub fn add_out(&mut self) {
        add(&mut self.x, &self.out);
    }

    /// `x = x + side`.
    pub fn add_side(&mut self) {
        add(&mut self.x, &self.side);
    }

    /// `x = norm(x)`.
    pub fn norm_x(&mut self, norm: &Norm) {
        norm.in_place(&mut self.x, &mut self.scratch);
    }
}
