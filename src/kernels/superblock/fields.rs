//! Decoding with 2-bit codes: each field of a byte belongs to another sub-block and meets the
//! activations where it stands, so that unpacking is one mask; sums are shifted instead, once per 16 k.

use super::SuperTile;
use crate::kernels::isa::Isa;
use crate::kernels::path::{DotPath, shifted_down};
use crate::repack::SUPER_K;

/// Fields of a byte.
const FIELDS: usize = 4;
/// Chunks of 64 k in a tile, vectors of a column group in a chunk.
const CHUNKS: usize = 4;
const VECS: usize = 4;
/// Bytes of the vectors of four column groups.
const ROW: usize = 64;

/// Masks, opaque to the compiler (see [`DotPath::consts`]).
pub(super) type Masks<P> = [<<P as DotPath>::I as Isa>::V; FIELDS];

/// Masks, what [`DotPath::add_fields`] takes, and the path's own constants.
pub(super) type Consts<P> = (Masks<P>, <P as DotPath>::FieldConsts, <P as DotPath>::Consts);

pub(super) fn consts<P: DotPath>() -> Consts<P> {
    (masks::<P>(), P::field_consts(), P::consts())
}

fn masks<P: DotPath>() -> Masks<P> {
    let mut masks = P::FIELD_MASKS.map(|mask| std::hint::black_box(P::I::splat16(mask)));
    // Equal ones share a register.
    for i in 1..FIELDS {
        if let Some(same) = (0..i).find(|&j| P::FIELD_MASKS[j] == P::FIELD_MASKS[i]) {
            masks[i] = masks[same];
        }
    }
    masks
}

/// The integer sums of one tile for `G` column groups from `first` on: sub-block sums times sub-scales.
///
/// # Safety
/// A tile, 256 codes and 16 sums are readable; `first + G <= 4`.
#[inline(always)]
pub(super) unsafe fn tile_sums<P: DotPath, T: SuperTile, const G: usize>(
    (masks, consts, path_consts): Consts<P>,
    tile: *const u8,
    mut codes: *const u8,
    sums: *const i32,
    first: usize,
) -> [<P::I as Isa>::V; G] {
    let has_scales = T::KIND.n_sub() > 0;
    let mut isum = [P::begin_fields(); G];
    // SAFETY: 16 sums.
    let mut acc = unsafe { begin::<P, T>(sums) }.map(|acc| [acc; G]);
    // SAFETY: 4 chunks of codes, with 16 groups of activations and 4 sub-scales per column each.
    unsafe {
        let mut chunk = tile.add(T::KIND.codes_at() + first * 16);
        let mut scales = tile.add(first * 16);
        for _ in 0..std::hint::black_box(CHUNKS) {
            acc = chunk_sums::<P, G>(masks, acc, chunk, codes);
            if has_scales {
                for (g, isum) in isum.iter_mut().enumerate() {
                    let of_group = acc.map(|field| field[g]);
                    *isum = P::add_fields(consts, *isum, of_group, P::I::load(scales.add(g * 16)));
                }
                acc = [[P::start(0, 0); G]; FIELDS];
                scales = scales.add(ROW);
            }
            chunk = chunk.add(VECS * ROW);
            codes = codes.add(VECS * FIELDS * P::ACT_BYTES);
        }
    }
    if has_scales {
        return isum.map(P::end_fields);
    }
    std::array::from_fn(|g| {
        let [a, b, c, d] = plain::<P>(path_consts, acc.map(|field| field[g]));
        P::I::add32(P::I::add32(a, b), P::I::add32(c, d))
    })
}

/// What sums begin with: over 16 k nothing (kinds with sub-scales have no offset), over 256 k the
/// offset of the codes of each field.
#[inline(always)]
unsafe fn begin<P: DotPath, T: SuperTile>(sums: *const i32) -> [P::Acc; FIELDS] {
    let offset = i32::from(T::KIND.offset);
    if T::KIND.n_sub() > 0 {
        debug_assert!(offset == 0);
        return [P::start(0, 0); FIELDS];
    }
    std::array::from_fn(|f| {
        // SAFETY: 16 sums, as the caller vouches.
        let sum = |chunk: usize| unsafe { *sums.add(FIELDS * chunk + f) };
        let sum = (1..CHUNKS).fold(sum(0), |all, chunk| P::add_sums(all, sum(chunk)));
        P::start(sum, offset << P::FIELD_SHIFTS[f])
    })
}

/// Adds the products of 64 k.
///
/// # Safety
/// A chunk from the first column group on, and 16 groups of activation codes are readable.
#[inline(always)]
unsafe fn chunk_sums<P: DotPath, const G: usize>(
    masks: Masks<P>,
    mut acc: [[P::Acc; G]; FIELDS],
    mut chunk: *const u8,
    mut codes: *const u8,
) -> [[P::Acc; G]; FIELDS] {
    for _ in 0..std::hint::black_box(VECS) {
        // SAFETY: the caller's.
        unsafe {
            let x: [_; G] = std::array::from_fn(|g| P::I::load(chunk.add(g * 16)));
            let act = |f: usize| P::load_act(codes.add(f * VECS * P::ACT_BYTES));
            let a = act(0);
            for g in 0..G {
                acc[0][g] = P::dot_field::<0>(acc[0][g], x[g], masks[0], a);
            }
            let a = act(1);
            for g in 0..G {
                acc[1][g] = P::dot_field::<1>(acc[1][g], x[g], masks[1], a);
            }
            let a = act(2);
            for g in 0..G {
                acc[2][g] = P::dot_field::<2>(acc[2][g], x[g], masks[2], a);
            }
            let a = act(3);
            for g in 0..G {
                acc[3][g] = P::dot_field::<3>(acc[3][g], x[g], masks[3], a);
            }
            chunk = chunk.add(ROW);
            codes = codes.add(P::ACT_BYTES);
        }
    }
    acc
}

/// The sums of four fields.
#[inline(always)]
fn plain<P: DotPath>(consts: P::Consts, acc: [P::Acc; FIELDS]) -> [<P::I as Isa>::V; FIELDS] {
    std::array::from_fn(|f| shifted_down::<P::I>(P::total(consts, acc[f]), P::FIELD_SHIFTS[f]))
}

const _: () = assert!(CHUNKS * VECS * FIELDS * 4 == SUPER_K);
