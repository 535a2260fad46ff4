//! Mixtures of experts (Shazeer et al. 2017; Fedus et al. 2021): a router gives each token to a few of
//! many feed-forward layers.

use super::{Activation, I, Linear, Mlp, Workspace};
use crate::kernels::act::Activations;
use crate::kernels::{Product, matmul, matmul_many, vecmath};
use crate::repack::PackedWeights;

/// A mixture of gated feed-forward layers.
pub struct Moe {
    /// `[n_expert, n_embd]`.
    pub router: Linear,
    /// One `[n_ff, n_embd]` per expert.
    pub gate: Vec<PackedWeights>,
    /// One `[n_ff, n_embd]` per expert.
    pub up: Vec<PackedWeights>,
    /// One `[n_embd, n_ff]` per expert.
    pub down: Vec<PackedWeights>,
    /// The activation of the experts.
    pub activation: Activation,
    /// Experts that work on a token, at most as many as there are.
    pub n_used: usize,
    /// Whether the shares of the used experts are made to sum to one.
    pub normalize: bool,
    /// A layer that works on every token.
    pub shared: Option<SharedExpert>,
}

/// What works on every token beside the experts.
pub struct SharedExpert {
    /// The layer.
    pub mlp: Mlp,
    /// `[n_embd]`: its output is multiplied with the sigmoid of this times the input.
    pub gate: Option<Vec<f32>>,
}

/// A token's share of an expert.
#[derive(Clone, Copy)]
struct Slot {
    expert: usize,
    token: usize,
    share: f32,
}

/// Buffers, kept between calls.
#[derive(Default)]
pub(super) struct Scratch {
    /// `[m, n_expert]`.
    probabilities: Vec<f32>,
    slots: Vec<Slot>,
    /// Tokens of the expert at work.
    rows: Vec<usize>,
    hidden: Activations,
    /// What the expert gives, `[rows, n_embd]`.
    part: Vec<f32>,
    /// What all experts give, `[m, n_embd]`.
    sum: Vec<f32>,
    /// The gates of the shared expert, `[m]`.
    gates: Vec<f32>,
}

impl Moe {
    /// `w.out = sum over the n_used likeliest experts e of p_e E_e(h)`, plus the shared expert, where
    /// `h` is `w.act` and `p = softmax(W_router h)`. Of equally likely experts the first are used;
    /// the sum runs in the order of the experts, whatever the batch.
    pub fn forward(&self, w: &mut Workspace) {
        let n_embd = self.router.weight.k();
        self.route(w);
        w.moe.sum.clear();
        w.moe.sum.resize(w.m * n_embd, 0.0);
        let mut slots = w.moe.slots.as_slice();
        while let Some(first) = slots.first() {
            let n = slots.iter().take_while(|s| s.expert == first.expert).count();
            let (of_expert, rest) = slots.split_at(n);
            w.moe.rows.clear();
            w.moe.rows.extend(of_expert.iter().map(|s| s.token));
            let (rows, hidden, part) = (&w.moe.rows, &mut w.moe.hidden, &mut w.moe.part);
            let n_ff = self.down[first.expert].k();
            w.gate.resize(n * n_ff, 0.0);
            w.up.resize(n * n_ff, 0.0);
            let gate = Product::new(&self.gate[first.expert], &mut w.gate);
            let up = Product::new(&self.up[first.expert], &mut w.up);
            matmul_many(&mut w.act, Some(rows), &mut [gate, up]);
            self.activation.apply(&mut w.gate);
            vecmath::mul::<I>(&mut w.gate, &w.up);
            hidden.fill(n, n_ff, w.mode.is_integer()).copy_from_slice(&w.gate);
            part.resize(n * n_embd, 0.0);
            matmul(hidden, &self.down[first.expert], part);
            for (slot, part) in of_expert.iter().zip(part.chunks_exact(n_embd)) {
                let sum = &mut w.moe.sum[slot.token * n_embd..][..n_embd];
                sum.iter_mut().zip(part).for_each(|(s, p)| *s += slot.share * p);
            }
            slots = rest;
        }
        if let Some(shared) = &self.shared {
            shared.forward(w);
            vecmath::add::<I>(&mut w.out, &w.moe.sum);
        } else {
            std::mem::swap(&mut w.out, &mut w.moe.sum);
        }
    }

    /// Fills `slots`, ordered by expert, then by token.
    fn route(&self, w: &mut Workspace) {
        let n_expert = self.router.n();
        let Scratch { probabilities, slots, .. } = &mut w.moe;
        probabilities.resize(w.m * n_expert, 0.0);
        self.router.forward(&mut w.act, probabilities);
        slots.clear();
        for (token, p) in probabilities.chunks_exact_mut(n_expert).enumerate() {
            vecmath::softmax::<I>(p);
            let first = slots.len();
            for _ in 0..self.n_used {
                let expert = vecmath::argmax::<I>(p);
                slots.push(Slot { expert, token, share: p[expert] });
                p[expert] = f32::NEG_INFINITY;
            }
            if self.normalize {
                let sum: f32 = slots[first..].iter().map(|s| s.share).sum();
                slots[first..].iter_mut().for_each(|s| s.share /= sum);
            }
        }
        slots.sort_unstable_by_key(|s| (s.expert, s.token));
    }
}

impl SharedExpert {
    /// `w.out = sigmoid(gate . h) F(h)`, where `h` is `w.act`.
    fn forward(&self, w: &mut Workspace) {
        let Some(gate) = &self.gate else { return self.mlp.forward(w) };
        let dot = |h: &[f32]| h.iter().zip(gate).map(|(h, g)| h * g).sum::<f32>();
        w.moe.gates.clear();
        w.moe.gates.extend(w.act.x().chunks_exact(gate.len()).map(dot));
        vecmath::sigmoid::<I>(&mut w.moe.gates);
        self.mlp.forward(w);
        for (out, gate) in w.out.chunks_exact_mut(gate.len()).zip(&w.moe.gates) {
            out.iter_mut().for_each(|o| *o *= gate);
        }
    }
}
