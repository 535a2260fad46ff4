//! Vector maths between the products: exp, softmax, norms, activation functions, RoPE.
//!
//! Only +, -, *, / and bit moves in a fixed order: the same bits on every instruction set.

use super::isa::Isa;

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

/// Folds all of `x`, four lanes at a time; the tail is padded with `pad`.
#[inline(always)]
fn fold<I: Isa>(x: &[f32], pad: f32, start: I::F, f: impl Fn(I::F, I::F) -> I::F) -> I::F {
    let mut acc = start;
    let chunks = x.chunks_exact(4);
    let tail = chunks.remainder();
    for c in chunks {
        // SAFETY: 4 floats.
        acc = f(acc, unsafe { I::fload(c.as_ptr()) });
    }
    if tail.is_empty() { acc } else { f(acc, load_tail::<I>(tail, pad)) }
}

#[inline(always)]
fn load_tail<I: Isa>(tail: &[f32], pad: f32) -> I::F {
    let mut lanes = [pad; 4];
    lanes[..tail.len()].copy_from_slice(tail);
    // SAFETY: 4 floats.
    unsafe { I::fload(lanes.as_ptr()) }
}

/// e^x for x in about [-87, 88], clamped outside; relative error below 2e-7.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder
/// 5e-9), times 2^n by exponent bits.
#[inline(always)]
pub fn exp<I: Isa>(x: I::F) -> I::F {
    let x = I::fmin(I::fmax(x, I::fsplat(-87.3)), I::fsplat(88.3));
    let n = I::round(I::fmul(x, I::fsplat(std::f32::consts::LOG2_E)));
    let nf = I::to_float(n);
    // ln 2 in two parts, the first with few bits, so that n * LN2_HI is exact.
    let r = I::fsub(x, I::fmul(nf, I::fsplat(0.693_359_4)));
    let r = I::fsub(r, I::fmul(nf, I::fsplat(-2.121_944_4e-4)));
    let mut p = I::fsplat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = I::fadd(I::fmul(p, r), I::fsplat(c));
    }
    I::from_bits(I::add32(I::bits(p), I::shl32::<23>(n)))
}

/// tanh, by `1 - 2 / (e^2x + 1)`.
#[inline(always)]
pub fn tanh<I: Isa>(x: I::F) -> I::F {
    let e = exp::<I>(I::fadd(x, x));
    let one = I::fsplat(1.0);
    I::fsub(one, I::fdiv(I::fsplat(2.0), I::fadd(e, one)))
}

/// `x = cap * tanh(x / cap)`.
pub fn softcap<I: Isa>(x: &mut [f32], cap: f32) {
    let (cap, inv) = (I::fsplat(cap), I::fsplat(1.0 / cap));
    map::<I>(x, |v| I::fmul(cap, tanh::<I>(I::fmul(v, inv))));
}

/// Softmax in place. NaN in gives NaN out.
pub fn softmax<I: Isa>(x: &mut [f32]) {
    let max = I::fhmax(fold::<I>(x, f32::MIN, I::fsplat(f32::MIN), |a, b| I::fmax(a, b)));
    let max = I::fsplat(max);
    map::<I>(x, |v| exp::<I>(I::fsub(v, max)));
    let sum = I::fsum(fold::<I>(x, 0.0, I::fsplat(0.0), |a, b| I::fadd(a, b)));
    let inv = I::fsplat(1.0 / sum);
    map::<I>(x, |v| I::fmul(v, inv));
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`.
pub fn rms_norm<I: Isa>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let squares = I::fsum(fold::<I>(x, 0.0, I::fsplat(0.0), |a, v| I::fadd(a, I::fmul(v, v))));
    let scale = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * scale * w;
    }
}

/// `out = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias`.
pub fn layer_norm<I: Isa>(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = I::fsum(fold::<I>(x, 0.0, I::fsplat(0.0), |a, v| I::fadd(a, v))) / n;
    let m = I::fsplat(mean);
    let squares = fold::<I>(x, mean, I::fsplat(0.0), |a, v| {
        let d = I::fsub(v, m);
        I::fadd(a, I::fmul(d, d))
    });
    let scale = 1.0 / (I::fsum(squares) / n + eps).sqrt();
    for (((o, &v), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *o = (v - mean) * scale * w + b;
    }
}

/// `gate = gate / (1 + e^-gate) * up` (SwiGLU).
pub fn silu_mul<I: Isa>(gate: &mut [f32], up: &[f32]) {
    map::<I>(gate, |g| {
        let e = exp::<I>(I::fsub(I::fsplat(0.0), g));
        I::fdiv(g, I::fadd(I::fsplat(1.0), e))
    });
    mul::<I>(gate, up);
}

/// GELU with the error function: `x / 2 * (1 + erf(x / sqrt 2))`.
///
/// erf by Abramowitz and Stegun 7.1.26, absolute error 1.5e-7.
pub fn gelu<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |x| {
        let z = I::fabs(I::fmul(x, I::fsplat(std::f32::consts::FRAC_1_SQRT_2)));
        let one = I::fsplat(1.0);
        let t = I::fdiv(one, I::fadd(one, I::fmul(z, I::fsplat(0.327_591_1))));
        let mut p = I::fsplat(1.061_405_4);
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = I::fadd(I::fmul(p, t), I::fsplat(c));
        }
        let e = exp::<I>(I::fsub(I::fsplat(0.0), I::fmul(z, z)));
        let erfc = I::fmul(I::fmul(p, t), e);
        // x/2 (1 + erf): for x < 0 it is x/2 erfc(|z|), else x - x/2 erfc(|z|).
        let tail = I::fmul(I::fmul(I::fabs(x), I::fsplat(0.5)), erfc);
        I::fsub(I::fmax(x, I::fsplat(0.0)), tail)
    });
}

/// `x += y`.
pub fn add<I: Isa>(x: &mut [f32], y: &[f32]) {
    for (a, b) in x.iter_mut().zip(y) {
        *a += b;
    }
}

/// `x *= y`.
pub fn mul<I: Isa>(x: &mut [f32], y: &[f32]) {
    for (a, b) in x.iter_mut().zip(y) {
        *a *= b;
    }
}

/// Largest value of a row; rows hold at least one.
pub fn max<I: Isa>(x: &[f32]) -> f32 {
    I::fhmax(fold::<I>(x, f32::MIN, I::fsplat(f32::MIN), |a, b| I::fmax(a, b)))
}
