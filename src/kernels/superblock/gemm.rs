//! Many rows of activations: prompts and images.

use super::{Masks, SuperTile, units};
use crate::kernels::act::{Coded, MIN_GROUPS, MR};
use crate::kernels::isa::Isa;
use crate::kernels::output::Output;
use crate::kernels::path::{DotPath, P16};
use crate::kernels::strip_columns;
use crate::repack::{NR, PackedWeights, SUPER_K};
use std::ops::Range;

/// Columns of a panel.
const PANEL_NR: usize = 8;
/// Tiles (of 256 k) per panel: 768 k in 16-bit planes are 12 KiB of a 32 KiB cache.
const SLAB_TILES: usize = 3;
/// Bytes that 256 k of a panel take.
const PANEL_TILE: usize = SUPER_K * PANEL_NR * 2;
/// Bytes that the minima of 256 k take: 16 sub-blocks at most.
const PANEL_MINS: usize = 16 * PANEL_NR * 2;

/// Unpacked columns: `(q - offset) * scale` as i16 in the planes of [`P16`].
struct Panel {
    codes: Vec<u8>,
    mins: Vec<u8>,
    d: [f32; SLAB_TILES * PANEL_NR],
    dmin: [f32; SLAB_TILES * PANEL_NR],
}

pub(super) fn gemm<I: Isa, T: SuperTile>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    assert!(out.m() == m && out.n() == w.n() && strips.end <= w.n_strips() && w.k().is_multiple_of(SUPER_K));
    assert!(act.codes.len() == m.next_multiple_of(MR) * w.k() / 4 * P16::<I>::ACT_BYTES);
    let n_tiles = w.k() / SUPER_K;
    let (d, dmin) = ([0.0; SLAB_TILES * PANEL_NR], [0.0; SLAB_TILES * PANEL_NR]);
    let mut panel =
        Panel { codes: vec![0; SLAB_TILES * PANEL_TILE], mins: vec![0; SLAB_TILES * PANEL_MINS], d, dmin };
    for i in strips {
        for half in 0..NR / PANEL_NR {
            let columns = strip_columns(w, i).saturating_sub(half * PANEL_NR).min(PANEL_NR);
            if columns == 0 {
                continue;
            }
            for slab in (0..n_tiles).step_by(SLAB_TILES) {
                let tiles = slab..(slab + SLAB_TILES).min(n_tiles);
                for (slot, t) in tiles.clone().enumerate() {
                    let bytes = T::KIND.tile_bytes();
                    fill::<I, T>(&mut panel, slot, &w.strip(i)[t * bytes..][..bytes], half);
                }
                let first_column = i * NR + half * PANEL_NR;
                for first_row in (0..m).step_by(MR) {
                    let n_rows = (m - first_row).min(MR);
                    let mut c = [[0f32; PANEL_NR]; MR];
                    // SAFETY: these columns belong to the caller's strips.
                    let place = |r: usize| unsafe { out.columns(first_row + r, first_column, columns) };
                    if tiles.start > 0 {
                        for (r, c) in c.iter_mut().enumerate().take(n_rows) {
                            c[..columns].copy_from_slice(place(r));
                        }
                    }
                    // SAFETY: the panel holds `tiles`, and act all rows and blocks.
                    unsafe { micro::<I, T>(&panel, act, first_row, w.k(), tiles.clone(), &mut c) };
                    for (r, c) in c.iter().enumerate().take(n_rows) {
                        place(r).copy_from_slice(&c[..columns]);
                    }
                }
            }
        }
    }
}

/// Unpacks 8 columns of a tile.
fn fill<I: Isa, T: SuperTile>(panel: &mut Panel, slot: usize, tile: &[u8], half: usize) {
    let kind = T::KIND;
    let masks = Masks::new::<I, T>();
    let offset = I::splat16(u16::from(kind.offset));
    let codes = &mut panel.codes[slot * PANEL_TILE..][..PANEL_TILE];
    let mut to = codes.as_mut_ptr();
    for k16 in 0..16 {
        // SAFETY: 16 times 4 units of two planes and two column groups fill the panel tile; the
        // chunk and the scales lie within the tile.
        unsafe {
            let chunk = tile.as_ptr().add(kind.codes_at() + k16 / 2 * kind.chunk_bytes());
            let scales = if kind.n_sub() > 0 {
                let sub = k16 * 16 / kind.sub_len;
                let s = I::load8x8(tile.as_ptr().add(sub * NR + half * PANEL_NR));
                [I::pair_low16(s), I::pair_high16(s)]
            } else {
                [I::splat16(1); 2]
            };
            for (c, scale) in scales.into_iter().enumerate() {
                let units = match k16 % 2 {
                    0 => units::<I, T, 0>(masks, chunk, half * 2 + c),
                    _ => units::<I, T, 1>(masks, chunk, half * 2 + c),
                };
                for (i, codes) in units.into_iter().enumerate() {
                    let even = I::shr16::<8>(I::shl16::<8>(codes));
                    let odd = I::shr16::<8>(codes);
                    let to = to.add(i * 64 + c * 16);
                    I::store(to, I::mul16(I::sub16(even, offset), scale));
                    I::store(to.add(32), I::mul16(I::sub16(odd, offset), scale));
                }
            }
            to = to.add(4 * 64);
        }
    }
    let floats = |at: usize, to: &mut [f32]| {
        for (to, from) in to.iter_mut().zip(tile[at + half * PANEL_NR * 4..].chunks_exact(4)).take(PANEL_NR) {
            *to = f32::from_le_bytes(from.try_into().unwrap());
        }
    };
    floats(kind.d_at(), &mut panel.d[slot * PANEL_NR..]);
    if kind.has_min {
        floats(kind.d_at() + NR * 4, &mut panel.dmin[slot * PANEL_NR..]);
        let mins = &mut panel.mins[slot * PANEL_MINS..][..PANEL_MINS];
        for g in 0..kind.n_sub() / 4 {
            for c in 0..2 {
                let at = kind.mins_at() + g * 64 + (half * 2 + c) * 16;
                let to = &mut mins[g * 64 + c * 16..][..48];
                // SAFETY: 16 bytes of minima; two planes 32 bytes apart.
                unsafe { P16::<I>::store_panel_u7(to.as_mut_ptr(), I::load(tile[at..at + 16].as_ptr())) };
            }
        }
    }
}

/// [`MR`] rows from `first_row` times the panel's 8 columns over `tiles`, added to `c`.
///
/// # Safety
/// The panel holds `tiles`; `act` is coded for [`P16`] over 256 k with those rows and blocks.
#[inline(always)]
unsafe fn micro<I: Isa, T: SuperTile>(
    panel: &Panel,
    act: &Coded,
    first_row: usize,
    k: usize,
    tiles: Range<usize>,
    c: &mut [[f32; PANEL_NR]; MR],
) {
    let group = MR * P16::<I>::ACT_BYTES;
    let row_tile = first_row / MR;
    let n_tiles = k / SUPER_K;
    for (slot, t) in tiles.enumerate() {
        // SAFETY: as the caller vouches.
        unsafe {
            let codes = act.codes.as_ptr().add((row_tile * k / 4 + t * SUPER_K / 4) * group);
            let sums = products::<I>(panel.codes.as_ptr().add(slot * PANEL_TILE), codes, SUPER_K / 4);
            add_scaled::<I>(c, sums, panel.d.as_ptr().add(slot * PANEL_NR), act, first_row, t, false);
            if T::KIND.has_min {
                let first = if T::KIND.sub_len == 16 { 0 } else { 4 };
                let at = (row_tile * n_tiles + t) * MIN_GROUPS + first;
                let mins = panel.mins.as_ptr().add(slot * PANEL_MINS);
                let sums = products::<I>(mins, act.min_codes.as_ptr().add(at * group), T::KIND.n_sub() / 4);
                add_scaled::<I>(c, sums, panel.dmin.as_ptr().add(slot * PANEL_NR), act, first_row, t, true);
            }
        }
    }
}

/// Integer sums of [`MR`] rows times 8 columns over `n` groups of 4 k.
///
/// # Safety
/// `64 n` bytes at `w` and `32 n` at `a` are readable.
#[inline(always)]
unsafe fn products<I: Isa>(mut w: *const u8, mut a: *const u8, n: usize) -> [[I::V; 2]; MR] {
    let mut acc = [[I::splat32(0); 2]; MR];
    for _ in 0..n {
        // SAFETY: the caller's.
        unsafe {
            P16::<I>::micro_step(&mut acc, w, a);
            w = w.add(64);
            a = a.add(MR * P16::<I>::ACT_BYTES);
        }
    }
    acc
}

/// `c += sums * d * d_act`, or `-=`.
///
/// # Safety
/// 8 floats at `d` are readable.
#[inline(always)]
unsafe fn add_scaled<I: Isa>(
    c: &mut [[f32; PANEL_NR]; MR],
    sums: [[I::V; 2]; MR],
    d: *const f32,
    act: &Coded,
    first_row: usize,
    t: usize,
    subtract: bool,
) {
    for (r, (c, sums)) in c.iter_mut().zip(sums).enumerate() {
        let d_act = I::fsplat(act.scales(first_row + r)[t]);
        for (h, &sum) in sums.iter().enumerate() {
            // SAFETY: 8 floats in c and at d.
            unsafe {
                let p = c.as_mut_ptr().add(4 * h);
                let scale = I::fmul(I::fload(d.add(4 * h)), d_act);
                let product = I::fmul(I::to_float(sum), scale);
                let sum =
                    if subtract { I::fsub(I::fload(p), product) } else { I::fadd(I::fload(p), product) };
                I::fstore(p, sum);
            }
        }
    }
}
