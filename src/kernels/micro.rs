//! The inner loop of matrix products: some rows times 8 columns.
//!
//! One vector of activations per row and two vectors of weights: two sums per row, 2 weights and an
//! activation stay in the 15 vector registers that engines have on x86 ([`DotPath::ROWS`]). Each activation is
//! splatted by its load, since shuffles share their execution units with the products.

use super::isa::Isa;
use super::output::Output;
use super::path::DotPath;
use std::ops::Range;

/// Columns of a panel.
pub(super) const PANEL_NR: usize = 8;
/// Bytes of one plane of 4 k of a panel.
pub(super) const PLANE: usize = PANEL_NR * 4;
/// Bytes of one plane of 4 k of `R` rows.
pub(super) const fn act_plane<const R: usize>() -> usize {
    R * 4
}

/// Sums in the making: for each row, two vectors of 4 columns.
pub(super) type Sums<A, const R: usize> = [[A; 2]; R];

/// A tile of the output.
pub(super) type Tile<const R: usize> = [[f32; PANEL_NR]; R];

/// The number of planes of `k`, opaque to the compiler: unrolled loops keep more values alive than
/// there are registers.
#[inline(always)]
pub(super) fn planes<P: DotPath>(k: usize) -> usize {
    std::hint::black_box(k / 4 * P::PANEL_VECS)
}

/// What sums begin with: `R` lanes at `starts`, or zeros where it is null.
///
/// # Safety
/// `starts` is null, or `R` of them are readable.
#[inline(always)]
pub(super) unsafe fn begin<P: DotPath, const R: usize>(starts: *const i32) -> Sums<P::Acc, R> {
    if starts.is_null() {
        return [[P::begin(P::I::splat32(0)); 2]; R];
    }
    // SAFETY: the caller's.
    std::array::from_fn(|r| [P::begin(unsafe { P::I::load32_splat(starts.add(r).cast()) }); 2])
}

/// Adds the products of `n` planes.
///
/// # Safety
/// `n * PLANE` bytes at `w` and `n * 4 * R` at `a` are readable.
#[inline(always)]
pub(super) unsafe fn products<P: DotPath, const R: usize>(
    mut sums: Sums<P::Acc, R>,
    dot: impl Fn(P::Acc, <P::I as Isa>::V, <P::I as Isa>::V) -> P::Acc,
    mut w: *const u8,
    mut a: *const u8,
    n: usize,
) -> Sums<P::Acc, R> {
    for _ in 0..n {
        // SAFETY: the caller's.
        unsafe {
            let columns = [P::I::load(w), P::I::load(w.add(16))];
            for (r, sums) in sums.iter_mut().enumerate() {
                let act = P::I::load32_splat(a.add(4 * r));
                sums[0] = dot(sums[0], columns[0], act);
                sums[1] = dot(sums[1], columns[1], act);
            }
            w = w.add(PLANE);
            a = a.add(act_plane::<R>());
        }
    }
    sums
}

/// `c += sums * d * d_act`, or `-=`, with 8 scales at `d` and `R` at `d_act`.
///
/// # Safety
/// They are readable.
#[inline(always)]
pub(super) unsafe fn add_scaled<I: Isa, const R: usize>(
    c: &mut Tile<R>,
    sums: Sums<I::V, R>,
    d: *const f32,
    d_act: *const f32,
    subtract: bool,
) {
    // Opaque, and so in memory: in registers it would drive out the integer sums.
    let c = std::hint::black_box(c);
    // SAFETY: the caller's; 8 floats in a row of c.
    unsafe {
        let d = [I::fload(d), I::fload(d.add(4))];
        for (r, (c, sums)) in c.iter_mut().zip(sums).enumerate() {
            let d_act = I::fload_splat(d_act.add(r));
            for h in 0..2 {
                let p = c.as_mut_ptr().add(4 * h);
                let product = I::fmul(I::to_float(sums[h]), I::fmul(d[h], d_act));
                let sum =
                    if subtract { I::fsub(I::fload(p), product) } else { I::fadd(I::fload(p), product) };
                I::fstore(p, sum);
            }
        }
    }
}

/// Rows of `out` that tile `row_tile` has, and `f` with each of them.
///
/// # Safety
/// Nobody else reads or writes these columns meanwhile.
#[inline(always)]
unsafe fn each_row<const R: usize>(
    out: Output,
    row_tile: usize,
    columns: &Range<usize>,
    mut f: impl FnMut(usize, &mut [f32]),
) {
    for r in 0..(out.m() - row_tile * R).min(R) {
        // SAFETY: the caller's.
        f(r, unsafe { out.columns(row_tile * R + r, columns.start, columns.len()) });
    }
}

/// A tile of the output as it stands.
///
/// # Safety
/// Nobody else reads or writes these (at most 8) columns meanwhile.
#[inline(always)]
pub(super) unsafe fn read_tile<const R: usize>(
    out: Output,
    row_tile: usize,
    columns: &Range<usize>,
) -> Tile<R> {
    let mut c = [[0f32; PANEL_NR]; R];
    // SAFETY: the caller's.
    unsafe {
        each_row::<R>(out, row_tile, columns, |r, from| match <&[f32; PANEL_NR]>::try_from(&*from) {
            // Of known length, and so without a call.
            Ok(from) => c[r] = *from,
            Err(_) => c[r][..from.len()].copy_from_slice(from),
        });
    }
    c
}

/// Writes a tile of the output, and with it a bias.
///
/// # Safety
/// As [`read_tile`].
#[inline(always)]
pub(super) unsafe fn write_tile<const R: usize>(
    out: Output,
    row_tile: usize,
    columns: &Range<usize>,
    c: &mut Tile<R>,
    bias: Option<&[f32; PANEL_NR]>,
) {
    if let Some(bias) = bias {
        c.iter_mut().for_each(|c| c.iter_mut().zip(bias).for_each(|(c, bias)| *c += bias));
    }
    // SAFETY: the caller's.
    unsafe {
        each_row::<R>(out, row_tile, columns, |r, to| match <&mut [f32; PANEL_NR]>::try_from(&mut *to) {
            Ok(to) => *to = c[r],
            Err(_) => to.copy_from_slice(&c[r][..to.len()]),
        });
    }
}
