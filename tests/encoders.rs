//! Encoders of the tensor types against their own decoders.

#[path = "common/blocks.rs"]
mod blocks;

use bitpane::quant::{DType, FORMATS};
use blocks::{decoded, rms, splitmix_bytes};

/// Types that can be written, and the largest relative RMS error of rounding Gaussian weights
/// to them. The two ternary types are made for weights that are ternary already.
const ROUNDING: &[(&str, f64)] = &[
    ("Q4_0", 0.088),
    ("Q4_1", 0.08),
    ("Q5_0", 0.0435),
    ("Q5_1", 0.039),
    ("Q8_0", 0.0055),
    ("Q2_K", 0.336),
    ("Q3_K", 0.158),
    ("Q4_K", 0.08),
    ("Q5_K", 0.039),
    ("Q6_K", 0.0193),
    ("IQ4_NL", 0.082),
    ("IQ4_XS", 0.081),
    ("TQ1_0", 0.83),
    ("TQ2_0", 0.83),
    ("MXFP4", 0.118),
    ("Q1_0", 0.605),
];

fn round_trip(dtype: DType, values: &[f32]) -> Vec<f32> {
    let (format, codec) = dtype.codec().unwrap();
    let mut blocks = vec![0xA5; values.len() / format.block_len * format.block_bytes];
    (codec.quantize.unwrap())(values, &mut blocks);
    decoded(dtype, &blocks)
}

fn gaussians(n: usize) -> Vec<f32> {
    let uniform = |b: &[u8]| (u32::from_le_bytes(b.try_into().unwrap()) as f64 + 0.5) / 2f64.powi(32);
    let bytes = splitmix_bytes(8 * n, 77);
    let pair =
        |b: &[u8]| (-2.0 * uniform(&b[..4]).ln()).sqrt() * (std::f64::consts::TAU * uniform(&b[4..])).cos();
    bytes.chunks_exact(8).map(|b| pair(b) as f32).collect()
}

#[test]
fn rounding_errors_stay_below_their_ceilings() {
    let x = gaussians(1 << 16);
    let norm = rms(&x, &vec![0.0; x.len()]);
    let mut faults = Vec::new();
    for &(name, ceiling) in ROUNDING {
        let error = rms(&round_trip(DType::from_name(name).unwrap(), &x), &x) / norm;
        println!("{name}: relative rms error {error:.4}");
        if error.is_nan() || error > ceiling {
            faults.push(format!("{name}: {error:.4}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let float = ["F32", "F16", "BF16"];
    for format in FORMATS.iter().filter(|f| f.codec.is_some_and(|c| c.quantize.is_some())) {
        let listed = ROUNDING.iter().any(|r| r.0 == format.name) || float.contains(&format.name);
        assert!(listed, "{} has no ceiling", format.name);
    }
}

#[test]
fn ternary_weights_survive_ternary_types() {
    let x: Vec<f32> = splitmix_bytes(2048, 3).iter().map(|b| (f32::from(b % 3) - 1.0) * 0.375).collect();
    for name in ["TQ1_0", "TQ2_0"] {
        assert_eq!(round_trip(DType::from_name(name).unwrap(), &x), x, "{name}");
    }
}

#[test]
fn scales_are_finite_and_zeros_exact_for_any_weights() {
    let gauss = gaussians(256);
    let outlier = |v: f32| gauss.iter().enumerate().map(|(i, &g)| if i == 100 { v } else { g }).collect();
    let alternating = |v: f32| (0..256).map(|i| if i % 2 == 0 { v } else { -v }).collect();
    let cases: [(&str, Vec<f32>); 13] = [
        ("zeros", vec![0.0; 256]),
        ("negative zeros", vec![-0.0; 256]),
        ("ones", vec![1.0; 256]),
        ("minus ones", vec![-1.0; 256]),
        ("largest", vec![f32::MAX; 256]),
        ("lowest", vec![f32::MIN; 256]),
        ("both ends", alternating(f32::MAX)),
        ("beyond f16", alternating(1e6)),
        ("below f16", alternating(1e-9)),
        ("subnormal", alternating(1e-40)),
        ("smallest", alternating(f32::from_bits(1))),
        ("large outlier", outlier(1e30)),
        ("largest outlier", outlier(f32::MIN)),
    ];
    for (name, _) in ROUNDING {
        for (what, x) in &cases {
            let got = round_trip(DType::from_name(name).unwrap(), x);
            assert!(got.iter().all(|v| v.is_finite()), "{name}, {what}: {got:?}");
            let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
            if largest == 0.0 {
                assert!(got.iter().all(|&v| v == 0.0), "{name}, {what}: {got:?}");
            } else if largest == 1.0 {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 0.01;
                assert!(got.iter().zip(x).all(near), "{name}, {what}: {got:?}");
            } else if largest < 1e-8 {
                assert!(got.iter().all(|v| v.abs() <= 2.0 * largest), "{name}, {what}: {got:?}");
            }
        }
    }
}
