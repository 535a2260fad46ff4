//! Many rows of activations times packed weights: prompts and images.
//!
//! Eight columns are unpacked once into a panel that stays in the first-level cache, then
//! meet all row tiles: unpacking costs next to nothing per product, so one micro-kernel
//! serves every code width.

use super::act::{Coded, MR};
use super::isa::Isa;
use super::output::Output;
use super::path::DotPath;
use super::strip_columns;
use super::tile::Tile;
use crate::repack::{NR, PackedWeights, TILE_K};
use std::ops::Range;

/// Columns of a panel.
const PANEL_NR: usize = 8;
/// Tiles (of 32 k) per panel: 768 k in 16-bit planes are 12 KiB of a 32 KiB cache.
const SLAB_TILES: usize = 24;

/// A panel: codes in the path's layout, and the scales of its tiles.
struct Panel {
    codes: Vec<u8>,
    scales: [f32; SLAB_TILES * PANEL_NR],
}

/// The strips' columns of `out[m, n] = act[m, k] . w[n, k]`; other columns are left alone.
pub fn gemm<P: DotPath, T: Tile<P>>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    assert!(w.packing() == T::PACKING && out.m() == m && out.n() == w.n() && strips.end <= w.n_strips());
    assert!(act.codes.len() == m.next_multiple_of(MR) * w.k() / 4 * P::ACT_BYTES);
    let n_tiles = w.k() / TILE_K;
    let unit_bytes = 16 * P::PANEL_VECS;
    let mut panel = Panel {
        codes: vec![0; n_tiles.min(SLAB_TILES) * 16 * unit_bytes],
        scales: [0.0; SLAB_TILES * PANEL_NR],
    };
    for i in strips {
        for half in 0..NR / PANEL_NR {
            let columns = strip_columns(w, i).saturating_sub(half * PANEL_NR).min(PANEL_NR);
            if columns == 0 {
                continue;
            }
            let first_column = i * NR + half * PANEL_NR;
            let to = Target { out, first_column, columns };
            for slab in (0..n_tiles).step_by(SLAB_TILES) {
                let tiles = slab..(slab + SLAB_TILES).min(n_tiles);
                fill_panel::<P, T>(&mut panel, w.strip(i), half, tiles.clone());
                rows::<P, T>(&panel, act, w.k(), tiles, &to);
            }
        }
    }
}

fn fill_panel<P: DotPath, T: Tile<P>>(panel: &mut Panel, strip: &[u8], half: usize, tiles: Range<usize>) {
    let tile_bytes = T::PACKING.tile_bytes();
    let panel_tile = 16 * 16 * P::PANEL_VECS;
    for (slot, t) in tiles.enumerate() {
        let tile = &strip[t * tile_bytes..][..tile_bytes];
        let codes = &mut panel.codes[slot * panel_tile..][..panel_tile];
        // SAFETY: a whole tile, and room for 16 units.
        unsafe { T::unpack(tile.as_ptr(), half, codes.as_mut_ptr()) };
        let scales = &tile[T::CODE_BYTES + half * PANEL_NR * 4..][..PANEL_NR * 4];
        for (to, from) in panel.scales[slot * PANEL_NR..].iter_mut().zip(scales.chunks_exact(4)) {
            *to = f32::from_le_bytes(from.try_into().unwrap());
        }
    }
}

/// Where a panel's products go.
struct Target<'a> {
    out: Output<'a>,
    first_column: usize,
    columns: usize,
}

/// All row tiles against the panel; adds to what is there unless the slab is the first.
fn rows<P: DotPath, T: Tile<P>>(panel: &Panel, act: &Coded, k: usize, tiles: Range<usize>, to: &Target) {
    for first_row in (0..to.out.m()).step_by(MR) {
        let n_rows = (to.out.m() - first_row).min(MR);
        let mut c = [[0f32; PANEL_NR]; MR];
        // SAFETY: these columns belong to the caller's strips.
        let place = |r: usize| unsafe { to.out.columns(first_row + r, to.first_column, to.columns) };
        if tiles.start > 0 {
            for (r, c) in c.iter_mut().enumerate().take(n_rows) {
                c[..to.columns].copy_from_slice(place(r));
            }
        }
        let codes = &act.codes[first_row * k / 4 * P::ACT_BYTES..];
        let codes = &codes[tiles.start * 8 * MR * P::ACT_BYTES..][..tiles.len() * 8 * MR * P::ACT_BYTES];
        let scales = std::array::from_fn(|r| &act.scales(first_row + r)[tiles.clone()]);
        let sums = std::array::from_fn(|r| &act.sums(first_row + r)[tiles.clone()]);
        // SAFETY: panel, codes, scales and sums all cover `tiles.len()` tiles.
        unsafe { micro::<P, T>(panel, codes, &scales, &sums, &mut c) };
        for (r, c) in c.iter().enumerate().take(n_rows) {
            place(r).copy_from_slice(&c[..to.columns]);
        }
    }
}

/// [`MR`] rows times 8 columns over the tiles of the panel.
///
/// # Safety
/// `panel` holds at least `scales[0].len()` tiles, `codes` as many times `32 * MR` activations,
/// and all rows of `scales` and `sums` have that length.
#[inline(always)]
unsafe fn micro<P: DotPath, T: Tile<P>>(
    panel: &Panel,
    codes: &[u8],
    scales: &[&[f32]; MR],
    sums: &[&[i32]; MR],
    c: &mut [[f32; PANEL_NR]; MR],
) {
    let n_tiles = scales[0].len();
    let consts = P::consts();
    let (mut w, mut a) = (panel.codes.as_ptr(), codes.as_ptr());
    for t in 0..n_tiles {
        // SAFETY: t < n_tiles for every access; see the contract.
        unsafe {
            let column_bias = T::panel_bias(w);
            let mut acc: [[P::Acc; 2]; MR] = std::array::from_fn(|r| match column_bias {
                Some(bias) => bias,
                None if T::OFFSET == 0 => [P::start(0, 0); 2],
                None => [P::start(*sums[r].get_unchecked(t), T::OFFSET); 2],
            });
            for _ in 0..8 {
                T::micro_step(consts, &mut acc, w, a);
                w = w.add(32 * P::PANEL_VECS);
                a = a.add(MR * P::ACT_BYTES);
            }
            let ws = panel.scales.as_ptr().add(t * PANEL_NR);
            let ws = [P::I::fload(ws), P::I::fload(ws.add(4))];
            for (r, (c, acc)) in c.iter_mut().zip(acc).enumerate() {
                let d = P::I::fsplat(*scales[r].get_unchecked(t));
                for h in 0..2 {
                    let p = c.as_mut_ptr().add(4 * h);
                    let product = P::I::fmul(P::I::to_float(P::total(consts, acc[h])), P::I::fmul(ws[h], d));
                    P::I::fstore(p, P::I::fadd(P::I::fload(p), product));
                }
            }
        }
    }
}
