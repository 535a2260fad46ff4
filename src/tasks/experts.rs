//! Rank-3 tensors: matrices of one shape, one after the other (the experts of a layer).

use crate::error::{Code, Error, Result};
use crate::kernels;
use crate::quant::DType;
use crate::repack::{PackedWeights, Packer};

/// Packs a stack of matrices as its bytes arrive.
pub(super) struct Experts {
    source: DType,
    target: DType,
    /// `[n, k]` of each.
    shape: (usize, usize),
    n_expert: usize,
    /// File bytes of each, and how many of them the one being received has.
    expert_bytes: usize,
    n_received: usize,
    packer: Option<Packer>,
    done: Vec<PackedWeights>,
}

impl Experts {
    /// A packer of `n_expert` matrices `[n, k]`.
    ///
    /// # Errors
    /// As [`Packer::new`].
    pub fn new(source: DType, target: DType, n_expert: usize, n: usize, k: usize) -> Result<Self> {
        // What is wrong with the types or the shape shows before the first byte.
        let packer = Packer::new(source, target, n, k)?;
        kernels::hold(packer.packing());
        let (format, _) = source.codec()?;
        let row_bytes = k / format.block_len * format.block_bytes;
        let overflow =
            || Error::new(Code::Overflow, format!("{n} x {k} weights do not fit the address space"));
        let expert_bytes = row_bytes.checked_mul(n).ok_or_else(overflow)?;
        Ok(Experts {
            source,
            target,
            shape: (n, k),
            n_expert,
            expert_bytes,
            n_received: 0,
            packer: Some(packer),
            done: Vec::new(),
        })
    }

    /// Takes the next file bytes.
    ///
    /// # Errors
    /// As [`Packer::push`], and [`Code::OutOfMemory`].
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let mut packer = match self.packer.take() {
                Some(packer) => packer,
                None => Packer::new(self.source, self.target, self.shape.0, self.shape.1)?,
            };
            let (now, rest) = bytes.split_at((self.expert_bytes - self.n_received).min(bytes.len()));
            packer.push(now)?;
            self.n_received += now.len();
            bytes = rest;
            if self.n_received < self.expert_bytes {
                self.packer = Some(packer);
            } else {
                self.done.push(packer.finish()?);
                self.n_received = 0;
            }
        }
        Ok(())
    }

    /// All matrices as they will be held, of zeros.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn zeros(self) -> Result<Vec<PackedWeights>> {
        let (n, k) = self.shape;
        (0..self.n_expert).map(|_| Packer::new(self.source, self.target, n, k).map(Packer::zeros)).collect()
    }

    /// The matrices.
    ///
    /// # Errors
    /// [`Code::Truncated`] where bytes are missing.
    pub fn finish(self) -> Result<Vec<PackedWeights>> {
        if self.done.len() == self.n_expert {
            return Ok(self.done);
        }
        Err(Error::new(Code::Truncated, "bytes of the matrices are missing"))
    }
}
