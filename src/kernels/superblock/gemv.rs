//! One row of activations: decoding.

use super::units::{Masks, masks, mins_of, units};
use super::{SuperTile, fields};
use crate::kernels::act::{Coded, MIN_GROUP_BYTES, MIN_GROUPS, Span, min_parts};
use crate::kernels::isa::Isa;
use crate::kernels::output::Output;
use crate::kernels::path::DotPath;
use crate::kernels::tile::HalfConsts;
use crate::repack::{NR, PackedWeights, SUPER_K};
use std::ops::Range;

pub(super) fn gemv<P: DotPath, T: SuperTile>(
    act: &Coded,
    w: &PackedWeights,
    strips: Range<usize>,
    out: Output,
) {
    assert!(act.codes.len() == w.k() / 4 * P::ACT_BYTES && w.k().is_multiple_of(SUPER_K));
    assert!(out.n() == w.n() && strips.end <= w.n_strips());
    for i in strips {
        let mut columns = [0f32; NR];
        // SAFETY: the strip holds k / 256 tiles; `act` holds k codes and their sums (checked).
        unsafe { strip::<P, T>(w.strip(i), act, &mut columns) };
        out.write_strip(i, &columns);
    }
}

/// # Safety
/// `strip` holds as many tiles as `act` has scales.
#[inline(always)]
unsafe fn strip<P: DotPath, T: SuperTile>(strip: &[u8], act: &Coded, out: &mut [f32; NR]) {
    let kind = T::KIND;
    let masks = masks::<P::I, T>();
    let half_consts = HalfConsts::<P::I>::new();
    let nibble = std::hint::black_box(P::I::splat16(0x0f0f));
    let starts =
        act.starts(Span::Super, if kind.n_sub() > 0 { i32::from(kind.offset) } else { 0 }, 16).tile(0);
    let field_consts = fields::consts::<P>();
    let consts = P::consts();
    let mut total = [P::I::fsplat(0.0); 4];
    let mut tile = strip.as_ptr();
    for (b, &d_act) in act.scales(0).iter().enumerate() {
        // SAFETY: tile b, codes and sums of block b.
        unsafe {
            let codes = act.codes.as_ptr().add(b * SUPER_K / 4 * P::ACT_BYTES);
            let sums = act.sums(0).as_ptr().add(b * 16);
            let isum = if !kind.in_fields() {
                let starts = if starts.is_empty() { std::ptr::null() } else { starts.as_ptr().add(b * 16) };
                tile_sums::<P, T>(consts, masks, tile, codes, starts)
            } else if P::ACT_BYTES == 4 {
                let [a, b] = fields::tile_sums::<P, T, 2>(field_consts, tile, codes, sums, 0);
                let [c, d] = fields::tile_sums::<P, T, 2>(field_consts, tile, codes, sums, 2);
                [a, b, c, d]
            } else {
                std::array::from_fn(|c| fields::tile_sums::<P, T, 1>(field_consts, tile, codes, sums, c)[0])
            };
            let d_act = P::I::fsplat(d_act);
            let d = tile.add(kind.d_at());
            for ((total, isum), scale) in total.iter_mut().zip(isum).zip(halves::<P::I>(half_consts, d)) {
                let scale = P::I::fmul(scale, d_act);
                *total = P::I::fadd(*total, P::I::fmul(P::I::to_float(isum), scale));
            }
            if kind.has_min {
                let first = if kind.sub_len == 16 { 0 } else { 4 };
                let min_codes = act.min_codes.as_ptr().add((b * MIN_GROUPS + first) * MIN_GROUP_BYTES);
                let msum =
                    min_sums::<P, T>(consts, nibble, tile.add(kind.mins_at()), kind.n_sub() / 4, min_codes);
                let dmin = halves::<P::I>(half_consts, d.add(NR * 2));
                for ((total, msum), scale) in total.iter_mut().zip(msum).zip(dmin) {
                    let scale = P::I::fmul(scale, d_act);
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
/// A tile, 256 codes and, for codes with an offset, 16 starts are readable.
#[inline(always)]
unsafe fn tile_sums<P: DotPath, T: SuperTile>(
    consts: P::Consts,
    masks: Masks<<P::I as Isa>::V>,
    tile: *const u8,
    mut codes: *const u8,
    mut starts: *const i32,
) -> [<P::I as Isa>::V; 4] {
    let kind = T::KIND;
    let (max, offset) = (kind.max_code(), i32::from(kind.offset));
    let mut isum = [P::I::splat32(0); 4];
    // SAFETY: 8 chunks, each with 8 groups of codes, 2 starts and 1 or 2 rows of scales; halves of a chunk
    // that are alike are taken one by one, in a loop of half the size.
    unsafe {
        let (mut chunk, mut scales) = (tile.add(kind.codes_at()), tile);
        let start = |at: *const i32| {
            [P::begin(if offset == 0 { P::I::splat32(0) } else { P::I::load32_splat(at.cast()) }); 4]
        };
        let halves = kind.bits == 6;
        for _ in 0..std::hint::black_box(if halves { 16 } else { 8 }) {
            if halves {
                debug_assert!(kind.sub_len == 16 && P::holds(16, max, offset));
                let acc = half::<P, T, 0>(masks, chunk, codes, start(starts));
                isum = add_scaled::<P>(isum, acc, wide_scales::<P>(scales));
            } else if kind.bits == 4 && P::holds(32, max, offset) {
                let acc = nibbles::<P>(consts, chunk, codes, start(starts));
                isum = add_scaled::<P>(isum, acc, wide_scales::<P>(scales));
            } else if kind.sub_len == 32 && P::holds(32, max, offset) {
                let acc = half::<P, T, 0>(masks, chunk, codes, start(starts));
                let acc = half::<P, T, 1>(masks, chunk, codes, acc);
                isum = add_scaled::<P>(isum, acc, wide_scales::<P>(scales));
            } else {
                debug_assert!(P::holds(16, max, offset));
                let s = wide_scales::<P>(scales);
                let acc = half::<P, T, 0>(masks, chunk, codes, start(starts));
                isum = add_scaled::<P>(isum, acc, s);
                let s = if kind.sub_len == 16 { wide_scales::<P>(scales.add(NR)) } else { s };
                let acc = half::<P, T, 1>(masks, chunk, codes, start(starts.wrapping_add(1)));
                isum = add_scaled::<P>(isum, acc, s);
            }
            let k = if halves { 16 } else { 32 };
            chunk = chunk.add(kind.chunk_bytes() * k / 32);
            codes = codes.add(k / 4 * P::ACT_BYTES);
            scales = scales.add(k / kind.sub_len * NR);
            starts = starts.wrapping_add(k / 16);
        }
    }
    isum
}

/// 32 k of 4-bit codes of 16 columns, added to `acc`. As many groups at once, and as many rounds unknown to
/// the compiler, as leave the sums in registers.
///
/// # Safety
/// A whole chunk and 8 groups of activation codes are readable.
#[inline(always)]
unsafe fn nibbles<P: DotPath>(
    consts: P::Consts,
    mut chunk: *const u8,
    mut codes: *const u8,
    mut acc: [P::Acc; 4],
) -> [P::Acc; 4] {
    for _ in 0..std::hint::black_box(4) {
        // SAFETY: four rounds of four vectors and two groups.
        unsafe {
            let (low, high) = (P::load_act(codes), P::load_act(codes.add(P::ACT_BYTES)));
            for (c, acc) in acc.iter_mut().enumerate() {
                *acc = P::dot_nibbles(consts, *acc, P::I::load(chunk.add(c * 16)), low, high);
            }
            chunk = chunk.add(64);
            codes = codes.add(2 * P::ACT_BYTES);
        }
    }
    acc
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
    from: [P::Acc; 4],
) -> [P::Acc; 4] {
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

/// `isum + acc * scales`, column group by column group.
#[inline(always)]
fn add_scaled<P: DotPath>(
    isum: [<P::I as Isa>::V; 4],
    acc: [P::Acc; 4],
    scales: [<P::I as Isa>::V; 4],
) -> [<P::I as Isa>::V; 4] {
    let term = |c: usize| P::add_scaled(isum[c], acc[c], scales[c]);
    [term(0), term(1), term(2), term(3)]
}

/// 16 i8 scales.
///
/// # Safety
/// 16 bytes at `p` are readable.
#[inline(always)]
unsafe fn wide_scales<P: DotPath>(p: *const u8) -> [<P::I as Isa>::V; 4] {
    // SAFETY: the caller's.
    let ([a, b], [c, d]) = unsafe { (P::scales(p), P::scales(p.add(8))) };
    [a, b, c, d]
}

/// 16 f16 as floats.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn halves<I: Isa>(consts: HalfConsts<I>, p: *const u8) -> [I::F; 4] {
    // SAFETY: the caller's.
    let ([a, b], [c, d]) = unsafe { (consts.floats(I::load(p)), consts.floats(I::load(p.add(16)))) };
    [a, b, c, d]
}

/// Minima times sums of activation codes, for 16 columns.
///
/// # Safety
/// `n_groups` groups of 64 bytes of minima and of 8 bytes of sums are readable.
#[inline(always)]
unsafe fn min_sums<P: DotPath, T: SuperTile>(
    consts: P::Consts,
    nibble: <P::I as Isa>::V,
    mins: *const u8,
    n_groups: usize,
    sums: *const u8,
) -> [<P::I as Isa>::V; 4] {
    let mut low = [P::start(0, 0); 4];
    let mut high = [P::start(0, 0); 4];
    for g in 0..n_groups {
        // SAFETY: the caller's.
        unsafe {
            let act = P::load_act(sums.add(g * MIN_GROUP_BYTES));
            let act_high = P::load_act(sums.add((g + 1) * MIN_GROUP_BYTES - P::ACT_BYTES));
            for c in 0..4 {
                let mins = mins_of::<P::I, T>(mins.add(g * 64 + c * 16), nibble);
                low[c] = P::dot_u7(low[c], mins, act);
                if min_parts::<P>() == 2 {
                    high[c] = P::dot_u7(high[c], mins, act_high);
                }
            }
        }
    }
    std::array::from_fn(|c| {
        let sum = P::total(consts, low[c]);
        if min_parts::<P>() == 1 {
            return sum;
        }
        P::I::add32(sum, P::I::shl32::<6>(P::total(consts, high[c])))
    })
}
