//! How each tensor is kept, and in which type: shared by loading and by writing files.

use crate::container::TensorInfo;
use crate::models::vision::Role;
use crate::models::{Family, names};
use crate::quant::{DType, Format, KernelForm};

/// `[n, k]` of a tensor that is multiplied, and the number of experts where it is a stack of
/// matrices: rank 2, a convolution kernel of rank 4, or experts of rank 3. What is added or
/// taken element by element is no matrix, whatever its rank.
pub fn matrix_shape(tensor: &TensorInfo) -> Option<(Option<usize>, usize, usize)> {
    match tensor.shape.as_slice() {
        [n_expert, n, k] if tensor.name.contains("_exps.") => Some((Some(*n_expert), *n, *k)),
        [n, rest @ ..] if matches!(rest.len(), 1 | 3) => Some((None, *n, rest.iter().product())),
        _ => None,
    }
}

/// The part of a tensor of that name in a model of that family.
pub fn role(family: Option<&Family>, name: &str, shape: &[usize]) -> Role {
    match family {
        Some(Family::Vision(family)) => (family.role)(&(family.canonical)(name), shape),
        _ if names::is_table(name) => Role::Table,
        _ => Role::Matrix,
    }
}

/// Matrices whose rounding costs far more than it saves: routers, low-rank projections, and
/// position embeddings, which are only added.
pub fn is_kept(name: &str) -> bool {
    name == "position_embd.weight"
        || name.contains(".ffn_gate_inp")
        || name.contains(".time_mix_") && !names::is_rwkv_projection(name)
}

/// Index buffers, masks and the like, which may stand beside the weights of a model.
pub fn holds_no_weights(dtype: DType) -> bool {
    let numbers = [DType::I8, DType::I16, DType::I32, DType::I64, DType::F64];
    dtype.codec().is_err() && (numbers.contains(&dtype) || dtype.format().is_none())
}

/// Whether the type is F32, F16 or BF16.
pub fn is_float(dtype: DType) -> bool {
    let kernel = dtype.codec().map(|(_, codec)| codec.kernel);
    matches!(kernel, Ok(KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16))
}

/// The type, or Q8_0 in place of one with fewer bits.
pub fn at_least_8_bits(target: DType) -> DType {
    let Some(format) = target.format() else { return target };
    if format.block_bytes < format.block_len { DType::Q8_0 } else { target }
}

/// The wanted type, or the next finer one whose blocks divide k.
pub fn fitting(wanted: DType, source: &Format, k: usize) -> DType {
    let fits = |d: &DType| d.format().is_some_and(|f| k.is_multiple_of(f.block_len));
    let plain = if source.dtype == DType::F32 { DType::F16 } else { source.dtype };
    [wanted, DType::Q8_0, plain].into_iter().find(fits).unwrap_or(plain)
}

/// For filters, whose rows can be filled up with zeros: where blocks of 32 do not divide k and `kept` is therefore no
/// quantized type, one that is, and the multiple of 32 that k becomes.
pub fn padding(wanted: DType, kept: DType, k: usize) -> Option<(DType, usize)> {
    let len = |d: DType| d.format().map_or(1, |f| f.block_len);
    let filled = if len(wanted) == 32 { wanted } else { DType::Q8_0 };
    (len(kept) == 1 && len(wanted) > 1).then(|| (filled, k.next_multiple_of(32)))
}
