//! From sums to codes.

use super::STRIP;
use crate::kernels::isa::Isa;
use std::hint::black_box;

/// What turns sums into outputs.
pub struct Requantize {
    /// Added to sums; padded to whole strips.
    pub(super) bias: Vec<i32>,
    /// Multiplies sums; padded.
    scale: Vec<f32>,
    /// Least and largest output, less the zero point.
    clamp: [f32; 2],
    zero: u8,
    /// Whether sums can be far from all codes, or some codes are not to be given: else narrowing clamps enough.
    is_clamped: bool,
}

impl Requantize {
    /// `bias` and `scale` of each output, the least and largest code, and the output's zero point.
    pub fn new(bias: &[i32], scale: &[f32], clamp: [u8; 2], zero: u8) -> Self {
        let padded = bias.len().next_multiple_of(STRIP);
        let (mut bias, mut scale) = (bias.to_vec(), scale.to_vec());
        bias.resize(padded, 0);
        scale.resize(padded, 0.0);
        let clamp = clamp.map(|c| f32::from(c) - f32::from(zero));
        Requantize { bias, scale, clamp, zero, is_clamped: true }
    }

    /// Says that sums without their biases are within +-`reach` of each output.
    pub(super) fn set_reach(&mut self, reach: &[i64]) {
        // Products below this are rounded by adding a number, and fit 32 bits with any zero point.
        const LARGEST: f64 = (1 << 21) as f64;
        let all = [0, 255].map(|code| f32::from(code as u8) - f32::from(self.zero));
        let outputs = reach.iter().zip(&self.bias).zip(&self.scale);
        let mut products = outputs
            .map(|((reach, bias), scale)| (*reach as f64 + f64::from(*bias).abs()) * f64::from(*scale));
        self.is_clamped = self.clamp != all || !products.all(|product| product < LARGEST);
    }

    /// The biases of eight outputs, from `first` on.
    ///
    /// # Safety
    /// `first + 8` is within the padded outputs.
    #[inline(always)]
    pub(super) unsafe fn bias<I: Isa>(&self, first: usize) -> [I::V; 2] {
        // SAFETY: the caller's.
        unsafe {
            let p = self.bias.as_ptr().add(first);
            [I::load(p.cast()), I::load(p.add(4).cast())]
        }
    }

    /// The scales of eight outputs, from `first` on.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn scale<I: Isa>(&self, first: usize) -> [I::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            let p = self.scale.as_ptr().add(first);
            [I::fload(p), I::fload(p.add(4))]
        }
    }

    /// What is the same for all outputs.
    #[inline(always)]
    pub(super) fn rounding<I: Isa>(&self) -> Rounding<I> {
        // 1.5 * 2^23: added to a number below 2^22, it leaves the nearest integer in the low bits of the sum.
        const MAGIC: f32 = 12_582_912.0;
        let less = (MAGIC.to_bits() as i32).wrapping_sub(self.zero.into());
        // Engines make literal vectors anew wherever they stand.
        Rounding {
            clamp: black_box(self.clamp.map(I::fsplat)),
            magic: black_box(I::fsplat(MAGIC)),
            less: black_box(I::splat32(less)),
            is_clamped: self.is_clamped,
        }
    }
}

/// How products become codes.
#[derive(Clone, Copy)]
pub(super) struct Rounding<I: Isa> {
    clamp: [I::F; 2],
    magic: I::F,
    /// Subtracted from the bits of a rounded number: it stays with the zero point added.
    less: I::V,
    is_clamped: bool,
}

impl<I: Isa> Rounding<I> {
    /// The codes of four products, unless narrowing clamps them.
    #[inline(always)]
    pub(super) fn round(&self, x: I::F) -> I::V {
        let [low, high] = self.clamp;
        let x = if self.is_clamped { I::fmax(I::fmin(x, high), low) } else { x };
        I::sub32(I::bits(I::fadd(x, self.magic)), self.less)
    }

    /// The codes of eight sums.
    ///
    /// # Safety
    /// 8 of `out` are writable.
    #[inline(always)]
    pub(super) unsafe fn store(&self, sums: [I::V; 2], scale: [I::F; 2], out: *mut u8) {
        let products = [(sums[0], scale[0]), (sums[1], scale[1])];
        let [a, b] = products.map(|(sum, scale)| self.round(I::fmul(I::to_float(sum), scale)));
        let codes = I::narrow16(a, b);
        // SAFETY: the caller's.
        unsafe { I::store64(out, I::narrow8_unsigned(codes, codes)) }
    }

    /// The codes of the first `n` of some rows, `stride` apart.
    ///
    /// # Safety
    /// 8 bytes from each of those rows' starts are writable.
    #[inline(always)]
    pub(super) unsafe fn store_rows<const N: usize>(
        &self,
        sums: [[I::V; 2]; N],
        scale: [I::F; 2],
        n: usize,
        out: *mut u8,
        stride: usize,
    ) {
        // SAFETY: the caller's.
        unsafe {
            for (r, sums) in sums.into_iter().enumerate().take(n) {
                self.store(sums, scale, out.add(r * stride));
            }
        }
    }
}
