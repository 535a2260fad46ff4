//! Vector maths against f64, on every instruction set of this build, natively and in the browser.

use bitpane::kernels::isa::{Isa, Native, Scalar};
use bitpane::kernels::{resample, vecmath};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

type InPlace = fn(&mut [f32]);

/// What a function makes of `x`, after seeing that both instruction sets agree.
fn both([native, scalar]: [InPlace; 2], x: &[f32]) -> Vec<f32> {
    let (mut a, mut b) = (x.to_vec(), x.to_vec());
    native(&mut a);
    scalar(&mut b);
    assert_eq!(bits(&a), bits(&b), "instruction sets differ");
    a
}

macro_rules! on_both {
    ($name:ident) => {
        [vecmath::$name::<Native> as InPlace, vecmath::$name::<Scalar>]
    };
}

fn gelu_tanh(v: f64) -> f64 {
    0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v.powi(3))).tanh())
}

#[test]
fn activation_functions_are_accurate_and_the_same_everywhere() {
    let x: Vec<f32> = (-20_003..20_003).map(|i| i as f32 / 1000.0).collect();
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    type Case = (&'static str, [InPlace; 2], Box<dyn Fn(f64) -> f64>, f64);
    let cases: [Case; 8] = [
        ("gelu", on_both!(gelu), Box::new(|v| 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt()))), 4e-7),
        ("gelu_tanh", on_both!(gelu_tanh), Box::new(gelu_tanh), 4e-7),
        ("silu", on_both!(silu), Box::new(move |v| v * sigmoid(v)), 4e-7),
        ("quick_gelu", on_both!(quick_gelu), Box::new(move |v| v * sigmoid(f64::from(1.702f32) * v)), 4e-7),
        ("sigmoid", on_both!(sigmoid), Box::new(sigmoid), 4e-7),
        ("tanh", on_both!(tanh), Box::new(f64::tanh), 4e-7),
        ("relu", on_both!(relu), Box::new(|v| v.max(0.0)), 0.0),
        ("relu_squared", on_both!(relu_squared), Box::new(|v| v.max(0.0).powi(2)), 2e-6),
    ];
    for (name, f, exact, bound) in cases {
        let mut worst = 0f64;
        for (&got, &v) in both(f, &x).iter().zip(&x) {
            let v = f64::from(v);
            worst = worst.max((f64::from(got) - exact(v)).abs() / (1.0 + v.abs()));
        }
        println!("{name}: error {worst:.1e} times 1 + |x|");
        assert!(worst <= bound, "{name}: {worst:e}");
        assert!(both(f, &[0.5, f32::NAN, 1.0])[1].is_nan(), "{name} loses NaN");
        for v in both(f, &[f32::MIN, -100.0, 100.0, 1e18]) {
            assert!(!v.is_nan(), "{name} makes NaN");
        }
    }
}

#[test]
fn products_with_an_activation_function_are_the_two_steps() {
    let x: Vec<f32> = (-501..502).map(|i| i as f32 / 50.0).collect();
    let up: Vec<f32> = x.iter().map(|v| 1.5 - v).collect();
    type Gated = [fn(&mut [f32], &[f32]); 2];
    let cases: [(Gated, InPlace); 2] = [
        ([vecmath::silu_mul::<Native>, vecmath::silu_mul::<Scalar>], vecmath::silu::<Scalar>),
        ([vecmath::gelu_tanh_mul::<Native>, vecmath::gelu_tanh_mul::<Scalar>], vecmath::gelu_tanh::<Scalar>),
    ];
    for (gated, plain) in cases {
        let mut want = x.clone();
        plain(&mut want);
        vecmath::mul::<Scalar>(&mut want, &up);
        for f in gated {
            let mut got = x.clone();
            f(&mut got, &up);
            assert_eq!(bits(&got), bits(&want));
        }
    }
}

#[test]
fn exp_is_within_its_bound() {
    let mut worst = 0f64;
    for i in -87_000..88_000 {
        let v = i as f32 / 1000.0;
        let got = Native::lanes(vecmath::Exp::<Native>::new().of(Native::fsplat(v)))[0];
        assert_eq!(
            got.to_bits(),
            vecmath::Exp::<Scalar>::new().of(Scalar::fsplat(v))[0].to_bits(),
            "exp({v})"
        );
        worst = worst.max((f64::from(got) / f64::from(v).exp() - 1.0).abs());
    }
    println!("exp: relative error {worst:.2e}");
    assert!(worst < 2.5e-7, "{worst:e}");
}

#[test]
fn coarse_exponentials_are_within_their_bound() {
    let x: Vec<f32> = (0..60_001).map(|i| i as f32 / -1000.0).collect();
    let (mut got, mut scalar) = (x.clone(), x.clone());
    let sum = vecmath::coarse_exp_sum::<Native>(&mut got);
    assert_eq!(sum.to_bits(), vecmath::coarse_exp_sum::<Scalar>(&mut scalar).to_bits());
    assert_eq!(bits(&got), bits(&scalar));
    let error = |(&got, &x): (&f32, &f32)| (f64::from(got) / f64::from(x).exp() - 1.0).abs();
    let worst = got.iter().zip(&x).map(error).fold(0.0, f64::max);
    println!("coarse exp: relative error {worst:.2e}");
    assert!(worst < 1e-4, "{worst:e}");
    let exact: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
    assert!((f64::from(sum) / exact - 1.0).abs() < 1e-4, "{sum} for {exact}");
    let mut edges = [0.0, -61.0, f32::NEG_INFINITY, -1e30];
    vecmath::coarse_exp_sum::<Native>(&mut edges);
    assert!((edges[0] - 1.0).abs() < 1e-4 && edges[1..].iter().all(|&e| e > 8e-27 && e < 9e-27), "{edges:?}");
    let mut faulty = [0.0, f32::NAN, -1.0];
    assert!(vecmath::coarse_exp_sum::<Native>(&mut faulty).is_nan());
}

#[test]
fn softmax_of_any_length() {
    let x: Vec<f32> = (-2003..2003).map(|i| i as f32 / 100.0).collect();
    for n in [1, 2, 3, 4, 5, 15, 16, 17, 197, 1001] {
        let row = &x[..n];
        let soft = both(on_both!(softmax), row);
        let max = f64::from(row[n - 1]);
        let total: f64 = row.iter().map(|&v| (f64::from(v) - max).exp()).sum();
        for (&got, &v) in soft.iter().zip(row) {
            let want = (f64::from(v) - max).exp() / total;
            assert!((f64::from(got) - want).abs() < 1e-6, "softmax of {n}: {got} is not {want}");
        }
    }
    let with_nan = both(on_both!(softmax), &[0.0, f32::NAN, 1.0]);
    assert!(with_nan.iter().all(|v| v.is_nan()), "{with_nan:?}");
}

#[test]
fn weights_far_below_the_largest_are_no_subnormal_numbers() {
    let mut x = vec![-1000.0; 37];
    x[5] = 3.0;
    let sum = vecmath::exp_sum::<Native>(&mut x);
    assert_eq!((sum, x[5]), (1.0, 1.0));
    // What a weight is multiplied with, the scale of a value, is above 1e-9.
    for (i, weight) in x.into_iter().enumerate().filter(|&(i, _)| i != 5) {
        assert!(weight > f32::MIN_POSITIVE * 1e9 && weight < 1e-25, "weight {i} is {weight:e}");
    }
}

#[test]
fn norms_of_any_length() {
    for n in [1, 3, 16, 31, 64, 577] {
        let x: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 / 25.0 - 1.5).collect();
        let weight: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 / n as f32).collect();
        let bias: Vec<f32> = weight.iter().map(|w| w - 1.25).collect();
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let of_squares = |mean: f64| x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        let mut out = [vec![0f32; n], vec![0f32; n]];
        vecmath::rms_norm::<Native>(&x, &weight, 1e-5, &mut out[0]);
        vecmath::rms_norm::<Scalar>(&x, &weight, 1e-5, &mut out[1]);
        assert_eq!(bits(&out[0]), bits(&out[1]));
        for i in 0..n {
            let want = f64::from(x[i]) / (of_squares(0.0) + 1e-5).sqrt() * f64::from(weight[i]);
            assert!((f64::from(out[0][i]) - want).abs() < 2e-6, "{} is not {want}", out[0][i]);
        }
        vecmath::layer_norm::<Native>(&x, &weight, &bias, 1e-5, &mut out[0]);
        vecmath::layer_norm::<Scalar>(&x, &weight, &bias, 1e-5, &mut out[1]);
        assert_eq!(bits(&out[0]), bits(&out[1]));
        for i in 0..n {
            let want = (f64::from(x[i]) - mean) / (of_squares(mean) + 1e-5).sqrt() * f64::from(weight[i])
                + f64::from(bias[i]);
            assert!((f64::from(out[0][i]) - want).abs() < 4e-6, "{} is not {want}", out[0][i]);
        }
    }
}

#[test]
fn argmax_is_the_first_of_the_largest() {
    let n = 1000;
    let plain: Vec<f32> = (0..n).map(|i| ((i * 7919) % 997) as f32 - 2000.0).collect();
    for at in [0, 1, 15, 16, 255, 256, 511, 512, 998, 999] {
        let mut x = plain.clone();
        (x[at], x[(at + 300).min(n - 1)]) = (-3.0, -3.0);
        assert_eq!(vecmath::argmax::<Native>(&x), at);
        assert_eq!(vecmath::argmax::<Scalar>(&x), at);
        x[at / 2] = f32::NAN;
        let want = if at == 0 { 300 } else { at };
        assert_eq!(vecmath::argmax::<Native>(&x), want, "beside NaN");
        assert_eq!(vecmath::argmax::<Scalar>(&x), want, "beside NaN");
    }
    assert_eq!(vecmath::argmax::<Native>(&[f32::NEG_INFINITY, f32::MIN]), 1);
    for nothing in [vec![], vec![f32::NAN; 5], vec![f32::NEG_INFINITY; 5]] {
        assert_eq!(vecmath::argmax::<Native>(&nothing), 0);
    }
}

/// Bytes of a fixed sequence, with runs of the extremes.
fn some_bytes(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| match i / 16 % 4 {
            0 => 255,
            1 => 0,
            _ => (i * 7919 % 256) as u8,
        })
        .collect()
}

#[test]
fn weighted_sums_of_pixels_are_those_of_32_bits_on_every_instruction_set() {
    const ONE: i32 = 1 << resample::POINT;
    let rounded = |sum: i32| ((sum + ONE / 2) >> resample::POINT).clamp(0, 255) as u8;
    for n in [1, 2, 3, 8, 11, 40] {
        // Their sum is 1, and they overshoot as filters do.
        let mut weights: Vec<i32> =
            (0..n as i32).map(|i| (ONE / n as i32) * [3, -1, 1][i as usize % 3]).collect();
        weights[n - 1] += ONE - weights.iter().sum::<i32>();
        let mut pairs = Vec::new();
        resample::pairs(&weights, &mut pairs);

        let pixels = some_bytes(16 * n);
        let rows: [&[[u8; 4]]; resample::ROWS] =
            std::array::from_fn(|r| pixels[4 * n * r..4 * n * (r + 1)].as_chunks().0);
        let expected: [[u8; 4]; resample::ROWS] = rows.map(|row| {
            let sum = |c: usize| row.iter().zip(&weights).map(|(p, w)| i32::from(p[c]) * w).sum();
            std::array::from_fn(|c| rounded(sum(c)))
        });
        assert_eq!(resample::along_rows::<Native>(rows, &pairs), expected, "{n} pixels");
        assert_eq!(resample::along_rows::<Scalar>(rows, &pairs), expected, "{n} pixels");

        for width in [1, 7, 8, 9, 24, 31] {
            let bytes = some_bytes(n * width);
            let sum =
                |x: usize| (0..n).map(|row| i32::from(bytes[row * width + x]) * weights[row]).sum::<i32>();
            let expected: Vec<u8> = (0..width).map(|x| rounded(sum(x))).collect();
            let (mut native, mut scalar) = (vec![0; width], vec![0; width]);
            resample::across_rows::<Native>(&bytes, &pairs, &mut native);
            resample::across_rows::<Scalar>(&bytes, &pairs, &mut scalar);
            assert_eq!((&native, &scalar), (&expected, &expected), "{n} rows of {width}");
        }
    }
}

#[test]
fn bounds_are_the_extremes_or_nan() {
    for n in 1..40 {
        let x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1009) as f32 - 504.0).collect();
        let expected =
            [x.iter().copied().fold(f32::MAX, f32::min), x.iter().copied().fold(f32::MIN, f32::max)];
        assert_eq!(vecmath::bounds::<Native>(&x), expected, "{n}");
        assert_eq!(vecmath::bounds::<Scalar>(&x), expected, "{n}");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, n / 2, n - 1] {
                let mut x = x.clone();
                x[at] = bad;
                for bounds in [vecmath::bounds::<Native>(&x), vecmath::bounds::<Scalar>(&x)] {
                    assert!(bounds.iter().all(|b| b.is_nan()), "{bad} at {at} of {n}: {bounds:?}");
                }
            }
        }
    }
}
