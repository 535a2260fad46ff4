//! How a model's pictures are prepared, from what its file says.

use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::image::Preprocess;

/// `vit.image_mean`, `vit.image_std`, `vit.crop_pct`; without them timm's recipe for ImageNet.
pub(super) fn read_preprocess(metadata: &Metadata, image_size: usize) -> Result<Preprocess> {
    let bad = |key: &str, rule: &str| Error::new(Code::BadConfig, rule).key(key);
    let triple = |key: &str| match metadata.array(key)? {
        None => Ok(None),
        Some(Array::F32(v)) if v.len() == 3 => Ok(Some([v[0], v[1], v[2]])),
        Some(_) => Err(bad(key, "expected three f32")),
    };
    let crop_pct = metadata.f32("vit.crop_pct")?.unwrap_or(0.875);
    if !(crop_pct > 0.1 && crop_pct <= 1.0) {
        return Err(bad("vit.crop_pct", "not in 0.1 ..= 1"));
    }
    let mut recipe = Preprocess::timm(image_size, f64::from(crop_pct));
    if let Some(mean) = triple("vit.image_mean")? {
        recipe.mean = mean;
    }
    if let Some(std) = triple("vit.image_std")? {
        recipe.std = std;
    }
    recipe.validate()?;
    Ok(recipe)
}
