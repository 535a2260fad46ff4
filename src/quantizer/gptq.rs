//! GPTQ (Frantar et al. 2023): columns are rounded one after the other, and what each loses the columns still to come
//! take over as far as calibration data say that they can.
//!
//! Groups of a block are visited by the importance of their inputs, and columns within a group likewise ("act-order");
//! a group's scales are searched for when it is reached, on weights that have taken over what came before. Where blocks
//! reach over rows a group has no place in that order: all scales are then searched for first, and columns go by
//! importance alone.

use crate::quant::{Codec, DType, Format, Grid};

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

/// Encodes a matrix whose declared rows have `k` values, one row of it or some together. `None` where the type has no grid
/// to round on, or the rows are no whole blocks; an error says why the search has to do.
pub fn encode(values: &[f32], k: usize, inputs: &Inputs, dtype: DType) -> Result<Option<Vec<u8>>, String> {
    let Ok((format, codec)) = dtype.codec() else { return Ok(None) };
    let Some(_) = codec.grid else { return Ok(None) };
    let columns = inputs.columns;
    if !k.is_multiple_of(format.block_len) || !k.is_multiple_of(columns) || inputs.weights.len() != columns {
        return Ok(None);
    }
    let reaches_over = !columns.is_multiple_of(format.block_len);
    let order = order(inputs.gram, columns, if reaches_over { columns } else { format.block_len });
    let factor = inverse_factor(inputs, &order)?;
    let step = Step { inputs, order: &order, factor: &factor, format, codec };
    let row = |row: &mut [f32], out: &mut [u8]| match reaches_over {
        true => step.round_together(row, out),
        false => row
            .chunks_exact_mut(columns)
            .zip(out.chunks_exact_mut(columns / format.block_len * format.block_bytes))
            .for_each(|(row, out)| step.round_row(row, out)),
    };
    let row_bytes = k / format.block_len * format.block_bytes;
    let mut blocks = vec![0u8; values.len() / k * row_bytes];
    crate::kernels::parallel::chunks(&mut blocks, row_bytes, columns * 100, &|first, blocks| {
        for (i, out) in blocks.chunks_exact_mut(row_bytes).enumerate() {
            row(&mut values[(first / row_bytes + i) * k..][..k].to_vec(), out);
        }
    });
    Ok(Some(blocks))
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

/// The upper Cholesky factor of the inverse of the damped Gram matrix, `[k, k]` in the given order. Where the matrix is
/// too near to singular the damping is raised, three times at most.
fn inverse_factor(inputs: &Inputs, order: &[usize]) -> Result<Vec<f32>, String> {
    let (gram, k) = (inputs.gram, inputs.columns);
    let mean = (0..k).map(|i| f64::from(gram[i * k + i])).sum::<f64>() / k as f64;
    if !mean.is_finite() || mean <= 0.0 {
        return Err("no input was seen: scales are searched for instead".into());
    }
    for damping in [1.0, 10.0, 100.0, 1000.0].map(|more| more * inputs.damping) {
        let mut a = vec![0f64; k * k];
        for i in 0..k {
            for j in 0..k {
                a[i * k + j] = f64::from(gram[order[i] * k + order[j]]);
            }
            a[i * k + i] += damping * mean;
        }
        if let Some(factor) = invert(&mut a, k) {
            return Ok(factor);
        }
    }
    Err("its inputs are too dependent on each other even when damped: scales are searched for instead".into())
}

/// Lower Cholesky factor in place; false where the matrix is not positive.
fn cholesky(a: &mut [f64], k: usize) -> bool {
    for j in 0..k {
        for i in j..k {
            let (head, tail) = a.split_at_mut(i * k);
            let row_i = &mut tail[..k];
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
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
    order: &'a [usize],
    factor: &'a [f32],
    format: &'static Format,
    codec: Codec,
}

impl Step<'_> {
    fn round_row(&self, row: &mut [f32], out: &mut [u8]) {
        let (format, len) = (self.format, self.format.block_len);
        let mut grid = Grid::default();
        for (g, columns) in self.order.chunks_exact(len).enumerate() {
            let group = columns[0] / len;
            let block = &mut out[group * format.block_bytes..][..format.block_bytes];
            self.codec.encode(&row[group * len..][..len], &self.inputs.weights[group * len..][..len], block);
            let Some(rule) = self.codec.grid else { return };
            (rule.read)(block, &mut grid);
            for (at, &column) in columns.iter().enumerate() {
                let rounded = grid.round(column - group * len, row[column]);
                self.pass_on(row, g * len + at, rounded);
            }
            (rule.write)(&grid, block);
        }
    }

    /// Rows whose blocks are common to them; each row makes up for its own errors.
    fn round_together(&self, rows: &mut [f32], out: &mut [u8]) {
        let (format, len, columns) = (self.format, self.format.block_len, self.inputs.columns);
        self.codec.encode(rows, &self.inputs.weights.repeat(rows.len() / columns), out);
        let Some(rule) = self.codec.grid else { return };
        let read = |block: &[u8]| {
            let mut grid = Grid::default();
            (rule.read)(block, &mut grid);
            grid
        };
        let mut grids: Vec<Grid> = out.chunks_exact(format.block_bytes).map(read).collect();
        for (r, row) in rows.chunks_exact_mut(columns).enumerate() {
            for (place, &column) in self.order.iter().enumerate() {
                let at = r * columns + column;
                let rounded = grids[at / len].round(at % len, row[column]);
                self.pass_on(row, place, rounded);
            }
        }
        grids.iter().zip(out.chunks_exact_mut(format.block_bytes)).for_each(|(g, out)| (rule.write)(g, out));
    }

    /// Rounds the column at that place of the order, and lets the later ones make up for it.
    fn pass_on(&self, row: &mut [f32], place: usize, rounded: f32) {
        let (order, k) = (self.order, self.inputs.columns);
        let factor = &self.factor[place * k..][..k];
        let column = order[place];
        // What is lost, in units of how freely the rest can make up for it.
        let lost = (row[column] - rounded) / factor[place];
        row[column] = rounded;
        for (later, u) in order[place + 1..].iter().zip(&factor[place + 1..]) {
            row[*later] -= lost * u;
        }
    }
}
