//! How work is cut into parts for the [`pool`]. Never along k: every output is computed by
//! one thread in the one order, so that results do not depend on the cut.

use super::output::Output;
use super::pool;
use crate::repack::PackedWeights;
use std::ops::Range;

/// Least work of a part, in bytes of weights times rows: what one thread does in about 2 us, twice
/// what it costs to share it.
const MIN_PART_WORK: usize = 32 * 1024;
/// Parts per thread, so that a thread on a slower core does fewer of them.
const PARTS_PER_THREAD: usize = 4;

/// Into how many parts to cut `work` of `n_items` indivisible items.
fn n_parts(work: usize, n_items: usize) -> usize {
    let threads = pool::threads();
    if threads < 2 {
        return 1;
    }
    (work / MIN_PART_WORK).min(threads * PARTS_PER_THREAD).min(n_items).max(1)
}

/// Calls `strips(weights, strips, output)` so that the calls cover every strip of every product once.
pub(super) fn products(
    m: usize,
    products: &mut [(&PackedWeights, &mut [f32])],
    strips: &(dyn Fn(&PackedWeights, Range<usize>, Output) + Sync),
) {
    if m == 0 {
        return;
    }
    let n_bytes: usize = products.iter().map(|(w, _)| w.n_bytes()).sum();
    let n_strips = products.iter().map(|(w, _)| w.n_strips()).sum();
    let n_parts = n_parts(n_bytes.saturating_mul(m), n_strips);
    if n_parts < 2 {
        for (w, out) in products {
            strips(w, 0..w.n_strips(), Output::new(out, m, w.n()));
        }
        return;
    }
    let mut first_byte = 0;
    let mut placed = Vec::with_capacity(products.len());
    for (w, out) in products {
        placed.push((first_byte, *w, Output::new(out, m, w.n())));
        first_byte += w.n_bytes();
    }
    pool::run(n_parts, &|part| {
        // A part is a stretch of bytes; a strip belongs to the part in which it begins.
        let bytes = cut(n_bytes, n_parts, part);
        for &(first_byte, w, out) in &placed {
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

/// Calls `chunk(first, values)` on pieces that cover `x`, each a multiple of `unit` long (as `x` is),
/// possibly at the same time. `weight` is the work per value, in the bytes of weights that take as long.
pub fn chunks(x: &mut [f32], unit: usize, weight: usize, chunk: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let n_units = x.len() / unit;
    assert_eq!(n_units * unit, x.len(), "values are not a multiple of {unit}");
    let n_parts = n_parts(x.len().saturating_mul(weight), n_units);
    if n_parts < 2 {
        return chunk(0, x);
    }
    let out = Output::new(x, n_units, unit);
    pool::run(n_parts, &|part| {
        let units = cut(n_units, n_parts, part);
        // SAFETY: parts are disjoint.
        chunk(units.start * unit, unsafe { out.rows(units) });
    });
}
