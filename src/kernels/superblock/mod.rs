//! Products with the 256-wide tiles of integer sub-scales (K-quants, ternary).
//!
//! Decoding sums each sub-block in integers, multiplies the sum by the sub-block's integer
//! scale and adds; floats appear once per 256 k. Minima meet the sums of activation codes in
//! a small integer product of their own.
//!
//! Prompts fold the sub-scale into the unpacked 16-bit codes ((q - offset) * scale stays below
//! 2^13 for every type), so the micro-kernel needs no scale at all within 256 k.

mod fields;
mod gemm;
mod gemv;

use super::act::{Activations, Coded, Span};
use super::isa::Isa;
use super::output::Output;
use super::path::DotPath;
use crate::repack::{PackedWeights, SuperKind};
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

        /// Makes of the activations what [`matmul`] multiplies.
        pub fn prepare<P: DotPath>(act: &mut Activations, kind: SuperKind) {
            if act.n_taken() == 1 {
                return act.make_codes::<P>(Span::Super);
            }
            let (offset, len) = match kind {
                $(kind if kind == $name::KIND => gemm::starts::<P, $name>(),)*
                other => unreachable!("no kernel for {other:?}"),
            };
            act.make_tiles::<P>(Span::Super, offset, len);
        }

        /// `out[m, n] = act . w^T` for the strips' columns, with `act` as [`prepare`] makes it.
        ///
        /// # Panics
        /// For a kind without a kernel: a bug, since the packer makes no other.
        pub fn matmul<P: DotPath>(act: &Coded, m: usize, w: &PackedWeights, kind: SuperKind, strips: Range<usize>, out: Output) {
            match kind {
                $(kind if kind == $name::KIND && m == 1 => gemv::gemv::<P, $name>(act, w, strips, out),
                kind if kind == $name::KIND => gemm::gemm::<P, $name>(act, m, w, strips, out),)*
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

/// The four units of sub-block `k16` where fields belong to sub-blocks ([`SuperKind::in_fields`]).
///
/// # Safety
/// The codes of a tile at `codes` are readable; c < 4.
#[inline(always)]
unsafe fn field_units<I: Isa>(masks: Masks<I::V>, codes: *const u8, k16: usize, c: usize) -> [I::V; 4] {
    std::array::from_fn(|v| {
        // SAFETY: four chunks of 256 bytes.
        let x = unsafe { I::load(codes.add(k16 / 4 * 256 + v * 64 + c * 16)) };
        I::and(shift16::<I>(x, -2 * (k16 as i32 % 4)), masks.low)
    })
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
