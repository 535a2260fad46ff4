//! DINOv2 (Oquab et al. 2023), with or without registers (Darcet et al. 2024): a ViT with LayerScale whose positions
//! are interpolated to the size of the picture, with SwiGLU in its largest size.

use super::pool::Pool;
use super::tower::TowerSpec;
use super::vit::{self, Classifier};
use super::{Source, VisionArch, VisionFamily, names, transformer_role};
use crate::error::Result;

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "dinov2",
    model_types: &["dinov2", "dinov2_with_registers"],
    is_it: |has| {
        has("patch_embed.proj.weight") && has("blocks.0.ls1.gamma") && has("cls_token") && has("pos_embed")
    },
    canonical: names::transformer,
    role: transformer_role,
    build,
};

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let layers = vit::spec(config, weights, 1e-6)?;
    weights.ignore("mask_token");
    // Hugging Face's classifiers read the class token and the mean of the patches.
    let reads_both = matches!(weights.shape("head.weight"), Some([_, k]) if *k == 2 * layers.n_embd);
    let pool = reads_both.then_some(Pool::TokenAndMean);
    let tower = TowerSpec { layers, rope: None, keep_size: false };
    Ok(Box::new(Classifier::build(config, weights, tower, pool)?))
}
