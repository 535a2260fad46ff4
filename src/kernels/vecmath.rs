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

/// e^x for x in about [-87, 88], clamped outside; relative error below 2.5e-7, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by the polynomial of degree 5 whose largest relative
/// error is smallest (9.2e-8), times 2^n.
#[inline(always)]
pub fn exp<I: Isa>(x: I::F) -> I::F {
    exp_negative::<I>(I::fmin(x, I::fsplat(88.3)))
}

/// [`exp`] for x that is not above 88.
#[inline(always)]
pub(super) fn exp_negative<I: Isa>(x: I::F) -> I::F {
    // Adding 1.5 * 2^23 rounds to a whole number in the low mantissa bits, here with the bias of
    // an exponent added: shifted to the top they are 2^n.
    const MAGIC: f32 = 12_582_912.0 + 127.0;
    let x = I::fmax(x, I::fsplat(-87.3));
    let shifted = I::fadd(I::fmul(x, I::fsplat(std::f32::consts::LOG2_E)), I::fsplat(MAGIC));
    let n = I::fsub(shifted, I::fsplat(MAGIC));
    let power = I::from_bits(I::shl32::<23>(I::bits(shifted)));
    // ln 2 in two parts, the first with few bits, so that n times it is exact.
    let r = I::fsub(x, I::fmul(n, I::fsplat(0.693_359_4)));
    let r = I::fsub(r, I::fmul(n, I::fsplat(-2.121_944_4e-4)));
    let mut p = I::fsplat(8.290_272e-3);
    for c in [4.189_816e-2, 0.166_676_39, 0.499_991_48, 0.999_999_7, 1.0] {
        p = I::fadd(I::fmul(p, r), I::fsplat(c));
    }
    I::fmul(p, power)
}

/// `x = e^(x - max(x))`; gives the sum. A softmax but for the division. NaN in gives NaN out.
pub fn exp_sum<I: Isa>(x: &mut [f32]) -> f32 {
    let highest = I::fsplat(max::<I>(x));
    let weight = |v| exp_negative::<I>(I::fsub(v, highest));
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

/// The largest magnitude; NaN where any value is not finite.
pub fn largest<I: Isa>(x: &[f32]) -> f32 {
    let magnitude = fold::<I>(x, 0.0, 0.0, |a, v| I::fmax(a, I::fabs(v)), I::fmax);
    // 0 times infinity or NaN is NaN.
    let zeros = fold::<I>(x, 0.0, 0.0, |a, v| I::fadd(a, I::fmul(v, I::fsplat(0.0))), I::fadd);
    I::fhmax(magnitude) + I::fsum(zeros)
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
