//! Vision models.

use super::{from_js, to_js, to_object};
use crate::error::{Code, Error};
use crate::image::{PixelView, Region};
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

/// Pixels as a canvas gives them: four bytes each, row after row. `size` is the picture's width and height, and where `data`
/// holds only a part of it that part's column, row, width and height.
fn rgba<'a>(data: &'a [u8], size: &[u32]) -> Result<PixelView<'a>, JsValue> {
    let sides: Vec<usize> = size.iter().map(|&side| side as usize).collect();
    match *sides {
        [width, height] => PixelView::new(data, width, height, 4),
        [width, height, x, y, columns, rows] => {
            let part = Region { x, y, width: columns, height: rows };
            PixelView::of_part(data, part, width, height, 4)
        }
        _ => Err(Error::new(Code::BadArgument, format!("{size:?} is no size")).key("size")),
    }
    .map_err(to_object)
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

    /// The `top_k` likeliest classes of an RGBA picture, here and below as [`rgba`] reads it: a list of [`tasks::Class`].
    pub fn classify(&mut self, data: &[u8], size: &[u32], top_k: usize) -> Result<JsValue, JsValue> {
        to_js(&self.inner.classify(&rgba(data, size)?, top_k).map_err(to_object)?)
    }

    /// Which of some labels fits an RGBA picture: a list of [`tasks::Class`]; `options` are
    /// [`tasks::ZeroShotOptions`].
    #[wasm_bindgen(js_name = zeroShot)]
    pub fn zero_shot(
        &mut self,
        data: &[u8],
        size: &[u32],
        labels: Vec<String>,
        options: JsValue,
    ) -> Result<JsValue, JsValue> {
        let options: tasks::ZeroShotOptions = from_js(options)?;
        let image = rgba(data, size)?;
        to_js(&self.inner.zero_shot(&image, &labels, &options).map_err(to_object)?)
    }

    /// The vector of an RGBA picture, of length 1.
    #[wasm_bindgen(js_name = embedImage)]
    pub fn embed_image(&mut self, data: &[u8], size: &[u32]) -> Result<Vec<f32>, JsValue> {
        self.inner.embed_image(&rgba(data, size)?).map_err(to_object)
    }

    /// The vector of a text, of length 1.
    #[wasm_bindgen(js_name = embedText)]
    pub fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, JsValue> {
        self.inner.embed_text(text).map_err(to_object)
    }

    /// The feature vectors of an RGBA picture's patches.
    pub fn patches(&mut self, data: &[u8], size: &[u32]) -> Result<Values, JsValue> {
        self.inner.patches(&rgba(data, size)?).map(Values::new).map_err(to_object)
    }

    /// How much the model attends to each patch of an RGBA picture; `options` are [`tasks::AttentionOptions`].
    pub fn attention(&mut self, data: &[u8], size: &[u32], options: JsValue) -> Result<Values, JsValue> {
        let options: tasks::AttentionOptions = from_js(options)?;
        let image = rgba(data, size)?;
        self.inner.attention(&image, options).map(Values::new).map_err(to_object)
    }

    /// The pooled feature vector of an RGBA picture.
    pub fn features(&mut self, data: &[u8], size: &[u32]) -> Result<Vec<f32>, JsValue> {
        self.inner.features(&rgba(data, size)?).map_err(to_object)
    }

    /// The logits for pixels that are already resized and normalised.
    pub fn logits(&mut self, pixels: &[f32], shape: &[u32]) -> Result<Vec<f32>, JsValue> {
        let shape: Vec<usize> = shape.iter().map(|&side| side as usize).collect();
        self.inner.logits(pixels, &shape).map_err(to_object)
    }
}

/// Values with their shape.
#[wasm_bindgen]
pub struct Values {
    inner: crate::models::vision::Values,
}

impl Values {
    fn new(inner: crate::models::vision::Values) -> Self {
        Values { inner }
    }
}

#[wasm_bindgen]
impl Values {
    /// Outermost dimension first.
    #[wasm_bindgen(getter)]
    pub fn shape(&self) -> Vec<u32> {
        self.inner.shape.iter().map(|&n| n as u32).collect()
    }

    /// The values, row-major; they are taken out.
    #[wasm_bindgen(js_name = takeValues)]
    pub fn take_values(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.inner.values)
    }
}
