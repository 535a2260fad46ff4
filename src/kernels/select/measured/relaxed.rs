//! What a page can find out about the engine's relaxed dot product.

use crate::kernels::isa::{Dot8, Isa, Native, PairDot8};

/// How an engine reads second-operand bytes above 127.
pub enum Reading {
    /// As 128..=255, in full: AVX-VNNI.
    Unsigned,
    /// As -128..=-1: ARM's dot product.
    Signed,
    /// In another way, as x86 without AVX-VNNI, where pairs saturate.
    Saturating,
}

/// The sum that either dot product gives of bytes `a` and `b` in every lane. The operands pass
/// through memory, so that the compiler cannot answer.
fn dots(a: i8, b: u8) -> [i32; 2] {
    let a = std::hint::black_box([a; 16]);
    let b = std::hint::black_box([b; 16]);
    // SAFETY: 16 bytes each.
    let (a, b) = unsafe { (Native::load(a.as_ptr().cast()), Native::load(b.as_ptr())) };
    let four = Native::sum32(Native::dot8_unsigned(Native::splat32(5), a, b)) / 4 - 5;
    let pairs = Native::sum32(Native::pair_sums16(Native::pair_dot8(a, b))) / 4;
    [four, pairs]
}

/// How the engine reads; `None` where it computes what is defined wrongly.
pub fn reading() -> Option<Reading> {
    for (a, b) in [(-127, 127), (127, 127), (-1, 1), (127, 1), (-127, 63)] {
        if dots(a, b) != [4 * i32::from(a) * i32::from(b); 2] {
            return None;
        }
    }
    Some(match [(1, 255), (127, 255), (-128, 128)].map(|(a, b)| dots(a, b)[0]) {
        [1020, 129_540, -65_536] => Reading::Unsigned,
        [-4, -508, 65_536] => Reading::Signed,
        _ => Reading::Saturating,
    })
}

/// Whether the engine's sums of two products take all bytes for unsigned, and are exact where they fit 16 bits: x86's.
pub fn reads_pairs() -> bool {
    let probes = [(1, 255), (64, 255), (-64, 255), (-1, 128), (127, 128)];
    probes.iter().all(|&(a, b)| dots(a, b)[1] == 4 * i32::from(a) * i32::from(b))
}
