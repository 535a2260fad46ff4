//! Feed-forward layers.

use super::{I, Linear, Norm, Workspace};
use crate::kernels::parallel::{self, work};
use crate::kernels::vecmath;

/// What stands between the products of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e^-x)` (Elfwing et al. 2017).
    Silu,
    /// GELU by tanh (Hendrycks and Gimpel 2016).
    Gelu,
    /// GELU by the error function.
    GeluErf,
    /// `x / (1 + e^(-1.702 x))` (Hendrycks and Gimpel 2016, section 2), as CLIP has it.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2` (So et al. 2021).
    ReluSquared,
    /// `min(max(x, 0), 6)` (Howard et al. 2017).
    Relu6,
    /// `x relu6(x + 3) / 6` (Howard et al. 2019, section 5.2).
    HardSwish,
    /// `relu6(x + 3) / 6`.
    HardSigmoid,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

impl Activation {
    /// Applies it to all of `x`.
    pub fn apply(self, x: &mut [f32]) {
        parallel::chunks(x, 1, work::EXP, &|_, x| match self {
            Activation::Silu => vecmath::silu::<I>(x),
            Activation::Gelu => vecmath::gelu_tanh::<I>(x),
            Activation::GeluErf => vecmath::gelu::<I>(x),
            Activation::QuickGelu => vecmath::quick_gelu::<I>(x),
            Activation::Relu => vecmath::relu::<I>(x),
            Activation::ReluSquared => vecmath::relu_squared::<I>(x),
            Activation::Relu6 => vecmath::relu6::<I>(x),
            Activation::HardSwish => vecmath::hard_swish::<I>(x),
            Activation::HardSigmoid => vecmath::hard_sigmoid::<I>(x),
            Activation::Sigmoid => vecmath::sigmoid::<I>(x),
        });
    }
}

/// The products before the activation.
pub enum Up {
    /// `f(W_up h)`.
    Plain(Linear),
    /// `f(W_gate h) * W_up h` (Shazeer 2020): W_gate and W_up, `[n_ff, n_embd]` each.
    Gated(Box<[Linear; 2]>),
    /// The same with both in one matrix `[2 * n_ff, n_embd]`, the gate first.
    Fused(Linear),
}

/// A feed-forward layer.
pub struct Mlp {
    /// The products before the activation.
    pub up: Up,
    /// The activation.
    pub activation: Activation,
    /// Norm before the last product.
    pub sub_norm: Option<Norm>,
    /// `[n_embd, n_ff]`.
    pub down: Linear,
}

impl Mlp {
    /// `w.out = W_down f(W_up h)`, or with a gate `W_down (f(W_gate h) * W_up h)`, where `h` is
    /// `w.act`.
    pub fn forward(&self, w: &mut Workspace) {
        let n_ff = self.down.weight.k();
        w.gate.resize(w.m * n_ff, 0.0);
        match &self.up {
            Up::Plain(up) => {
                up.forward(&mut w.act, &mut w.gate);
                self.activation.apply(&mut w.gate);
            }
            Up::Gated(products) => {
                let [gate, up] = &**products;
                w.up.resize(w.m * n_ff, 0.0);
                Linear::forward_all([gate, up], &mut w.act, [&mut w.gate, &mut w.up]);
                self.activate_gate(w);
            }
            Up::Fused(both) => {
                w.up.resize(w.m * n_ff, 0.0);
                w.scratch.resize(w.m * 2 * n_ff, 0.0);
                both.forward(&mut w.act, &mut w.scratch);
                for (i, row) in w.scratch.chunks_exact(2 * n_ff).enumerate() {
                    w.gate[i * n_ff..][..n_ff].copy_from_slice(&row[..n_ff]);
                    w.up[i * n_ff..][..n_ff].copy_from_slice(&row[n_ff..]);
                }
                self.activate_gate(w);
            }
        }
        match &self.sub_norm {
            Some(norm) => norm.forward(&w.gate, w.act.fill(w.m, n_ff, w.mode.is_integer())),
            None => w.act.exchange(w.m, n_ff, w.mode.is_integer(), &mut w.gate),
        }
        w.out.resize(w.m * self.down.n(), 0.0);
        self.down.forward(&mut w.act, &mut w.out);
    }

    /// `gate = f(gate) * up`.
    fn activate_gate(&self, w: &mut Workspace) {
        let (activation, up) = (self.activation, &w.up);
        parallel::chunks(&mut w.gate, 1, work::EXP, &|first, gate| {
            let up = &up[first..][..gate.len()];
            match activation {
                Activation::Silu => vecmath::silu_mul::<I>(gate, up),
                Activation::Gelu => vecmath::gelu_tanh_mul::<I>(gate, up),
                other => {
                    other.apply(gate);
                    vecmath::mul::<I>(gate, up);
                }
            }
        });
    }
}
