//! Vector maths between the products: softmax, norms, reductions; activation functions are in
//! [`activation`].
//!
//! Only +, -, *, / and bit moves in a fixed order: the same bits on every instruction set.

pub mod activation;

use super::isa::Isa;
pub use activation::*;

/// Applies `f` to all of `x`, four at a time; the tail is padded with zeros.
#[inline(always)]
fn map<I: Isa>(x: &mut [f32], f: impl Fn(I::F) -> I::F) {
    let mut chunks = x.chunks_exact_mut(4);
    for c in &mut chunks {
        // SAFETY: 4 floats.
        unsafe { I::fstore(c.as_mut_ptr(), f(I::fload(c.as_ptr()))) }
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        let n = tail.len();
        tail.copy_from_slice(&I::lanes(f(load_tail::<I>(tail, 0.0)))[..n]);
    }
}

/// `x = f(x, y)`, likewise, over the length of the shorter.
#[inline(always)]
fn zip<I: Isa>(x: &mut [f32], y: &[f32], f: impl Fn(I::F, I::F) -> I::F) {
    let n = x.len().min(y.len());
    let (x, y) = (&mut x[..n], &y[..n]);
    let mut chunks = x.chunks_exact_mut(4);
    let others = y.chunks_exact(4);
    let rest = others.remainder();
    for (c, o) in (&mut chunks).zip(others) {
        // SAFETY: 4 floats each.
        unsafe { I::fstore(c.as_mut_ptr(), f(I::fload(c.as_ptr()), I::fload(o.as_ptr()))) }
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        let out = f(load_tail::<I>(tail, 0.0), load_tail::<I>(rest, 0.0));
        let n = tail.len();
        tail.copy_from_slice(&I::lanes(out)[..n]);
    }
}

/// Folds all of `x` into 16 lanes in turn, so that no addition waits for the one before it;
/// the tail is padded with `pad`. `join` then combines the lanes.
#[inline(always)]
fn fold<I: Isa>(
    x: &[f32],
    pad: f32,
    start: f32,
    f: impl Fn(I::F, I::F) -> I::F,
    join: impl Fn(I::F, I::F) -> I::F,
) -> I::F {
    let mut acc = [I::fsplat(start); 4];
    let chunks = x.chunks_exact(16);
    let tail = chunks.remainder();
    for c in chunks {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: 16 floats.
            *acc = f(*acc, unsafe { I::fload(c.as_ptr().add(4 * i)) });
        }
    }
    for (c, acc) in tail.chunks(4).zip(&mut acc) {
        *acc = f(*acc, load_tail::<I>(c, pad));
    }
    join(join(acc[0], acc[1]), join(acc[2], acc[3]))
}

/// Up to four floats.
#[inline(always)]
fn load_tail<I: Isa>(tail: &[f32], pad: f32) -> I::F {
    let mut lanes = [pad; 4];
    lanes[..tail.len()].copy_from_slice(tail);
    // SAFETY: 4 floats.
    unsafe { I::fload(lanes.as_ptr()) }
}

#[inline(always)]
fn sum<I: Isa>(x: &[f32]) -> f32 {
    I::fsum(fold::<I>(x, 0.0, 0.0, I::fadd, I::fadd))
}

/// Numbers that a loop needs, each in all lanes. Made before it and opaque: engines build literal vectors anew
/// wherever they occur, in up to five instructions, and keep these in memory at worst.
#[inline(always)]
fn constants<I: Isa, const N: usize>(values: [f32; N]) -> [I::F; N] {
    std::hint::black_box(values).map(I::fsplat)
}

/// Adding 1.5 * 2^23 rounds to a whole number in the low mantissa bits, here with the bias of an
/// exponent added: shifted to the top they are a power of two.
const MAGIC: f32 = 12_582_912.0 + 127.0;

/// e^x for x in about [-87, 88], clamped outside; relative error below 2.5e-7, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the polynomial of degree 5 whose largest relative
/// error is smallest (9.2e-8), times 2^n. To be made outside of the loop that uses it.
#[derive(Clone, Copy)]
pub struct Exp<I: Isa> {
    range: [I::F; 2],
    log2_e: I::F,
    magic: I::F,
    /// ln 2 in two parts, the first with few bits, so that n times it is exact.
    ln_2: [I::F; 2],
    polynomial: [I::F; 6],
}

impl<I: Isa> Exp<I> {
    /// Its constants.
    #[inline(always)]
    pub fn new() -> Self {
        Self::from(-87.3)
    }

    /// Its constants, of what is e^low for everything below `low`, which is not below -87.3.
    #[inline(always)]
    fn from(low: f32) -> Self {
        let [low, high, log2_e, magic, ln_2, rest] =
            constants::<I, _>([low, 88.3, std::f32::consts::LOG2_E, MAGIC, 0.693_359_4, -2.121_944_4e-4]);
        let polynomial =
            constants::<I, _>([8.290_272e-3, 4.189_816e-2, 0.166_676_39, 0.499_991_48, 0.999_999_7, 1.0]);
        Exp { range: [low, high], log2_e, magic, ln_2: [ln_2, rest], polynomial }
    }

    /// e^x.
    #[inline(always)]
    pub fn of(&self, x: I::F) -> I::F {
        self.of_negative(I::fmin(x, self.range[1]))
    }

    /// e^x for x that is not above 88.
    #[inline(always)]
    fn of_negative(&self, x: I::F) -> I::F {
        let x = I::fmax(x, self.range[0]);
        let shifted = I::fadd(I::fmul(x, self.log2_e), self.magic);
        let n = I::fsub(shifted, self.magic);
        let power = I::from_bits(I::shl32::<23>(I::bits(shifted)));
        let r = I::fsub(x, I::fmul(n, self.ln_2[0]));
        let r = I::fsub(r, I::fmul(n, self.ln_2[1]));
        let [first, rest @ ..] = self.polynomial;
        let p = rest.into_iter().fold(first, |p, c| I::fadd(I::fmul(p, r), c));
        I::fmul(p, power)
    }
}

impl<I: Isa> Default for Exp<I> {
    fn default() -> Self {
        Exp::new()
    }
}

/// Below 1e-26 a share of 1 is lost anyway; what it is multiplied with later must not make it subnormal, which takes
/// processors a hundred times as long.
const LOWEST_EXPONENT: f32 = -60.0;

/// e^x for x in [-60, 0], clamped below; relative error below 1e-4, NaN for NaN. As [`Exp`] with a polynomial of degree 3 (largest
/// relative error 7.5e-5), in two thirds of its steps.
struct CoarseExp<I: Isa> {
    low: I::F,
    log2_e: I::F,
    magic: I::F,
    ln_2: I::F,
    polynomial: [I::F; 4],
}

impl<I: Isa> CoarseExp<I> {
    #[inline(always)]
    fn new() -> Self {
        use std::f32::consts::{LN_2, LOG2_E};
        let [low, log2_e, magic, ln_2] = constants::<I, _>([LOWEST_EXPONENT, LOG2_E, MAGIC, LN_2]);
        let polynomial = constants::<I, _>([0.165_667_43, 0.504_968_2, 1.000_164_5, 0.999_927_94]);
        CoarseExp { low, log2_e, magic, ln_2, polynomial }
    }

    #[inline(always)]
    fn of_negative(&self, x: I::F) -> I::F {
        let x = I::fmax(x, self.low);
        let shifted = I::fadd(I::fmul(x, self.log2_e), self.magic);
        let n = I::fsub(shifted, self.magic);
        let power = I::from_bits(I::shl32::<23>(I::bits(shifted)));
        let r = I::fsub(x, I::fmul(n, self.ln_2));
        let [first, rest @ ..] = self.polynomial;
        let p = rest.into_iter().fold(first, |p, c| I::fadd(I::fmul(p, r), c));
        I::fmul(p, power)
    }
}

/// `x = e^(x - max(x))`; gives the sum. A softmax but for the division. NaN in gives NaN out.
pub fn exp_sum<I: Isa>(x: &mut [f32]) -> f32 {
    let highest = I::fsplat(max::<I>(x));
    let exp = Exp::<I>::from(LOWEST_EXPONENT);
    map_sum::<I>(x, |v| exp.of_negative(I::fsub(v, highest)))
}

/// [`exp_sum`] to 1e-4 of each: for what becomes codes of 8 bits.
pub fn coarse_exp_sum<I: Isa>(x: &mut [f32]) -> f32 {
    let highest = I::fsplat(max::<I>(x));
    let exp = CoarseExp::<I>::new();
    map_sum::<I>(x, |v| exp.of_negative(I::fsub(v, highest)))
}

/// `x = f(x)`; gives the sum.
#[inline(always)]
fn map_sum<I: Isa>(x: &mut [f32], weight: impl Fn(I::F) -> I::F + Copy) -> f32 {
    let mut acc = [I::fsplat(0.0); 4];
    let mut chunks = x.chunks_exact_mut(16);
    for c in &mut chunks {
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: 16 floats.
            unsafe {
                let p = c.as_mut_ptr().add(4 * i);
                let v = weight(I::fload(p));
                I::fstore(p, v);
                *acc = I::fadd(*acc, v);
            }
        }
    }
    let tail = chunks.into_remainder();
    map::<I>(tail, weight);
    for (c, acc) in tail.chunks(4).zip(&mut acc) {
        *acc = I::fadd(*acc, load_tail::<I>(c, 0.0));
    }
    I::fsum(I::fadd(I::fadd(acc[0], acc[1]), I::fadd(acc[2], acc[3])))
}

/// Softmax in place. NaN in gives NaN out.
pub fn softmax<I: Isa>(x: &mut [f32]) {
    let sum = exp_sum::<I>(x);
    scale::<I>(x, 1.0 / sum);
}

/// `x = x * factor`.
pub fn scale<I: Isa>(x: &mut [f32], factor: f32) {
    let factor = I::fsplat(factor);
    map::<I>(x, |v| I::fmul(v, factor));
}

/// `x = x + offset`.
pub fn offset<I: Isa>(x: &mut [f32], offset: f32) {
    let offset = I::fsplat(offset);
    map::<I>(x, |v| I::fadd(v, offset));
}

/// The largest magnitude; NaN where any value is not finite.
pub fn largest<I: Isa>(x: &[f32]) -> f32 {
    let magnitude = fold::<I>(x, 0.0, 0.0, |a, v| I::fmax(a, I::fabs(v)), I::fmax);
    // 0 times infinity or NaN is NaN.
    let zeros = fold::<I>(x, 0.0, 0.0, |a, v| I::fadd(a, I::fmul(v, I::fsplat(0.0))), I::fadd);
    I::fhmax(magnitude) + I::fsum(zeros)
}

/// The least and the largest value; NaN where any value is not finite.
pub fn bounds<I: Isa>(x: &[f32]) -> [f32; 2] {
    let first = x.first().copied().unwrap_or(0.0);
    let (mut low, mut high) = ([I::fsplat(first); 2], [I::fsplat(first); 2]);
    let (mut zeros, zero) = ([I::fsplat(0.0); 2], I::fsplat(0.0));
    let mut see = |i: usize, v: I::F| {
        low[i] = I::fmin(low[i], v);
        high[i] = I::fmax(high[i], v);
        // 0 times infinity or NaN is NaN.
        zeros[i] = I::fadd(zeros[i], I::fmul(v, zero));
    };
    let (eights, rest) = x.as_chunks::<8>();
    for c in eights {
        // SAFETY: 8 floats.
        let [a, b] = unsafe { [I::fload(c.as_ptr()), I::fload(c.as_ptr().add(4))] };
        see(0, a);
        see(1, b);
    }
    rest.chunks(4).for_each(|c| see(0, load_tail::<I>(c, first)));
    let nan = I::fsum(I::fadd(zeros[0], zeros[1]));
    let low = I::lanes(I::fmin(low[0], low[1])).into_iter().fold(first, f32::min);
    [low + nan, I::fhmax(I::fmax(high[0], high[1])) + nan]
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm<I: Isa>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = I::fsum(fold::<I>(x, 0.0, 0.0, |a, v| I::fadd(a, I::fmul(v, v)), I::fadd));
    let scale = I::fsplat(1.0 / (squares / x.len() as f32 + eps).sqrt());
    out.copy_from_slice(x);
    zip::<I>(out, weight, |v, w| I::fmul(I::fmul(v, scale), w));
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`.
pub fn layer_norm<I: Isa>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum::<I>(x) / n;
    let m = I::fsplat(mean);
    let square = |a, v| {
        let d = I::fsub(v, m);
        I::fadd(a, I::fmul(d, d))
    };
    let squares = I::fsum(fold::<I>(x, mean, 0.0, square, I::fadd));
    let scale = I::fsplat(1.0 / (squares / n + eps).sqrt());
    out.copy_from_slice(x);
    zip::<I>(out, weight, |v, w| I::fmul(I::fmul(I::fsub(v, m), scale), w));
    add::<I>(out, bias);
}

/// `x += y`.
pub fn add<I: Isa>(x: &mut [f32], y: &[f32]) {
    zip::<I>(x, y, I::fadd);
}

/// `x *= y`.
pub fn mul<I: Isa>(x: &mut [f32], y: &[f32]) {
    zip::<I>(x, y, I::fmul);
}

/// Largest value; NaN is passed over, and nothing below -f32::MAX counts.
pub fn max<I: Isa>(x: &[f32]) -> f32 {
    I::fhmax(fold::<I>(x, f32::MIN, f32::MIN, I::fmax, I::fmax))
}

/// Index of the largest value, the first of equals; NaN is passed over. 0 where no value is
/// above negative infinity.
pub fn argmax<I: Isa>(x: &[f32]) -> usize {
    const PART: usize = 256;
    let mut best = (f32::NEG_INFINITY, 0);
    for (i, part) in x.chunks(PART).enumerate() {
        let highest = I::fhmax(fold::<I>(part, f32::NEG_INFINITY, f32::NEG_INFINITY, I::fmax, I::fmax));
        if highest > best.0 {
            best = (highest, i);
        }
    }
    let first = best.1 * PART;
    x[first..].iter().position(|&v| v == best.0).map_or(0, |i| first + i)
}
