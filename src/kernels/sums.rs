//! Sums of products of channels over many rows of inputs. Their order depends on nothing but the rows.

use super::parallel;

/// Rows that are multiplied with each other in one pass over the sums.
const TOGETHER: usize = 8;

/// Calls a function, compiled for registers of 256 bits where the processor has them: the same operations on each lane, and the
/// same bits.
macro_rules! widest {
    ($name:ident($($arg:expr),*)) => {{
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: the processor has AVX.
            unsafe { wide::$name($($arg),*) };
            continue;
        }
        $name($($arg),*);
    }};
}

#[cfg(target_arch = "x86_64")]
mod wide {
    #[target_feature(enable = "avx")]
    pub fn add_row(sums: &mut [f32], rows: &[f32], k: usize, i: usize) {
        super::add_row(sums, rows, k, i);
    }

    #[target_feature(enable = "avx")]
    pub fn add_scaled_rows(sums: &mut [f32], a: &[f32], n: usize, x: &[f32]) {
        super::add_scaled_rows(sums, a, n, x);
    }
}

/// Adds the products of all pairs of channels of rows, above the diagonal and on it.
pub fn add_pairs(gram: &mut [f32], k: usize, x: &[f32]) {
    parallel::chunks(gram, k, x.len() / k, &|first, sums| {
        for rows in x.chunks(TOGETHER * k) {
            for (at, sums) in sums.chunks_exact_mut(k).enumerate() {
                let i = first / k + at;
                widest!(add_row(&mut sums[i..], rows, k, i));
            }
        }
    });
}

/// Of channel `i` with itself and all later ones.
#[inline(always)]
fn add_row(sums: &mut [f32], rows: &[f32], k: usize, i: usize) {
    if rows.len() == TOGETHER * k {
        let row = |r: usize| &rows[r * k + i..(r + 1) * k][..sums.len()];
        let [a, b, c, d, e, f, g, h]: [&[f32]; TOGETHER] = std::array::from_fn(row);
        for j in 0..sums.len() {
            let first = (a[0] * a[j] + b[0] * b[j]) + (c[0] * c[j] + d[0] * d[j]);
            sums[j] += first + ((e[0] * e[j] + f[0] * f[j]) + (g[0] * g[j] + h[0] * h[j]));
        }
        return;
    }
    for row in rows.chunks_exact(k) {
        sums.iter_mut().zip(&row[i..]).for_each(|(sum, v)| *sum += row[i] * v);
    }
}

/// Fills in the half below the diagonal, `[k, k]`.
pub fn fill_lower(gram: &mut [f32], k: usize) {
    for i in 1..if gram.is_empty() { 0 } else { k } {
        for j in 0..i {
            gram[i * k + j] = gram[j * k + i];
        }
    }
}

/// Adds `a^T x` of rows `a`, `[m, n]`, and `x`, `[m, k]`, to `[n, k]`.
pub fn add_products(sums: &mut [f32], a: &[f32], n: usize, x: &[f32], k: usize) {
    parallel::chunks(sums, k, x.len() / k, &|first, sums| {
        for (a, x) in a.chunks(TOGETHER * n).zip(x.chunks(TOGETHER * k)) {
            for (at, sums) in sums.chunks_exact_mut(k).enumerate() {
                widest!(add_scaled_rows(sums, &a[first / k + at..], n, x));
            }
        }
    });
}

/// Adds rows of `x`, each times a value of `a`, of which every `n`th is one.
#[inline(always)]
fn add_scaled_rows(sums: &mut [f32], a: &[f32], n: usize, x: &[f32]) {
    let k = sums.len();
    if x.len() == TOGETHER * k {
        let rows: [&[f32]; TOGETHER] = std::array::from_fn(|r| &x[r * k..][..k]);
        let f: [f32; TOGETHER] = std::array::from_fn(|r| a[r * n]);
        for (j, sum) in sums.iter_mut().enumerate() {
            let first = (f[0] * rows[0][j] + f[1] * rows[1][j]) + (f[2] * rows[2][j] + f[3] * rows[3][j]);
            let second = (f[4] * rows[4][j] + f[5] * rows[5][j]) + (f[6] * rows[6][j] + f[7] * rows[7][j]);
            *sum += first + second;
        }
        return;
    }
    for (a, row) in a.iter().step_by(n).zip(x.chunks_exact(k)) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += a * v);
    }
}
