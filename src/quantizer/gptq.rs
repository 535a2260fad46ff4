//! GPTQ (Frantar et al. 2023): columns are rounded one after the other, and what each loses the columns still to come
//! take over as far as calibration data say that they can.
//!
//! Groups of a block are visited by the importance of their inputs, and columns within a group likewise ("act-order");
//! a group's scales are searched for when it is reached, on weights that have taken over what came before. Where blocks
//! reach over rows a group has no place in that order: all scales are then searched for first, and columns go by
//! importance alone. At the end each column is rounded anew, given all others, as long as that lowers the error
//! (coordinate descent, as in QuantEase, Behdin et al. 2023).

use crate::kernels::parallel;
use crate::quant::{Codec, DType, Format, Grid};

/// Times that each column is rounded anew, at most.
const PASSES: usize = 6;

/// What is known of the inputs of a matrix.
pub struct Inputs<'a> {
    /// Columns of the matrix.
    pub columns: usize,
    /// Products of pairs of inputs, `[columns, columns]`.
    pub gram: &'a [f32],
    /// Mean squares, about 1 in the mean.
    pub weights: &'a [f32],
    /// What is added to all squares, as a share of the mean one: the more, the less the inputs to come are like these.
    pub damping: f64,
}

impl Inputs<'_> {
    fn mean_square(&self) -> f64 {
        let k = self.columns;
        (0..k).map(|i| f64::from(self.gram[i * k + i])).sum::<f64>() / k as f64
    }
}

/// What all types with groups of one length have in common.
pub struct Prepared {
    /// Columns in the order in which they are rounded.
    order: Vec<usize>,
    /// The upper Cholesky factor of the inverse of the damped Gram matrix, `[k, k]` in that order.
    factor: Vec<f32>,
    /// What was added to all squares.
    added: f32,
}

impl Prepared {
    /// Multiplies rows by the inverse of the damped Gram matrix.
    pub fn solve(&self, rows: &mut [f32]) {
        let k = self.order.len();
        parallel::chunks(rows, k, k * k, &|_, rows| {
            let mut solved = vec![0f32; k];
            for row in rows.chunks_exact_mut(k) {
                let x: Vec<f32> = self.order.iter().map(|&column| row[column]).collect();
                solved.fill(0.0);
                for (i, factor) in self.factor.chunks_exact(k).enumerate() {
                    let sum = factor[i..].iter().zip(&x[i..]).map(|(f, x)| f * x).sum();
                    add_scaled(&mut solved[i..], sum, &factor[i..]);
                }
                self.order.iter().zip(&solved).for_each(|(&column, v)| row[column] = *v);
            }
        });
    }
}

/// Columns that are visited together, in a matrix of so many columns.
pub fn group_len(columns: usize, format: &Format) -> usize {
    if columns.is_multiple_of(format.block_len) { format.block_len } else { columns }
}

/// Encodes a matrix whose declared rows have `k` values, one row of it or some together; `prepared` is for groups of its
/// [`group_len`]. `None` where the type has no grid to round on, or the rows are no whole blocks.
pub fn encode(
    values: &[f32],
    k: usize,
    inputs: &Inputs,
    prepared: &Prepared,
    dtype: DType,
) -> Option<Vec<u8>> {
    let (format, codec) = dtype.codec().ok()?;
    codec.grid?;
    let columns = inputs.columns;
    if !k.is_multiple_of(format.block_len) || !k.is_multiple_of(columns) || inputs.weights.len() != columns {
        return None;
    }
    let step = Step { inputs, prepared, format, codec };
    let row_bytes = k / format.block_len * format.block_bytes;
    let mut blocks = vec![0u8; values.len() / k * row_bytes];
    parallel::chunks(&mut blocks, row_bytes, columns * 100, &|first, blocks| {
        for (i, out) in blocks.chunks_exact_mut(row_bytes).enumerate() {
            step.round(&values[(first / row_bytes + i) * k..][..k], out);
        }
    });
    Some(blocks)
}

/// The power of the products of a matrix of these values, by the damped Gram matrix.
pub fn power(values: &[f32], inputs: &Inputs) -> f64 {
    let k = inputs.columns;
    let added = (inputs.damping * inputs.mean_square()) as f32;
    let mut sums = vec![0f64; values.len() / k];
    parallel::chunks(&mut sums, 1, k * k, &|first, sums| {
        let mut moved = vec![0f32; k];
        for (row, sum) in values[first * k..].chunks_exact(k).zip(sums) {
            times_gram(row, inputs.gram, added, &mut moved);
            *sum = row.iter().zip(&moved).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        }
    });
    sums.iter().sum()
}

/// `out = (gram + added) x`.
fn times_gram(x: &[f32], gram: &[f32], added: f32, out: &mut [f32]) {
    out.iter_mut().zip(x).for_each(|(o, x)| *o = added * x);
    for (x, row) in x.iter().zip(gram.chunks_exact(x.len())).filter(|(x, _)| **x != 0.0) {
        add_scaled(out, *x, row);
    }
}

/// `y += a * x`.
fn add_scaled(y: &mut [f32], a: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// Columns by group, the most important first.
fn order(gram: &[f32], k: usize, group: usize) -> Vec<usize> {
    let power = |i: usize| gram[i * k + i];
    let mut groups: Vec<(f32, usize)> =
        (0..k / group).map(|g| ((g * group..(g + 1) * group).map(power).sum(), g)).collect();
    groups.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut order = Vec::with_capacity(k);
    for (_, g) in groups {
        let mut columns: Vec<usize> = (g * group..(g + 1) * group).collect();
        columns.sort_by(|&a, &b| power(b).total_cmp(&power(a)).then(a.cmp(&b)));
        order.extend(columns);
    }
    order
}

/// The order and the factor for groups of that length. Where the Gram matrix is too near to singular the damping is raised,
/// three times at most.
///
/// # Errors
/// Why the search has to do.
pub fn prepare(inputs: &Inputs, group: usize) -> Result<Prepared, String> {
    let (gram, k) = (inputs.gram, inputs.columns);
    let mean = inputs.mean_square();
    if !mean.is_finite() || mean <= 0.0 {
        return Err("no input was seen: scales are searched for instead".into());
    }
    let order = order(gram, k, group);
    for damping in [1.0, 10.0, 100.0, 1000.0].map(|more| more * inputs.damping) {
        let mut a = vec![0f64; k * k];
        for i in 0..k {
            for j in 0..k {
                a[i * k + j] = f64::from(gram[order[i] * k + order[j]]);
            }
            a[i * k + i] += damping * mean;
        }
        if let Some(factor) = invert(&mut a, k) {
            return Ok(Prepared { order, factor, added: (damping * mean) as f32 });
        }
    }
    Err("its inputs are too dependent on each other even when damped: scales are searched for instead".into())
}

/// The sum of products: eight sums of every eighth, so that several are added at a time.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let (x, x_rest) = x.as_chunks::<8>();
    let (y, y_rest) = y.as_chunks::<8>();
    let mut sums = [0f64; 8];
    for (x, y) in x.iter().zip(y) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (x, y))| *s += x * y);
    }
    sums.iter().sum::<f64>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f64>()
}

/// Lower Cholesky factor in place; false where the matrix is not positive.
fn cholesky(a: &mut [f64], k: usize) -> bool {
    for j in 0..k {
        for i in j..k {
            let (head, tail) = a.split_at_mut(i * k);
            let row_i = &mut tail[..k];
            if i == j {
                let d = row_i[j] - dot(&row_i[..j], &row_i[..j]);
                if d.is_nan() || d <= 0.0 || d.is_infinite() {
                    return false;
                }
                row_i[j] = libm::sqrt(d);
            } else {
                let row_j = &head[j * k..][..k];
                row_i[j] = (row_i[j] - dot(&row_i[..j], &row_j[..j])) / row_j[j];
            }
        }
    }
    true
}

/// Upper factor U of the inverse of a, `a^-1 = U^T U`.
///
/// With J the reversal of rows and columns and `J a J = L L^T`, the inverse of a is `(J L^-1 J)^T (J L^-1 J)`, and
/// `J L^-1 J` is upper.
fn invert(a: &mut [f64], k: usize) -> Option<Vec<f32>> {
    a.reverse();
    if !cholesky(a, k) {
        return None;
    }
    // L^-1 by rows: row i is (e_i - sum over j < i of L_ij row_j) / L_ii.
    let mut inverse = vec![0f64; k * k];
    for i in 0..k {
        let (done, rest) = inverse.split_at_mut(i * k);
        let row = &mut rest[..k];
        row[i] = 1.0;
        for j in 0..i {
            let l = a[i * k + j];
            row[..=j].iter_mut().zip(&done[j * k..]).for_each(|(r, d)| *r -= l * d);
        }
        let d = a[i * k + i];
        row[..=i].iter_mut().for_each(|r| *r /= d);
    }
    inverse.reverse();
    let factor: Vec<f32> = inverse.iter().map(|v| *v as f32).collect();
    factor.iter().all(|v| v.is_finite()).then_some(factor)
}

/// How rows are rounded.
struct Step<'a> {
    inputs: &'a Inputs<'a>,
    prepared: &'a Prepared,
    format: &'static Format,
    codec: Codec,
}

impl Step<'_> {
    /// Rounds a declared row: one row of the matrix, or some whose blocks are common to them.
    fn round(&self, rows: &[f32], out: &mut [u8]) {
        let (format, columns) = (self.format, self.inputs.columns);
        let Some(rule) = self.codec.grid else { return };
        let mut grids: Vec<Grid> = (0..rows.len() / format.block_len).map(|_| Grid::default()).collect();
        let mut rounded = rows.to_vec();
        let reaches_over = !columns.is_multiple_of(format.block_len);
        if reaches_over {
            self.codec.encode(rows, &self.inputs.weights.repeat(rows.len() / columns), out);
            for (grid, block) in grids.iter_mut().zip(out.chunks_exact(format.block_bytes)) {
                (rule.read)(block, grid);
            }
        }
        let group = if reaches_over { columns } else { format.block_len };
        for r in 0..rows.len() / columns {
            let first_block = r * columns / format.block_len;
            let mut row = Row { first: r * columns, grids: &mut grids, len: format.block_len };
            let (values, rounded) = (&rows[r * columns..][..columns], &mut rounded[r * columns..][..columns]);
            let mut left: Vec<f32> = self.prepared.order.iter().map(|&c| values[c]).collect();
            for places in (0..columns).step_by(group).map(|place| place..place + group) {
                if !reaches_over {
                    let block = first_block + self.prepared.order[places.start] / format.block_len;
                    let out = &mut out[block * format.block_bytes..][..format.block_bytes];
                    self.search(&left[places.clone()], places.start, out);
                    (rule.read)(out, &mut row.grids[block]);
                }
                places.for_each(|place| self.pass_on(&mut left, place, &mut row, rounded));
            }
            self.refine(values, rounded, &mut row);
        }
        grids.iter().zip(out.chunks_exact_mut(format.block_bytes)).for_each(|(g, out)| (rule.write)(g, out));
    }

    /// Searches for the scales of the block whose columns are at the places from `place` on.
    fn search(&self, left: &[f32], place: usize, block: &mut [u8]) {
        let len = self.format.block_len;
        let columns = &self.prepared.order[place..][..len];
        let first = columns[0] / len * len;
        let mut values = vec![0f32; len];
        columns.iter().zip(left).for_each(|(column, v)| values[column - first] = *v);
        self.codec.encode(&values, &self.inputs.weights[first..][..len], block);
    }

    /// Rounds the column at that place of the order, and lets the later ones make up for it.
    fn pass_on(&self, left: &mut [f32], place: usize, row: &mut Row, rounded: &mut [f32]) {
        let Prepared { order, factor, .. } = self.prepared;
        let k = left.len();
        let factor = &factor[place * k..][..k];
        let value = row.round(order[place], left[place]);
        rounded[order[place]] = value;
        // What is lost, in units of how freely the rest can make up for it.
        let lost = (left[place] - value) / factor[place];
        add_scaled(&mut left[place + 1..], -lost, &factor[place + 1..]);
    }

    /// Rounds each column to what suits all others best, again and again.
    fn refine(&self, values: &[f32], rounded: &mut [f32], row: &mut Row) {
        let (k, gram) = (values.len(), self.inputs.gram);
        let error: Vec<f32> = rounded.iter().zip(values).map(|(r, v)| r - v).collect();
        // Half the slope of the error along each column.
        let mut slope = vec![0f32; k];
        times_gram(&error, gram, self.prepared.added, &mut slope);
        for _ in 0..PASSES {
            let mut is_done = true;
            for &column in &self.prepared.order {
                let before = rounded[column];
                let curve = gram[column * k + column] + self.prepared.added;
                let value = row.round(column, before - slope[column] / curve);
                if value != before {
                    rounded[column] = value;
                    add_scaled(&mut slope, value - before, &gram[column * k..][..k]);
                    slope[column] += self.prepared.added * (value - before);
                    is_done = false;
                }
            }
            if is_done {
                return;
            }
        }
    }
}

/// One row of a matrix in the blocks of a declared row.
struct Row<'a> {
    /// Its place in the declared row.
    first: usize,
    grids: &'a mut [Grid],
    /// Elements of a block.
    len: usize,
}

impl Row<'_> {
    /// Chooses the code of a column; its value.
    fn round(&mut self, column: usize, v: f32) -> f32 {
        let at = self.first + column;
        self.grids[at / self.len].round(at % self.len, v)
    }
}
