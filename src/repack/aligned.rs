//! Memory that begins on a cache line: tiles and rows never straddle one needlessly, and threads never share one.

use crate::error::{Code, Error, Result};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::RangeInclusive;

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; LINE]);

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
        let n_lines = len.div_ceil(LINE);
        let mut lines = Vec::new();
        lines.try_reserve_exact(n_lines).map_err(|e| {
            Error::new(Code::OutOfMemory, format!("{len} bytes for a tensor could not be allocated"))
                .source(e)
        })?;
        lines.resize(n_lines, Line([0; LINE]));
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

/// The system's allocator, which begins all but small pieces on a cache line. Several threads write an output, each some
/// of its columns: a line that two of them write goes back and forth between their cores.
///
/// A program that computes with several threads makes it its own by `#[global_allocator]`.
pub struct CacheLines;

const LINE: usize = 64;
/// Sizes that matter. What is larger is no output, and must be able to grow where it is.
const SIZES: RangeInclusive<usize> = 1 << 10..=16 << 20;

/// A layout as it is passed on: it follows from the given one alone, since pieces come back with theirs.
fn on_lines(layout: Layout) -> Layout {
    match SIZES.contains(&layout.size()) {
        true => layout.align_to(LINE).unwrap_or(layout),
        false => layout,
    }
}

// SAFETY: the system's allocator gets and frees every piece with one layout, which is aligned as asked at least.
unsafe impl GlobalAlloc for CacheLines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's, as below.
        unsafe { System.alloc(on_lines(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(on_lines(layout)) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; the layout is the one it was given with.
        unsafe { System.dealloc(ptr, on_lines(layout)) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return std::ptr::null_mut() };
        let (old, new) = (on_lines(layout), on_lines(wanted));
        if old.align() == new.align() {
            // SAFETY: as above.
            return unsafe { System.realloc(ptr, old, size) };
        }
        // SAFETY: as above; both pieces hold what is copied.
        unsafe {
            let to = System.alloc(new);
            if !to.is_null() {
                ptr.copy_to_nonoverlapping(to, size.min(layout.size()));
                System.dealloc(ptr, old);
            }
            to
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_history_keep_their_bytes_and_begin_on_lines() {
        let sizes = [1, 64, 1023, 1024, 5000, 900, 100_000, 16 << 20, (16 << 20) + 1, 70_000, 10];
        // SAFETY: every piece is freed with the layout that it has by then.
        unsafe {
            let mut layout = Layout::from_size_align(8, 8).unwrap();
            let mut ptr = CacheLines.alloc_zeroed(layout);
            for (i, &size) in sizes.iter().enumerate() {
                ptr = CacheLines.realloc(ptr, layout, size);
                layout = Layout::from_size_align(size, 8).unwrap();
                assert!(!ptr.is_null() && ptr.addr().is_multiple_of(8));
                assert!(!SIZES.contains(&size) || ptr.addr().is_multiple_of(LINE), "{size} bytes at {ptr:?}");
                assert_eq!(*ptr, i as u8, "the first byte went along");
                *ptr += 1;
            }
            CacheLines.dealloc(ptr, layout);
            let large = Layout::from_size_align(4096, 256).unwrap();
            let ptr = CacheLines.alloc(large);
            assert_eq!(ptr.addr() % 256, 0, "more than a line, where that is asked for");
            CacheLines.dealloc(ptr, large);
        }
    }
}
