//! Codes out of the bytes of a tile: what `repack`'s pieces put together.

use super::SuperTile;
use crate::kernels::isa::Isa;

/// Masks of a kind, opaque to the compiler (see [`DotPath::consts`](crate::kernels::path::DotPath::consts)).
pub(super) type Masks<V> = [V; MASKS];
const MASKS: usize = 5;

/// Which bits of each byte.
const fn bytes_of(bits: usize) -> [u16; MASKS] {
    match bits {
        2 => [0x0303; MASKS],
        3 => [0x0707, 0x0303, 0x0404, 0x0707, 0x0707],
        4 => [0x0f0f; MASKS],
        5 => [0x1f1f, 0x0707, 0x1818, 0x0808, 0x1010],
        _ => [0x3f3f; MASKS],
    }
}

#[inline(always)]
pub(super) fn masks<I: Isa, T: SuperTile>() -> Masks<I::V> {
    let bytes = bytes_of(T::KIND.bits);
    let first = std::hint::black_box(I::splat16(bytes[0]));
    bytes.map(|mask| if mask == bytes[0] { first } else { std::hint::black_box(I::splat16(mask)) })
}

/// The four units of sub-block `k16` where fields belong to sub-blocks
/// ([`SuperKind::in_fields`](crate::repack::SuperKind::in_fields)).
///
/// # Safety
/// The codes of a tile at `codes` are readable; c < 4.
#[inline(always)]
pub(super) unsafe fn field_units<I: Isa>(
    masks: Masks<I::V>,
    codes: *const u8,
    k16: usize,
    c: usize,
) -> [I::V; 4] {
    std::array::from_fn(|v| {
        // SAFETY: four chunks of 256 bytes.
        let x = unsafe { I::load(codes.add(k16 / 4 * 256 + v * 64 + c * 16)) };
        let x = match k16 % 4 {
            0 => x,
            1 => I::shr16::<2>(x),
            2 => I::shr16::<4>(x),
            _ => I::shr16::<6>(x),
        };
        I::and(x, masks[0])
    })
}

/// The four units of one half of a chunk of 32 k, column group `c`.
///
/// # Safety
/// A whole chunk at `chunk` is readable; c < 4.
#[inline(always)]
pub(super) unsafe fn units<I: Isa, T: SuperTile, const HALF: usize>(
    masks: Masks<I::V>,
    chunk: *const u8,
    c: usize,
) -> [I::V; 4] {
    // SAFETY: `bits` vectors of each column group.
    let load = |v: usize| unsafe { I::load(chunk.add((v * 4 + c) * 16)) };
    match (T::KIND.bits, HALF) {
        (4, _) => {
            let (a, b) = (load(2 * HALF), load(2 * HALF + 1));
            let high = |v| I::and(I::shr16::<4>(v), masks[0]);
            [I::and(a, masks[0]), high(a), I::and(b, masks[0]), high(b)]
        }
        (6, _) => {
            let (a, b, c) = (load(3 * HALF), load(3 * HALF + 1), load(3 * HALF + 2));
            let whole = [a, b, c].map(|v| I::and(v, masks[0]));
            // What is left of each byte is its two upper bits, so that no shift crosses into another's place.
            let left = |v, unit| I::xor(v, unit);
            let (a, b, c) = (left(a, whole[0]), left(b, whole[1]), left(c, whole[2]));
            let last = I::or(I::shr16::<2>(a), I::or(I::shr16::<4>(b), I::shr16::<6>(c)));
            [whole[0], whole[1], whole[2], last]
        }
        (5, 0) => std::array::from_fn(|v| I::and(load(v), masks[0])),
        (5, _) => {
            let [a, b, c, d, e]: [I::V; 5] = std::array::from_fn(load);
            let low = |v| I::and(I::shr16::<5>(v), masks[1]);
            let high = |v| I::and(I::shr16::<2>(v), masks[2]);
            let tops = I::or(I::and(I::shr16::<4>(b), masks[3]), I::and(I::shr16::<3>(d), masks[4]));
            [I::and(e, masks[0]), I::or(low(a), high(b)), I::or(low(c), high(d)), I::or(low(e), tops)]
        }
        (3, 0) => {
            let (a, b) = (load(0), load(1));
            let high = |v| I::and(I::shr16::<3>(v), masks[0]);
            [I::and(a, masks[0]), high(a), I::and(b, masks[0]), high(b)]
        }
        (3, _) => {
            let (a, b, c) = (load(0), load(1), load(2));
            let low = |v| I::and(I::shr16::<6>(v), masks[1]);
            [
                I::and(c, masks[0]),
                I::and(I::shr16::<3>(c), masks[0]),
                I::or(low(a), I::and(I::shr16::<4>(b), masks[2])),
                I::or(low(c), I::and(I::shr16::<5>(b), masks[2])),
            ]
        }
        _ => unreachable!("fields of {} bits belong to sub-blocks", T::KIND.bits),
    }
}

/// The minima of four sub-blocks and columns; `nibble` is the lower half of each byte.
///
/// # Safety
/// 16 bytes at `p` are readable.
#[inline(always)]
pub(super) unsafe fn mins_of<I: Isa, T: SuperTile>(p: *const u8, nibble: I::V) -> I::V {
    // SAFETY: the caller's.
    let v = unsafe { I::load(p) };
    if T::KIND.in_nibbles() { I::and(I::shr16::<4>(v), nibble) } else { v }
}
