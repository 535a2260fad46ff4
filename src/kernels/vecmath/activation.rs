//! Activation functions, in place.

use super::{Exp, constants, map, zip};
use crate::kernels::isa::Isa;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// tanh, by `1 - 2 / (e^2x + 1)`: absolute error below 3e-7.
struct Tanh<I: Isa> {
    exp: Exp<I>,
    one: I::F,
    two: I::F,
}

impl<I: Isa> Tanh<I> {
    #[inline(always)]
    fn new() -> Self {
        let [one, two] = constants::<I, _>([1.0, 2.0]);
        Tanh { exp: Exp::new(), one, two }
    }

    #[inline(always)]
    fn of(&self, x: I::F) -> I::F {
        let e = self.exp.of(I::fadd(x, x));
        I::fsub(self.one, I::fdiv(self.two, I::fadd(e, self.one)))
    }
}

/// `x / (1 + e^-(slope x))`.
struct Swish<I: Isa> {
    exp: Exp<I>,
    minus_slope: I::F,
    one: I::F,
}

impl<I: Isa> Swish<I> {
    #[inline(always)]
    fn new(slope: f32) -> Self {
        let [minus_slope, one] = constants::<I, _>([-slope, 1.0]);
        Swish { exp: Exp::new(), minus_slope, one }
    }

    #[inline(always)]
    fn of(&self, x: I::F) -> I::F {
        I::fdiv(x, I::fadd(self.one, self.exp.of(I::fmul(x, self.minus_slope))))
    }
}

/// erf, as `x P(x^2) / Q(x^2)` with P and Q of degree 5, fitted for the smallest absolute error
/// on [0, 3.92] (1.6e-8; 3.2e-7 as computed here), clamped outside.
struct Erf<I: Isa> {
    range: [I::F; 2],
    p: [I::F; 6],
    q: [I::F; 6],
}

impl<I: Isa> Erf<I> {
    #[inline(always)]
    fn new() -> Self {
        Erf {
            range: constants::<I, _>([-3.92, 3.92]),
            p: constants::<I, _>([
                2.034_740_9e-6,
                2.874_797_4e-4,
                3.868_326e-3,
                5.306_047_6e-2,
                0.192_763_97,
                FRAC_2_SQRT_PI,
            ]),
            q: constants::<I, _>([
                3.807_072_8e-5,
                1.188_115_8e-3,
                1.517_229_2e-2,
                0.115_084_59,
                0.504_164_3,
                1.0,
            ]),
        }
    }

    #[inline(always)]
    fn of(&self, x: I::F) -> I::F {
        let x = I::fmin(I::fmax(x, self.range[0]), self.range[1]);
        let t = I::fmul(x, x);
        let polynomial =
            |[first, rest @ ..]: [I::F; 6]| rest.into_iter().fold(first, |p, c| I::fadd(I::fmul(p, t), c));
        I::fdiv(I::fmul(x, polynomial(self.p)), polynomial(self.q))
    }
}

/// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
struct GeluTanh<I: Isa> {
    exp: Exp<I>,
    cubic: I::F,
    minus_slope: I::F,
    one: I::F,
}

impl<I: Isa> GeluTanh<I> {
    #[inline(always)]
    fn new() -> Self {
        let [cubic, minus_slope, one] = constants::<I, _>([0.044_715, -1.595_769, 1.0]);
        GeluTanh { exp: Exp::new(), cubic, minus_slope, one }
    }

    #[inline(always)]
    fn of(&self, x: I::F) -> I::F {
        // (1 + tanh z) / 2 = 1 / (1 + e^-2z).
        let cube = I::fmul(I::fmul(x, x), self.cubic);
        let z = I::fmul(I::fmul(x, self.minus_slope), I::fadd(self.one, cube));
        I::fdiv(x, I::fadd(self.one, self.exp.of(z)))
    }
}

/// `x = e^x`; see [`Exp`].
pub fn exp_all<I: Isa>(x: &mut [f32]) {
    let exp = Exp::<I>::new();
    map::<I>(x, |v| exp.of(v));
}

/// `x = tanh(x)`.
pub fn tanh<I: Isa>(x: &mut [f32]) {
    let tanh = Tanh::<I>::new();
    map::<I>(x, |v| tanh.of(v));
}

/// `x = cap * tanh(x / cap)` (Gemma 2, arXiv 2408.00118, section 2).
pub fn softcap<I: Isa>(x: &mut [f32], cap: f32) {
    let (tanh, [cap, inv]) = (Tanh::<I>::new(), constants::<I, _>([cap, 1.0 / cap]));
    map::<I>(x, |v| I::fmul(cap, tanh.of(I::fmul(v, inv))));
}

/// `x = 1 / (1 + e^-x)`.
pub fn sigmoid<I: Isa>(x: &mut [f32]) {
    let (exp, [zero, one]) = (Exp::<I>::new(), constants::<I, _>([0.0, 1.0]));
    map::<I>(x, |v| I::fdiv(one, I::fadd(one, exp.of(I::fsub(zero, v)))));
}

/// SiLU: `x = x * sigmoid(x)`.
pub fn silu<I: Isa>(x: &mut [f32]) {
    let swish = Swish::<I>::new(1.0);
    map::<I>(x, |v| swish.of(v));
}

/// SwiGLU: `gate = silu(gate) * up`.
pub fn silu_mul<I: Isa>(gate: &mut [f32], up: &[f32]) {
    let swish = Swish::<I>::new(1.0);
    zip::<I>(gate, up, |g, u| I::fmul(swish.of(g), u));
}

/// `x = x * sigmoid(1.702 x)`: CLIP's approximation of GELU.
pub fn quick_gelu<I: Isa>(x: &mut [f32]) {
    let swish = Swish::<I>::new(1.702);
    map::<I>(x, |v| swish.of(v));
}

/// GELU with the error function: `x / 2 * (1 + erf(x / sqrt 2))` (arXiv 1606.08415).
pub fn gelu<I: Isa>(x: &mut [f32]) {
    let (erf, [half, slope]) = (Erf::<I>::new(), constants::<I, _>([0.5, FRAC_1_SQRT_2]));
    map::<I>(x, |v| {
        let x = I::fmul(v, half);
        I::fadd(x, I::fmul(x, erf.of(I::fmul(v, slope))))
    });
}

/// GELU by tanh: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
pub fn gelu_tanh<I: Isa>(x: &mut [f32]) {
    let gelu = GeluTanh::<I>::new();
    map::<I>(x, |v| gelu.of(v));
}

/// GeGLU: `gate = gelu_tanh(gate) * up`.
pub fn gelu_tanh_mul<I: Isa>(gate: &mut [f32], up: &[f32]) {
    let gelu = GeluTanh::<I>::new();
    zip::<I>(gate, up, |g, u| I::fmul(gelu.of(g), u));
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
