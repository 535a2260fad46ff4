//! Rounding of a matrix whose inputs have moved since what comes before it was rounded.

#[path = "common/blocks.rs"]
mod blocks;

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::{Header, parse};
use bitpane::kernels::sums;
use bitpane::quant::DType;
use bitpane::quantizer::{Files, MovedInputs, Outline};
use blocks::splitmix_bytes;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

const NAME: &str = "blk.0.attn_v.weight";
const N: usize = 24;
const K: usize = 256;

/// About normal, of deviation 0.02.
fn noise(n: usize, seed: u64) -> Vec<f32> {
    let value = |bytes: &[u8]| bytes.iter().map(|&v| (f32::from(v) + 0.5) / 256.0).sum::<f32>() * 0.02 - 0.12;
    splitmix_bytes(n * 12, seed).chunks_exact(12).map(value).collect()
}

/// Of a model that has nothing but the matrix.
fn outline() -> Outline {
    let mut writer = GgufWriter::new();
    writer.str("general.architecture", "llama");
    writer.tensor(NAME, DType::F32, &[N, K]).unwrap();
    let bytes = writer.to_bytes(&[vec![0; N * K * 4].as_slice()]).unwrap();
    let header: Header = parse(&bytes, Some(bytes.len() as u64)).unwrap().unwrap();
    Outline::of(&header, &Files::default()).unwrap()
}

/// `[m, N]`, of rows of inputs.
fn products(rows: &[f32], weights: &[f32]) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f32>();
    rows.chunks_exact(K).flat_map(|x| weights.chunks_exact(K).map(move |w| dot(x, w))).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Of what inputs have lost, the weights make up for what can be told from the others. It is the same whether that is
/// added up as inputs or as products.
#[test]
fn what_inputs_lack_is_made_up_for() {
    let outline = outline();
    let target = &outline.tensors[0];
    let weights = noise(N * K, 1);
    let base = noise(2000 * K, 2);
    let exact: Vec<f32> = (0..base.len()).map(|i| base[i] + 2.0 * base[i / 8 * 8]).collect();
    // Every fourth channel has shrunk to a half, with some noise, and its neighbours tell by how much.
    let error = noise(exact.len(), 3);
    let moved: Vec<f32> =
        (0..exact.len()).map(|i| exact[i] * if i % 4 == 1 { 0.5 } else { 1.0 } + 0.05 * error[i]).collect();
    let wanted = products(&exact, &weights);
    let lack: Vec<f32> = wanted.iter().zip(products(&moved, &weights)).map(|(a, b)| a - b).collect();
    for dtype in [DType::Q4_0, DType::Q4_K, DType::IQ4_XS, DType::Q3_K] {
        let rounded = |add: &dyn Fn(&mut MovedInputs)| {
            let mut inputs = MovedInputs::new(K);
            add(&mut inputs);
            inputs.finish();
            let rounded = inputs.round(target, &weights, dtype, false).unwrap();
            assert_eq!(rounded.note, None);
            distance(&products(&moved, &rounded.values), &wanted)
        };
        let unaware = rounded(&|inputs| inputs.add_inputs(&moved, &moved));
        let by_inputs = rounded(&|inputs| inputs.add_inputs(&moved, &exact));
        let by_products = rounded(&|inputs| inputs.add_products(&moved, &lack, N));
        println!("{dtype:?}: {unaware:.3} unaware, {by_inputs:.3} by inputs, {by_products:.3} by products");
        assert!(by_inputs < 0.5 * unaware, "{dtype:?}: {by_inputs} against {unaware}");
        assert!((by_products / by_inputs - 1.0).abs() < 0.05, "{dtype:?}: {by_products}, {by_inputs}");
    }
}

/// Inputs that were never seen leave it to the search, with a word about it; the values are those of the blocks.
#[test]
fn matrices_without_inputs_are_searched_for() {
    let outline = outline();
    let weights = noise(N * K, 4);
    let mut inputs = MovedInputs::new(K);
    inputs.add_inputs(&vec![0.0; 3 * K], &vec![0.0; 3 * K]);
    inputs.finish();
    let rounded = inputs.round(&outline.tensors[0], &weights, DType::Q4_K, true).unwrap();
    assert!(rounded.note.unwrap().contains(NAME));
    let mut values = vec![0f32; N * K];
    (DType::Q4_K.codec().unwrap().1.dequantize)(&rounded.blocks, &mut values);
    assert_eq!(values, rounded.values);
    assert!(distance(&values, &weights) < 0.01 * distance(&vec![0.0; N * K], &weights));
}

/// Sums of products are those of a plain loop, for any number of channels and rows, and are added to what is there.
#[test]
fn products_of_channels_add_up() {
    for (m, n, k) in [(1, 1, 1), (3, 5, 17), (197, 24, 40), (50, 13, 96), (0, 3, 8)] {
        let (a, x) = (noise(m * n, 5), noise(m * k, 6));
        let naive = |a: &[f32], n: usize, i: usize, j: usize| {
            (0..m).map(|r| f64::from(a[r * n + i]) * f64::from(x[r * k + j])).sum::<f64>()
        };
        let (mut gram, mut products) = (vec![0f32; k * k], vec![0f32; n * k]);
        for _ in 0..2 {
            sums::add_pairs(&mut gram, k, &x);
            sums::add_products(&mut products, &a, n, &x, k);
        }
        sums::fill_lower(&mut gram, k);
        for (got, rows, of) in [(&gram, k, &x), (&products, n, &a)] {
            for (at, got) in got.iter().enumerate() {
                let want = 2.0 * naive(of, rows, at / k, at % k);
                assert!(
                    (f64::from(*got) - want).abs() <= 1e-5 * (m as f64).sqrt(),
                    "{m} {n} {k}, {at}: {got}, {want}"
                );
            }
        }
    }
}
