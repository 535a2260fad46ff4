//! BEiT (Bao et al. 2022): a ViT whose scores get a bias by the relative place of two patches, from a table of each
//! layer or one for all.

use super::tower::{TowerShape, TowerSpec};
use super::vit::{self, Classifier};
use super::{Source, VisionArch, VisionFamily, Weights, names, transformer_role};
use crate::error::{Code, Error, Result};
use crate::layers::RelativeBias;
use std::sync::Arc;

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "beit",
    model_types: &["beit", "data2vec-vision", "beitv2"],
    is_it: |has| {
        has("patch_embed.proj.weight") && (has("blocks.0.attn.relative_position_bias_table") || has(SHARED))
    },
    canonical: names::transformer,
    role: transformer_role,
    build,
};

const SHARED: &str = "rel_pos_bias.relative_position_bias_table";

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let spec = vit::spec(config, weights, 1e-12)?;
    for name in ["mask_token", "rel_pos_bias.relative_position_index"] {
        weights.ignore(name);
    }
    let n_layer = super::block::n_layer(weights, "blocks")?;
    let mut tables = Vec::with_capacity(n_layer);
    let mut side = None;
    for i in 0..n_layer {
        let own = format!("blocks.{i}.attn.relative_position_bias_table");
        weights.ignore(&format!("blocks.{i}.attn.relative_position_index"));
        let name = if weights.has(&own) { own } else { SHARED.into() };
        tables.push(match weights.shape(&name) {
            None => None,
            Some(shape) => {
                let rule = format!("shape {shape:?}, expected [(2 n - 1)^2 + 3, {}]", spec.n_head);
                let bad = || Error::new(Code::ShapeMismatch, rule).tensor(&name);
                let [n_relative, n_head] = *shape else { return Err(bad()) };
                let across = n_relative.saturating_sub(3).isqrt();
                if n_head != spec.n_head || across % 2 == 0 || across * across + 3 != n_relative {
                    return Err(bad());
                }
                let found = across.div_ceil(2);
                if *side.get_or_insert(found) != found {
                    return Err(Error::new(Code::ShapeMismatch, "tables of two sizes").tensor(&name));
                }
                Some(take(weights, &name, n_relative, n_head)?)
            }
        });
    }
    weights.ignore(SHARED);
    let size = side.map(|side| side * TowerShape::read(weights).map_or(1, |shape| shape.patch_size));
    let tower = TowerSpec { layers: spec, rope: None, keep_size: true };
    let mut model = Classifier::build(config, weights, tower, None)?;
    if let (Some(side), Some(size)) = (side, size) {
        let index = index(side);
        let info = model.info_mut();
        if info.image_size != size {
            let rule =
                format!("{} pixels, but the table of relative positions is for {size}", info.image_size);
            return Err(config.bad("image_size", rule));
        }
        // The table could be interpolated, but no two implementations agree how.
        info.any_size = false;
        for (layer, table) in model.tower_mut().layers_mut().iter_mut().zip(&tables) {
            if let Some(table) = table {
                layer.set_bias(RelativeBias::new(table, spec.n_head, index.clone()));
            }
        }
    }
    Ok(Box::new(model))
}

/// A table; the shared one stays, for other layers want it too.
fn take(weights: &mut Weights, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
    let table = weights.table(name, n, k)?;
    if name == SHARED {
        weights.insert(name.into(), vec![n, k], crate::models::Tensor::Values(table.clone()));
    }
    Ok(table)
}

/// Which relative place each pair of tokens is: of patches by row and column, and of the class token to patches, of
/// patches to it, and to itself, which are the last three.
fn index(side: usize) -> Arc<[u32]> {
    let m = side * side + 1;
    let across = 2 * side - 1;
    let n_relative = across * across + 3;
    let place = |from: usize, to: usize| match (from, to) {
        (0, 0) => n_relative - 1,
        (0, _) => n_relative - 3,
        (_, 0) => n_relative - 2,
        (from, to) => {
            let (from, to) = (from - 1, to - 1);
            (from / side + side - 1 - to / side) * across + from % side + side - 1 - to % side
        }
    };
    (0..m * m).map(|i| place(i / m, i % m) as u32).collect()
}
