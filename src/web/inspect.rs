//! What the header of a model file says.

use super::{to_js, to_object};
use crate::container::stream::Sink;
use crate::container::{ContainerKind, Header, Metadata, TensorInfo, Value};
use crate::error::Result as CrateResult;
use crate::models::{Family, identify};
use crate::tasks::opening::Opening;
use serde::Serialize;
use std::collections::BTreeMap;
use wasm_bindgen::prelude::*;

/// Reads a model file until its header is complete.
#[wasm_bindgen]
pub struct Inspector {
    opening: Opening,
    found: Found,
}

#[wasm_bindgen]
impl Inspector {
    /// An inspector; `file_len` is given where it is certain.
    #[wasm_bindgen(constructor)]
    pub fn new(file_len: Option<f64>) -> Inspector {
        Inspector { opening: Opening::new(file_len.map(|n| n as u64)), found: Found(None) }
    }

    /// Takes the next bytes; the summary as soon as the header is complete, else `undefined`.
    pub fn push(&mut self, bytes: &[u8]) -> Result<JsValue, JsValue> {
        self.opening.push(bytes, &mut self.found).map_err(to_object)?;
        self.summary()
    }

    /// The summary of a file that has no header, a .tflite file, once no byte follows; or what is wrong with one that ended
    /// before its header was complete.
    pub fn finish(&mut self) -> Result<JsValue, JsValue> {
        self.opening.finish(&mut self.found).map_err(to_object)?;
        if let (Some(summary), true) = (&mut self.found.0, self.opening.was_tflite()) {
            summary.container = "tflite";
        }
        self.summary()
    }
}

impl Inspector {
    fn summary(&self) -> Result<JsValue, JsValue> {
        match &self.found.0 {
            Some(summary) => to_js(summary),
            None => Ok(JsValue::UNDEFINED),
        }
    }
}

/// Keeps the header and lets the weights go.
struct Found(Option<Summary>);

impl Sink for Found {
    fn header(&mut self, header: &Header) -> CrateResult<()> {
        self.0 = Some(Summary::of(header));
        Ok(())
    }

    fn tensor_bytes(&mut self, _idx: usize, _bytes: &[u8]) -> CrateResult<()> {
        Ok(())
    }

    fn tensor_end(&mut self, _idx: usize) -> CrateResult<()> {
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    container: &'static str,
    kind: Option<&'static str>,
    architecture: Option<String>,
    parameters: u64,
    bits_per_weight: f64,
    weight_bytes: u64,
    tensors: Vec<TensorSummary>,
    metadata: BTreeMap<String, Plain>,
}

#[derive(Serialize)]
struct TensorSummary {
    name: String,
    #[serde(rename = "type")]
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: u64,
}

impl Summary {
    fn of(header: &Header) -> Self {
        let known = identify(header, None).ok();
        let parameters: u64 = header.tensors.iter().map(n_elements).sum();
        let weight_bytes: u64 = header.tensors.iter().map(|tensor| tensor.n_bytes).sum();
        Summary {
            container: match header.kind {
                ContainerKind::Gguf => "gguf",
                ContainerKind::Safetensors => "safetensors",
            },
            kind: known.as_ref().map(|(family, _)| match family {
                Family::Text(_) => "text",
                Family::Encoder(_) => "encoder",
                Family::Vision(_) => "vision",
            }),
            architecture: known.map(|(_, name)| name).or_else(|| declared(&header.metadata)),
            parameters,
            bits_per_weight: weight_bytes as f64 * 8.0 / parameters.max(1) as f64,
            weight_bytes,
            tensors: header.tensors.iter().map(summarize).collect(),
            metadata: header.metadata.iter().map(|(key, value)| (key.into(), Plain::of(value))).collect(),
        }
    }
}

/// The architecture that the file claims, supported or not.
fn declared(metadata: &Metadata) -> Option<String> {
    metadata.str("general.architecture").ok().flatten().map(String::from)
}

fn n_elements(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().map(|&side| side as u64).product()
}

fn summarize(tensor: &TensorInfo) -> TensorSummary {
    TensorSummary {
        name: tensor.name.clone(),
        dtype: tensor.dtype.name(),
        shape: tensor.shape.clone(),
        bytes: tensor.n_bytes,
    }
}

/// Metadata as JavaScript sees it. Arrays are given by their length: vocabularies are long.
#[derive(Serialize)]
#[serde(untagged)]
enum Plain {
    Number(f64),
    Bool(bool),
    Text(String),
    Array { length: usize },
}

impl Plain {
    fn of(value: &Value) -> Self {
        match value {
            Value::U64(n) => Plain::Number(*n as f64),
            Value::I64(n) => Plain::Number(*n as f64),
            Value::F32(n) => Plain::Number(f64::from(*n)),
            Value::F64(n) => Plain::Number(*n),
            Value::Bool(flag) => Plain::Bool(*flag),
            Value::Str(bytes) => Plain::Text(String::from_utf8_lossy(bytes).into_owned()),
            Value::Array(array) => Plain::Array { length: array.len() },
        }
    }
}
