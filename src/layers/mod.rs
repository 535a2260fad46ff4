//! Building blocks that the architectures share. Quantization stays below [`Linear`].

mod linear;
mod norm;
mod rope;

pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use rope::{Rope, RopePairing};

use crate::kernels::NativePath;
use crate::kernels::act::Activations;
use crate::kernels::path::DotPath;

/// The instruction set that layers compute with.
pub type I = <NativePath as DotPath>::I;

/// How products with integer weights are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Activations quantized to 8 bits per 32: fast.
    #[default]
    Int8,
    /// Float activations against dequantized weights: slow, for reference.
    Float,
}

impl Mode {
    /// Ends the filling of `act`, quantizing it where this mode does.
    pub fn prepare(self, act: &mut Activations) {
        if self == Mode::Int8 {
            act.quantize::<NativePath>();
        }
    }
}
