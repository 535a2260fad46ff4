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
mod units;

use super::act::{Activations, Coded, Span};
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
    ($($(#[$doc:meta])* $name:ident: $bits:literal bits, offset $offset:literal, sub $sub:literal, min $min:literal;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;
            impl SuperTile for $name {
                const KIND: SuperKind = SuperKind {
                    bits: $bits, offset: $offset, sub_len: $sub, has_min: $min,
                };
            }
        )*

        /// Makes of the activations what [`matmul`] multiplies.
        pub fn prepare<P: DotPath>(act: &mut Activations, kind: SuperKind) {
            let (offset, len) = match kind {
                // Where nothing but 256 k have a scale, fields have starts of their own.
                kind if act.n_taken() == 1 => (if kind.n_sub() > 0 { i32::from(kind.offset) } else { 0 }, 16),
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
    Q2K: 2 bits, offset 0, sub 16, min true;
    /// Q3_K.
    Q3K: 3 bits, offset 4, sub 16, min false;
    /// Q4_K.
    Q4K: 4 bits, offset 0, sub 32, min true;
    /// Q5_K.
    Q5K: 5 bits, offset 0, sub 32, min true;
    /// Q6_K.
    Q6K: 6 bits, offset 32, sub 16, min false;
    /// TQ1_0 and TQ2_0.
    Ternary: 2 bits, offset 1, sub 256, min false;
}
