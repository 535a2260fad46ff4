//! Keys, values, queries and weights as codes.

use crate::kernels::isa::{Isa, Native};
use crate::kernels::path::DotPath;
use crate::kernels::vecmath;
use half::bf16;

/// How numbers become codes 0..=max: `x = (2 * code - max) * scale + middle`.
#[derive(Clone, Copy)]
pub(super) struct Coding {
    /// The largest code.
    pub(super) max: i32,
    /// Shares of the numbers' range that may be cut off at either end.
    cuts: &'static [f32],
}

/// 7 bits.
pub(super) const BYTES: Coding = Coding { max: 127, cuts: &[0.0] };
/// 4 bits: here it pays to look for the best range.
pub(super) const NIBBLES: Coding = Coding { max: 15, cuts: &[-0.03, 0.0, 0.03, 0.06, 0.09, 0.12] };

/// What the codes of one token and head stand for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    pub(super) scale: bf16,
    pub(super) middle: bf16,
}

impl Coding {
    /// The range of the codes of `x`; NaN where `x` is not finite.
    pub(super) fn range(self, x: &[f32]) -> Range {
        let [low, high] = vecmath::bounds::<Native>(x);
        let between = |low: f32, high: f32| ((high - low) / (2 * self.max) as f32, (high + low) / 2.0);
        let mut best = between(low, high);
        if self.cuts.len() > 1 && best.0.is_finite() {
            // First the best cut at the low end, then at the high end.
            let width = high - low;
            let cut_low = self.best_cut(x, |cut| between(low + width * cut, high));
            let low = low + width * cut_low;
            let cut_high = self.best_cut(x, |cut| between(low, high - width * cut));
            best = between(low, high - width * cut_high);
            for _ in 0..3 {
                best = self.fit::<Native>(x, best).1;
            }
        }
        Range { scale: bf16::from_f32(best.0), middle: bf16::from_f32(best.1) }
    }

    /// Appends the codes of `x` in a range.
    pub(super) fn encode(self, x: &[f32], range: Range, out: &mut Vec<u8>) {
        let coder = Coder::<Native>::new(self, range);
        let first = out.len();
        out.resize(first + x.len(), 0);
        let (wholes, rest) = x.as_chunks::<16>();
        let (to, to_rest) = out[first..].as_chunks_mut::<16>();
        wholes.iter().zip(to).for_each(|(x, to)| coder.sixteen(x, to));
        if !rest.is_empty() {
            let (mut padded, mut codes) = ([0.0; 16], [0; 16]);
            padded[..rest.len()].copy_from_slice(rest);
            coder.sixteen(&padded, &mut codes);
            to_rest.copy_from_slice(&codes[..rest.len()]);
        }
    }

    /// The cut whose range explains most.
    fn best_cut(self, x: &[f32], range: impl Fn(f32) -> (f32, f32)) -> f32 {
        let explained = self.cuts.iter().map(|&cut| (self.fit::<Native>(x, range(cut)).0, cut));
        explained.fold((f32::NEG_INFINITY, 0.0), |best, new| if new.0 > best.0 { new } else { best }).1
    }

    /// The scale and middle with the least square error for the codes that others give, after how much of
    /// the squares they leave no error in. What follows the last four numbers does not count.
    fn fit<I: Isa>(self, x: &[f32], (scale, middle): (f32, f32)) -> (f32, (f32, f32)) {
        let (max, inv) = (self.max as f32, I::fsplat(inverse(scale)));
        let shift = I::fsplat(max / 2.0 - middle * inverse(scale));
        let [mut xs, mut cs, mut ccs, mut cxs] = [I::fsplat(0.0); 4];
        let chunks = x.chunks_exact(4);
        let n = (4 * chunks.len()) as f32;
        for part in chunks {
            // SAFETY: 4 floats.
            let x = unsafe { I::fload(part.as_ptr()) };
            let code = I::fmin(I::fmax(I::fadd(I::fmul(x, inv), shift), I::fsplat(0.0)), I::fsplat(max));
            let c = I::to_float(I::round(code));
            xs = I::fadd(xs, x);
            cs = I::fadd(cs, c);
            ccs = I::fadd(ccs, I::fmul(c, c));
            cxs = I::fadd(cxs, I::fmul(c, x));
        }
        let [x, c, cc, cx] = [xs, cs, ccs, cxs].map(I::fsum);
        let (spread, common) = (n * cc - c * c, n * cx - c * x);
        if spread <= 0.0 {
            return (0.0, (scale, middle));
        }
        // x = slope * c + base = (2 c - max) * slope / 2 + middle
        let slope = common / spread;
        (common * slope, (slope / 2.0, (x - slope * c) / n + slope * max / 2.0))
    }

    #[inline(always)]
    fn value(self, code: u8, scale: f32, middle: f32) -> f32 {
        (2 * i32::from(code) - self.max) as f32 * scale + middle
    }

    /// The numbers that codes stand for.
    pub(super) fn decode(self, codes: &[u8], range: Range, x: &mut [f32]) {
        let (scale, middle) = (range.scale.to_f32(), range.middle.to_f32());
        x.iter_mut().zip(codes).for_each(|(x, &code)| *x = self.value(code, scale, middle));
    }

    /// What codes are multiplied with, and what is added once for each.
    #[inline(always)]
    pub(super) fn line_of(self, scale: f32) -> [f32; 2] {
        [2.0 * scale, -(self.max as f32) * scale]
    }

    /// The same of four scales and middles.
    #[inline(always)]
    pub(super) fn line<I: Isa>(self, scale: I::F, middle: I::F) -> [I::F; 2] {
        let max = I::fsplat(self.max as f32);
        [I::fadd(scale, scale), I::fsub(middle, I::fmul(max, scale))]
    }
}

/// Makes codes in a range.
pub(super) struct Coder<I: Isa> {
    middle: I::F,
    inv: I::F,
    half: I::F,
    max: I::F,
    zero: I::F,
}

impl<I: Isa> Coder<I> {
    #[inline(always)]
    pub(super) fn new(coding: Coding, range: Range) -> Self {
        let max = coding.max as f32;
        Coder {
            middle: I::fsplat(range.middle.to_f32()),
            inv: I::fsplat(inverse(range.scale.to_f32())),
            half: I::fsplat(max / 2.0),
            max: I::fsplat(max),
            zero: I::fsplat(0.0),
        }
    }

    /// Codes as bytes.
    #[inline(always)]
    fn sixteen(&self, x: &[f32; 16], to: &mut [u8; 16]) {
        // SAFETY: 16 floats, 16 bytes.
        unsafe {
            let [a, b, c, d] = [0, 4, 8, 12].map(|i| self.codes(I::fload(x.as_ptr().add(i))));
            I::store(to.as_mut_ptr(), I::narrow8(I::narrow16(a, b), I::narrow16(c, d)));
        }
    }

    /// The codes of four numbers, in i32 lanes: within the coding's, whatever the numbers are.
    #[inline(always)]
    pub(super) fn codes(&self, x: I::F) -> I::V {
        let code = I::fadd(I::fmul(I::fsub(x, self.middle), self.inv), self.half);
        // In this order NaN becomes 0.
        I::round(I::fmin(I::fmax(self.zero, code), self.max))
    }
}

/// What numbers are multiplied with to be codes.
fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 0.5 / scale } else { 0.0 }
}

/// Keys from this size on are rotated: in smaller ones few numbers share a scale anyway, and a rotation costs more
/// (measured) than it gains.
const MIN_ROTATED_KEY: usize = 32;

/// [`rotate`], where it helps keys.
pub(super) fn rotate_key(x: &mut [f32]) {
    if x.len() >= MIN_ROTATED_KEY {
        rotate(x);
    }
}

/// Replaces `x` by H x, H being the Hadamard matrix divided by the root of its size, of the largest
/// power of two that divides the length: products of two rotated vectors stay the same, H H x = x, and what
/// stood out in one number is spread over all, which then share a scale at less cost.
pub(super) fn rotate(x: &mut [f32]) {
    let n = 1usize << x.len().trailing_zeros();
    let scale = 1.0 / (n as f32).sqrt();
    if n < 4 {
        for pair in x.chunks_exact_mut(n) {
            let [a, b] = [0, n - 1].map(|i| pair[i] * scale);
            (pair[0], pair[n - 1]) = if n == 2 { (a + b, a - b) } else { (a, b) };
        }
        return;
    }
    rotate_fours::<Native>(x, scale);
    let mut h = 4;
    while 4 * h <= n {
        x.chunks_exact_mut(4 * h).for_each(two_steps::<Native>);
        h *= 4;
    }
    if 2 * h <= n {
        x.chunks_exact_mut(2 * h).for_each(one_step::<Native>);
    }
}

/// `(a, b) = (a + b, a - b)`.
#[inline(always)]
fn butterfly<I: Isa>(a: I::F, b: I::F) -> (I::F, I::F) {
    (I::fadd(a, b), I::fsub(a, b))
}

/// Butterflies of the two halves of `x`.
#[inline(always)]
fn one_step<I: Isa>(x: &mut [f32]) {
    let (low, high) = x.split_at_mut(x.len() / 2);
    for (a, b) in low.as_chunks_mut::<4>().0.iter_mut().zip(high.as_chunks_mut::<4>().0) {
        // SAFETY: 4 floats each.
        unsafe {
            let (x, y) = butterfly::<I>(I::fload(a.as_ptr()), I::fload(b.as_ptr()));
            I::fstore(a.as_mut_ptr(), x);
            I::fstore(b.as_mut_ptr(), y);
        }
    }
}

/// Butterflies of the two halves of each half of `x`, then of the halves: memory is gone through once for both.
#[inline(always)]
fn two_steps<I: Isa>(x: &mut [f32]) {
    let h = x.len() / 4;
    let p = x.as_mut_ptr();
    for i in (0..h / 4 * 4).step_by(4) {
        // SAFETY: four floats within each quarter.
        unsafe {
            let at = |quarter: usize| p.add(quarter * h + i);
            let [a, b, c, d] = [0, 1, 2, 3].map(|quarter| I::fload(at(quarter)));
            let ((a, b), (c, d)) = (butterfly::<I>(a, b), butterfly::<I>(c, d));
            let ((a, c), (b, d)) = (butterfly::<I>(a, c), butterfly::<I>(b, d));
            [a, b, c, d].into_iter().enumerate().for_each(|(quarter, x)| I::fstore(at(quarter), x));
        }
    }
}

/// Multiplies each four numbers, and then by the Hadamard matrix of size 4.
#[inline(always)]
fn rotate_fours<I: Isa>(x: &mut [f32], scale: f32) {
    const MINUS: u32 = 1 << 31;
    let scale = I::fsplat(scale);
    // SAFETY: 16 bytes each.
    let (odd, last_two) = unsafe {
        (I::load([0, MINUS, 0, MINUS].as_ptr().cast()), I::load([0, 0, MINUS, MINUS].as_ptr().cast()))
    };
    // `swapped + signed` is a + b in the one lane and a - b in the other.
    let step = |x: I::F, swapped: I::V, signs: I::V| {
        I::fadd(I::from_bits(swapped), I::from_bits(I::xor(I::bits(x), signs)))
    };
    for four in x.as_chunks_mut::<4>().0 {
        // SAFETY: 4 floats.
        unsafe {
            let x = I::fmul(I::fload(four.as_ptr()), scale);
            let x = step(x, I::swap32(I::bits(x)), odd);
            I::fstore(four.as_mut_ptr(), step(x, I::swap64(I::bits(x)), last_two));
        }
    }
}

/// What is added to a code of a weight to make it the number that it stands for, where weights, which are not negative,
/// have the codes from -127 up and so are rounded half as coarsely.
pub(super) const SHARE_OFFSET: i32 = 127;

/// Writes `x`, a multiple of 8 numbers, as codes within +-127 in the layout of `P`, and gives their scale
/// (NaN where `x` is not finite) and their sum.
pub(super) fn activations<P: DotPath>(x: &[f32], to: &mut [u8]) -> (f32, i32) {
    assert!(x.len().is_multiple_of(8) && to.len() >= x.len() / 4 * P::ACT_BYTES);
    let amax = vecmath::largest::<P::I>(x);
    let inv = P::I::fsplat(if amax > 0.0 { 127.0 / amax } else { 0.0 });
    let mut sums = P::I::splat32(0);
    for (i, part) in x.chunks_exact(8).enumerate() {
        // SAFETY: 8 floats; two groups of 4 codes of `to`, whose length is asserted.
        unsafe {
            let [a, b] = [0, 4].map(|at| P::I::round(P::I::fmul(P::I::fload(part.as_ptr().add(at)), inv)));
            sums = P::I::add32(sums, P::I::add32(a, b));
            let p = to.as_mut_ptr().add(2 * i * P::ACT_BYTES);
            P::store_act(p, p.add(P::ACT_BYTES), 4, a, b);
        }
    }
    (amax / 127.0, P::I::sum32(sums))
}
