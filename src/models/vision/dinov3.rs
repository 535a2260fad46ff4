//! DINOv3 (Siméoni et al. 2025): registers, LayerScale, and instead of learned positions a rotation by where a patch's
//! centre is between -1 and 1.

use super::pool::Pool;
use super::tower::TowerSpec;
use super::vit::{self, Classifier};
use super::{Source, VisionArch, VisionFamily, names, transformer_role};
use crate::error::Result;
use crate::layers::{Rope, RopePairing};

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "dinov3",
    model_types: &["dinov3_vit"],
    is_it: |has| has("patch_embed.proj.weight") && has("reg_token") && has("cls_token") && !has("pos_embed"),
    canonical: names::transformer,
    role: transformer_role,
    build,
};

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let mut layers = vit::spec(config, weights, 1e-5)?;
    layers.rope = Some(0);
    weights.ignore("mask_token");
    let head_dim = layers.n_embd / layers.n_head;
    if !head_dim.is_multiple_of(4) {
        return Err(config.bad("num_attention_heads", format!("heads of {head_dim}, not a multiple of 4")));
    }
    let base = f64::from(config.positive("rope_theta", 100.0)?);
    let rope =
        move |rows: usize, cols: usize, n_prefix: usize| rotation(rows, cols, n_prefix, head_dim, base);
    let tower = TowerSpec { layers, rope: Some(Box::new(rope)), keep_size: false };
    Ok(Box::new(Classifier::build(config, weights, tower, Some(Pool::Token))?))
}

/// A quarter of the pairs of halves turns with the row, a quarter with the column: by `2 pi c / base^(4 i / head_dim)`.
fn rotation(rows: usize, cols: usize, n_prefix: usize, head_dim: usize, base: f64) -> Rope {
    let n = head_dim / 4;
    let mut angles = vec![0.0; n_prefix * 2 * n];
    let centre = |i: usize, len: usize| 2.0 * (i as f64 + 0.5) / len as f64 - 1.0;
    let turn = |at: f64, i: usize| std::f64::consts::TAU * at / libm::pow(base, i as f64 / n as f64);
    for y in 0..rows {
        for x in 0..cols {
            angles.extend((0..n).map(|i| turn(centre(y, rows), i)));
            angles.extend((0..n).map(|i| turn(centre(x, cols), i)));
        }
    }
    Rope::fixed(RopePairing::Halves, &angles, 2 * n)
}
