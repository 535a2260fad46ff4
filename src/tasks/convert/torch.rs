//! A checkpoint of PyTorch to GGUF, tensor by tensor.

use super::Extras;
use crate::container::gguf_write::GgufWriter;
use crate::container::pickle::Element;
use crate::container::torch::{self, TorchTensor};
use crate::error::{Code, Error, Result};
use crate::models::vision::{self, Config};
use crate::quant::DType;
use std::io::{Read, Seek, Write};

/// What a conversion did.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The architecture that the tensors show.
    pub architecture: &'static str,
    /// Tensors written.
    pub n_tensors: usize,
    /// Tensors left out: counters and index tables.
    pub skipped: Vec<String>,
}

/// Converts a checkpoint of `len` bytes. Weights keep their type and get the names that this program knows.
///
/// # Errors
/// What [`torch::read`] refuses; [`Code::UnsupportedArch`] where the tensors are of no known vision model;
/// [`Code::UnsupportedDtype`] with a tensor of 64-bit floats; [`Code::Io`].
pub fn torch_to_gguf(
    file: &mut (impl Read + Seek),
    len: u64,
    out: impl Write,
    extras: &Extras,
) -> Result<Converted> {
    let config = extras.config.as_deref().map(Config::from_json).transpose()?;
    let tensors = torch::read(file, len)?;
    let names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
    let family = vision::find(config.as_ref(), &names).ok_or_else(|| {
        let known: Vec<_> = vision::FAMILIES.iter().map(|f| f.name).collect();
        let rule = format!("the tensors are of no known vision model; supported: {}", known.join(", "));
        Error::new(Code::UnsupportedArch, rule)
    })?;
    let mut writer = GgufWriter::new();
    extras.put(family.name, &mut writer)?;
    let (mut kept, mut skipped) = (Vec::new(), Vec::new());
    for tensor in &tensors {
        match dtype(tensor)? {
            Some(dtype) => {
                let shape = if tensor.shape.is_empty() { &[1][..] } else { &tensor.shape };
                writer.tensor(&(family.canonical)(&tensor.name), dtype, shape)?;
                kept.push(tensor);
            }
            None => skipped.push(tensor.name.clone()),
        }
    }
    let mut data = writer.begin(out)?;
    for tensor in &kept {
        data.write(&tensor.read(file)?)?;
    }
    data.finish()?;
    Ok(Converted { architecture: family.name, n_tensors: kept.len(), skipped })
}

/// The type in GGUF; `None` for what holds no weights.
fn dtype(tensor: &TorchTensor) -> Result<Option<DType>> {
    Ok(match tensor.element {
        Element::F32 => Some(DType::F32),
        Element::F16 => Some(DType::F16),
        Element::Bf16 => Some(DType::BF16),
        Element::I8 => Some(DType::I8),
        Element::I64 | Element::I32 | Element::I16 | Element::U8 | Element::Bool => None,
        Element::F64 => {
            let rule = "weights of 64-bit floats; supported: 32-bit, 16-bit and bfloat16";
            return Err(Error::new(Code::UnsupportedDtype, rule).tensor(&tensor.name));
        }
    })
}
