//! Building blocks that the architectures share. Quantization stays below [`Linear`].

mod attention;
mod conv;
mod conv2d;
mod dense;
mod linear;
mod lora;
mod mlp;
mod moe;
mod norm;
pub mod observe;
pub mod quantized;
mod rope;
mod ssm;
mod workspace;

pub use attention::{Attention, Heads, QkNorm, Qkv};
pub use conv::CausalConv;
pub use conv2d::{Conv2d, FeatureMap, Filter, Padding, SqueezeExcite, max_pool, padded_product};
pub use dense::{RelativeBias, ScoreBias, dense_attention};
pub use linear::Linear;
pub use lora::Lora;
pub use mlp::{Activation, Mlp, Up};
pub use moe::{Moe, SharedExpert};
pub use norm::{LayerNorm, Norm, RmsNorm};
pub use rope::{Rope, RopePairing, RopeParams, Yarn};
pub use ssm::{Wkv, selective_step, wkv7_step};
pub use workspace::{Batch, Workspace};

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
