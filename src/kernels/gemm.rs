//! Many rows of activations times packed weights: prompts and images.
//!
//! Eight columns are unpacked once into a panel that stays in the first-level cache, then
//! meet all row tiles: unpacking costs next to nothing per product, so one micro-kernel
//! serves every code width.

use super::act::{Coded, Span, TileStarts};
use super::isa::Isa;
use super::micro::{self, PANEL_NR, PLANE, act_plane};
use super::output::Output;
use super::path::DotPath;
use super::strip_columns;
use super::tile::Tile;
use crate::repack::{NR, PackedWeights, TILE_K};
use std::ops::Range;

/// Bytes of a panel: with the activations of a row tile it stays within a 32 KiB cache.
const PANEL_BYTES: usize = 12 * 1024;
/// Bytes of one tile of 32 k in one plane.
const TILE_PLANES: usize = TILE_K / 4 * PLANE;
/// Tiles in a panel of one plane, the most there are.
const MAX_TILES: usize = PANEL_BYTES / TILE_PLANES;

/// A panel: codes in the path's layout, and the scales of its tiles.
#[repr(align(64))]
struct Panel {
    codes: [u8; PANEL_BYTES],
    scales: [f32; MAX_TILES * PANEL_NR],
}

/// The strips' columns of `out[m, n] = act[m, k] . w[n, k]`; other columns are left alone.
pub fn gemm<P: DotPath, T: Tile<P>>(
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
fn tiled<P: DotPath, T: Tile<P>, const R: usize>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    assert!(R == P::ROWS, "the path has tiles of its own");
    assert!(w.packing() == T::PACKING && out.m() == m && out.n() == w.n() && strips.end <= w.n_strips());
    assert!(act.codes.len() == m.next_multiple_of(R) * w.k() / 4 * P::ACT_BYTES);
    let n_tiles = w.k() / TILE_K;
    let slab_tiles = MAX_TILES / P::PANEL_VECS;
    let starts = act.starts(Span::Tile, T::PANEL_OFFSET, TILE_K);
    let mut panel = Panel { codes: [0; PANEL_BYTES], scales: [0.0; MAX_TILES * PANEL_NR] };
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
                fill_panel::<P, T>(&mut panel, w.strip(i), half, tiles.clone());
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

fn fill_panel<P: DotPath, T: Tile<P>>(panel: &mut Panel, strip: &[u8], half: usize, tiles: Range<usize>) {
    let panel_tile = TILE_PLANES * P::PANEL_VECS;
    let consts = T::scale_consts();
    for (slot, t) in tiles.enumerate() {
        let (codes_at, scales_at) = T::place(t);
        let codes = &mut panel.codes[slot * panel_tile..][..panel_tile];
        // SAFETY: a whole tile, and room for 16 units.
        unsafe { T::unpack(strip[codes_at..].as_ptr(), half, codes.as_mut_ptr()) };
        let to = &mut panel.scales[slot * PANEL_NR..][..PANEL_NR];
        // SAFETY: the 16 scales of the tile, and 8 floats.
        unsafe {
            let [a, b] = T::scales(consts, strip[scales_at..].as_ptr(), half);
            P::I::fstore(to.as_mut_ptr(), a);
            P::I::fstore(to.as_mut_ptr().add(4), b);
        }
    }
}

/// A tile of rows times the panel's 8 columns over `tiles` of `n_tiles`, added to `c`.
///
/// # Safety
/// `panel` holds `tiles`; `act` is coded for `P` over 32 k, with the starts for `T`, and has
/// `n_tiles` tiles and that tile of rows.
#[inline(always)]
unsafe fn rows<P: DotPath, T: Tile<P>, const R: usize>(
    panel: &Panel,
    act: &Coded,
    n_tiles: usize,
    row_tile: usize,
    tiles: Range<usize>,
    starts: TileStarts,
    c: &mut micro::Tile<R>,
) {
    let planes = micro::planes::<P>(TILE_K);
    let scales = &act.scales(row_tile)[tiles.start * R..tiles.end * R];
    let starts = starts.tile(row_tile);
    let mut a =
        act.codes[(row_tile * n_tiles + tiles.start) * 8 * P::PANEL_VECS * act_plane::<R>()..].as_ptr();
    let mut w = panel.codes.as_ptr();
    let consts = P::consts();
    for (slot, t) in tiles.enumerate() {
        // SAFETY: as the caller vouches.
        unsafe {
            let start = if T::PANEL_OFFSET == 0 { std::ptr::null() } else { starts.as_ptr().add(t * R) };
            let sums = micro::products::<P, R>(micro::begin::<P, R>(start), T::dot_panel, w, a, planes);
            w = w.add(8 * P::PANEL_VECS * PLANE);
            a = a.add(8 * P::PANEL_VECS * act_plane::<R>());
            let sums = sums.map(|row| row.map(|sum| P::total(consts, sum)));
            let (d, d_act) = (panel.scales.as_ptr().add(slot * PANEL_NR), scales.as_ptr().add(slot * R));
            micro::add_scaled::<P::I, R>(c, sums, d, d_act, false);
        }
    }
}
