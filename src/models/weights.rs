//! The tensors of a loaded file, handed out by name with their shapes checked.

use crate::error::{Code, Error, Result};
use crate::layers::{LayerNorm, Linear, Lora};
use crate::repack::PackedWeights;
use std::collections::BTreeMap;

/// One loaded tensor.
pub enum Tensor {
    /// Rank 2 (or a convolution kernel, flattened to `[out, in * height * width]`).
    Matrix(PackedWeights),
    /// Rank 3: one matrix per expert, all of one shape.
    Experts(Vec<PackedWeights>),
    /// Everything else, as f32.
    Values(Vec<f32>),
    /// Filters of one channel each, rounded to 8 bits.
    Filters(Filters),
    /// Bytes of integers, for architectures that compute with them.
    Raw(Vec<u8>),
    /// Of a type that holds no weights: an error for the architecture that asks for it.
    Unusable {
        /// What the error says the rule is.
        code: Code,
        /// The type's name.
        dtype: &'static str,
    },
}

impl Tensor {
    /// The bytes that are held.
    pub fn pieces(&self) -> Vec<&[u8]> {
        match self {
            Tensor::Matrix(matrix) => vec![matrix.bytes()],
            Tensor::Experts(experts) => experts.iter().map(PackedWeights::bytes).collect(),
            Tensor::Values(values) => vec![bytemuck::cast_slice(values)],
            Tensor::Filters(filters) => {
                vec![bytemuck::cast_slice(&filters.codes), bytemuck::cast_slice(&filters.scale)]
            }
            Tensor::Raw(bytes) => vec![bytes],
            Tensor::Unusable { .. } => Vec::new(),
        }
    }

    /// The bytes that are held, to be replaced by what [`Self::pieces`] gave for a tensor of the same kind and shape.
    pub fn pieces_mut(&mut self) -> Vec<&mut [u8]> {
        match self {
            Tensor::Matrix(matrix) => vec![matrix.bytes_mut()],
            Tensor::Experts(experts) => experts.iter_mut().map(PackedWeights::bytes_mut).collect(),
            Tensor::Values(values) => vec![bytemuck::cast_slice_mut(values)],
            Tensor::Filters(filters) => {
                vec![
                    bytemuck::cast_slice_mut(&mut filters.codes),
                    bytemuck::cast_slice_mut(&mut filters.scale),
                ]
            }
            Tensor::Raw(bytes) => vec![bytes],
            Tensor::Unusable { .. } => Vec::new(),
        }
    }
}

/// Filters `[n, taps]` of codes with a scale each: `w = scale * code`.
pub struct Filters {
    /// `[n, taps]`.
    pub codes: Vec<i8>,
    /// `[n]`.
    pub scale: Vec<f32>,
}

impl Filters {
    /// Rounds `n` filters. One with NaN or infinity keeps a scale that is NaN, so that the fault shows.
    pub fn round(values: &[f32], n: usize) -> Self {
        let n_taps = values.len() / n.max(1);
        let mut filters = Filters { codes: Vec::with_capacity(values.len()), scale: Vec::with_capacity(n) };
        for filter in values.chunks_exact(n_taps.max(1)) {
            let largest = filter.iter().fold(0f32, |m, v| m.max(v.abs()));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let is_finite = filter.iter().all(|v| v.is_finite());
            filters.scale.push(if is_finite { largest / 127.0 } else { f32::NAN });
            let code = |v: &f32| (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            filters.codes.extend(filter.iter().map(code));
        }
        filters
    }
}

/// Named tensors with their shapes as stored.
#[derive(Default)]
pub struct Weights {
    tensors: BTreeMap<String, (Vec<usize>, Tensor)>,
    /// By the name of the matrix that they change.
    adapters: BTreeMap<String, Vec<Lora>>,
}

impl Weights {
    /// Adds a tensor.
    pub fn insert(&mut self, name: String, shape: Vec<usize>, tensor: Tensor) {
        self.tensors.insert(name, (shape, tensor));
    }

    /// Gives every tensor the name that `rename` says.
    pub fn rename(&mut self, rename: impl Fn(&str) -> String) {
        let tensors = std::mem::take(&mut self.tensors);
        self.tensors = tensors.into_iter().map(|(name, t)| (rename(&name), t)).collect();
    }

    /// The stored shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// A tensor that has not been taken.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|(_, tensor)| tensor)
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Names not taken yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Drops a tensor that files carry although no forward pass uses it.
    pub fn ignore(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Has the matrix `name` changed by an adapter when it is taken as a linear layer.
    pub(super) fn adapt(&mut self, name: String, lora: Lora) {
        self.adapters.entry(name).or_default().push(lora);
    }

    /// Checks that every adapter has found its layer.
    ///
    /// # Errors
    /// [`Code::UnsupportedArch`] naming a matrix that is no linear layer of this architecture.
    pub fn check_adapters(&self) -> Result<()> {
        match self.adapters.keys().next() {
            None => Ok(()),
            Some(name) => {
                let rule = "an adapter changes this matrix, which this architecture does not allow";
                Err(Error::new(Code::UnsupportedArch, rule).tensor(name))
            }
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Result<(Vec<usize>, Tensor)> {
        let missing = || Error::new(Code::MissingTensor, "the architecture needs this tensor").tensor(name);
        match self.tensors.remove(name).ok_or_else(missing)? {
            (_, Tensor::Unusable { code, dtype }) => {
                Err(Error::new(code, format!("type {dtype} cannot be used as a weight")).tensor(name))
            }
            usable => Ok(usable),
        }
    }

    /// Matrix `name`, which must be `[n, k]`.
    ///
    /// # Errors
    /// [`Code::MissingTensor`], [`Code::ShapeMismatch`]; [`Code::UnsupportedDtype`] or
    /// [`Code::UnsupportedQuant`] where its type holds no weights.
    pub fn matrix(&mut self, name: &str, n: usize, k: usize) -> Result<PackedWeights> {
        match self.take(name)? {
            (_, Tensor::Matrix(m)) if m.n() == n && m.k() == k => Ok(m),
            (shape, _) => Err(mismatch(name, &shape, &[n, k])),
        }
    }

    /// Experts `name`, which must be `[n_expert, n, k]`.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn experts(&mut self, name: &str, n_expert: usize, n: usize, k: usize) -> Result<Vec<PackedWeights>> {
        match self.take(name)? {
            (_, Tensor::Experts(e)) if e.len() == n_expert && e.iter().all(|m| m.n() == n && m.k() == k) => {
                Ok(e)
            }
            (shape, _) => Err(mismatch(name, &shape, &[n_expert, n, k])),
        }
    }

    /// f32 tensor `name` with `len` elements in any shape.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        match self.take(name)? {
            (_, Tensor::Values(v)) if v.len() == len => Ok(v),
            (shape, _) => Err(mismatch(name, &shape, &[len])),
        }
    }

    /// Integers of tensor `name`, `n_bytes` of them in any shape.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn raw(&mut self, name: &str, n_bytes: usize) -> Result<Vec<u8>> {
        match self.take(name)? {
            (_, Tensor::Raw(bytes)) if bytes.len() == n_bytes => Ok(bytes),
            (shape, _) => {
                let rule = format!("shape {shape:?}, expected integers of {n_bytes} bytes");
                Err(Error::new(Code::ShapeMismatch, rule).tensor(name))
            }
        }
    }

    /// f32 tensor `name` of rank 2, which must be `[n, k]`.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn table(&mut self, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
        match self.take(name)? {
            (shape, Tensor::Values(v)) if shape == [n, k] => Ok(v),
            (shape, _) => Err(mismatch(name, &shape, &[n, k])),
        }
    }

    /// As [`Self::matrix`], or `None` where the tensor is absent.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn optional_matrix(&mut self, name: &str, n: usize, k: usize) -> Result<Option<PackedWeights>> {
        if self.has(name) { self.matrix(name, n, k).map(Some) } else { Ok(None) }
    }

    /// Tokens in the vocabulary: the rows of the embedding. A count in the metadata may be stale.
    pub fn n_vocab(&self) -> usize {
        self.shape("token_embd.weight").and_then(|s| s.first().copied()).unwrap_or(1)
    }

    /// As [`Self::values`], or `None` where the tensor is absent.
    ///
    /// # Errors
    /// [`Code::ShapeMismatch`].
    pub fn optional_values(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.values(name, len).map(Some) } else { Ok(None) }
    }

    /// `stem.weight` `[n, k]` with `stem.bias` `[n]` and `stem.scale` where there are such.
    ///
    /// # Errors
    /// [`Code::MissingTensor`], [`Code::ShapeMismatch`].
    pub fn linear(&mut self, stem: &str, n: usize, k: usize) -> Result<Linear> {
        let name = format!("{stem}.weight");
        let weight = self.matrix(&name, n, k)?;
        let bias = self.optional_values(&format!("{stem}.bias"), n)?;
        let scale = self.optional_values(&format!("{stem}.scale"), 1)?.map(|s| s[0]);
        let lora = self.adapters.remove(&name).unwrap_or_default();
        Ok(Linear { name: name.into(), weight, bias, scale, lora })
    }

    /// `stem.weight` and `stem.bias`, `[n]` each.
    ///
    /// # Errors
    /// [`Code::MissingTensor`], [`Code::ShapeMismatch`].
    pub fn layer_norm(&mut self, stem: &str, n: usize, eps: f32) -> Result<LayerNorm> {
        let weight = self.values(&format!("{stem}.weight"), n)?;
        let bias = self.values(&format!("{stem}.bias"), n)?;
        Ok(LayerNorm { weight, bias, eps })
    }
}

fn mismatch(name: &str, got: &[usize], expected: &[usize]) -> Error {
    Error::new(Code::ShapeMismatch, format!("shape {got:?}, expected {expected:?}")).tensor(name)
}
