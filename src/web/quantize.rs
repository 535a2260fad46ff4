//! Files of fewer bits: measuring, planning, writing.

use super::loader::ShardIndex;
use super::{from_js, to_js, to_object};
use crate::container::Header;
use crate::container::joining::Joined;
use crate::container::stream::{Sink, Stream};
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

/// The headers of a model in several files, which have to be known before the first tensor is worked on.
#[wasm_bindgen]
#[derive(Default)]
pub struct Headers {
    found: Vec<Header>,
    stream: Option<Stream>,
    index: Option<crate::container::shards::ShardIndex>,
}

/// Keeps a header and lets the weights go.
struct HeaderOnly<'a>(&'a mut Vec<Header>);

impl Sink for HeaderOnly<'_> {
    fn header(&mut self, header: &Header) -> crate::Result<()> {
        let mut header = header.clone();
        quantizer::restore_shapes(&mut header)?;
        self.0.push(header);
        Ok(())
    }

    fn tensor_bytes(&mut self, _: usize, _: &[u8]) -> crate::Result<()> {
        Ok(())
    }

    fn tensor_end(&mut self, _: usize) -> crate::Result<()> {
        Ok(())
    }
}

#[wasm_bindgen]
impl Headers {
    /// None yet; the index that lists the files, if there is one.
    #[wasm_bindgen(constructor)]
    pub fn new(index: Option<ShardIndex>) -> Headers {
        Headers { index: index.map(ShardIndex::into_inner), ..Headers::default() }
    }

    /// Declares that the next byte is the first of the next file, whose length is given where it is certain.
    #[wasm_bindgen(js_name = nextFile)]
    pub fn next_file(&mut self, file_len: Option<f64>) {
        self.stream = Some(Stream::new(file_len.map(|n| n as u64)));
    }

    /// Takes the next bytes of the file; whether its header is complete, after which the rest is not needed.
    pub fn push(&mut self, bytes: &[u8]) -> Result<bool, JsValue> {
        let Some(stream) = &mut self.stream else { return Ok(true) };
        let before = self.found.len();
        stream.push(bytes, &mut HeaderOnly(&mut self.found)).map_err(to_object)?;
        let is_complete = self.found.len() > before;
        if is_complete {
            self.stream = None;
        }
        Ok(is_complete)
    }

    /// Says what is wrong with a file that ended before its header was complete.
    #[wasm_bindgen(js_name = endFile)]
    pub fn end_file(&mut self) -> Result<(), JsValue> {
        match self.stream.take() {
            Some(mut stream) => stream.finish(&mut HeaderOnly(&mut self.found)).map_err(to_object),
            None => Ok(()),
        }
    }
}

/// Makes of a file's header what takes in its tensors.
type Make<S> = Box<dyn FnOnce(&Header) -> crate::Result<S>>;

/// What takes one file as it arrives, or several whose headers are known.
fn arriving<S: Sink + 'static>(
    headers: Option<Headers>,
    file_len: Option<f64>,
    make: Make<S>,
) -> Result<Arriving<S>, JsValue> {
    match headers {
        None => Ok(Arriving::new(file_len.map(|n| n as u64), make)),
        Some(Headers { found, index, .. }) => {
            let joined = Joined::of(found, index).map_err(to_object)?;
            Arriving::of_files(joined, make).map_err(to_object)
        }
    }
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
    /// For one file, whose length is given where it is certain, or for several, whose headers are given.
    #[wasm_bindgen(constructor)]
    pub fn new(
        options: JsValue,
        file_len: Option<f64>,
        headers: Option<Headers>,
    ) -> Result<Surveyor, JsValue> {
        let MeasureOptions { types, allow_nonfinite, files } = from_js(options)?;
        let types = types.iter().map(|name| writable(name, "types")).collect::<crate::Result<Vec<_>>>();
        let types = types.map_err(to_object)?;
        let make = move |header: &Header| {
            let options = SurveyOptions { types, zero_nonfinite: allow_nonfinite, calibration: None };
            quantizer::Surveyor::new(header, Outline::of(header, &files)?, options)
        };
        Ok(Surveyor { inner: arriving(headers, file_len, Box::new(make))? })
    }

    /// Of several files, declares that the next byte is the first of the next.
    #[wasm_bindgen(js_name = nextFile)]
    pub fn next_file(&mut self, file_len: Option<f64>) -> Result<(), JsValue> {
        self.inner.next_file(file_len.map(|n| n as u64)).map_err(to_object)
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
    /// A writer for one type or a plan; for one file, whose length is given where it is certain, or for several, whose
    /// headers are given.
    #[wasm_bindgen(constructor)]
    pub fn new(
        options: JsValue,
        file_len: Option<f64>,
        headers: Option<Headers>,
    ) -> Result<Quantizer, JsValue> {
        let given: WriteOptions = from_js(options)?;
        let dtype =
            given.r#type.as_deref().map(|name| writable(name, "type")).transpose().map_err(to_object)?;
        if dtype.is_some() == given.plan.is_some() {
            let rule = "either a type or a plan is needed";
            return Err(to_object(Error::new(Code::BadArgument, rule).key("type")));
        }
        let make = move |header: &Header| {
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
        Ok(Quantizer { inner: arriving(headers, file_len, Box::new(make))? })
    }

    /// Of several files, declares that the next byte is the first of the next.
    #[wasm_bindgen(js_name = nextFile)]
    pub fn next_file(&mut self, file_len: Option<f64>) -> Result<Vec<u8>, JsValue> {
        self.inner.next_file(file_len.map(|n| n as u64)).map_err(to_object)?;
        Ok(self.inner.sink().map_or_else(Vec::new, |(sink, _)| std::mem::take(sink.output())))
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
