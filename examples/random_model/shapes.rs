//! The shapes: one row per model. Sizes are those of the published configurations.

/// A decoder-only language model.
pub struct TextShape {
    /// Name on the command line.
    pub name: &'static str,
    /// GGUF architecture.
    pub architecture: &'static str,
    pub n_vocab: usize,
    pub n_embd: usize,
    pub n_ff: usize,
    pub n_layer: usize,
    pub n_head: usize,
    pub n_head_kv: usize,
    pub head_dim: usize,
    pub n_ctx: usize,
    pub rope_base: f32,
    pub rms_epsilon: f32,
    /// RMSNorm on each head of q and k.
    pub has_qk_norm: bool,
    /// The output head is the token embedding.
    pub is_tied: bool,
}

/// Every text shape.
#[rustfmt::skip]
pub const TEXT_SHAPES: &[TextShape] = &[
    TextShape { name: "smollm2-135m", architecture: "llama", n_vocab: 49152, n_embd: 576, n_ff: 1536, n_layer: 30, n_head: 9, n_head_kv: 3, head_dim: 64, n_ctx: 8192, rope_base: 1e5, rms_epsilon: 1e-5, has_qk_norm: false, is_tied: true },
    TextShape { name: "qwen3-0.6b", architecture: "qwen3", n_vocab: 151936, n_embd: 1024, n_ff: 3072, n_layer: 28, n_head: 16, n_head_kv: 8, head_dim: 128, n_ctx: 40960, rope_base: 1e6, rms_epsilon: 1e-6, has_qk_norm: true, is_tied: true },
    TextShape { name: "tinyllama-1.1b", architecture: "llama", n_vocab: 32000, n_embd: 2048, n_ff: 5632, n_layer: 22, n_head: 32, n_head_kv: 4, head_dim: 64, n_ctx: 2048, rope_base: 1e4, rms_epsilon: 1e-5, has_qk_norm: false, is_tied: false },
];

/// A vision transformer with 16x16 patches of a 224x224 image and 1000 classes.
pub struct VisionShape {
    /// Name on the command line.
    pub name: &'static str,
    pub n_embd: usize,
    pub n_layer: usize,
}

/// Every vision shape. The number of heads is not in the file: it is `n_embd / 64`.
pub const VISION_SHAPES: &[VisionShape] = &[
    VisionShape { name: "deit-tiny", n_embd: 192, n_layer: 12 },
    VisionShape { name: "vit-base-16", n_embd: 768, n_layer: 12 },
];
