//! The micro-kernel in registers of 256 bits, for native runs on processors that have them. One multiplication and one
//! addition a lane, in the same order: the bits are those of 128 bits.

use super::{Operand, TILE_NR};
use core::arch::x86_64::*;

/// As [`super::tile`].
///
/// # Safety
/// What [`super::tile`] asserts, on a processor with AVX.
#[target_feature(enable = "avx")]
pub unsafe fn tile(rows: usize, k: usize, a: Operand, w: Operand, c: &mut [f32], c_stride: usize, add: bool) {
    // SAFETY: the caller's.
    unsafe {
        match rows {
            1 => micro::<1>(k, a, w, c, c_stride, add),
            2 => micro::<2>(k, a, w, c, c_stride, add),
            3 => micro::<3>(k, a, w, c, c_stride, add),
            4 => micro::<4>(k, a, w, c, c_stride, add),
            5 => micro::<5>(k, a, w, c, c_stride, add),
            6 => micro::<6>(k, a, w, c, c_stride, add),
            7 => micro::<7>(k, a, w, c, c_stride, add),
            _ => micro::<8>(k, a, w, c, c_stride, add),
        }
    }
}

/// # Safety
/// As [`tile`], with `R` rows.
#[inline]
#[target_feature(enable = "avx")]
unsafe fn micro<const R: usize>(k: usize, a: Operand, w: Operand, c: &mut [f32], c_stride: usize, add: bool) {
    const { assert!(TILE_NR == 8) };
    // SAFETY: the caller's.
    unsafe {
        let c = c.as_mut_ptr();
        let mut acc = [_mm256_setzero_ps(); R];
        if add {
            acc = std::array::from_fn(|r| _mm256_loadu_ps(c.add(r * c_stride)));
        }
        let (mut wp, mut ap) = (w.data.as_ptr(), a.data.as_ptr());
        for _ in 0..k {
            let w8 = _mm256_loadu_ps(wp);
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*ap.add(r * a.stride));
                *acc = _mm256_add_ps(*acc, _mm256_mul_ps(x, w8));
            }
            wp = wp.wrapping_add(w.stride);
            ap = ap.add(1);
        }
        for (r, acc) in acc.into_iter().enumerate() {
            _mm256_storeu_ps(c.add(r * c_stride), acc);
        }
    }
}
