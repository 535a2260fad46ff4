//! Which type each tensor gets.

use super::{Outline, Target, policy, shapes};
use crate::container::gguf_write::GgufWriter;
use crate::container::{Header, Metadata, TensorInfo, Value};
use crate::error::{Code, Error, Result};
use crate::models::vision::Role;
use crate::quant::DType;
use serde::{Deserialize, Serialize};

/// One tensor of a plan.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// Its name in the written file.
    pub name: String,
    /// Its type there.
    #[serde(rename = "type")]
    pub dtype: String,
    /// Why it is not the one asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Types for the tensors of a model; those it does not name keep 16 bits or what they have.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// In the order of the file.
    pub tensors: Vec<Planned>,
    /// Bytes of the file that comes of it.
    #[serde(default)]
    pub bytes: u64,
    /// Bits of all weights, per weight.
    #[serde(default)]
    pub bits_per_weight: f64,
    /// What it is expected to cost, in the unit of the survey that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_loss: Option<f64>,
}

impl Plan {
    /// One type for all matrices, with the exceptions that loading makes too.
    pub fn uniform(outline: &Outline, header: &Header, wanted: DType) -> Plan {
        let folds = folds(outline);
        let planned = |target: &Target| {
            let source = &header.tensors[target.source];
            let plain = plain_type(target, source);
            let is_matrix = target.matrix().is_some() && !policy::holds_no_weights(source.dtype);
            if !is_matrix || policy::is_kept(&target.name) {
                return Planned { name: target.name.clone(), dtype: plain.name().into(), note: None };
            }
            let asked = if matches!(target.role, Role::Outer | Role::OuterFilter) {
                policy::at_least_8_bits(wanted)
            } else {
                wanted
            };
            let dtype =
                if fits(target, asked, folds) { asked } else { fallback(target, source, asked, folds) };
            let note = (dtype != wanted).then(|| match target.role {
                Role::Outer if dtype == asked => "first and last layers keep at least 8 bits".to_string(),
                _ => format!(
                    "rows of {} are not whole blocks of {}",
                    target.matrix().map_or(0, |m| m.1),
                    asked.name()
                ),
            });
            Planned { name: target.name.clone(), dtype: dtype.name().into(), note }
        };
        Plan { tensors: outline.tensors.iter().map(planned).collect(), ..Plan::default() }
    }

    /// The type of each target.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a type that cannot be written or does not fit, or a name that is no tensor's.
    pub fn types(&self, outline: &Outline, header: &Header) -> Result<Vec<DType>> {
        let folds = folds(outline);
        if let Some(unknown) = self.tensors.iter().find(|p| !outline.tensors.iter().any(|t| t.name == p.name))
        {
            return Err(Error::new(
                Code::BadArgument,
                "the plan names a tensor that the model does not have",
            )
            .key("plan")
            .tensor(&unknown.name));
        }
        let of = |target: &Target| {
            let source = &header.tensors[target.source];
            let Some(planned) = self.tensors.iter().find(|p| p.name == target.name) else {
                return Ok(plain_type(target, source));
            };
            let same = DType::from_name(&planned.dtype).filter(|d| *d == source.dtype);
            let dtype = same.map_or_else(|| super::writable(&planned.dtype, "plan"), Ok);
            let dtype = dtype.map_err(|e| e.tensor(&target.name))?;
            if same.is_none() && !fits(target, dtype, folds) {
                let rule =
                    format!("rows of shape {:?} are not whole blocks of {}", target.shape, dtype.name());
                return Err(Error::new(Code::BadArgument, rule).key("plan").tensor(&target.name));
            }
            Ok(dtype)
        };
        outline.tensors.iter().map(of).collect()
    }
}

/// Whether blocks may reach over rows: only in files that no other program reads.
pub(super) fn folds(outline: &Outline) -> bool {
    crate::models::vision::FAMILIES.iter().any(|f| f.name == outline.architecture)
}

/// Whether a tensor can have that type.
pub(super) fn fits(target: &Target, dtype: DType, folds: bool) -> bool {
    let Some(format) = dtype.format() else { return false };
    match target.matrix() {
        None => format.block_len == 1,
        Some((_, k)) if !folds => k.is_multiple_of(format.block_len) && target.shape.last() == Some(&k),
        Some(matrix) => shapes::declared(&target.shape, matrix, dtype).is_some(),
    }
}

/// The shape to declare for a tensor in that type.
pub(super) fn declared(target: &Target, dtype: DType) -> Vec<usize> {
    let found = target.matrix().and_then(|matrix| shapes::declared(&target.shape, matrix, dtype));
    found.unwrap_or_else(|| target.shape.clone())
}

/// What a tensor is kept as when it is not quantized: vectors and tables as F32, matrices as they are, or
/// halved.
pub(super) fn plain_type(target: &Target, source: &TensorInfo) -> DType {
    match source.dtype {
        d if policy::holds_no_weights(d) || !policy::is_float(d) => d,
        _ if target.matrix().is_none() || target.role == Role::Table => DType::F32,
        DType::F32 if !policy::is_kept(&target.name) => DType::F16,
        d => d,
    }
}

/// The next finer type that fits.
fn fallback(target: &Target, source: &TensorInfo, wanted: DType, folds: bool) -> DType {
    let bits = |d: DType| d.format().map_or(0.0, |f| f.block_bytes as f64 * 8.0 / f.block_len as f64);
    // The block types of 32, as llama.cpp falls back to them.
    let finer = [DType::IQ4_NL, DType::Q5_0, DType::Q5_1, DType::Q8_0];
    let found = finer.into_iter().find(|d| bits(*d) >= bits(wanted) && fits(target, *d, folds));
    found.unwrap_or_else(|| plain_type(target, source))
}

/// A writer that has everything but the data, and the bytes of the data.
pub(super) fn writer(outline: &Outline, types: &[DType]) -> Result<(GgufWriter, u64)> {
    let shapes: Vec<Vec<usize>> =
        outline.tensors.iter().zip(types).map(|(target, dtype)| declared(target, *dtype)).collect();
    let mut metadata = Metadata::default();
    for (key, value) in outline.metadata.iter().filter(|(key, _)| !is_replaced(key)) {
        metadata.push(key.into(), value.clone());
    }
    shapes::record(&mut metadata, &outline.tensors, &shapes);
    metadata.push("general.quantization_version".into(), Value::U64(2));
    if let Some(file_type) = file_type(outline, types) {
        metadata.push("general.file_type".into(), Value::U64(file_type));
    }
    let mut writer = GgufWriter::new();
    for (key, value) in metadata.iter() {
        writer.put(key, value.clone());
    }
    let mut bytes = 0u64;
    for ((target, dtype), shape) in outline.tensors.iter().zip(types).zip(&shapes) {
        writer.tensor(&target.name, *dtype, shape)?;
        let elements = target.n_elements();
        bytes = bytes.saturating_add(dtype.bytes_for(elements).unwrap_or(u64::MAX));
    }
    for extra in &outline.extra {
        writer.tensor(&extra.name, DType::F32, &[extra.values.len()])?;
    }
    Ok((writer, bytes))
}

fn is_replaced(key: &str) -> bool {
    ["general.quantization_version", "general.file_type", "bitpane.shapes"].contains(&key)
        || key.starts_with("split.")
}

/// llama.cpp's number for files mostly of one type.
fn file_type(outline: &Outline, types: &[DType]) -> Option<u64> {
    const NUMBERS: &[(DType, u64)] = &[
        (DType::F32, 0),
        (DType::F16, 1),
        (DType::Q4_0, 2),
        (DType::Q4_1, 3),
        (DType::Q8_0, 7),
        (DType::Q5_0, 8),
        (DType::Q5_1, 9),
        (DType::Q2_K, 10),
        (DType::Q3_K, 12),
        (DType::Q4_K, 15),
        (DType::Q5_K, 17),
        (DType::Q6_K, 18),
        (DType::IQ4_NL, 25),
        (DType::IQ4_XS, 30),
        (DType::BF16, 32),
        (DType::TQ1_0, 36),
        (DType::TQ2_0, 37),
        (DType::MXFP4, 38),
    ];
    let of = |dtype: DType| {
        let same = outline.tensors.iter().zip(types).filter(|(_, d)| **d == dtype);
        same.map(|(t, _)| t.n_elements()).sum::<u64>()
    };
    let counted = NUMBERS.iter().map(|(dtype, number)| (of(*dtype), *number));
    counted.filter(|(n, _)| *n > 0).max_by_key(|(n, _)| *n).map(|(_, number)| number)
}
