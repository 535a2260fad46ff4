//! Sums of two maps, in integers.

use super::STRIP;
use crate::kernels::isa::Isa;

/// What a sum of codes is multiplied with, and what becomes of it:
/// `code = clamp(((a * by[0] + b * by[1] + start) >> shift) + zero)`, wrapping but for the clamp.
#[derive(Clone, Copy, Debug)]
pub struct Weighted {
    /// Factors of the codes.
    pub by: [i32; 2],
    /// For rounding, less the zero points times the factors.
    pub start: i32,
    /// Bits, 1 to 31.
    pub shift: u32,
    /// The zero point of the sum.
    pub zero: u8,
    /// The least and largest code.
    pub clamp: [u8; 2],
}

impl Weighted {
    /// Adds codes.
    ///
    /// # Panics
    /// Where the lengths differ: a bug in the caller.
    pub fn add<I: Isa>(&self, a: &[u8], b: &[u8], out: &mut [u8]) {
        assert!(a.len() == out.len() && b.len() == out.len());
        // Vectors are clamped by narrowing.
        let n = if self.clamp == [0, 255] { out.len() / STRIP * STRIP } else { 0 };
        for i in (0..n).step_by(STRIP) {
            // SAFETY: eight of each from `i` on.
            unsafe { self.eight::<I>(a.as_ptr().add(i), b.as_ptr().add(i), out.as_mut_ptr().add(i)) }
        }
        let [low, high] = self.clamp.map(i32::from);
        for ((out, &a), &b) in out[n..].iter_mut().zip(&a[n..]).zip(&b[n..]) {
            let products = [a, b].map(i32::from).into_iter().zip(self.by).map(|(x, by)| x.wrapping_mul(by));
            let sum = products.fold(self.start, i32::wrapping_add) >> self.shift;
            *out = sum.saturating_add(self.zero.into()).max(low).min(high) as u8;
        }
    }

    /// # Safety
    /// Eight bytes of each are readable, and writable.
    #[inline(always)]
    unsafe fn eight<I: Isa>(&self, a: *const u8, b: *const u8, out: *mut u8) {
        let [by_a, by_b] = self.by.map(I::splat32);
        let (start, zero) = (I::splat32(self.start), I::splat32(self.zero.into()));
        let sum = |a, b| {
            let products = I::add32(I::mul32(a, by_a), I::mul32(b, by_b));
            I::add32(I::sar32_by(I::add32(products, start), self.shift), zero)
        };
        // SAFETY: the caller's.
        unsafe {
            let (a, b) = (I::load8x8_unsigned(a), I::load8x8_unsigned(b));
            let low = sum(I::extend_low16(a), I::extend_low16(b));
            let high = sum(I::extend_high16(a), I::extend_high16(b));
            let codes = I::narrow16(low, high);
            I::store64(out, I::narrow8_unsigned(codes, codes));
        }
    }
}
