//! Building blocks that the architectures share. Quantization stays below [`Linear`].

mod linear;
mod norm;
mod rope;

pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use rope::{Rope, RopePairing};

/// The instruction set that layers compute with.
pub type I = crate::kernels::isa::Native;

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
    /// Whether integer weights meet quantized activations.
    pub fn is_integer(self) -> bool {
        self == Mode::Int8
    }
}
