//! Tensors as they arrive, and in what form they are kept.

use super::overrides::Override;
use super::{Config, Error, LoadOptions, ModelInfo, Result};
use crate::container::joining::Shards;
use crate::container::stream::Sink;
use crate::container::{ContainerKind, Header, TensorInfo, safetensors};
use crate::error::Code;
use crate::kernels;
use crate::models::vision::Role;
use crate::models::{Family, Filters, Tensor, Weights, identify};
use crate::quant::{DType, KernelForm, ROUNDED};
use crate::quantizer::policy::{
    self, at_least_8_bits, fitting, holds_no_weights, is_kept, matrix_shape, padding,
};
use crate::quantizer::restore_shapes;
use crate::repack::Packer;
use crate::tasks::experts::Experts;
use crate::tasks::memory::Needs;

/// Receives tensors and keeps them in kernel order.
#[derive(Default)]
pub(super) struct Collect {
    pub(super) target: Option<DType>,
    pub(super) overrides: Vec<Override>,
    pub(super) config: Option<Config>,
    pub(super) options: LoadOptions,
    pub(super) shards: Shards,
    /// What the files so far hold together, with the metadata of the first.
    pub(super) header: Option<Header>,
    /// Tensors of the files before the current one.
    pub(super) n_before: usize,
    pub(super) family: Option<Family>,
    pub(super) weights: Weights,
    pub(super) current: Option<Current>,
    pub(super) n_done: usize,
    pub(super) info: ModelInfo,
}

/// The tensor being received.
pub(super) enum Current {
    Matrix(Box<Packer>),
    Experts(Box<Experts>),
    Values(Vec<u8>),
    Raw(Vec<u8>),
    /// As it will be held, of which the pieces are filled from elsewhere.
    Image(Tensor),
    Skipped,
}

impl Collect {
    pub(super) fn tensor(&self, idx: usize) -> Result<&TensorInfo> {
        let missing = || Error::new(Code::BadOffset, "tensor data without a header");
        self.header.as_ref().and_then(|h| h.tensors.get(self.n_before + idx)).ok_or_else(missing)
    }

    /// Checks that no file is missing.
    pub(super) fn check_complete(&self) -> Result<()> {
        match self.shards.is_last() {
            true => Ok(()),
            false => Err(Error::new(Code::ShardMismatch, "shards of the model are missing").key("source")),
        }
    }

    /// The type in which a matrix `[_, k]` is kept, and its k there: rows of filters are filled up with zeros
    /// where blocks do not divide them.
    fn kept_as(&self, tensor: &TensorInfo, target: Option<DType>, k: usize) -> Result<(DType, usize)> {
        let (format, codec) = tensor.dtype.codec()?;
        let is_float = matches!(codec.kernel, KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16);
        let role = self.role(tensor);
        let asked = self.overrides.iter().find(|o| is_float && o.fits(&tensor.name));
        let wanted = match target {
            _ if asked.is_some() => asked.map_or(tensor.dtype, |o| o.dtype),
            Some(target) if is_float && !is_kept(&tensor.name) => {
                let is_outer = matches!(role, Role::Outer | Role::OuterFilter);
                if is_outer { at_least_8_bits(target) } else { target }
            }
            // The reference mode computes with the values of the file, whatever they take.
            _ if self.options.reference && ROUNDED.contains(&tensor.dtype) => return Ok((DType::F32, k)),
            _ => return Ok((tensor.dtype, k)),
        };
        let kept = fitting(wanted, format, k);
        let is_filter = matches!(role, Role::Filter | Role::OuterFilter);
        Ok(padding(wanted, kept, k).filter(|_| is_filter).unwrap_or((kept, k)))
    }

    pub(super) fn start(&mut self, idx: usize) -> Result<Current> {
        let tensor = self.tensor(idx)?;
        if self.is_raw(tensor) {
            return Ok(Current::Raw(Vec::new()));
        }
        if holds_no_weights(tensor.dtype) {
            return Ok(Current::Skipped);
        }
        let named = |e: Error| e.tensor(&tensor.name);
        let (_, codec) = tensor.dtype.codec().map_err(named)?;
        let Some((n_expert, n, k)) = self.as_matrix(tensor) else {
            return Ok(Current::Values(Vec::new()));
        };
        let is_float = matches!(codec.kernel, KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16);
        let asked = self.overrides.iter().find(|o| is_float && o.fits(&tensor.name));
        let (target, padded_k) = self.kept_as(tensor, self.target, k).map_err(named)?;
        let rounded = (target == tensor.dtype && ROUNDED.contains(&target))
            .then(|| format!("tensors of type {} are held as 8-bit codes, rounded", target.name()))
            .filter(|note| !self.info.notes.contains(note));
        let wanted = asked.map(|o| o.dtype).or(self.target);
        let note = (is_float && !is_kept(&tensor.name) && wanted.is_some_and(|t| t != target))
            .then(|| format!("tensor {:?} is kept as {}", tensor.name, target.name()));
        let held = target.held_as().unwrap_or_default();
        let held = if target == tensor.dtype { held } else { format!("{}: {held}", target.name()) };
        let dtype = tensor.dtype.name();
        let current = match n_expert {
            None => {
                let packer = Packer::padded(tensor.dtype, target, n, k, padded_k).map_err(named)?;
                kernels::hold(packer.packing());
                Current::Matrix(Box::new(packer))
            }
            Some(n_expert) => {
                let experts = Experts::new(tensor.dtype, target, n_expert, n, k).map_err(named)?;
                Current::Experts(Box::new(experts))
            }
        };
        self.info.notes.extend(note.into_iter().chain(rounded));
        self.info.formats.insert(dtype, held);
        Ok(current)
    }

    fn role(&self, tensor: &TensorInfo) -> Role {
        policy::role(self.family.as_ref(), &tensor.name, &tensor.shape)
    }

    /// Whether a tensor is kept as the bytes that it is.
    pub(super) fn is_raw(&self, tensor: &TensorInfo) -> bool {
        self.role(tensor) == Role::Raw && [DType::I8, DType::I32].contains(&tensor.dtype)
    }

    /// Whether a depthwise convolution's filters are held as codes.
    pub(super) fn is_rounded(&self, tensor: &TensorInfo) -> bool {
        let is_quantized = self.target.is_some_and(|t| at_least_8_bits(t) == DType::Q8_0);
        is_quantized && self.role(tensor) == Role::Depthwise
    }

    /// Number of experts, n and k of a tensor that is held as a matrix.
    fn as_matrix(&self, tensor: &TensorInfo) -> Option<(Option<usize>, usize, usize)> {
        matrix_shape(tensor).filter(|_| !matches!(self.role(tensor), Role::Table | Role::Depthwise))
    }

    /// Bytes in memory of the weights of all files so far, if float ones are quantized to `target`.
    fn weight_bytes(&self, header: &Header, target: Option<DType>) -> u64 {
        let bytes = |tensor: &TensorInfo| {
            if self.is_raw(tensor) {
                return Some(tensor.n_bytes);
            }
            if holds_no_weights(tensor.dtype) {
                return Some(0);
            }
            let n_elements = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
            match self.as_matrix(tensor) {
                None => Some(values_bytes(n_elements, self.is_rounded(tensor))),
                Some((n_expert, n, k)) => {
                    let (kept, k) = self.kept_as(tensor, target, k).ok()?;
                    Packer::n_bytes(kept, n, k)?.checked_mul(n_expert.unwrap_or(1) as u64)
                }
            }
        };
        // A tensor that cannot be packed is refused when its turn comes.
        header.tensors.iter().filter_map(bytes).fold(0, u64::saturating_add)
    }

    /// Compares what the model will take with what there is.
    fn check_memory(&self, header: &Header) -> Result<()> {
        let needs = Needs::of(
            header,
            &self.info.architecture,
            matches!(self.family, Some(Family::Text(_))),
            self.weight_bytes(header, self.target),
            &self.options,
        );
        let smaller = [DType::Q8_0, DType::Q4_0].map(|t| (t.name(), self.weight_bytes(header, Some(t))));
        needs.check(self.options.memory_limit, &smaller)
    }
}

/// What a tensor of a type without codec becomes: refused where it is used.
pub(super) fn unusable(tensor: &TensorInfo, header: Option<&Header>) -> Tensor {
    match header.map(|h| h.kind) {
        Some(ContainerKind::Safetensors) => Tensor::Unusable {
            code: Code::UnsupportedDtype,
            dtype: safetensors::dtype_name(tensor.dtype).unwrap_or(tensor.dtype.name()),
        },
        _ => Tensor::Unusable { code: Code::UnsupportedQuant, dtype: tensor.dtype.name() },
    }
}

/// Bytes of values that are not multiplied as a matrix.
pub(super) fn values_bytes(n: u64, is_rounded: bool) -> u64 {
    if is_rounded { n } else { n.saturating_mul(4) }
}

impl Sink for Collect {
    fn header(&mut self, header: &Header) -> Result<()> {
        let mut restored = header.clone();
        restore_shapes(&mut restored)?;
        let header = &restored;
        self.shards.take(header, self.header.as_ref())?;
        let whole = match self.header.take() {
            None => header.clone(),
            Some(mut whole) => {
                self.n_before = whole.tensors.len();
                whole.tensors.extend(header.tensors.iter().cloned());
                whole
            }
        };
        let n_elements = |t: &TensorInfo| t.shape.iter().map(|&d| d as u64).product::<u64>();
        self.info.parameters = whole.tensors.iter().map(n_elements).fold(0, u64::saturating_add);
        match identify(&whole, self.config.as_ref()) {
            Ok((family, architecture)) => {
                self.info.architecture = architecture;
                self.family = Some(family);
            }
            // Of safetensors it is the names of tensors that tell, which may all be in later files.
            Err(_) if whole.kind == ContainerKind::Safetensors && !self.shards.is_last() => {}
            Err(e) => return Err(e),
        }
        self.check_memory(&whole)?;
        self.header = Some(whole);
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.start(idx)?,
        };
        match &mut current {
            Current::Matrix(packer) => {
                if let Err(e) = packer.push(bytes) {
                    return Err(e.tensor(&self.tensor(idx)?.name));
                }
            }
            Current::Experts(experts) => {
                if let Err(e) = experts.push(bytes) {
                    return Err(e.tensor(&self.tensor(idx)?.name));
                }
            }
            Current::Values(held) | Current::Raw(held) => held.extend_from_slice(bytes),
            Current::Skipped => {}
            Current::Image(_) => {
                return Err(Error::new(Code::BadArgument, "bytes of the file follow the image of a tensor"));
            }
        }
        self.current = Some(current);
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        let current = self.current.take();
        let tensor = self.tensor(idx)?;
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        let loaded = match current {
            Some(Current::Matrix(packer)) => {
                let packed = packer.finish().map_err(|e| e.tensor(&name))?;
                self.info.weight_bytes += packed.n_bytes() as u64;
                Tensor::Matrix(packed)
            }
            Some(Current::Experts(experts)) => {
                let packed = experts.finish().map_err(|e| e.tensor(&name))?;
                self.info.weight_bytes += packed.iter().map(|m| m.n_bytes() as u64).sum::<u64>();
                Tensor::Experts(packed)
            }
            Some(Current::Values(bytes)) => {
                let (format, codec) = tensor.dtype.codec()?;
                let mut values = vec![0f32; bytes.len() / format.block_bytes * format.block_len];
                (codec.dequantize)(&bytes, &mut values);
                let is_rounded = self.is_rounded(tensor);
                self.info.weight_bytes += values_bytes(values.len() as u64, is_rounded);
                match is_rounded {
                    true => Tensor::Filters(Filters::round(&values, shape[0])),
                    false => Tensor::Values(values),
                }
            }
            Some(Current::Raw(bytes)) => {
                self.info.weight_bytes += bytes.len() as u64;
                Tensor::Raw(bytes)
            }
            Some(Current::Image(tensor)) => tensor,
            Some(Current::Skipped) => unusable(tensor, self.header.as_ref()),
            // A tensor without elements has no bytes.
            None => Tensor::Values(Vec::new()),
        };
        self.weights.insert(name, shape, loaded);
        self.n_done += 1;
        Ok(())
    }
}
