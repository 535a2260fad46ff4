//! Vision models.

use super::{to_js, to_object};
use crate::image::PixelView;
use crate::tasks;
use wasm_bindgen::prelude::*;

/// A loaded vision model.
#[wasm_bindgen]
pub struct VisionModel {
    inner: tasks::VisionModel,
}

impl VisionModel {
    pub(super) fn new(inner: tasks::VisionModel) -> Self {
        VisionModel { inner }
    }
}

/// Pixels as a canvas gives them: four bytes each, row after row.
fn rgba(data: &[u8], width: usize, height: usize) -> Result<PixelView<'_>, JsValue> {
    PixelView::new(data, width, height, 4).map_err(to_object)
}

#[wasm_bindgen]
impl VisionModel {
    /// [`tasks::ModelInfo`].
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.info())
    }

    /// Sets the names of the classes.
    #[wasm_bindgen(js_name = setLabels)]
    pub fn set_labels(&mut self, labels: Vec<String>) -> Result<(), JsValue> {
        self.inner.set_labels(labels).map_err(to_object)
    }

    /// The `top_k` likeliest classes of an RGBA picture: a list of [`tasks::Class`].
    pub fn classify(
        &mut self,
        data: &[u8],
        width: usize,
        height: usize,
        top_k: usize,
    ) -> Result<JsValue, JsValue> {
        to_js(&self.inner.classify(&rgba(data, width, height)?, top_k).map_err(to_object)?)
    }

    /// The pooled feature vector of an RGBA picture.
    pub fn features(&mut self, data: &[u8], width: usize, height: usize) -> Result<Vec<f32>, JsValue> {
        self.inner.features(&rgba(data, width, height)?).map_err(to_object)
    }

    /// The logits for pixels that are already resized and normalised.
    pub fn logits(&mut self, pixels: &[f32], shape: &[u32]) -> Result<Vec<f32>, JsValue> {
        let shape: Vec<usize> = shape.iter().map(|&side| side as usize).collect();
        self.inner.logits(pixels, &shape).map_err(to_object)
    }
}
