//! Byte buffers that begin on a cache line, so that tiles never straddle one needlessly.

use crate::error::{Code, Error, Result};

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// Zeroed bytes, 64-byte aligned.
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`] with the size.
    pub fn zeroed(len: usize) -> Result<Self> {
        let n_lines = len.div_ceil(64);
        let mut lines = Vec::new();
        lines.try_reserve_exact(n_lines).map_err(|e| {
            Error::new(Code::OutOfMemory, format!("{len} bytes for a tensor could not be allocated"))
                .source(e)
        })?;
        lines.resize(n_lines, Line([0; 64]));
        Ok(AlignedBytes { lines, len })
    }
}

impl std::ops::Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `len` initialized bytes and Line has no padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
