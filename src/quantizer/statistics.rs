//! What calibration knows of the inputs of each matrix: the importance matrix of llama.cpp, and for GPTQ the products of
//! all pairs of channels.

use super::gptq::{self, Inputs, Prepared};
use super::plan::declared;
use super::rewrite::{Calibration, row_len};
use super::sequential::Rounded;
use super::{Outline, Target};
use crate::container::gguf_write::GgufWriter;
use crate::container::{Header, parse};
use crate::error::{Code, Error, Result};
use crate::kernels::sums::{add_pairs, fill_lower};
use crate::quant::DType;
use std::collections::BTreeMap;

/// The least weight of a column, as a share of the mean one: columns that calibration has not seen used may yet be.
pub(super) const LEAST: f64 = 1e-3;
/// GPTQ's damping, as its authors have it.
const DAMPING: f64 = 0.01;
/// The same for pictures: rows of one resemble each other, and some hundreds of pictures stand for all that there are.
/// Measured on DeiT-Tiny (`docs/quantization.md`), on pictures of ours and on photos; more in deep layers was better by the
/// error of products and worse by that of the output.
const DAMPING_FEW: f64 = 0.15;
/// Bytes of encoded tensors that are kept for the file, at most: those of large models are encoded again.
const KEPT: usize = 256 << 20;

/// One matrix.
#[derive(Default)]
struct Input {
    /// Sum of squares of each channel.
    squares: Vec<f64>,
    /// Rows seen.
    rows: u64,
    /// `[k, k]`, products of all pairs of channels, where they are kept; the lower half is filled in at the end.
    gram: Vec<f32>,
    /// Mean squares, about 1 in the mean.
    weights: Vec<f32>,
    /// What GPTQ makes of the pairs, by the length of groups; the error is why it cannot.
    prepared: BTreeMap<usize, std::result::Result<Prepared, String>>,
}

/// The inputs of all matrices.
#[derive(Default)]
pub struct Statistics {
    inputs: BTreeMap<String, Input>,
    /// Whether pairs of channels are kept.
    with_pairs: bool,
    /// Whether they come of few pictures.
    are_few: bool,
    /// Remarks on tensors that could not be calibrated.
    notes: Vec<String>,
    /// What GPTQ has made of tensors so far, and the bytes of all of it.
    encoded: BTreeMap<(String, &'static str), Vec<u8>>,
    encoded_bytes: usize,
}

/// The table of tokens, where it is the output matrix as well. What calibration sees is that use of it only; its rows are
/// also looked up, and then all columns count alike.
const TIED: &str = "token_embd.weight";

fn mismatch(rule: impl Into<String>) -> Error {
    Error::new(Code::ImatrixMismatch, rule).key("imatrix")
}

impl Statistics {
    /// None yet; `with_pairs` for GPTQ.
    pub fn new(with_pairs: bool) -> Self {
        Statistics { with_pairs, ..Statistics::default() }
    }

    /// Adds rows of the input of a matrix.
    pub fn add(&mut self, name: &str, k: usize, x: &[f32]) {
        let input = self.inputs.entry(name.into()).or_default();
        input.squares.resize(k, 0.0);
        let with_pairs = self.with_pairs && name != TIED;
        if with_pairs && input.gram.is_empty() {
            input.gram.resize(k * k, 0.0);
        }
        for row in x.chunks_exact(k) {
            input.rows += 1;
            for (sum, v) in input.squares.iter_mut().zip(row) {
                *sum += f64::from(*v) * f64::from(*v);
            }
        }
        if with_pairs {
            add_pairs(&mut input.gram, k, x);
        }
    }

    /// Says that the inputs are of few pictures: GPTQ trusts them less.
    pub fn set_few(&mut self) {
        self.are_few = true;
    }

    /// Makes the weights, after the last row or after reading.
    pub fn finish(&mut self) {
        for (name, input) in &mut self.inputs {
            fill_lower(&mut input.gram, input.squares.len());
            let mean = input.squares.iter().sum::<f64>() / input.squares.len().max(1) as f64;
            if mean > 0.0 {
                let weight =
                    |s: &f64| if name == TIED { (s / mean + 1.0) / 2.0 } else { (s / mean).max(LEAST) };
                input.weights = input.squares.iter().map(|s| weight(s) as f32).collect();
            } else {
                self.notes.push(format!("the importance of {name:?} is all zeros: its columns count alike"));
            }
        }
    }

    /// Matrices of which something is known.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// The weights alone, for searches.
    pub fn without_pairs(&self) -> Self {
        let without = |(name, input): (&String, &Input)| {
            let alone = Input {
                squares: input.squares.clone(),
                rows: input.rows,
                weights: input.weights.clone(),
                ..Input::default()
            };
            (name.clone(), alone)
        };
        Statistics { inputs: self.inputs.iter().map(without).collect(), ..Statistics::default() }
    }

    /// Whether anything is known.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// Remarks so far.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Checks that this is of the model: what is known has the widths of its matrices.
    ///
    /// # Errors
    /// [`Code::ImatrixMismatch`] naming the tensor.
    pub fn check(&mut self, outline: &Outline) -> Result<()> {
        let mut any = false;
        let mut missing = Vec::new();
        for target in &outline.tensors {
            let Some((_, k)) = target.matrix() else { continue };
            match self.inputs.get(&target.name) {
                Some(input) if input.squares.len() == k => any = true,
                Some(input) => {
                    let rule = format!("it has {} values, the matrix {k} columns", input.squares.len());
                    return Err(mismatch(rule).tensor(&target.name));
                }
                None if target.name.starts_with("blk.") => missing.push(target.name.clone()),
                None => {}
            }
        }
        if !any {
            return Err(mismatch("it knows no tensor of this model: it is of another one"));
        }
        let note =
            |name: String| format!("nothing is known of the input of {name:?}: its columns count alike");
        self.notes.extend(missing.into_iter().map(note));
        Ok(())
    }

    /// llama.cpp's file of it: GGUF with sums of squares and counts.
    ///
    /// # Errors
    /// [`Code::BadName`] and the like for names that GGUF cannot hold.
    pub fn to_gguf(&self, dataset: &str) -> Result<Vec<u8>> {
        let mut writer = GgufWriter::new();
        let chunks = self.inputs.values().map(|i| i.rows).max().unwrap_or(0);
        writer.str("general.type", "imatrix");
        writer.strs("imatrix.datasets", [dataset]);
        writer.uint("imatrix.chunk_count", 1).uint("imatrix.chunk_size", chunks);
        let mut data = Vec::new();
        for (name, input) in &self.inputs {
            writer.tensor(&format!("{name}.in_sum2"), DType::F32, &[1, input.squares.len()])?;
            writer.tensor(&format!("{name}.counts"), DType::F32, &[1, 1])?;
            data.push(input.squares.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect::<Vec<u8>>());
            data.push((input.rows as f32).to_le_bytes().to_vec());
        }
        writer.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// Reads llama.cpp's file, of either format.
    ///
    /// # Errors
    /// [`Code::ImatrixMismatch`] for values that are none; [`Code::Truncated`], and what is wrong with a GGUF file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut out = if bytes.starts_with(b"GGUF") { read_gguf(bytes)? } else { read_legacy(bytes)? };
        for (name, input) in &out.inputs {
            if let Some(bad) = input.squares.iter().find(|v| !v.is_finite() || **v < 0.0) {
                return Err(mismatch(format!("a mean of squares is {bad}")).tensor(name));
            }
        }
        if out.is_empty() {
            return Err(mismatch("it holds nothing"));
        }
        out.finish();
        Ok(out)
    }
}

fn read_gguf(bytes: &[u8]) -> Result<Statistics> {
    let missing = || Error::new(Code::Truncated, "the importance matrix ends early").key("imatrix");
    let header: Header = parse(bytes, Some(bytes.len() as u64))?.ok_or_else(missing)?;
    let values = |name: &str| -> Result<Option<Vec<f32>>> {
        let Some(tensor) = header.tensor(name) else { return Ok(None) };
        if tensor.dtype != DType::F32 {
            return Err(mismatch("expected F32").tensor(name));
        }
        let data = usize::try_from(tensor.offset)
            .ok()
            .and_then(|at| bytes.get(at..)?.get(..tensor.n_bytes as usize));
        let data = data.ok_or_else(missing)?;
        Ok(Some(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    };
    let mut out = Statistics::default();
    for tensor in &header.tensors {
        let Some(name) = tensor.name.strip_suffix(".in_sum2") else { continue };
        let sums = values(&tensor.name)?.unwrap_or_default();
        let counts = values(&format!("{name}.counts"))?.unwrap_or_default();
        // A stack of matrices has a row each; they are taken together.
        let rows = counts.len().max(1);
        if sums.len() % rows != 0 {
            return Err(mismatch(format!("{} sums for {rows} counts", sums.len())).tensor(name));
        }
        let k = sums.len() / rows;
        let mut squares = vec![0f64; k];
        sums.chunks_exact(k.max(1))
            .for_each(|row| squares.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v)));
        let rows = counts.iter().map(|c| *c as u64).sum();
        out.inputs.insert(name.into(), Input { squares, rows, ..Input::default() });
    }
    Ok(out)
}

/// The format before GGUF: counts and strings in 32 bits, little-endian.
fn read_legacy(bytes: &[u8]) -> Result<Statistics> {
    let missing = || Error::new(Code::Truncated, "the importance matrix ends early").key("imatrix");
    let mut at = 0usize;
    let mut take = |n: usize| {
        let end = at.checked_add(n).ok_or_else(missing)?;
        let part = bytes.get(at..end).ok_or_else(missing)?;
        at = end;
        Ok::<&[u8], Error>(part)
    };
    let count = |part: &[u8]| -> Result<usize> {
        let n = i32::from_le_bytes(part.try_into().map_err(|_| missing())?);
        usize::try_from(n).map_err(|_| mismatch(format!("a length is {n}: no importance matrix")))
    };
    let n_entries = count(take(4)?)?;
    if n_entries == 0 || n_entries > 1 << 20 {
        return Err(mismatch(format!("{n_entries} entries: no importance matrix")));
    }
    let mut out = Statistics::default();
    for _ in 0..n_entries {
        let len = count(take(4)?)?;
        if len > 1 << 16 {
            return Err(mismatch("a name is too long: no importance matrix"));
        }
        let name = String::from_utf8_lossy(take(len)?).into_owned();
        let calls = count(take(4)?)?.max(1);
        let k = count(take(4)?)?;
        let data = take(k.checked_mul(4).ok_or_else(missing)?)?;
        let squares = data.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
        out.inputs.insert(name, Input { squares, rows: calls as u64, ..Input::default() });
    }
    Ok(out)
}

impl Calibration for Statistics {
    fn column_weights(&self, name: &str, k: usize) -> Option<&[f32]> {
        self.inputs.get(name).map(|i| i.weights.as_slice()).filter(|w| w.len() == k)
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn wants_whole(&self, name: &str) -> bool {
        self.has_pairs(name) || self.encoded.keys().any(|(known, _)| known == name)
    }

    fn encode(&mut self, name: &str, values: &[f32], k: usize, dtype: DType) -> Option<Vec<u8>> {
        let key = (name.to_string(), dtype.name());
        if let Some(blocks) = self.encoded.get(&key) {
            return Some(blocks.clone());
        }
        let blocks = self.encode_rows(name, values, k, dtype)?;
        if self.encoded_bytes + blocks.len() <= KEPT {
            self.encoded_bytes += blocks.len();
            self.encoded.insert(key, blocks.clone());
        }
        Some(blocks)
    }
}

fn inputs_of<'a>(squares: &[f64], gram: &'a [f32], weights: &'a [f32], are_few: bool) -> Inputs<'a> {
    Inputs { columns: squares.len(), gram, weights, damping: damping(are_few) }
}

/// What is added to all squares, as a share of the mean one.
pub(super) fn damping(are_few: bool) -> f64 {
    if are_few { DAMPING_FEW } else { DAMPING }
}

impl Input {
    /// What GPTQ needs for groups of that length, made once.
    fn prepared(
        &mut self,
        group: usize,
        are_few: bool,
    ) -> (Inputs<'_>, &std::result::Result<Prepared, String>) {
        let inputs = inputs_of(&self.squares, &self.gram, &self.weights, are_few);
        let prepared = self.prepared.entry(group).or_insert_with(|| gptq::prepare(&inputs, group));
        (inputs, prepared)
    }
}

impl Statistics {
    /// What GPTQ makes of some rows of a matrix, of declared rows of `k`.
    pub(super) fn encode_rows(
        &mut self,
        name: &str,
        values: &[f32],
        k: usize,
        dtype: DType,
    ) -> Option<Vec<u8>> {
        let are_few = self.are_few;
        let input = self.inputs.get_mut(name).filter(|i| !i.gram.is_empty())?;
        let group = gptq::group_len(input.squares.len(), dtype.format()?);
        match input.prepared(group, are_few) {
            (inputs, Ok(prepared)) => gptq::encode(values, k, &inputs, prepared, dtype),
            (_, Err(why)) => {
                let note = format!("{name}: {why}");
                if !self.notes.contains(&note) {
                    self.notes.push(note);
                }
                None
            }
        }
    }

    /// Whether the inputs are of few pictures.
    pub fn are_few(&self) -> bool {
        self.are_few
    }

    /// Says what a tensor becomes in the file. What it would become otherwise, and pairs of its channels, are forgotten.
    pub fn decide(&mut self, name: &str, dtype: DType, rounded: Rounded) {
        let bytes = &mut self.encoded_bytes;
        self.encoded.retain(|(known, _), blocks| {
            let is_other = known != name;
            *bytes -= if is_other { 0 } else { blocks.len() };
            is_other
        });
        self.encoded_bytes += rounded.blocks.len();
        self.encoded.insert((name.into(), dtype.name()), rounded.blocks);
        self.notes.extend(rounded.note.filter(|note| !self.notes.contains(note)));
        if let Some(input) = self.inputs.get_mut(name) {
            input.gram = Vec::new();
            input.prepared.clear();
        }
    }

    /// Whether pairs of the channels of a matrix are known: what GPTQ needs.
    pub fn has_pairs(&self, name: &str) -> bool {
        self.inputs.get(name).is_some_and(|i| !i.gram.is_empty())
    }

    /// What GPTQ makes of a tensor in the type of that name.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a type that cannot be written.
    pub fn encode_as(&mut self, target: &Target, values: &[f32], dtype: &str) -> Result<Option<Vec<u8>>> {
        let dtype = super::writable(dtype, "types")?;
        let k = row_len(&declared(target, dtype), target);
        Ok(self.encode(&target.name, values, k, dtype))
    }

    /// The power of a matrix's products, where pairs of channels are known.
    pub fn power(&self, name: &str, values: &[f32]) -> Option<f64> {
        let input = self.inputs.get(name).filter(|i| !i.gram.is_empty())?;
        Some(gptq::power(values, &inputs_of(&input.squares, &input.gram, &input.weights, self.are_few)))
    }
}
