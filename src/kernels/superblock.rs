//! Products with the 256-wide tiles of integer sub-scales (K-quants, ternary).
//!
//! Decoding sums each sub-block in integers, multiplies the sum by the sub-block's integer
//! scale and adds; floats appear once per 256 k. Minima meet the sums of activation codes in
//! a small integer product of their own.
//!
//! Prompts fold the sub-scale into the unpacked 16-bit codes ((q - offset) * scale stays below
//! 2^13 for every type), so the micro-kernel needs no scale at all within 256 k.

use super::act::{Coded, MIN_GROUPS, MR};
use super::isa::Isa;
use super::path::{DotPath, P16};
use super::strip_columns;
use crate::repack::{NR, PackedWeights, SUPER_K, SuperKind};
use std::ops::Range;

/// A kind of tile at compile time.
pub trait SuperTile: 'static {
    /// Which one.
    const KIND: SuperKind;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $low:literal + $high:literal bits, offset $offset:literal, sub $sub:literal, min $min:literal;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;
            impl SuperTile for $name {
                const KIND: SuperKind = SuperKind {
                    low_bits: $low, high_bits: $high, offset: $offset, sub_len: $sub, has_min: $min,
                };
            }
        )*

        /// `out[m, n] = act . w^T` for the strips' columns, with `act` coded over 256 k for `P`
        /// (one row) or for [`P16`] (more).
        ///
        /// # Panics
        /// For a kind without a kernel: a bug, since the packer makes no other.
        pub fn matmul<P: DotPath>(act: &Coded, m: usize, w: &PackedWeights, kind: SuperKind, strips: Range<usize>, out: &mut [f32]) {
            match kind {
                $(kind if kind == $name::KIND && m == 1 => gemv::<P, $name>(act, w, strips, out),
                kind if kind == $name::KIND => gemm::<P::I, $name>(act, m, w, strips, out),)*
                other => unreachable!("no kernel for {other:?}"),
            }
        }
    };
}

kinds! {
    /// Q2_K.
    Q2K: 2 + 0 bits, offset 0, sub 16, min true;
    /// Q3_K.
    Q3K: 2 + 1 bits, offset 4, sub 16, min false;
    /// Q4_K.
    Q4K: 4 + 0 bits, offset 0, sub 32, min true;
    /// Q5_K.
    Q5K: 4 + 1 bits, offset 0, sub 32, min true;
    /// Q6_K.
    Q6K: 4 + 2 bits, offset 32, sub 16, min false;
    /// TQ1_0 and TQ2_0.
    Ternary: 2 + 0 bits, offset 1, sub 256, min false;
}

/// Masks for fields of the two planes, opaque to the compiler (see [`DotPath::consts`]).
#[derive(Clone, Copy)]
struct Masks<V> {
    low: V,
    high: V,
}

impl<V: Copy> Masks<V> {
    #[inline(always)]
    fn new<I: Isa<V = V>, T: SuperTile>() -> Self {
        let low = if T::KIND.low_bits == 4 { 0x0f0f } else { 0x0303 };
        let high = if T::KIND.high_bits == 2 { 0x0303 } else { 0x0101 };
        Masks {
            low: std::hint::black_box(I::splat16(low)),
            high: std::hint::black_box(I::splat16(high << T::KIND.low_bits)),
        }
    }
}

/// The codes of unit `UNIT` (of 8 in a chunk of 32 k), column group `c`. The unit is constant,
/// so that every shift is.
///
/// # Safety
/// A whole chunk at `chunk` is readable; c < 4.
#[inline(always)]
unsafe fn unit<I: Isa, T: SuperTile, const UNIT: usize>(
    masks: Masks<I::V>,
    chunk: *const u8,
    c: usize,
) -> I::V {
    // SAFETY: 8 units are `bits` vectors of each plane and column group.
    unsafe {
        let low = if T::KIND.low_bits == 4 {
            let v = I::load(chunk.add((UNIT / 2 * 4 + c) * 16));
            if UNIT.is_multiple_of(2) { v } else { I::shr16::<4>(v) }
        } else {
            let v = I::load(chunk.add((UNIT / 4 * 4 + c) * 16));
            shift16::<I>(v, -2 * (UNIT as i32 % 4))
        };
        let low = I::and(low, masks.low);
        if T::KIND.high_bits == 0 {
            return low;
        }
        let plane = chunk.add(T::KIND.low_bits * 64);
        let (v, from) = if T::KIND.high_bits == 2 {
            (I::load(plane.add((UNIT / 4 * 4 + c) * 16)), UNIT % 4 * 2)
        } else {
            (I::load(plane.add(c * 16)), UNIT)
        };
        I::or(low, I::and(shift16::<I>(v, T::KIND.low_bits as i32 - from as i32), masks.high))
    }
}

/// u16 lanes shifted left by `n`, right where n is negative; `n` is known at compile time
/// after inlining.
#[inline(always)]
fn shift16<I: Isa>(v: I::V, n: i32) -> I::V {
    match n {
        4 => I::shl16::<4>(v),
        3 => I::shl16::<3>(v),
        2 => I::shl16::<2>(v),
        1 => I::shl16::<1>(v),
        0 => v,
        -1 => I::shr16::<1>(v),
        -2 => I::shr16::<2>(v),
        -3 => I::shr16::<3>(v),
        -4 => I::shr16::<4>(v),
        -5 => I::shr16::<5>(v),
        -6 => I::shr16::<6>(v),
        _ => unreachable!("fields move by at most 6 bits"),
    }
}

fn gemv<P: DotPath, T: SuperTile>(act: &Coded, w: &PackedWeights, strips: Range<usize>, out: &mut [f32]) {
    assert!(act.codes.len() == w.k() / 4 * P::ACT_BYTES && w.k().is_multiple_of(SUPER_K));
    assert!(out.len() == w.n() && strips.end <= w.n_strips());
    for i in strips {
        let mut columns = [0f32; NR];
        // SAFETY: the strip holds k / 256 tiles; `act` holds k codes and their sums (checked).
        unsafe { strip::<P, T>(w.strip(i), act, &mut columns) };
        let n = strip_columns(w, i);
        out[i * NR..][..n].copy_from_slice(&columns[..n]);
    }
}

/// # Safety
/// `strip` holds as many tiles as `act` has scales.
#[inline(always)]
unsafe fn strip<P: DotPath, T: SuperTile>(strip: &[u8], act: &Coded, out: &mut [f32; NR]) {
    let kind = T::KIND;
    let masks = Masks::new::<P::I, T>();
    let mut total = [P::I::fsplat(0.0); 4];
    let mut tile = strip.as_ptr();
    for (b, &d_act) in act.scales(0).iter().enumerate() {
        // SAFETY: tile b, codes and sums of block b.
        unsafe {
            let codes = act.codes.as_ptr().add(b * SUPER_K / 4 * P::ACT_BYTES);
            let sums = act.sums(0).as_ptr().add(b * 16);
            let isum = tile_sums::<P, T>(masks, tile, codes, sums);
            let d_act = P::I::fsplat(d_act);
            let d = tile.add(kind.d_at()).cast::<f32>();
            for (c, (total, isum)) in total.iter_mut().zip(isum).enumerate() {
                let scale = P::I::fmul(P::I::fload(d.add(4 * c)), d_act);
                *total = P::I::fadd(*total, P::I::fmul(P::I::to_float(isum), scale));
            }
            if kind.has_min {
                let first = if kind.sub_len == 16 { 0 } else { 4 };
                let min_codes = act.min_codes.as_ptr().add((b * MIN_GROUPS + first) * 8);
                let msum = min_sums::<P::I>(tile.add(kind.mins_at()), kind.n_sub() / 4, min_codes);
                for (c, (total, msum)) in total.iter_mut().zip(msum).enumerate() {
                    let scale = P::I::fmul(P::I::fload(d.add(NR + 4 * c)), d_act);
                    *total = P::I::fsub(*total, P::I::fmul(P::I::to_float(msum), scale));
                }
            }
            tile = tile.add(kind.tile_bytes());
        }
    }
    for (c, total) in total.into_iter().enumerate() {
        // SAFETY: 16 floats in out.
        unsafe { P::I::fstore(out.as_mut_ptr().add(4 * c), total) };
    }
}

/// The integer sums of one tile: sub-block sums times sub-scales, for 16 columns.
///
/// # Safety
/// A tile, 256 codes and 16 sums are readable.
#[inline(always)]
unsafe fn tile_sums<P: DotPath, T: SuperTile>(
    masks: Masks<<P::I as Isa>::V>,
    tile: *const u8,
    mut codes: *const u8,
    mut sums: *const i32,
) -> [<P::I as Isa>::V; 4] {
    let kind = T::KIND;
    let mut isum = [P::I::splat32(0); 4];
    // SAFETY: 8 chunks, each with 8 groups of codes, 2 sums and 0, 1 or 2 rows of scales.
    unsafe {
        let (mut chunk, mut scales) = (tile.add(kind.codes_at()), tile);
        for _ in 0..8 {
            let start = [bias::<P, T>(*sums), bias::<P, T>(*sums.add(1))];
            if kind.sub_len == 16 {
                let a = half::<P, T, 0>(masks, chunk, codes, [start[0]; 4]);
                isum = add_scaled_sums::<P::I>(isum, a, scales);
                let b = half::<P, T, 1>(masks, chunk, codes, [start[1]; 4]);
                isum = add_scaled_sums::<P::I>(isum, b, scales.add(NR));
                scales = scales.add(2 * NR);
            } else {
                let both = P::I::add32(start[0], start[1]);
                let from =
                    if kind.sub_len == SUPER_K { isum.map(|v| P::I::add32(v, both)) } else { [both; 4] };
                let a = half::<P, T, 0>(masks, chunk, codes, from);
                let b = half::<P, T, 1>(masks, chunk, codes, a);
                if kind.sub_len == SUPER_K {
                    isum = b;
                } else {
                    isum = add_scaled_sums::<P::I>(isum, b, scales);
                    scales = scales.add(NR);
                }
            }
            chunk = chunk.add(kind.chunk_bytes());
            codes = codes.add(8 * P::ACT_BYTES);
            sums = sums.add(2);
        }
    }
    isum
}

/// What the offset of the codes contributes, given the sum of 16 activation codes.
#[inline(always)]
fn bias<P: DotPath, T: SuperTile>(sum: i32) -> <P::I as Isa>::V {
    P::I::splat32(if T::KIND.offset > 0 { sum.wrapping_mul(-i32::from(T::KIND.offset)) } else { 0 })
}

/// 16 k (half of a chunk) of 16 columns, added to `from`.
///
/// # Safety
/// A whole chunk and 8 groups of activation codes are readable.
#[inline(always)]
unsafe fn half<P: DotPath, T: SuperTile, const HALF: usize>(
    masks: Masks<<P::I as Isa>::V>,
    chunk: *const u8,
    codes: *const u8,
    from: [<P::I as Isa>::V; 4],
) -> [<P::I as Isa>::V; 4] {
    // SAFETY: the caller's.
    unsafe {
        let a: [P::Act; 4] = std::array::from_fn(|i| P::load_act(codes.add((HALF * 4 + i) * P::ACT_BYTES)));
        let column = |c: usize| {
            let [u0, u1, u2, u3] = units::<P::I, T, HALF>(masks, chunk, c);
            let sum = P::dot_u7(P::dot_u7(from[c], u0, a[0]), u1, a[1]);
            P::dot_u7(P::dot_u7(sum, u2, a[2]), u3, a[3])
        };
        [column(0), column(1), column(2), column(3)]
    }
}

/// The four units of one half of a chunk.
///
/// # Safety
/// As [`unit`].
#[inline(always)]
unsafe fn units<I: Isa, T: SuperTile, const HALF: usize>(
    masks: Masks<I::V>,
    chunk: *const u8,
    c: usize,
) -> [I::V; 4] {
    // SAFETY: the caller's.
    unsafe {
        if HALF == 0 {
            [
                unit::<I, T, 0>(masks, chunk, c),
                unit::<I, T, 1>(masks, chunk, c),
                unit::<I, T, 2>(masks, chunk, c),
                unit::<I, T, 3>(masks, chunk, c),
            ]
        } else {
            [
                unit::<I, T, 4>(masks, chunk, c),
                unit::<I, T, 5>(masks, chunk, c),
                unit::<I, T, 6>(masks, chunk, c),
                unit::<I, T, 7>(masks, chunk, c),
            ]
        }
    }
}

/// `isum + sums * scales`, the scales 16 i8.
///
/// # Safety
/// 16 bytes at `scales` are readable.
#[inline(always)]
unsafe fn add_scaled_sums<I: Isa>(isum: [I::V; 4], sums: [I::V; 4], scales: *const u8) -> [I::V; 4] {
    // SAFETY: the caller's.
    let s = unsafe { wide_scales::<I>(scales) };
    let term = |c: usize| I::add32(isum[c], I::mul32(sums[c], s[c]));
    [term(0), term(1), term(2), term(3)]
}

/// 16 i8 scales as i32.
///
/// # Safety
/// 16 bytes at `p` are readable.
#[inline(always)]
unsafe fn wide_scales<I: Isa>(p: *const u8) -> [I::V; 4] {
    // SAFETY: the caller's.
    let (a, b) = unsafe { (I::load8x8(p), I::load8x8(p.add(8))) };
    [I::pair_low16(a), I::pair_high16(a), I::pair_low16(b), I::pair_high16(b)].map(|v| I::sar32::<16>(v))
}

/// Minima times sums of activation codes, for 16 columns.
///
/// # Safety
/// `n_groups` groups of 64 bytes of minima and of 8 bytes of sums are readable.
#[inline(always)]
unsafe fn min_sums<I: Isa>(mins: *const u8, n_groups: usize, sums: *const u8) -> [I::V; 4] {
    let mut acc = [I::splat32(0); 4];
    for g in 0..n_groups {
        // SAFETY: the caller's.
        unsafe {
            let act = P16::<I>::load_act(sums.add(g * 8));
            for (c, acc) in acc.iter_mut().enumerate() {
                *acc = P16::<I>::dot_u7(*acc, I::load(mins.add(g * 64 + c * 16)), act);
            }
        }
    }
    acc
}

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

fn gemm<I: Isa, T: SuperTile>(
    act: &Coded,
    m: usize,
    w: &PackedWeights,
    strips: Range<usize>,
    out: &mut [f32],
) {
    assert!(out.len() == m * w.n() && strips.end <= w.n_strips() && w.k().is_multiple_of(SUPER_K));
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
                    let place = |r: usize| (first_row + r) * w.n() + first_column;
                    if tiles.start > 0 {
                        for (r, c) in c.iter_mut().enumerate().take(n_rows) {
                            c[..columns].copy_from_slice(&out[place(r)..][..columns]);
                        }
                    }
                    // SAFETY: the panel holds `tiles`, and act all rows and blocks.
                    unsafe { micro::<I, T>(&panel, act, first_row, w.k(), tiles.clone(), &mut c) };
                    for (r, c) in c.iter().enumerate().take(n_rows) {
                        out[place(r)..][..columns].copy_from_slice(&c[..columns]);
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
