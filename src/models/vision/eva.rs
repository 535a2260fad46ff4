//! EVA (Fang et al. 2023) and EVA-02 (Fang et al. 2024): keys without bias, the mean of the patches; in EVA-02 SwiGLU
//! with a norm in it, and patches turned by row and column beside learned positions.

use super::tower::{MakeRope, TowerSpec};
use super::vit::{self, Classifier};
use super::{Source, VisionArch, VisionFamily, Weights, names, transformer_role};
use crate::error::Result;
use crate::layers::{Rope, RopePairing};

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "eva",
    model_types: &["eva", "eva02"],
    is_it: |has| {
        has("patch_embed.proj.weight")
            && has("pos_embed")
            && (has("blocks.0.attn.q_bias") || has("blocks.0.mlp.gate.weight"))
    },
    canonical: names::transformer,
    role: transformer_role,
    build,
};

/// Rows and columns that positions are counted in, whatever the picture's.
const REFERENCE_SIDE: f64 = 16.0;

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let mut layers = vit::spec(config, weights, 1e-6)?;
    let head_dim = layers.n_embd / layers.n_head;
    let mut rope: Option<MakeRope> = None;
    if config.flag("use_rot_pos_emb", has_gate(weights)) {
        if !head_dim.is_multiple_of(4) {
            return Err(config.bad("num_heads", format!("heads of {head_dim}, not a multiple of 4")));
        }
        let base = f64::from(config.positive("rope_temperature", 1e4)?);
        let reference = match config.dim("ref_feat_shape")? {
            Some(side) => side as f64,
            None => REFERENCE_SIDE,
        };
        layers.rope = Some(0);
        rope = Some(Box::new(move |rows, cols, n_prefix| {
            rotation((rows, cols), n_prefix, head_dim, base, reference)
        }));
    }
    let tower = TowerSpec { layers, rope, keep_size: true };
    Ok(Box::new(Classifier::build(config, weights, tower, None)?))
}

/// Whether it is EVA-02.
fn has_gate(weights: &Weights) -> bool {
    let rows = |name: &str, i: usize| weights.shape(name).and_then(|s| s.get(i).copied());
    weights.has("blocks.0.mlp.gate.weight")
        || rows("blocks.0.mlp.fc1.weight", 0) == rows("blocks.0.mlp.fc2.weight", 1).map(|n_ff| 2 * n_ff)
}

/// The first half of the pairs of neighbours turns with the row, the second with the column: by
/// `position / base^(4 i / head_dim)`.
fn rotation(
    (rows, cols): (usize, usize),
    n_prefix: usize,
    head_dim: usize,
    base: f64,
    reference: f64,
) -> Rope {
    let n = head_dim / 4;
    let mut angles = vec![0.0; n_prefix * 2 * n];
    let turn = |at: usize, len: usize, i: usize| {
        at as f64 / len as f64 * reference / libm::pow(base, i as f64 / n as f64)
    };
    for y in 0..rows {
        for x in 0..cols {
            angles.extend((0..n).map(|i| turn(y, rows, i)));
            angles.extend((0..n).map(|i| turn(x, cols, i)));
        }
    }
    Rope::fixed(RopePairing::Adjacent, &angles, 2 * n)
}
