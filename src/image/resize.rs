//! Antialiased resampling in 8-bit fixed point, bit for bit as Pillow computes it:
//! along rows first, rounded to 8 bits, then along columns.
//!
//! ```text
//! out[i] = clamp((2^21 + sum_j w[i][j] * in[first[i] + j]) >> 22)
//! w[i][j] = round(2^22 * f((first[i] + j + 0.5 - center[i]) / s) / norm[i]),  s = max(1, in / out)
//! ```
//!
//! Own code, because resizing crates round weights to fewer bits and then differ from Pillow by
//! several levels on photos, which moves logits.
//!
//! Source: Pillow before 13, `src/libImaging/Resample.c` (the filters, the rounding, the order of passes).

use super::PixelView;
use crate::kernels::isa::Native;
use crate::kernels::resample::{self, Pair, ROWS};

/// Bits after the binary point of a filter weight.
const PRECISION_BITS: u32 = resample::POINT;

/// A resampling filter, with Pillow's support and constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The input under the centre of the output.
    Nearest,
    /// Triangle, support 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, support 2.
    Bicubic,
    /// Windowed sinc, support 3.
    Lanczos,
}

impl Resample {
    /// How far it reaches to either side: in inputs, or where there are more inputs than outputs, in outputs.
    pub fn support(self) -> f64 {
        match self {
            Resample::Nearest => 0.0,
            Resample::Bilinear => 1.0,
            Resample::Bicubic => 2.0,
            Resample::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Resample::Bilinear if x < 1.0 => 1.0 - x,
            Resample::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Resample::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Resample::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { libm::sin(x) / x }
}

/// For a range of output positions along one axis: which inputs count, and how much.
pub(super) struct Taps {
    /// First input of each output, and where its weights end in `weights`.
    spans: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    /// Weights for outputs `start..start + n` of an axis resized from `n_in` to `n_out`.
    pub(super) fn new(filter: Resample, n_in: usize, n_out: u64, start: u64, n: usize) -> Self {
        let ratio = n_in as f64 / n_out as f64;
        let stretch = ratio.max(1.0);
        let support = filter.support() * stretch;
        let inverse = 1.0 / stretch;
        let mut taps = Taps { spans: Vec::with_capacity(n), weights: Vec::new() };
        if filter == Resample::Nearest {
            taps.spans.extend(nearest(n_in, ratio, start, n).enumerate().map(|(i, at)| (at, i + 1)));
            taps.weights.resize(n, 1 << PRECISION_BITS);
            return taps;
        }
        let mut exact = Vec::new();
        for i in start..start + n as u64 {
            let center = (i as f64 + 0.5) * ratio;
            // Casts saturate at 0: outputs at the left edge begin with input 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(n_in);
            exact.clear();
            exact.extend((first..end).map(|x| filter.weight((x as f64 - center + 0.5) * inverse)));
            let norm: f64 = exact.iter().sum();
            taps.weights.extend(exact.iter().map(|w| fixed_point(if norm == 0.0 { *w } else { w / norm })));
            taps.spans.push((first, taps.weights.len()));
        }
        taps
    }

    /// For each output: its first input and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut begin = 0;
        self.spans.iter().map(move |&(first, end)| {
            let weights = &self.weights[begin..end];
            begin = end;
            (first, weights)
        })
    }

    /// The weights of each output after those of the one before, two by two.
    fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::with_capacity(self.weights.len() / 2 + self.spans.len());
        self.iter().for_each(|(_, weights)| resample::pairs(weights, &mut pairs));
        pairs
    }

    /// The inputs that any output needs.
    pub(super) fn inputs(&self) -> std::ops::Range<usize> {
        let first = self.iter().map(|(first, _)| first).min().unwrap_or(0);
        let end = self.iter().map(|(first, weights)| first + weights.len()).max().unwrap_or(first);
        first..end
    }
}

/// The inputs under the centres of outputs, by steps as Pillow finds them: where a centre is on the border of two
/// inputs, how the sum of steps was rounded decides.
fn nearest(n_in: usize, ratio: f64, start: u64, n: usize) -> impl Iterator<Item = usize> {
    /// Steps that are made one by one; beyond, pictures are too long for anybody to compare.
    const STEPS: u64 = 1 << 20;
    let mut center = if start < STEPS { ratio * 0.5 } else { (start as f64 + 0.5) * ratio };
    for _ in 0..if start < STEPS { start } else { 0 } {
        center += ratio;
    }
    (0..n).map(move |_| {
        let at = (center as usize).min(n_in - 1);
        center += ratio;
        at
    })
}

/// Rounds to nearest, halves away from zero.
fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1 << PRECISION_BITS)).round() as i32
}

/// Both passes: `[rows, columns, 3]`, RGB.
pub(super) fn convolve(pixels: &PixelView, columns: &Taps, rows: &Taps) -> Vec<u8> {
    let inputs = rows.inputs();
    let row_bytes = columns.spans.len() * 3;
    let mut narrow = vec![0; inputs.len() * row_bytes];
    let mut padded: [_; ROWS] = std::array::from_fn(|_| Vec::new());
    let weights = columns.pairs();
    for (i, out) in narrow.chunks_mut(ROWS * row_bytes).enumerate() {
        // Below the last row it is repeated, and what comes of that is not stored.
        let row = |r: usize| pixels.row((inputs.start + i * ROWS + r).min(inputs.end - 1));
        if pixels.channels == 4 {
            horizontal(std::array::from_fn(|r| row(r).as_chunks().0), pixels.part.x, columns, &weights, out);
        } else {
            for (r, to) in padded.iter_mut().enumerate() {
                pad(row(r), to);
            }
            horizontal(padded.each_ref().map(Vec::as_slice), pixels.part.x, columns, &weights, out);
        }
    }
    vertical(&narrow, row_bytes, inputs.start, rows)
}

/// RGB to four bytes per pixel, so that a pixel fills a vector of four sums.
fn pad(row: &[u8], to: &mut Vec<[u8; 4]>) {
    to.clear();
    to.extend(row.as_chunks().0.iter().map(|&[r, g, b]| [r, g, b, 0]));
}

/// Filters along some rows of pixels, which begin with column `x`, into `out`: up to `ROWS` rows `[columns, 3]`. `weights`
/// are [`Taps::pairs`].
fn horizontal(rows: [&[[u8; 4]]; ROWS], x: usize, columns: &Taps, mut weights: &[Pair], out: &mut [u8]) {
    let row_bytes = columns.spans.len() * 3;
    for (i, (first, taps)) in columns.iter().enumerate() {
        let (pairs, rest) = weights.split_at(taps.len().div_ceil(2));
        weights = rest;
        let sums = resample::along_rows::<Native>(rows.map(|row| &row[first - x..][..taps.len()]), pairs);
        for (row, [r, g, b, _]) in out.chunks_exact_mut(row_bytes).zip(sums) {
            row[3 * i..3 * i + 3].copy_from_slice(&[r, g, b]);
        }
    }
}

/// Filters along the columns of `narrow`, whose first row is input row `first_row`.
fn vertical(narrow: &[u8], row_bytes: usize, first_row: usize, rows: &Taps) -> Vec<u8> {
    let mut out = vec![0; rows.spans.len() * row_bytes];
    let weights = rows.pairs();
    let mut weights = weights.as_slice();
    for ((first, taps), out) in rows.iter().zip(out.chunks_exact_mut(row_bytes)) {
        let (pairs, rest) = weights.split_at(taps.len().div_ceil(2));
        weights = rest;
        let sources = &narrow[(first - first_row) * row_bytes..][..taps.len() * row_bytes];
        resample::across_rows::<Native>(sources, pairs, out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: [Resample; 4] =
        [Resample::Nearest, Resample::Bilinear, Resample::Bicubic, Resample::Lanczos];

    /// Black and white pixels placed as badly as possible must not overflow the 32-bit sum.
    #[test]
    fn worst_sums_fit() {
        for filter in FILTERS {
            for (n_in, n_out) in
                [(1, 256), (2, 256), (3, 16), (343, 256), (341, 382), (4000, 256), (65_535, 224)]
            {
                let taps = Taps::new(filter, n_in, n_out, 0, n_out as usize);
                for (first, weights) in taps.iter() {
                    assert!(!weights.is_empty() && first + weights.len() <= n_in);
                    let part = |sign: i64| -> i64 {
                        weights.iter().map(|&w| i64::from(w)).filter(|w| w * sign > 0).sum()
                    };
                    let (most, least) = (255 * part(1) + (1 << 21), 255 * part(-1));
                    assert!(i32::try_from(most).is_ok() && i32::try_from(least).is_ok(), "{filter:?} {n_in}");
                }
            }
        }
    }

    #[test]
    fn same_size_changes_nothing() {
        let data: Vec<u8> = (0..7 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let pixels = PixelView::new(&data, 7, 5, 3).unwrap();
        for filter in FILTERS {
            let columns = Taps::new(filter, 7, 7, 0, 7);
            let rows = Taps::new(filter, 5, 5, 0, 5);
            assert_eq!(convolve(&pixels, &columns, &rows), data, "{filter:?}");
        }
    }
}
