//! GPTQ of a matrix whose inputs have moved, because what comes before it in the model has been rounded: its products are to be
//! those of the float model on the float model's inputs (asymmetric calibration, as in GPTAQ, Li et al. 2025).
//!
//! With inputs X, those of the float model X + D, and weights W, the rounded weights are to have the least
//! `|Q X - W (X + D)|^2 + damping |Q - W|^2`. Without rounding that is `W + W D X^T (X X^T + damping)^-1`, a ridge regression
//! whose pull is towards W; GPTQ rounds it under the same damped matrix, which is the same as rounding for that sum.

use super::gptq::{self, Inputs};
use super::plan::declared;
use super::rewrite::row_len;
use super::statistics::{LEAST, damping};
use super::{Target, rows};
use crate::error::Result;
use crate::kernels::sums::{add_pairs, add_products, fill_lower};
use crate::quant::DType;

/// Sums over the inputs of a matrix in a model of which a part has been rounded.
pub struct MovedInputs {
    columns: usize,
    /// `[k, k]`, products of pairs of inputs.
    gram: Vec<f32>,
    /// `[k, k]`, what inputs lack times inputs; empty where none was added.
    inputs_lack: Vec<f32>,
    /// `[n, k]`, what products lack times inputs; empty where none was added.
    products_lack: Vec<f32>,
}

/// A rounded matrix.
pub struct Rounded {
    /// As they are in the file.
    pub blocks: Vec<u8>,
    /// What they stand for.
    pub values: Vec<f32>,
    /// Why scales were only searched for, where they were.
    pub note: Option<String>,
}

impl MovedInputs {
    /// None yet, of so many columns.
    pub fn new(columns: usize) -> Self {
        let gram = vec![0.0; columns * columns];
        MovedInputs { columns, gram, inputs_lack: Vec::new(), products_lack: Vec::new() }
    }

    /// Adds rows of inputs that have not moved.
    pub fn add(&mut self, x: &[f32]) {
        add_pairs(&mut self.gram, self.columns, x);
    }

    /// Adds rows of inputs, and what they are in the float model.
    pub fn add_inputs(&mut self, x: &[f32], exact: &[f32]) {
        let k = self.columns;
        add_pairs(&mut self.gram, k, x);
        self.inputs_lack.resize(k * k, 0.0);
        let lack: Vec<f32> = exact.iter().zip(x).map(|(exact, x)| exact - x).collect();
        add_products(&mut self.inputs_lack, &lack, k, x, k);
    }

    /// Adds rows of inputs, and what the `n` products of each lack of those of the float model while the weights are floats.
    /// Of a matrix of few rows that is less to add up than [`Self::add_inputs`].
    pub fn add_products(&mut self, x: &[f32], lack: &[f32], n: usize) {
        let k = self.columns;
        add_pairs(&mut self.gram, k, x);
        self.products_lack.resize(n * k, 0.0);
        add_products(&mut self.products_lack, lack, n, x, k);
    }

    /// Ends the sums.
    pub fn finish(&mut self) {
        fill_lower(&mut self.gram, self.columns);
    }

    /// Rounds the matrix of these values.
    ///
    /// # Errors
    /// [`crate::error::Code::UnsupportedDtype`] for a type without encoder.
    pub fn round(&self, target: &Target, values: &[f32], dtype: DType, are_few: bool) -> Result<Rounded> {
        let k = self.columns;
        let (format, codec) = dtype.codec()?;
        let row = row_len(&declared(target, dtype), target);
        let mean = (0..k).map(|i| f64::from(self.gram[i * k + i])).sum::<f64>() / k as f64;
        let weight =
            |i| if mean > 0.0 { (f64::from(self.gram[i * k + i]) / mean).max(LEAST) as f32 } else { 1.0 };
        let weights: Vec<f32> = (0..k).map(weight).collect();
        let inputs = Inputs { columns: k, gram: &self.gram, weights: &weights, damping: damping(are_few) };
        let mut wanted = values.to_vec();
        let (mut blocks, mut note) = (None, None);
        match gptq::prepare(&inputs, gptq::group_len(k, format)) {
            Ok(prepared) => {
                let mut lack = self.lack(values);
                prepared.solve(&mut lack);
                wanted.iter_mut().zip(&lack).for_each(|(w, lack)| *w += lack);
                blocks = gptq::encode(&wanted, row, &inputs, &prepared, dtype);
            }
            Err(why) => note = Some(format!("{}: {why}", target.name)),
        }
        let blocks = blocks
            .unwrap_or_else(|| rows::encode(&wanted, &weights.repeat(row / k), row, format, &codec, false));
        let mut rounded = vec![0f32; values.len()];
        (codec.dequantize)(&blocks, &mut rounded);
        Ok(Rounded { blocks, values: rounded, note })
    }

    /// What the products of a matrix of these values lack, times inputs.
    fn lack(&self, values: &[f32]) -> Vec<f32> {
        let k = self.columns;
        let mut lack = match self.products_lack.is_empty() {
            true => vec![0f32; values.len()],
            false => self.products_lack.clone(),
        };
        for (out, row) in lack.chunks_exact_mut(k).zip(values.chunks_exact(k)) {
            for (w, inputs) in row.iter().zip(self.inputs_lack.chunks_exact(k)) {
                out.iter_mut().zip(inputs).for_each(|(out, v)| *out += w * v);
            }
        }
        lack
    }
}
