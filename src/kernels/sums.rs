//! Sums of products of channels over many rows of inputs. Their order depends on nothing but the rows.

use super::float::{Operand, ROWS, TILE_NR, tile};
use super::isa::Native;
use super::parallel;

/// Adds the products of all pairs of channels of rows, above the diagonal and on it.
pub fn add_pairs(gram: &mut [f32], k: usize, x: &[f32]) {
    add(gram, x, k, x, k, true);
}

/// Adds `a^T x` of rows `a`, `[m, n]`, and `x`, `[m, k]`, to `[n, k]`.
pub fn add_products(sums: &mut [f32], a: &[f32], n: usize, x: &[f32], k: usize) {
    add(sums, a, n, x, k, false);
}

/// [`add_products`]; with `is_upper` as far as columns are not before rows, and some of the others.
fn add(sums: &mut [f32], a: &[f32], n: usize, x: &[f32], k: usize, is_upper: bool) {
    let m = x.len().checked_div(k).unwrap_or(0);
    if m == 0 {
        return;
    }
    let a = transposed(a, n);
    parallel::chunks(sums, k, m, &|first, sums| {
        let first = first / k;
        let mut panel = vec![0f32; m * TILE_NR];
        for j in (0..k).step_by(TILE_NR) {
            let columns = (k - j).min(TILE_NR);
            for (to, from) in panel.chunks_exact_mut(TILE_NR).zip(x.chunks_exact(k)) {
                to[..columns].copy_from_slice(&from[j..][..columns]);
            }
            for (at, sums) in sums.chunks_mut(ROWS * k).enumerate() {
                let i = first + at * ROWS;
                if is_upper && i >= j + TILE_NR {
                    break;
                }
                let mut products = [0f32; ROWS * TILE_NR];
                let (a, x) =
                    (Operand { data: &a[i * m..], stride: m }, Operand { data: &panel, stride: TILE_NR });
                tile::<Native>(sums.len() / k, m, a, x, &mut products, TILE_NR, false);
                for (sums, products) in sums.chunks_exact_mut(k).zip(products.chunks_exact(TILE_NR)) {
                    sums[j..].iter_mut().zip(products).for_each(|(sum, v)| *sum += v);
                }
            }
        }
    });
}

/// `[m, n]` as `[n, m]`.
fn transposed(a: &[f32], n: usize) -> Vec<f32> {
    let m = a.len() / n;
    let mut out = vec![0f32; a.len()];
    for (i, row) in a.chunks_exact(n).enumerate() {
        row.iter().enumerate().for_each(|(j, v)| out[j * m + i] = *v);
    }
    out
}

/// Fills in the half below the diagonal, `[k, k]`.
pub fn fill_lower(gram: &mut [f32], k: usize) {
    for i in 1..if gram.is_empty() { 0 } else { k } {
        for j in 0..i {
            gram[i * k + j] = gram[j * k + i];
        }
    }
}
