//! An image classifier with its preprocessing and labels.

use super::ModelInfo;
use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::image::{PixelView, Preprocess, preprocess};
use crate::layers::Mode;
use crate::models::vit::Vit;
use serde::Serialize;

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The class.
    pub index: usize,
    /// Its name, or its number where no names are known.
    pub label: String,
    /// Probability.
    pub score: f32,
    /// Before the softmax.
    pub logit: f32,
}

/// A loaded image classifier.
pub struct VisionModel {
    model: Vit,
    preprocess: Preprocess,
    labels: Vec<String>,
    mode: Mode,
    info: ModelInfo,
}

impl VisionModel {
    pub(super) fn new(model: Vit, metadata: &Metadata, mode: Mode, mut info: ModelInfo) -> Result<Self> {
        let config = model.config();
        info.kind = "vision";
        info.image_size = config.image_size;
        info.n_output = config.n_class;
        let preprocess = read_preprocess(metadata, config.image_size)?;
        let labels = config.labels.clone();
        Ok(VisionModel { model, preprocess, labels, mode, info })
    }

    /// Facts about the model; [`ModelInfo::backend`] is what computes at this moment.
    pub fn info(&self) -> ModelInfo {
        self.info.with_backend(self.mode)
    }

    /// Names of the classes; empty where none are known.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Sets the names of the classes.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where their number is not the model's.
    pub fn set_labels(&mut self, labels: Vec<String>) -> Result<()> {
        if labels.len() != self.info.n_output {
            let rule = format!("{} labels for {} classes", labels.len(), self.info.n_output);
            return Err(Error::new(Code::BadArgument, rule).key("labels"));
        }
        self.labels = labels;
        Ok(())
    }

    /// The `top_k` most probable classes of a picture, best first.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for `top_k` of 0; [`Code::NumericFault`].
    pub fn classify(&mut self, image: &PixelView, top_k: usize) -> Result<Vec<Class>> {
        if top_k == 0 {
            return Err(Error::new(Code::BadArgument, "must be at least 1").key("topK"));
        }
        let pixels = preprocess(image, &self.preprocess)?;
        let logits = self.model.logits(&pixels, self.mode);
        if logits.iter().any(|l| !l.is_finite()) {
            return Err(Error::new(Code::NumericFault, "the model computed NaN or infinity"));
        }
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        let weight = |l: f32| libm::expf(l - max);
        let sum: f32 = logits.iter().map(|&l| weight(l)).sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let class = |&index: &usize| Class {
            index,
            label: self.labels.get(index).cloned().unwrap_or_else(|| format!("class {index}")),
            score: weight(logits[index]) / sum,
            logit: logits[index],
        };
        Ok(order.iter().take(top_k).map(class).collect())
    }

    /// Logits of normalised pixels; `shape` is `[1, 3, size, size]` or `[3, size, size]`.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for another shape or a value that is not finite.
    pub fn logits(&mut self, pixels: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
        let size = self.info.image_size;
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        let inner = if let [1, inner @ ..] = shape { inner } else { shape };
        if inner != [3, size, size] {
            return bad("shape", format!("{shape:?}, expected [1, 3, {size}, {size}]"));
        }
        if pixels.len() != 3 * size * size {
            return bad("pixels", format!("{} values for shape {shape:?}", pixels.len()));
        }
        if let Some(i) = pixels.iter().position(|p| !p.is_finite()) {
            return bad("pixels", format!("value {i} is {}", pixels[i]));
        }
        Ok(self.model.logits(pixels, self.mode))
    }

    /// The pooled feature vector of a picture.
    ///
    /// # Errors
    /// What preprocessing refuses.
    pub fn features(&mut self, image: &PixelView) -> Result<Vec<f32>> {
        let pixels = preprocess(image, &self.preprocess)?;
        Ok(self.model.features(&pixels, self.mode))
    }
}

/// `vit.image_mean`, `vit.image_std`, `vit.crop_pct`; without them timm's recipe for ImageNet.
fn read_preprocess(metadata: &Metadata, image_size: usize) -> Result<Preprocess> {
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
