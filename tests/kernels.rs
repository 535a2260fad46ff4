//! Every kernel against the oracles, on every instruction set of this build, natively and in
//! the browser.

use bitpane::kernels::act::Activations;
use bitpane::kernels::isa::{Native, Scalar};
use bitpane::kernels::output::Output;
use bitpane::kernels::path::{DotPath, P16};
use bitpane::kernels::path16::{D16, X16};
use bitpane::kernels::path32::{D32, Signed, Unsigned};
use bitpane::kernels::{
    Product, backend_name, float, matmul_many, matmul_on, reference, select_paths, take_path,
};
use bitpane::quant::DType;
use bitpane::repack::{PackedWeights, Packer, Packing};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Deterministic numbers (splitmix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly normal, mean 0, deviation 1.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u32 << 24) as f32).sum::<f32>() - 6.0
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

fn pack(values: &[f32], dtype: DType, n: usize, k: usize) -> PackedWeights {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let mut packer = Packer::new(DType::F32, dtype, n, k).unwrap();
    for piece in bytes.chunks(1000) {
        packer.push(piece).unwrap();
    }
    packer.finish().unwrap()
}

fn activations(x: &[f32], m: usize, k: usize, integer: bool) -> Activations {
    let mut act = Activations::default();
    act.fill(m, k, integer).copy_from_slice(x);
    act
}

/// The product of the dequantized activation codes with the dequantized weights, in f64.
fn expected(x: &[f32], w: &PackedWeights, m: usize) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(x.len());
    let span = if matches!(w.packing(), Packing::Super(_)) { 256 } else { 32 };
    for block in x.chunks_exact(span) {
        let (codes, d) = reference::quantize_block(block);
        rounded.extend(codes.iter().map(|&c| f32::from(c) * d));
    }
    let mut out = vec![0f32; m * w.n()];
    reference::matmul(&rounded, w, &mut out);
    out
}

/// Whole numbers within +-`limit`, with `limit` (negated, if asked) once in every 32, so that
/// the scale of every block is 1.
fn whole_numbers(random: &mut Random, n: usize, limit: i64, negative_only: bool) -> Vec<f32> {
    let mut out: Vec<f32> =
        (0..n).map(|_| (random.next() % (2 * limit as u64)) as i64 - limit).map(|v| v as f32).collect();
    for block in out.chunks_exact_mut(32) {
        let at = (random.next() % 32) as usize;
        block[at] = if negative_only || random.next() & 1 == 0 { -limit as f32 } else { limit as f32 };
    }
    out
}

#[test]
fn products_of_whole_numbers_are_exact_integers() {
    let mut random = Random(5);
    for (dtype, limit) in [(DType::Q4_0, 8), (DType::Q8_0, 127)] {
        for &(n, k) in SHAPES {
            let weights = whole_numbers(&mut random, n * k, limit, dtype == DType::Q4_0);
            let w = pack(&weights, dtype, n, k);
            for m in 1..=6 {
                let x = whole_numbers(&mut random, m * k, 127, false);
                for got in on_every_path(&x, &w, m) {
                    for i in 0..m * n {
                        let (x, w) = (&x[i / n * k..][..k], &weights[i % n * k..][..k]);
                        let want: i64 = x.iter().zip(w).map(|(&a, &b)| a as i64 * b as i64).sum();
                        assert_eq!(got[i], want as f32, "{dtype:?} {m}x{n}x{k} at {i}");
                    }
                }
            }
        }
    }
}

/// Types with sub-scales in blocks of 256, and shapes for them.
const SUPER_TYPES: &[DType] =
    &[DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::TQ2_0, DType::TQ1_0];
const SUPER_SHAPES: &[(usize, usize)] = &[(1, 256), (17, 512), (40, 1280)];

/// Shapes for signs, whose scales reach over 128.
const BIT_SHAPES: &[(usize, usize)] = &[(1, 128), (16, 384), (33, 640), (50, 1280)];

/// Every integer type with shapes for it.
fn integer_cases() -> Vec<(DType, usize, usize)> {
    let plain = [DType::Q4_0, DType::Q8_0].iter().flat_map(|&d| SHAPES.iter().map(move |&(n, k)| (d, n, k)));
    let blocks = SUPER_TYPES.iter().flat_map(|&d| SUPER_SHAPES.iter().map(move |&(n, k)| (d, n, k)));
    let signs = BIT_SHAPES.iter().map(|&(n, k)| (DType::Q1_0, n, k));
    plain.chain(blocks).chain(signs).collect()
}

const SHAPES: &[(usize, usize)] = &[(1, 32), (16, 64), (17, 96), (33, 800), (8, 1600), (105, 128)];

fn close(a: f32, b: f32, scale: f32) -> bool {
    (a - b).abs() <= 2e-5 * scale
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn product<P: DotPath>(x: &[f32], w: &PackedWeights, m: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * w.n()];
    matmul_on::<P>(&mut activations(x, m, w.k(), true), None, w, &mut out);
    out
}

/// Paths that [`bitpane::kernels::matmul`] may choose in this build and engine.
fn named_paths() -> Vec<&'static str> {
    let found =
        ["p16", "x16", "d16", "d32u", "d32s"].into_iter().filter(|name| take_path(name)).collect::<Vec<_>>();
    let relaxed = cfg!(target_feature = "relaxed-simd");
    assert_eq!(found.contains(&"d16"), relaxed, "{found:?}");
    // Where it is an instruction at all (not on x86 without AVX-VNNI), one of the two.
    let four = found.iter().filter(|name| name.starts_with("d32")).count();
    assert!(four <= usize::from(relaxed), "{found:?}");
    assert_eq!(found.contains(&"x16"), cfg!(target_arch = "wasm32") && !relaxed, "{found:?}");
    found
}

fn on_every_path(x: &[f32], w: &PackedWeights, m: usize) -> Vec<Vec<f32>> {
    let mut out = vec![
        product::<P16<Scalar>>(x, w, m),
        product::<P16<Native>>(x, w, m),
        product::<D32<Scalar, Unsigned>>(x, w, m),
        product::<D32<Scalar, Signed>>(x, w, m),
        product::<D16<Scalar>>(x, w, m),
        product::<X16<Scalar>>(x, w, m),
        product::<X16<Native>>(x, w, m),
        #[cfg(target_feature = "relaxed-simd")]
        product::<D16<Native>>(x, w, m),
    ];
    for name in named_paths() {
        assert!(take_path(name));
        let mut chosen = vec![f32::NAN; m * w.n()];
        bitpane::kernels::matmul(&mut activations(x, m, w.k(), true), w, &mut chosen);
        out.push(chosen);
    }
    out
}

#[test]
fn integer_products_are_the_defined_ones_on_every_path() {
    let mut random = Random(1);
    for (dtype, n, k) in integer_cases() {
        {
            let w = pack(&random.normals(n * k), dtype, n, k);
            let x = random.normals(17 * k);
            for m in 1..=17 {
                let x = &x[..m * k];
                let got = product::<P16<Scalar>>(x, &w, m);
                let want = expected(x, &w, m);
                for (i, (&a, &b)) in got.iter().zip(&want).enumerate() {
                    assert!(close(a, b, (k as f32).sqrt()), "{dtype:?} {m}x{n}x{k} at {i}: {a} is not {b}");
                }
                for (i, other) in on_every_path(x, &w, m).iter().enumerate() {
                    assert_eq!(bits(&got), bits(other), "{dtype:?} {m}x{n}x{k}: path {i} differs");
                }
            }
        }
    }
}

#[test]
fn one_row_alone_gives_the_bits_it_gives_in_a_batch() {
    let mut random = Random(2);
    for &dtype in [DType::Q4_0, DType::Q8_0, DType::Q1_0].iter().chain(SUPER_TYPES) {
        let (n, k, m) = (50, 1280, 9);
        let w = pack(&random.normals(n * k), dtype, n, k);
        let x = random.normals(m * k);
        let batch = product::<P16<Native>>(&x, &w, m);
        for i in 0..m {
            let alone = product::<P16<Native>>(&x[i * k..][..k], &w, 1);
            assert_eq!(bits(&alone), bits(&batch[i * n..][..n]), "{dtype:?} row {i}");
        }
    }
}

#[test]
fn some_rows_give_the_bits_they_give_among_all() {
    let mut random = Random(6);
    let kinds = [DType::Q4_0, DType::Q8_0, DType::F16].iter().chain(SUPER_TYPES);
    for (&dtype, integer) in kinds.flat_map(|d| [(d, true), (d, false)]) {
        let (n, k) = (50, 1280);
        let w = pack(&random.normals(n * k), dtype, n, k);
        for (m, rows) in
            [(1, &[0][..]), (1, &[0, 0, 0]), (7, &[6]), (9, &[8, 0, 3, 3, 7]), (9, &[]), (6, &[1, 5, 0, 2])]
        {
            let mut act = activations(&random.normals(m * k), m, k, integer);
            act.set_twice(if rows.len() % 2 == 1 { usize::MAX } else { 0 });
            let mut all = vec![f32::NAN; m * n];
            bitpane::kernels::matmul(&mut act, &w, &mut all);
            let mut some = vec![f32::NAN; rows.len() * n];
            // Twice: what the first call left behind must not show.
            bitpane::kernels::matmul_rows(&mut act, &[m - 1, 0], &w, &mut vec![0.0; 2 * n]);
            bitpane::kernels::matmul_rows(&mut act, rows, &w, &mut some);
            for (&row, got) in rows.iter().zip(some.chunks_exact(n)) {
                assert_eq!(bits(got), bits(&all[row * n..][..n]), "{dtype:?} {integer} row {row} of {m}");
            }
        }
    }
}

#[test]
fn twice_the_bits_leave_a_hundredth_of_the_error() {
    let mut random = Random(9);
    let kinds = [DType::Q4_0, DType::Q8_0].iter().chain(SUPER_TYPES);
    for (&dtype, name) in kinds.flat_map(|d| named_paths().into_iter().map(move |name| (d, name))) {
        assert!(take_path(name));
        let (m, n, k) = (6, 40, 512);
        let w = pack(&random.normals(n * k), dtype, n, k);
        let x = random.normals(m * k);
        let mut exact = vec![0f32; m * n];
        reference::matmul(&x, &w, &mut exact);
        let [once, first_two, twice] = [0, 2, usize::MAX].map(|n_rows| {
            let mut act = activations(&x, m, k, true);
            act.set_twice(n_rows);
            let mut out = vec![f32::NAN; m * n];
            bitpane::kernels::matmul(&mut act, &w, &mut out);
            out
        });
        let error = |out: &[f32]| out.iter().zip(&exact).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        let (once_error, error) = (error(&once), error(&twice));
        assert!(error < once_error / 100.0, "{dtype:?} {name}: {error}, with half the bits {once_error}");
        // Rows of which that is asked have it, bit for bit, and no others.
        assert_eq!(bits(&first_two), bits(&[&twice[..2 * n], &once[2 * n..]].concat()), "{dtype:?} {name}");
    }
}

#[test]
fn matrices_of_all_kinds_share_activations() {
    let mut random = Random(8);
    let (n, k) = (21, 2048);
    let kinds = [DType::Q4_0, DType::Q8_0, DType::F16].iter().chain(SUPER_TYPES);
    let weights: Vec<_> = kinds.map(|&dtype| pack(&random.normals(n * k), dtype, n, k)).collect();
    for name in named_paths() {
        assert!(take_path(name));
        for m in [1, 5] {
            let x = random.normals(m * k);
            let mut together = vec![vec![f32::NAN; m * n]; weights.len()];
            let mut products: Vec<_> =
                weights.iter().zip(&mut together).map(|(w, out)| Product::new(w, out)).collect();
            matmul_many(&mut activations(&x, m, k, true), None, &mut products);
            for (w, got) in weights.iter().zip(&together) {
                let mut alone = vec![f32::NAN; m * n];
                bitpane::kernels::matmul(&mut activations(&x, m, k, true), w, &mut alone);
                assert_eq!(bits(got), bits(&alone), "{name} {} {m}", w.packing().name());
                let bias = random.normals(n);
                let mut with_bias = vec![f32::NAN; m * n];
                let product = Product { w, out: &mut with_bias, bias: Some(&bias) };
                matmul_many(&mut activations(&x, m, k, true), None, &mut [product]);
                alone
                    .chunks_exact_mut(n)
                    .for_each(|row| row.iter_mut().zip(&bias).for_each(|(o, b)| *o += b));
                assert_eq!(bits(&with_bias), bits(&alone), "{name} {} {m}: bias", w.packing().name());
            }
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    // All weights and activations at the ends of their range: the largest sums there are.
    for dtype in [DType::Q4_0, DType::Q8_0] {
        for (ws, xs) in [(-1.0, 1.0), (-1.0, -1.0), (1.0, 1.0), (1.0, -1.0)] {
            let (n, k) = (16, 4096);
            let w = pack(&vec![ws; n * k], dtype, n, k);
            for m in [1, 4] {
                let out = product::<P16<Native>>(&vec![xs; m * k], &w, m);
                for v in out {
                    assert!((v - ws * xs * k as f32).abs() < 1.0, "{dtype:?} {ws} {xs}: {v}");
                }
            }
        }
    }
}

#[test]
fn zero_and_tiny_activations_give_zero() {
    let w = pack(&[1.0; 16 * 32], DType::Q4_0, 16, 32);
    for x in [0.0, 1e-40, -1e-38] {
        assert!(product::<P16<Native>>(&[x; 32], &w, 1).iter().all(|v| v.abs() < 1e-30));
    }
}

#[test]
fn float_products_match_the_oracle_for_every_packing() {
    let mut random = Random(3);
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q8_0] {
        for (&(n, k), m) in SHAPES.iter().zip([2, 5, 8, 15, 3, 7]) {
            let k = if matches!(dtype, DType::Q4_0 | DType::Q8_0) { k } else { k + 3 };
            let w = pack(&random.normals(n * k), dtype, n, k);
            let x = random.normals(m * k);
            let (mut got, mut scalar, mut want) = (vec![0f32; m * n], vec![0f32; m * n], vec![0f32; m * n]);
            float::matmul::<Native>(&x, &w, 0..w.n_strips(), Output::new(&mut got, m, n));
            float::matmul::<Scalar>(&x, &w, 0..w.n_strips(), Output::new(&mut scalar, m, n));
            reference::matmul(&x, &w, &mut want);
            assert_eq!(bits(&got), bits(&scalar), "{dtype:?} {m}x{n}x{k}: instruction sets differ");
            for (&a, &b) in got.iter().zip(&want) {
                assert!(close(a, b, (k as f32).sqrt()), "{dtype:?} {m}x{n}x{k}: {a} is not {b}");
            }
        }
    }
}

#[test]
fn packing_keeps_every_weight() {
    let mut random = Random(4);
    let types = [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q8_0, DType::Q1_0];
    for &dtype in types.iter().chain(SUPER_TYPES) {
        let (n, k) = (37, 512);
        let values = random.normals(n * k);
        let w = pack(&values, dtype, n, k);
        let (format, codec) = dtype.codec().unwrap();
        let mut row = vec![0f32; k];
        for (j, source) in values.chunks_exact(k).enumerate() {
            let mut blocks = vec![0u8; k / format.block_len * format.block_bytes];
            assert!(codec.encode(source, &vec![1.0; k], &mut blocks));
            let mut want = vec![0f32; k];
            (codec.dequantize)(&blocks, &mut want);
            w.row(j, &mut row);
            assert_eq!(row, want, "{dtype:?} row {j}");
        }
    }
}

#[test]
fn nan_activations_are_not_lost() {
    let w = pack(&[1.0; 16 * 512], DType::Q4_0, 16, 512);
    let blocks = pack(&[1.0; 16 * 512], DType::Q4_K, 16, 512);
    for m in [1, 3] {
        for at in [0, 31, 300, 511] {
            let mut x = vec![0.5; m * 512];
            x[at] = f32::NAN;
            for w in [&w, &blocks] {
                for out in on_every_path(&x, w, m) {
                    assert!(out[..16].iter().all(|v| v.is_nan()), "m {m}, k {at}: {out:?}");
                }
            }
        }
    }
}

/// A compiler that knows what polling gives removes it, and then nothing is measured.
#[test]
fn polling_takes_time_while_it_is_measured() {
    #[cfg(target_arch = "wasm32")]
    let now_ms = js_sys::Date::now;
    #[cfg(not(target_arch = "wasm32"))]
    let begin = std::time::Instant::now();
    #[cfg(not(target_arch = "wasm32"))]
    let now_ms = || begin.elapsed().as_secs_f64() * 1e3;
    let start = now_ms();
    bitpane::kernels::pool::calibrate(&now_ms);
    assert!(now_ms() - start >= 4.0, "over after {} ms", now_ms() - start);
}

#[test]
fn paths_are_chosen_by_any_clock() {
    let stuck = || 5.0;
    select_paths(&stuck);
    assert!(!backend_name().1.is_empty());
    let ticks = std::cell::Cell::new(0u32);
    // Steps of 0.1 ms, every 20th call.
    let coarse = || {
        ticks.set(ticks.get() + 1);
        f64::from(ticks.get() / 20) * 0.1
    };
    select_paths(&coarse);
    let first = backend_name();
    select_paths(&coarse);
    assert_eq!(backend_name(), first, "equal speeds choose the same");
}
