//! A model's tensors as they are held in memory, to be kept and taken back: nothing is unpacked, quantized or laid out
//! again.
//!
//! An image is the header of the model's file, to be pushed as the file's own bytes are, and then the bytes of every
//! tensor in the order of the header. Its sizes follow from the header and the options, never from what was kept.

use super::Loader;
use super::collect::{Collect, Current, unusable, values_bytes};
use crate::error::{Code, Error, Result};
use crate::models::{Filters, Tensor};

/// Another number wherever the same file under the same options could have another image: after a change to the
/// layouts of [`repack`](crate::repack), to a quantizer, or to what is held in which type.
pub const IMAGE_VERSION: u32 = 1;

impl Loader {
    /// Bytes of the header, if the model has an image: it must be one file, and one that is read as it arrives.
    pub fn image_header(&self) -> Option<u64> {
        let has_image = self.collect.shards.is_alone() && self.stream.is_streamed();
        self.collect.header.as_ref().filter(|_| has_image).map(|header| header.data_offset)
    }

    /// The bytes of a tensor's image, in pieces; none for a tensor that has not been taken yet.
    pub fn image(&self, idx: usize) -> Vec<&[u8]> {
        let tensor = self.collect.tensor(idx).ok().and_then(|t| self.collect.weights.get(&t.name));
        tensor.map_or_else(Vec::new, Tensor::pieces)
    }

    /// Begins the next tensor, as an image: the pieces to be filled.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where no tensor is left, or bytes of one have come already; otherwise as
    /// [`Self::push`].
    pub fn begin_image(&mut self) -> Result<Vec<&mut [u8]>> {
        let idx = self.collect.n_done;
        if self.collect.current.is_some() || self.image_header().is_none() {
            return Err(Error::new(Code::BadArgument, "an image cannot begin here"));
        }
        let tensor = self.collect.zeroed(idx)?;
        match self.collect.current.insert(Current::Image(tensor)) {
            Current::Image(tensor) => Ok(tensor.pieces_mut()),
            _ => unreachable!("has just been put there"),
        }
    }

    /// What has been filled so far of the tensor that [`Self::begin_image`] began.
    pub fn filled_image(&self) -> Vec<&[u8]> {
        match &self.collect.current {
            Some(Current::Image(tensor)) => tensor.pieces(),
            _ => Vec::new(),
        }
    }

    /// Declares that the pieces of the tensor are filled.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where no image has begun.
    pub fn end_image(&mut self) -> Result<()> {
        let Some(Current::Image(tensor)) = self.collect.current.take() else {
            return Err(Error::new(Code::BadArgument, "no image has begun"));
        };
        let idx = self.collect.n_done;
        let (name, shape) = self.collect.tensor(idx).map(|t| (t.name.clone(), t.shape.clone()))?;
        self.collect.info.weight_bytes += held_bytes(&tensor);
        self.collect.weights.insert(name, shape, tensor);
        self.collect.n_done += 1;
        if self.collect.n_done == self.progress().tensors_total {
            // No byte of the file itself follows.
            self.has_ended = true;
        }
        Ok(())
    }
}

fn held_bytes(tensor: &Tensor) -> u64 {
    match tensor {
        Tensor::Matrix(matrix) => matrix.n_bytes() as u64,
        Tensor::Experts(experts) => experts.iter().map(|m| m.n_bytes() as u64).sum(),
        Tensor::Values(values) => values_bytes(values.len() as u64, false),
        Tensor::Filters(filters) => values_bytes(filters.codes.len() as u64, true),
        Tensor::Raw(bytes) => bytes.len() as u64,
        Tensor::Unusable { .. } => 0,
    }
}

impl Collect {
    /// A tensor as it will be held, of zeros.
    fn zeroed(&mut self, idx: usize) -> Result<Tensor> {
        let (n_bytes, shape) = self.tensor(idx).map(|t| (t.n_bytes, t.shape.clone()))?;
        if n_bytes == 0 {
            return Ok(Tensor::Values(Vec::new()));
        }
        let name = |e: Error, collect: &Self| match collect.tensor(idx) {
            Ok(tensor) => e.tensor(&tensor.name),
            Err(_) => e,
        };
        Ok(match self.start(idx)? {
            Current::Matrix(packer) => Tensor::Matrix(packer.zeros()),
            Current::Experts(experts) => Tensor::Experts(experts.zeros().map_err(|e| name(e, self))?),
            Current::Raw(_) => Tensor::Raw(zeros(n_bytes as usize)?),
            Current::Skipped => unusable(self.tensor(idx)?, self.header.as_ref()),
            Current::Values(_) | Current::Image(_) => {
                let n = shape.iter().product();
                match self.is_rounded(self.tensor(idx)?) {
                    true => Tensor::Filters(Filters { codes: zeros(n)?, scale: zeros(shape[0])? }),
                    false => Tensor::Values(zeros(n)?),
                }
            }
        })
    }
}

fn zeros<T: Clone + Default>(n: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(n)
        .map_err(|e| Error::new(Code::OutOfMemory, format!("{n} values could not be allocated")).source(e))?;
    values.resize(n, T::default());
    Ok(values)
}
