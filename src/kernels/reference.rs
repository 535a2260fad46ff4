//! Naive oracles: one loop each, in f64 or in exact integers.

use crate::repack::PackedWeights;

/// `out[m, n] = x[m, k] . w[n, k]` over dequantized weights, summed in f64.
pub fn matmul(x: &[f32], w: &PackedWeights, out: &mut [f32]) {
    let (n, k) = (w.n(), w.k());
    let mut row = vec![0f32; k];
    for j in 0..n {
        w.row(j, &mut row);
        for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(n)) {
            out[j] = x.iter().zip(&row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() as f32;
        }
    }
}

/// Codes and scale of one block of activations, by the definition.
pub fn quantize_block(x: &[f32]) -> (Vec<i8>, f32) {
    let amax = x.iter().fold(0f32, |m, v| m.max(v.abs()));
    let inv = if amax > 1e-35 { 127.0 / amax } else { 0.0 };
    (x.iter().map(|v| (v * inv).round_ties_even() as i8).collect(), amax / 127.0)
}
