//! Float products: float weights, the reference mode of integer weights, and attention.
//!
//! The micro-kernel multiplies a few rows with 8 columns; k is summed in order in one
//! accumulator per output, so the result does not depend on the tiling.

use super::act::MR;
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::isa::Sse2;
use super::output::Output;
use super::strip_columns;
use super::tile::HalfConsts;
use crate::repack::{NR, PackedWeights, Packing, TILE_K};
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
mod avx;

/// Columns per micro-kernel.
pub const TILE_NR: usize = 8;
/// Rows that are multiplied with a panel together: in registers of 128 bits they are two micro-kernels'.
pub const ROWS: usize = 2 * MR;
/// k per unpacked panel: 512 x 8 floats are 16 KiB.
const SLAB_K: usize = 512;

/// Row-major f32 operand: element (row, column) at `row * stride + column`.
#[derive(Clone, Copy)]
pub struct Operand<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Elements from one row to the next.
    pub stride: usize,
}

/// `c[r, j] (+)= sum over k of a[r, k] * w[k, j]` for `rows` <= 8 rows and 8 columns.
///
/// # Panics
/// Where an operand is too short for its shape.
pub fn tile<I: Isa>(
    rows: usize,
    k: usize,
    a: Operand,
    w: Operand,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) {
    if rows == 0 || k == 0 {
        return;
    }
    assert!(rows <= ROWS && a.data.len() >= (rows - 1) * a.stride + k);
    assert!(w.data.len() >= (k - 1) * w.stride + TILE_NR && c.len() >= (rows - 1) * c_stride + TILE_NR);
    #[cfg(target_arch = "x86_64")]
    if I::NAME == Sse2::NAME && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX, and the asserts cover every access of `rows` rows.
        unsafe { avx::tile(rows, k, a, w, c, c_stride, add) };
        return;
    }
    for first in (0..rows).step_by(MR) {
        let a = Operand { data: &a.data[first * a.stride..], ..a };
        let c = &mut c[first * c_stride..];
        // SAFETY: the asserts cover every access of `rows` rows.
        unsafe {
            match rows - first {
                1 => micro::<I, 1>(k, a, w, c, c_stride, add),
                2 => micro::<I, 2>(k, a, w, c, c_stride, add),
                3 => micro::<I, 3>(k, a, w, c, c_stride, add),
                _ => micro::<I, MR>(k, a, w, c, c_stride, add),
            }
        }
    }
}

/// # Safety
/// As asserted by [`tile`], with `R` rows.
#[inline(always)]
unsafe fn micro<I: Isa, const R: usize>(
    k: usize,
    a: Operand,
    w: Operand,
    c: &mut [f32],
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the caller's.
    unsafe {
        let c = c.as_mut_ptr();
        let mut acc = [[I::fsplat(0.0); 2]; R];
        if add {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [I::fload(c.add(r * c_stride)), I::fload(c.add(r * c_stride + 4))];
            }
        }
        let (mut wp, mut ap) = (w.data.as_ptr(), a.data.as_ptr());
        for _ in 0..k {
            let (w0, w1) = (I::fload(wp), I::fload(wp.add(4)));
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = I::fload_splat(ap.add(r * a.stride));
                acc[0] = I::fadd(acc[0], I::fmul(x, w0));
                acc[1] = I::fadd(acc[1], I::fmul(x, w1));
            }
            wp = wp.wrapping_add(w.stride);
            ap = ap.add(1);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            I::fstore(c.add(r * c_stride), acc[0]);
            I::fstore(c.add(r * c_stride + 4), acc[1]);
        }
    }
}

/// [`matmul`] of one row with weights that are floats, without a panel; the sums are added up in the same order.
fn row<I: Isa>(x: &[f32], w: &PackedWeights, strips: Range<usize>, out: Output) {
    let half = HalfConsts::<I>::new();
    let high = std::hint::black_box(I::splat32(0xffff_0000_u32 as i32));
    for i in strips {
        // SAFETY: a strip holds k times 16 elements, of which 8 are at each place that is loaded.
        let columns = unsafe {
            match w.packing() {
                Packing::F16 => row_strip::<I, 2>(x, w.strip(i), |p| half.floats(I::load(p))),
                Packing::Bf16 => row_strip::<I, 2>(x, w.strip(i), |p| {
                    let both = I::load(p);
                    [I::from_bits(I::shl32::<16>(both)), I::from_bits(I::and(both, high))]
                }),
                _ => row_strip::<I, 4>(x, w.strip(i), |p| [0, 16].map(|at| I::from_bits(I::load(p.add(at))))),
            }
        };
        out.write_strip(i, &columns);
    }
}

/// The sums of 16 columns. `load` makes floats of 8 elements: of 2 bytes first those at even places, then those at odd ones.
///
/// # Safety
/// `strip` holds `x.len()` times 16 elements of `WIDTH` bytes, 8 of which `load` may read.
#[inline(always)]
unsafe fn row_strip<I: Isa, const WIDTH: usize>(
    x: &[f32],
    strip: &[u8],
    load: impl Fn(*const u8) -> [I::F; 2],
) -> [f32; NR] {
    debug_assert!(strip.len() == x.len() * NR * WIDTH);
    let mut sums = [[I::fsplat(0.0); 2]; 2];
    let mut p = strip.as_ptr();
    for x in x {
        // SAFETY: one float.
        let x = unsafe { I::fload_splat(x) };
        for (h, sums) in sums.iter_mut().enumerate() {
            // The pointer moves on past the last element, where nothing is read.
            let w = load(p.wrapping_add(8 * h * WIDTH));
            *sums = [I::fadd(sums[0], I::fmul(x, w[0])), I::fadd(sums[1], I::fmul(x, w[1]))];
        }
        p = p.wrapping_add(NR * WIDTH);
    }
    let lanes = sums.map(|both| both.map(|sum| I::lanes(sum)));
    std::array::from_fn(|j| match WIDTH {
        2 => lanes[j / 8][j % 2][j % 8 / 2],
        _ => lanes[j / 8][j % 8 / 4][j % 4],
    })
}

/// `out[m, n] = x[m, k] . w[n, k]` for the strips' columns, in float, whatever the packing.
pub fn matmul<I: Isa>(x: &[f32], w: &PackedWeights, strips: Range<usize>, out: Output) {
    let (m, k) = (out.m(), w.k());
    assert!(x.len() == m * k && out.n() == w.n() && strips.end <= w.n_strips());
    if m == 1 && matches!(w.packing(), Packing::F32 | Packing::F16 | Packing::Bf16) {
        return row::<I>(x, w, strips, out);
    }
    let mut panel = vec![0f32; SLAB_K.min(k) * TILE_NR];
    let mut c = [0f32; ROWS * TILE_NR];
    for strip in strips {
        for half in 0..NR / TILE_NR {
            let columns = strip_columns(w, strip).saturating_sub(half * TILE_NR).min(TILE_NR);
            let first = strip * NR + half * TILE_NR;
            let bias = out.bias::<TILE_NR>(&(first..first + columns));
            for k0 in (0..k).step_by(SLAB_K).take_while(|_| columns > 0) {
                let len = (k - k0).min(SLAB_K);
                unpack::<I>(w, strip, half, k0, &mut panel[..len * TILE_NR]);
                for row in (0..m).step_by(ROWS) {
                    let rows = (m - row).min(ROWS);
                    // SAFETY: these columns belong to the caller's strips.
                    let place = |r: usize| unsafe { out.columns(row + r, first, columns) };
                    if k0 > 0 {
                        for r in 0..rows {
                            c[r * TILE_NR..][..columns].copy_from_slice(place(r));
                        }
                    }
                    let a = Operand { data: &x[row * k + k0..], stride: k };
                    let panel = Operand { data: &panel, stride: TILE_NR };
                    tile::<I>(rows, len, a, panel, &mut c, TILE_NR, k0 > 0);
                    let bias = bias.as_ref().filter(|_| k0 + len == k);
                    for r in 0..rows {
                        let to = place(r);
                        to.copy_from_slice(&c[r * TILE_NR..][..columns]);
                        if let Some(bias) = bias {
                            to.iter_mut().zip(bias).for_each(|(to, bias)| *to += bias);
                        }
                    }
                }
            }
        }
    }
}

/// Eight columns of a strip as floats `[k][8]`, from `k0` on.
fn unpack<I: Isa>(w: &PackedWeights, strip: usize, half: usize, k0: usize, panel: &mut [f32]) {
    let bytes = w.strip(strip);
    let width = match w.packing() {
        Packing::F32 => 4,
        Packing::F16 | Packing::Bf16 => 2,
        Packing::U4 | Packing::I8 | Packing::I8Half => {
            return unpack_codes::<I>(w, strip, half, k0, panel);
        }
        Packing::Bits | Packing::Super(_) => {
            return w.integer_panel(strip, half * TILE_NR, k0, panel);
        }
    };
    for (i, to) in panel.chunks_exact_mut(TILE_NR).enumerate() {
        let from = &bytes[((k0 + i) * NR + half * TILE_NR) * width..][..TILE_NR * width];
        for h in 0..2 {
            // SAFETY: `from` holds 8 elements, `to` 8 floats.
            unsafe {
                let p = from.as_ptr().add(4 * h * width);
                let x = match w.packing() {
                    Packing::F16 => I::load_f16(p),
                    Packing::Bf16 => I::load_bf16(p),
                    _ => I::from_bits(I::load(p)),
                };
                I::fstore(to.as_mut_ptr().add(4 * h), x);
            }
        }
    }
}

/// [`unpack`] of codes that are bytes or nibbles: 16 bytes are 4 k of 4 columns, and shifts take out one k of each.
fn unpack_codes<I: Isa>(w: &PackedWeights, strip: usize, half: usize, k0: usize, panel: &mut [f32]) {
    let packing = w.packing();
    let (is_nibbles, tile_bytes) = (packing == Packing::U4, packing.tile_bytes());
    let (nibble, offset) = (I::splat16(0x0f0f), I::splat32(if is_nibbles { -8 } else { 0 }));
    let tiles = w.strip(strip)[k0 / TILE_K * tile_bytes..].chunks_exact(tile_bytes);
    for (tile, panel) in tiles.zip(panel.chunks_exact_mut(TILE_K * TILE_NR)) {
        let (codes, scales) = tile.split_at(packing.tile_code_bytes());
        let scales: [f32; TILE_NR] = std::array::from_fn(|j| packing.scale(scales, half * TILE_NR + j));
        for (g, to) in panel.chunks_exact_mut(4 * TILE_NR).enumerate() {
            for h in 0..2 {
                // The second half of the groups is in the high nibbles of the first.
                let group = if is_nibbles { g % 4 } else { g };
                let from = &codes[(group * 4 + half * 2 + h) * 16..][..16];
                // SAFETY: 16 bytes, 4 scales, and 4 numbers of each of the 4 rows of 8.
                unsafe {
                    let mut bytes = I::load(from.as_ptr());
                    if is_nibbles {
                        bytes = I::and(if g < 4 { bytes } else { I::shr16::<4>(bytes) }, nibble);
                    }
                    let scales = I::fload(scales.as_ptr().add(4 * h));
                    let to = to.as_mut_ptr().add(4 * h);
                    let put = |k: usize, high: I::V| {
                        let code = I::add32(I::sar32::<24>(high), offset);
                        I::fstore(to.add(k * TILE_NR), I::fmul(scales, I::to_float(code)));
                    };
                    put(0, I::shl32::<24>(bytes));
                    put(1, I::shl32::<16>(bytes));
                    put(2, I::shl32::<8>(bytes));
                    put(3, bytes);
                }
            }
        }
    }
}
