//! Where a product goes: `[m, n]` floats that several threads fill, each its own columns.

use crate::repack::NR;
use std::marker::PhantomData;
use std::ops::Range;

/// The output of a product, row-major. Copies share it; each writer keeps to its own strips.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    start: *mut f32,
    m: usize,
    n: usize,
    /// `[n]`, which each writer adds to what it writes last.
    bias: Option<&'a [f32]>,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: every access goes through `columns`, whose callers touch disjoint columns.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    /// All of `out`, `[m, n]`.
    ///
    /// # Panics
    /// Where the length is not `m * n`: a bug in the caller.
    pub fn new(out: &'a mut [f32], m: usize, n: usize) -> Self {
        assert_eq!(out.len(), m * n, "output is not m x n");
        Output { start: out.as_mut_ptr(), m, n, bias: None, lifetime: PhantomData }
    }

    /// The same with a bias of `n`.
    ///
    /// # Panics
    /// Where the length is another: a bug in the caller.
    pub fn with_bias(self, bias: Option<&'a [f32]>) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == self.n), "a bias of another length");
        Output { bias, ..self }
    }

    /// The bias of up to `N` columns.
    #[inline(always)]
    pub(super) fn bias<const N: usize>(&self, columns: &Range<usize>) -> Option<[f32; N]> {
        // Columns of padding have none.
        self.bias.filter(|_| !columns.is_empty()).map(|bias| {
            let mut part = [0.0; N];
            part[..columns.len()].copy_from_slice(&bias[columns.clone()]);
            part
        })
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }

    /// `len` columns of a row, from `first` on.
    ///
    /// # Safety
    /// Nobody else reads or writes these columns while the slice lives.
    ///
    /// # Panics
    /// Where they are not within the output.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // that is what the contract is about
    pub unsafe fn columns(&self, row: usize, first: usize, len: usize) -> &'a mut [f32] {
        assert!(row < self.m && first <= self.n && len <= self.n - first, "outside of the output");
        // SAFETY: within the output (asserted); exclusive, as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.n + first), len) }
    }

    /// Writes the columns of strip `i` that exist: of one row, by the strip's only writer.
    #[inline(always)]
    pub(super) fn write_strip(&self, i: usize, columns: &[f32; NR]) {
        let len = (self.n - i * NR).min(NR);
        // SAFETY: a strip has one writer.
        let to = unsafe { self.columns(0, i * NR, len) };
        to.copy_from_slice(&columns[..len]);
        if let Some(bias) = self.bias {
            to.iter_mut().zip(&bias[i * NR..]).for_each(|(to, bias)| *to += bias);
        }
    }
}
