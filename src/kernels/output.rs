//! Where a product goes: `[m, n]` floats that several threads fill, each its own columns.

use crate::repack::NR;
use std::marker::PhantomData;

/// The output of a product, row-major. Copies share it; each writer keeps to its own strips.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    start: *mut f32,
    m: usize,
    n: usize,
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
        Output { start: out.as_mut_ptr(), m, n, lifetime: PhantomData }
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
        unsafe { self.columns(0, i * NR, len) }.copy_from_slice(&columns[..len]);
    }
}
