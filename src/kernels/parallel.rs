//! How work is cut into parts for the [`pool`]. Never along k: every output is computed by
//! one thread in the one order, so that results do not depend on the cut.

use super::output::Output;
use super::{Product, pool};
use crate::repack::PackedWeights;
use std::marker::PhantomData;
use std::ops::Range;

/// Least work of a part, in bytes of weights times rows: what one thread does in about 2 us, twice
/// what it costs to share it.
const MIN_PART_WORK: usize = 32 * 1024;
/// Parts per thread, so that a thread on a slower core does fewer of them, and the last to end is not long alone.
const PARTS_PER_THREAD: usize = 16;
/// The same of products of one row, whose parts are short as it is.
const PARTS_PER_THREAD_OF_ROW: usize = 4;

/// Work per value, as the cutting into ranges counts it.
pub mod work {
    /// An addition.
    pub const ADD: usize = 4;
    /// A normalisation.
    pub const NORM: usize = 16;
    /// A function with an exponential in it.
    pub const EXP: usize = 32;
    /// Rounding to codes.
    pub(in crate::kernels) const ROUND: usize = 8;
}

/// Into how many parts to cut `work` of `n_items` indivisible items, `per_thread` at most.
fn n_parts(work: usize, n_items: usize, per_thread: usize) -> usize {
    let threads = pool::threads();
    if threads < 2 {
        return 1;
    }
    (work / MIN_PART_WORK).min(threads * per_thread).min(n_items).max(1)
}

/// Products that are shared as one.
const AT_ONCE: usize = 4;

/// Calls `strips(weights, strips, output)` so that the calls cover every strip of every product once.
pub(super) fn products(
    m: usize,
    products: &mut [Product],
    strips: &(dyn Fn(&PackedWeights, Range<usize>, Output) + Sync),
) {
    if m == 0 {
        return;
    }
    if products.len() > AT_ONCE {
        let (first, rest) = products.split_at_mut(AT_ONCE);
        self::products(m, first, strips);
        return self::products(m, rest, strips);
    }
    let n_bytes: usize = products.iter().map(|p| p.w.n_bytes()).sum();
    let n_strips = products.iter().map(|p| p.w.n_strips()).sum();
    let per_thread = if m > 1 { PARTS_PER_THREAD } else { PARTS_PER_THREAD_OF_ROW };
    let n_parts = n_parts(n_bytes.saturating_mul(m), n_strips, per_thread);
    if n_parts < 2 {
        for Product { w, out, bias } in products {
            strips(w, 0..w.n_strips(), Output::new(out, m, w.n()).with_bias(*bias));
        }
        return;
    }
    let mut first_byte = 0;
    // No list: writing a token is not to allocate.
    let mut placed = [None; AT_ONCE];
    for (Product { w, out, bias }, place) in products.iter_mut().zip(&mut placed) {
        *place = Some((first_byte, *w, Output::new(out, m, w.n()).with_bias(*bias)));
        first_byte += w.n_bytes();
    }
    pool::run(n_parts, &|part| {
        // A part is a stretch of bytes; a strip belongs to the part in which it begins.
        let bytes = cut(n_bytes, n_parts, part);
        for &(first_byte, w, out) in placed.iter().flatten() {
            let strip_bytes = (w.n_bytes() / w.n_strips().max(1)).max(1);
            let begun = |at: usize| at.saturating_sub(first_byte).div_ceil(strip_bytes).min(w.n_strips());
            let range = begun(bytes.start)..begun(bytes.end);
            if !range.is_empty() {
                strips(w, range, out);
            }
        }
    });
}

/// Part `part` of `n_parts` about equal parts of `0..n`.
fn cut(n: usize, n_parts: usize, part: usize) -> Range<usize> {
    let at = |part: usize| (n as u64 * part as u64 / n_parts as u64) as usize;
    at(part)..at(part + 1)
}

/// Calls `part` with ranges that cover `0..n_items`, possibly at the same time. `item_work` is the work
/// of an item, in the bytes of weights that one row is multiplied with in the same time.
pub(super) fn ranges(n_items: usize, item_work: usize, part: &(dyn Fn(Range<usize>) + Sync)) {
    let n_parts = n_parts(n_items.saturating_mul(item_work), n_items, PARTS_PER_THREAD);
    if n_parts < 2 {
        part(0..n_items);
    } else {
        pool::run(n_parts, &|i| part(cut(n_items, n_parts, i)));
    }
}

/// Values that [`chunks`] hands out together, at least: whole cache lines.
const UNIT: usize = 64;

/// Calls `chunk(first, values)` on pieces that cover `x`, possibly at the same time; `first` is the place
/// of the piece in `x`. All but the last are a multiple of `unit` long, or of 64 where that is 1.
/// `work` is that of a value, as [`work`] has it.
pub fn chunks<T: Send>(x: &mut [T], unit: usize, work: usize, chunk: &(dyn Fn(usize, &mut [T]) + Sync)) {
    let unit = if unit == 1 { UNIT } else { unit };
    let len = x.len();
    let shared = Shared::new(x);
    ranges(len.div_ceil(unit), work.saturating_mul(unit), &|units| {
        let (first, end) = (units.start * unit, (units.end * unit).min(len));
        // SAFETY: ranges are disjoint.
        chunk(first, unsafe { shared.part(first..end) });
    });
}

/// A slice of which several threads write each its own part.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: every access goes through `part`, whose callers keep to disjoint parts.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Shared { start: slice.as_mut_ptr(), len: slice.len(), lifetime: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where a part of the slice begins that only one thread writes.
    ///
    /// # Safety
    /// `range` is within the slice; nobody else reads or writes it meanwhile.
    #[inline(always)]
    pub(super) unsafe fn start(&self, range: Range<usize>) -> *mut T {
        debug_assert!(range.start <= range.end && range.end <= self.len, "outside of the slice");
        // SAFETY: within the slice, as the caller vouches.
        unsafe { self.start.add(range.start) }
    }

    /// A part of the slice.
    ///
    /// # Safety
    /// Nobody else reads or writes it while it lives.
    #[allow(clippy::mut_from_ref)] // that is what the contract is about
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "outside of the slice");
        // SAFETY: within the slice (asserted); exclusive, as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
