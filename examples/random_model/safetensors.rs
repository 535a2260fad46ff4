//! Vision models: safetensors with timm's tensor names.

use crate::io_error;
use crate::shapes::VisionShape;
use crate::weights::{Fill, Random, write_tensor};
use bitpane::quant::DType;
use bitpane::{Code, Error, Result};
use std::io::Write;

const IMAGE_SIZE: usize = 224;
const PATCH_SIZE: usize = 16;
const N_CLASS: usize = 1000;

struct Tensor {
    name: String,
    shape: Vec<usize>,
    fill: Fill,
}

/// Writes the whole file; `dtype` is F32 or F16.
///
/// # Errors
/// Another type; a failed write.
pub fn write(shape: &VisionShape, dtype: DType, out: &mut impl Write) -> Result<()> {
    if dtype != DType::F32 && dtype != DType::F16 {
        return Err(Error::new(Code::BadArgument, "vision shapes are written as F32 or F16").key("--type"));
    }
    let tensors = tensors(shape);
    let header = header(&tensors, dtype);
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io_error)?;
    out.write_all(header.as_bytes()).map_err(io_error)?;
    let mut random = Random::new(1);
    for tensor in &tensors {
        let write = |bytes: &[u8]| out.write_all(bytes).map_err(io_error);
        write_tensor(&mut random, tensor.shape.iter().product(), dtype, tensor.fill, write)?;
    }
    Ok(())
}

fn header(tensors: &[Tensor], dtype: DType) -> String {
    let mut offset = 0;
    let mut entries = serde_json::Map::new();
    for tensor in tensors {
        let n_elements: usize = tensor.shape.iter().product();
        let end = offset + dtype.bytes_for(n_elements as u64).unwrap_or(0);
        let entry = serde_json::json!({
            "dtype": dtype.name(), "shape": tensor.shape, "data_offsets": [offset, end],
        });
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::Value::Object(entries).to_string();
    // The data that follows should start aligned.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    header
}

fn tensors(shape: &VisionShape) -> Vec<Tensor> {
    let n = shape.n_embd;
    let n_patch = (IMAGE_SIZE / PATCH_SIZE).pow(2);
    let mut list = vec![
        tensor("cls_token", &[1, 1, n], Fill::Random),
        tensor("pos_embed", &[1, n_patch + 1, n], Fill::Random),
        tensor("patch_embed.proj.weight", &[n, 3, PATCH_SIZE, PATCH_SIZE], Fill::Random),
        tensor("patch_embed.proj.bias", &[n], Fill::Random),
    ];
    for i in 0..shape.n_layer {
        list.extend(norm(&format!("blocks.{i}.norm1"), n));
        list.extend(linear(&format!("blocks.{i}.attn.qkv"), 3 * n, n));
        list.extend(linear(&format!("blocks.{i}.attn.proj"), n, n));
        list.extend(norm(&format!("blocks.{i}.norm2"), n));
        list.extend(linear(&format!("blocks.{i}.mlp.fc1"), 4 * n, n));
        list.extend(linear(&format!("blocks.{i}.mlp.fc2"), n, 4 * n));
    }
    list.extend(norm("norm", n));
    list.extend(linear("head", N_CLASS, n));
    list
}

fn tensor(name: &str, shape: &[usize], fill: Fill) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), fill }
}

fn linear(name: &str, n_out: usize, n_in: usize) -> [Tensor; 2] {
    [
        tensor(&format!("{name}.weight"), &[n_out, n_in], Fill::Random),
        tensor(&format!("{name}.bias"), &[n_out], Fill::Random),
    ]
}

fn norm(name: &str, n: usize) -> [Tensor; 2] {
    [tensor(&format!("{name}.weight"), &[n], Fill::Ones), tensor(&format!("{name}.bias"), &[n], Fill::Random)]
}
