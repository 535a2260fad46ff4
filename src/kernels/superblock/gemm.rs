//! Many rows of activations: prompts and images.
//!
//! Paths that widen codes to 16 bits ([`P16`]) take `(q - offset) * scale`, which stays below 2^13
//! for every type, as the panel's codes: 256 k then need no scale at all. The others take the codes
//! as they are and multiply the sums of each sub-block.

use super::SuperTile;
use super::units::{field_units, masks, mins_of, units};
use crate::kernels::act::{Coded, MIN_GROUPS, Span, TileStarts};
use crate::kernels::isa::Isa;
use crate::kernels::micro::{self, PANEL_NR, PLANE, Sums, act_plane};
use crate::kernels::output::Output;
use crate::kernels::path::{DotPath, P16};
use crate::kernels::strip_columns;
use crate::kernels::tile::HalfConsts;
use crate::repack::{NR, PackedWeights, SUPER_K};
use std::ops::Range;

/// Bytes of the codes of a panel: with the activations of a row tile it stays within a 32 KiB cache.
const PANEL_BYTES: usize = 12 * 1024;
/// Bytes of 256 k in one plane.
const TILE_PLANES: usize = SUPER_K / 4 * PLANE;
/// Tiles in a panel of one plane, the most there are.
const MAX_TILES: usize = PANEL_BYTES / TILE_PLANES;
/// Bytes of the scales or minima of 256 k, as i16: 16 sub-blocks at most.
const SUB_BYTES: usize = 16 * PANEL_NR * 2;

/// Unpacked columns.
#[repr(align(64))]
struct Panel {
    codes: [u8; PANEL_BYTES],
    /// Per sub-block, each column's scale twice.
    scales: [u8; MAX_TILES * 2 * SUB_BYTES],
    /// In the planes of [`P16`].
    mins: [u8; MAX_TILES * SUB_BYTES],
    d: [[f32; PANEL_NR]; MAX_TILES],
    dmin: [[f32; PANEL_NR]; MAX_TILES],
}

/// Integer sums of `R` rows and 8 columns.
#[repr(align(16))]
struct Totals<const R: usize>([[u8; PLANE]; R]);

/// Whether the scales are multiplied into the panel.
const fn folds<P: DotPath>() -> bool {
    P::PANEL_VECS == 2
}

/// k whose products are summed before a scale meets them.
#[inline(always)]
fn sum_len<P: DotPath, T: SuperTile>() -> usize {
    let kind = T::KIND;
    if folds::<P>() {
        SUPER_K
    } else if P::holds(kind.sub_len, kind.max_code(), i32::from(kind.offset)) {
        kind.sub_len
    } else {
        16
    }
}

/// The offset that sums of codes begin with, and how many k they sum.
pub(super) fn starts<P: DotPath, T: SuperTile>() -> (i32, usize) {
    (if folds::<P>() { 0 } else { i32::from(T::KIND.offset) }, sum_len::<P, T>())
}

pub(super) fn gemm<P: DotPath, T: SuperTile>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    match P::ROWS {
        5 => tiled::<P, T, 5>(act, m, w, strips, out),
        _ => tiled::<P, T, 4>(act, m, w, strips, out),
    }
}

/// [`gemm`] in tiles of `R` rows, which is the path's number of them.
fn tiled<P: DotPath, T: SuperTile, const R: usize>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    assert!(R == P::ROWS, "the path has tiles of its own");
    assert!(out.m() == m && out.n() == w.n() && strips.end <= w.n_strips() && w.k().is_multiple_of(SUPER_K));
    assert!(act.codes.len() == m.next_multiple_of(R) * w.k() / 4 * P::ACT_BYTES);
    let n_tiles = w.k() / SUPER_K;
    let slab_tiles = MAX_TILES / P::PANEL_VECS;
    let mut panel = Panel {
        codes: [0; PANEL_BYTES],
        scales: [0; MAX_TILES * 2 * SUB_BYTES],
        mins: [0; MAX_TILES * SUB_BYTES],
        d: [[0.0; PANEL_NR]; MAX_TILES],
        dmin: [[0.0; PANEL_NR]; MAX_TILES],
    };
    let (offset, len) = starts::<P, T>();
    let starts = act.starts(Span::Super, offset, len);
    for i in strips {
        for half in 0..NR / PANEL_NR {
            let columns = strip_columns(w, i).saturating_sub(half * PANEL_NR).min(PANEL_NR);
            if columns == 0 {
                continue;
            }
            let first = i * NR + half * PANEL_NR;
            let columns = first..first + columns;
            let bias = out.bias(&columns);
            for slab in (0..n_tiles).step_by(slab_tiles) {
                let tiles = slab..(slab + slab_tiles).min(n_tiles);
                let bias = bias.as_ref().filter(|_| tiles.end == n_tiles);
                for (slot, t) in tiles.clone().enumerate() {
                    let bytes = T::KIND.tile_bytes();
                    fill::<P, T>(&mut panel, slot, &w.strip(i)[t * bytes..][..bytes], half);
                }
                for row_tile in 0..m.div_ceil(R) {
                    // SAFETY: these columns belong to the caller's strips; panel and activations
                    // hold `tiles` (asserted).
                    unsafe {
                        let mut c = [[0f32; PANEL_NR]; R];
                        if slab > 0 {
                            c = micro::read_tile(out, row_tile, &columns);
                        }
                        rows::<P, T, R>(&panel, act, n_tiles, row_tile, tiles.clone(), starts, &mut c);
                        micro::write_tile(out, row_tile, &columns, &mut c, bias);
                    }
                }
            }
        }
    }
}

/// Unpacks 8 columns of a tile.
fn fill<P: DotPath, T: SuperTile>(panel: &mut Panel, slot: usize, tile: &[u8], half: usize) {
    let kind = T::KIND;
    let panel_tile = TILE_PLANES * P::PANEL_VECS;
    let to = &mut panel.codes[slot * panel_tile..][..panel_tile];
    // SAFETY: room for 256 k; a whole tile.
    unsafe { fill_codes::<P, T>(to.as_mut_ptr(), tile.as_ptr(), half) };
    if !folds::<P>() && kind.n_sub() > 0 {
        let n = SUPER_K / sum_len::<P, T>();
        let to = &mut panel.scales[slot * 2 * SUB_BYTES..][..n * PLANE];
        for (i, to) in to.chunks_exact_mut(PLANE).enumerate() {
            let sub = i * kind.n_sub() / n;
            // SAFETY: the row of scales is in the tile; 32 bytes at `to`.
            unsafe {
                let [a, b] = scales_of::<P::I, T>(tile.as_ptr(), sub, half);
                P::I::store(to.as_mut_ptr(), P::scale_of(a));
                P::I::store(to.as_mut_ptr().add(16), P::scale_of(b));
            }
        }
    }
    let halves = |at: usize, to: &mut [f32; PANEL_NR]| {
        let from = &tile[at + half * PANEL_NR * 2..][..PANEL_NR * 2];
        // SAFETY: 8 f16, and 8 floats.
        unsafe {
            let [a, b] = HalfConsts::<P::I>::new().floats(P::I::load(from.as_ptr()));
            P::I::fstore(to.as_mut_ptr(), a);
            P::I::fstore(to.as_mut_ptr().add(4), b);
        }
    };
    halves(kind.d_at(), &mut panel.d[slot]);
    if kind.has_min {
        halves(kind.d_at() + NR * 2, &mut panel.dmin[slot]);
        let mins = &mut panel.mins[slot * SUB_BYTES..][..SUB_BYTES];
        for g in 0..kind.n_sub() / 4 {
            for c in 0..2 {
                let at = kind.mins_at() + g * 64 + (half * 2 + c) * 16;
                let to = &mut mins[g * 64 + c * 16..][..48];
                // SAFETY: 16 bytes of minima; two planes 32 bytes apart.
                unsafe {
                    let four = mins_of::<P::I, T>(tile[at..at + 16].as_ptr(), P::I::splat16(0x0f0f));
                    P16::<P::I>::store_panel_u7(to.as_mut_ptr(), four);
                }
            }
        }
    }
}

/// The scales of a sub-block of 8 columns, as i32.
///
/// # Safety
/// A tile is readable.
#[inline(always)]
unsafe fn scales_of<I: Isa, T: SuperTile>(tile: *const u8, sub: usize, half: usize) -> [I::V; 2] {
    // SAFETY: the caller's.
    unsafe {
        if !T::KIND.in_fields() {
            let s = I::load8x8(tile.add(sub * NR + half * PANEL_NR));
            return [I::extend_low16(s), I::extend_high16(s)];
        }
        let group = tile.add(sub / 4 * 64 + half * 32);
        // Nibbles: the other is the minimum.
        [I::load(group), I::load(group.add(16))].map(|four| {
            let moved = match sub % 4 {
                0 => four,
                1 => I::sar32::<8>(four),
                2 => I::sar32::<16>(four),
                _ => I::sar32::<24>(four),
            };
            I::and(moved, I::splat32(15))
        })
    }
}

/// Unpacks the codes of 8 columns, with their scales if the path wants that.
///
/// # Safety
/// A whole tile is readable, and 256 k of a panel writable.
unsafe fn fill_codes<P: DotPath, T: SuperTile>(mut to: *mut u8, tile: *const u8, half: usize) {
    let kind = T::KIND;
    let masks = masks::<P::I, T>();
    let offset = P::I::splat16(u16::from(kind.offset));
    let unit_bytes = PLANE * P::PANEL_VECS;
    for k16 in 0..16 {
        // SAFETY: 16 times 4 units of the path's planes and two column groups fill the panel tile; the
        // chunk and the scales lie within the tile.
        unsafe {
            let chunk = tile.add(kind.codes_at() + k16 / 2 * kind.chunk_bytes());
            let scales = if folds::<P>() && kind.n_sub() > 0 {
                scales_of::<P::I, T>(tile, k16 * 16 / kind.sub_len, half)
                    .map(|s| P::I::blend16(s, P::I::shl32::<16>(s)))
            } else {
                [P::I::splat16(1); 2]
            };
            for (c, scale) in scales.into_iter().enumerate() {
                let units = match k16 % 2 {
                    _ if kind.in_fields() => {
                        field_units::<P::I>(masks, tile.add(kind.codes_at()), k16, half * 2 + c)
                    }
                    0 => units::<P::I, T, 0>(masks, chunk, half * 2 + c),
                    _ => units::<P::I, T, 1>(masks, chunk, half * 2 + c),
                };
                for (i, codes) in units.into_iter().enumerate() {
                    let to = to.add(i * unit_bytes + c * 16);
                    if folds::<P>() {
                        let even = P::I::shr16::<8>(P::I::shl16::<8>(codes));
                        let odd = P::I::shr16::<8>(codes);
                        P::I::store(to, P::I::mul16(P::I::sub16(even, offset), scale));
                        P::I::store(to.add(PLANE), P::I::mul16(P::I::sub16(odd, offset), scale));
                    } else {
                        P::store_panel_u7(to, codes);
                    }
                }
            }
            to = to.add(4 * unit_bytes);
        }
    }
}

/// A tile of rows times the panel's 8 columns over `tiles` of `n_tiles`, added to `c`.
///
/// # Safety
/// `panel` holds `tiles`; `act` is coded for `P` over 256 k, with the starts for `T`, and has
/// `n_tiles` tiles and that tile of rows.
#[inline(always)]
unsafe fn rows<P: DotPath, T: SuperTile, const R: usize>(
    panel: &Panel,
    act: &Coded,
    n_tiles: usize,
    row_tile: usize,
    tiles: Range<usize>,
    starts: TileStarts,
    c: &mut micro::Tile<R>,
) {
    let n_sums = SUPER_K / sum_len::<P, T>();
    let planes = micro::planes::<P>(sum_len::<P, T>());
    let scales = act.scales(row_tile);
    let starts = starts.tile(row_tile);
    for (slot, t) in tiles.enumerate() {
        // SAFETY: as the caller vouches.
        unsafe {
            let d_act = scales.as_ptr().add(t * R);
            let w = panel.codes.as_ptr().add(slot * TILE_PLANES * P::PANEL_VECS);
            let a = SUPER_K / 4 * P::PANEL_VECS * act_plane::<R>();
            let a = act.codes.as_ptr().add((row_tile * n_tiles + t) * a);
            let start =
                if starts.is_empty() { std::ptr::null() } else { starts.as_ptr().add(t * n_sums * R) };
            let scales = panel.scales.as_ptr().add(slot * 2 * SUB_BYTES);
            let sums = tile_sums::<P, T, R>(w, a, start, scales, planes);
            micro::add_scaled::<P::I, R>(c, sums, panel.d[slot].as_ptr(), d_act, false);
            if T::KIND.has_min {
                let first = if T::KIND.sub_len == 16 { 0 } else { 4 };
                let a = ((row_tile * n_tiles + t) * MIN_GROUPS + first) * 2 * act_plane::<R>();
                let a = act.min_codes.as_ptr().add(a);
                let w = panel.mins.as_ptr().add(slot * SUB_BYTES);
                let zero = micro::begin::<P16<P::I>, R>(std::ptr::null());
                let planes = micro::planes::<P16<P::I>>(T::KIND.n_sub());
                let sums = micro::products::<P16<P::I>, R>(zero, P16::<P::I>::dot_panel, w, a, planes);
                micro::add_scaled::<P::I, R>(c, sums, panel.dmin[slot].as_ptr(), d_act, true);
            }
        }
    }
}

/// The integer sums of 256 k: sub-block sums times sub-scales.
///
/// # Safety
/// Panel, activations, starts and scales of 256 k; `planes` is the planes of [`sum_len`].
#[inline(always)]
unsafe fn tile_sums<P: DotPath, T: SuperTile, const R: usize>(
    mut w: *const u8,
    mut a: *const u8,
    mut start: *const i32,
    mut scales: *const u8,
    planes: usize,
) -> Sums<<P::I as Isa>::V, R> {
    // SAFETY: the caller's.
    unsafe {
        if sum_len::<P, T>() == SUPER_K {
            let consts = P::consts();
            let sums = micro::products::<P, R>(micro::begin::<P, R>(start), P::dot_panel, w, a, planes);
            return sums.map(|row| row.map(|sum| P::total(consts, sum)));
        }
        let mut memory = Totals([[0; PLANE]; R]);
        let memory = memory.0.as_flattened_mut().as_mut_ptr();
        for _ in 0..SUPER_K / sum_len::<P, T>() {
            let sums = micro::products::<P, R>(micro::begin::<P, R>(start), P::dot_panel, w, a, planes);
            let scale = [P::I::load(scales), P::I::load(scales.add(16))];
            // Opaque, and so in memory: in registers they would drive out the sums.
            let total = std::hint::black_box(memory);
            for (r, sums) in sums.iter().enumerate() {
                for h in 0..2 {
                    let total = total.add(r * PLANE + h * 16);
                    P::I::store(total, P::add_scaled(P::I::load(total), sums[h], scale[h]));
                }
            }
            w = w.add(sum_len::<P, T>() / 4 * P::PANEL_VECS * PLANE);
            a = a.add(sum_len::<P, T>() / 4 * P::PANEL_VECS * act_plane::<R>());
            scales = scales.add(PLANE);
            if T::KIND.offset > 0 {
                start = start.add(R);
            }
        }
        std::array::from_fn(|r| std::array::from_fn(|h| P::I::load(memory.add(r * PLANE + h * 16))))
    }
}
