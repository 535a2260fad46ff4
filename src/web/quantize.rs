//! Files of fewer bits: measuring, planning, writing.

use super::{from_js, to_js, to_object};
use crate::error::{Code, Error};
use crate::quantizer::{
    self, Arriving, Budget, Files, Outline, Plan, RewriteOptions, Rewriter, Survey, SurveyOptions, writable,
};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MeasureOptions {
    types: Vec<String>,
    allow_nonfinite: bool,
    files: Files,
}

/// Measures what each type would cost each tensor of a file.
#[wasm_bindgen]
pub struct Surveyor {
    inner: Arriving<quantizer::Surveyor>,
}

/// How far a pass over a file is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PassProgress {
    tensors_done: usize,
    tensors_total: usize,
}

#[wasm_bindgen]
impl Surveyor {
    /// `file_len` is given where it is certain.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue, file_len: Option<f64>) -> Result<Surveyor, JsValue> {
        let MeasureOptions { types, allow_nonfinite, files } = from_js(options)?;
        let types = types.iter().map(|name| writable(name, "types")).collect::<crate::Result<Vec<_>>>();
        let types = types.map_err(to_object)?;
        let inner = Arriving::new(
            file_len.map(|n| n as u64),
            Box::new(move |header| {
                let options = SurveyOptions { types, zero_nonfinite: allow_nonfinite, calibration: None };
                quantizer::Surveyor::new(header, Outline::of(header, &files)?, options)
            }),
        );
        Ok(Surveyor { inner })
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        self.inner.push(bytes).map_err(to_object)
    }

    /// How far the pass is.
    pub fn progress(&mut self) -> Result<JsValue, JsValue> {
        let (done, total) = self.inner.sink().map_or((0, 0), |(sink, n)| (sink.tensors_done(), n));
        to_js(&PassProgress { tensors_done: done, tensors_total: total })
    }

    /// The [`Survey`], after the last byte.
    pub fn finish(self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.finish().map_err(to_object)?.finish())
    }
}

fn survey_of(survey: JsValue) -> Result<Survey, JsValue> {
    from_js(survey)
}

/// The [`Plan`] of least expected loss within a [`Budget`].
#[wasm_bindgen(js_name = planQuantization)]
pub fn plan_quantization(survey: JsValue, budget: JsValue) -> Result<JsValue, JsValue> {
    let budget: Budget = from_js(budget)?;
    to_js(&survey_of(survey)?.plan(&budget).map_err(to_object)?)
}

/// Size against expected loss, of all plans that cannot be improved on.
#[wasm_bindgen(js_name = qualityCurve)]
pub fn quality_curve(survey: JsValue) -> Result<JsValue, JsValue> {
    to_js(&survey_of(survey)?.curve())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WriteOptions {
    r#type: Option<String>,
    plan: Option<Plan>,
    allow_requantize: bool,
    allow_nonfinite: bool,
    nearest: bool,
    files: Files,
}

/// Writes a quantized file while its source arrives.
#[wasm_bindgen]
pub struct Quantizer {
    inner: Arriving<Rewriter<Vec<u8>>>,
}

#[wasm_bindgen]
impl Quantizer {
    /// A writer for one type or a plan; `file_len` is given where it is certain.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue, file_len: Option<f64>) -> Result<Quantizer, JsValue> {
        let given: WriteOptions = from_js(options)?;
        let dtype =
            given.r#type.as_deref().map(|name| writable(name, "type")).transpose().map_err(to_object)?;
        if dtype.is_some() == given.plan.is_some() {
            let rule = "either a type or a plan is needed";
            return Err(to_object(Error::new(Code::BadArgument, rule).key("type")));
        }
        let make = move |header: &_| {
            let outline = Outline::of(header, &given.files)?;
            let plan = match (dtype, given.plan) {
                (Some(dtype), _) => Plan::uniform(&outline, header, dtype),
                (None, plan) => plan.unwrap_or_default(),
            };
            let options = RewriteOptions {
                requantize: given.allow_requantize,
                zero_nonfinite: given.allow_nonfinite,
                nearest: given.nearest,
                calibration: None,
            };
            Rewriter::new(header, outline, &plan, options, Vec::new())
        };
        Ok(Quantizer { inner: Arriving::new(file_len.map(|n| n as u64), Box::new(make)) })
    }

    /// Takes the next bytes of the source; the next bytes of the new file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, JsValue> {
        self.inner.push(bytes).map_err(to_object)?;
        Ok(self.inner.sink().map_or_else(Vec::new, |(sink, _)| std::mem::take(sink.output())))
    }

    /// How far the pass is.
    pub fn progress(&mut self) -> Result<JsValue, JsValue> {
        let (done, total) = self.inner.sink().map_or((0, 0), |(sink, n)| (sink.tensors_done(), n));
        to_js(&PassProgress { tensors_done: done, tensors_total: total })
    }

    /// The last bytes of the new file and the [`quantizer::Report`].
    pub fn finish(self) -> Result<Written, JsValue> {
        let (bytes, report) = self.inner.finish().and_then(Rewriter::finish).map_err(to_object)?;
        Ok(Written { bytes, report })
    }
}

/// The end of a written file.
#[wasm_bindgen]
pub struct Written {
    bytes: Vec<u8>,
    report: quantizer::Report,
}

#[wasm_bindgen]
impl Written {
    /// The last bytes.
    #[wasm_bindgen(js_name = takeBytes)]
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// What became of the file.
    pub fn report(&self) -> Result<JsValue, JsValue> {
        to_js(&self.report)
    }
}
