//! Activation functions, in place.

use super::{exp, map, zip};
use crate::kernels::isa::Isa;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// tanh, by `1 - 2 / (e^2x + 1)`: absolute error below 3e-7.
#[inline(always)]
fn tanh_of<I: Isa>(x: I::F) -> I::F {
    let e = exp::<I>(I::fadd(x, x));
    let one = I::fsplat(1.0);
    I::fsub(one, I::fdiv(I::fsplat(2.0), I::fadd(e, one)))
}

/// `x / (1 + e^-(slope x))`.
#[inline(always)]
fn swish<I: Isa>(x: I::F, slope: f32) -> I::F {
    let e = exp::<I>(I::fmul(x, I::fsplat(-slope)));
    I::fdiv(x, I::fadd(I::fsplat(1.0), e))
}

/// erf, as `x P(x^2) / Q(x^2)` with P and Q of degree 5, fitted for the smallest absolute error
/// on [0, 3.92] (1.6e-8; 3.2e-7 as computed here), clamped outside.
#[inline(always)]
fn erf<I: Isa>(x: I::F) -> I::F {
    let x = I::fmin(I::fmax(x, I::fsplat(-3.92)), I::fsplat(3.92));
    let t = I::fmul(x, x);
    let polynomial = |first: f32, rest: [f32; 5]| {
        rest.into_iter().fold(I::fsplat(first), |p, c| I::fadd(I::fmul(p, t), I::fsplat(c)))
    };
    let p = polynomial(
        2.034_740_9e-6,
        [2.874_797_4e-4, 3.868_326e-3, 5.306_047_6e-2, 0.192_763_97, FRAC_2_SQRT_PI],
    );
    let q = polynomial(3.807_072_8e-5, [1.188_115_8e-3, 1.517_229_2e-2, 0.115_084_59, 0.504_164_3, 1.0]);
    I::fdiv(I::fmul(x, p), q)
}

/// `x = e^x`; see [`exp`].
pub fn exp_all<I: Isa>(x: &mut [f32]) {
    map::<I>(x, exp::<I>);
}

/// `x = tanh(x)`.
pub fn tanh<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| tanh_of::<I>(v));
}

/// `x = cap * tanh(x / cap)` (Gemma 2, arXiv 2408.00118, section 2).
pub fn softcap<I: Isa>(x: &mut [f32], cap: f32) {
    let (cap, inv) = (I::fsplat(cap), I::fsplat(1.0 / cap));
    map::<I>(x, |v| I::fmul(cap, tanh_of::<I>(I::fmul(v, inv))));
}

/// `x = 1 / (1 + e^-x)`.
pub fn sigmoid<I: Isa>(x: &mut [f32]) {
    let one = I::fsplat(1.0);
    map::<I>(x, |v| I::fdiv(one, I::fadd(one, exp::<I>(I::fsub(I::fsplat(0.0), v)))));
}

/// SiLU: `x = x * sigmoid(x)`.
pub fn silu<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| swish::<I>(v, 1.0));
}

/// SwiGLU: `gate = silu(gate) * up`.
pub fn silu_mul<I: Isa>(gate: &mut [f32], up: &[f32]) {
    zip::<I>(gate, up, |g, u| I::fmul(swish::<I>(g, 1.0), u));
}

/// `x = x * sigmoid(1.702 x)`: CLIP's approximation of GELU.
pub fn quick_gelu<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| swish::<I>(v, 1.702));
}

/// GELU with the error function: `x / 2 * (1 + erf(x / sqrt 2))` (arXiv 1606.08415).
pub fn gelu<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| {
        let half = I::fmul(v, I::fsplat(0.5));
        I::fadd(half, I::fmul(half, erf::<I>(I::fmul(v, I::fsplat(FRAC_1_SQRT_2)))))
    });
}

/// GELU by tanh: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
pub fn gelu_tanh<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| gelu_tanh_of::<I>(v));
}

/// GeGLU: `gate = gelu_tanh(gate) * up`.
pub fn gelu_tanh_mul<I: Isa>(gate: &mut [f32], up: &[f32]) {
    zip::<I>(gate, up, |g, u| I::fmul(gelu_tanh_of::<I>(g), u));
}

#[inline(always)]
fn gelu_tanh_of<I: Isa>(x: I::F) -> I::F {
    // (1 + tanh z) / 2 = 1 / (1 + e^-2z).
    let cube = I::fmul(I::fmul(x, x), I::fsplat(0.044_715));
    let z = I::fmul(I::fmul(x, I::fsplat(-1.595_769)), I::fadd(I::fsplat(1.0), cube));
    I::fdiv(x, I::fadd(I::fsplat(1.0), exp::<I>(z)))
}

/// `x = max(x, 0)`; NaN stays.
pub fn relu<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| I::fmax(v, I::fsplat(0.0)));
}

/// `x = max(x, 0)^2` (Primer, arXiv 2109.08668); NaN stays.
pub fn relu_squared<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| {
        let v = I::fmax(v, I::fsplat(0.0));
        I::fmul(v, v)
    });
}

/// `min(max(x, 0), 6)`; NaN stays.
#[inline(always)]
fn relu6_of<I: Isa>(x: I::F) -> I::F {
    I::fmin(I::fmax(x, I::fsplat(0.0)), I::fsplat(6.0))
}

/// `x = min(max(x, 0), 6)`.
pub fn relu6<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| relu6_of::<I>(v));
}

/// `x = relu6(x + 3) / 6`.
pub fn hard_sigmoid<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| I::fmul(relu6_of::<I>(I::fadd(v, I::fsplat(3.0))), I::fsplat(1.0 / 6.0)));
}

/// `x = x relu6(x + 3) / 6` (MobileNetV3, arXiv 1905.02244, section 5.2).
pub fn hard_swish<I: Isa>(x: &mut [f32]) {
    map::<I>(x, |v| I::fmul(v, I::fmul(relu6_of::<I>(I::fadd(v, I::fsplat(3.0))), I::fsplat(1.0 / 6.0))));
}
