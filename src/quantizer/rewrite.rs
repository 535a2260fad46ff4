//! Writes the quantized file while the source arrives.

use super::plan::{declared, plain_type, writer};
use super::rows::{self, Loss};
use super::{Outline, Plan, Target, Transform, policy};
use crate::container::gguf_write::GgufData;
use crate::container::stream::Sink;
use crate::container::{Header, TensorInfo};
use crate::error::{Code, Error, Result};
use crate::quant::{Codec, DType, Format};
use serde::Serialize;
use std::io::Write;

/// What a calibration knows of a model's matrices.
pub trait Calibration {
    /// How much the squared error of each of a matrix's k columns counts.
    fn column_weights(&self, name: &str, k: usize) -> Option<&[f32]>;

    /// The blocks of a whole matrix `[n, k]`, where this does better than a search row by row.
    fn encode(&mut self, name: &str, values: &[f32], k: usize, dtype: DType) -> Option<Vec<u8>> {
        let _ = (name, values, k, dtype);
        None
    }

    /// Remarks on tensors that could not be calibrated.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Whether [`Self::encode`] is to be asked, which needs the whole matrix.
    fn wants_whole(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

/// How to write.
#[derive(Default)]
pub struct RewriteOptions {
    /// Lets tensors that have been rounded before be rounded again.
    pub requantize: bool,
    /// Takes NaN and infinities for zeros.
    pub zero_nonfinite: bool,
    /// Rounds to the nearest codes instead of searching: the baseline.
    pub nearest: bool,
    /// What is known from data.
    pub calibration: Option<Box<dyn Calibration>>,
}

/// Below so many bits per weight a model without calibration is unlikely to be of use.
const FEW_BITS: f64 = 3.0;

impl Report {
    /// What few bits have taken, as measured.
    fn warning(&self) -> String {
        let rounded = self.per_tensor.iter().filter_map(|t| t.sqnr_db);
        let worst = rounded.clone().fold(f64::INFINITY, f64::min);
        let mean = rounded.clone().sum::<f64>() / rounded.count().max(1) as f64;
        format!(
            "{:.2} bits per weight without calibration: weights keep {mean:.1} dB over their noise in the mean, {worst:.1} \
             dB at worst; expect a model of little use, or calibrate it",
            self.bits_per_weight
        )
    }
}

/// What became of one tensor.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TensorReport {
    /// Its name in the written file.
    pub name: String,
    /// Its type there.
    #[serde(rename = "type")]
    pub dtype: &'static str,
    /// Its type in the source.
    pub from: &'static str,
    /// Its shape as the model understands it.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
    /// Signal to noise ratio in dB; absent where nothing was lost.
    pub sqnr_db: Option<f64>,
    /// The largest difference of a weight.
    pub max_error: f32,
    /// What is unusual about it.
    pub note: Option<String>,
}

/// What became of the file.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Bytes of weights in the source.
    pub bytes_before: u64,
    /// Bytes of the written file.
    pub bytes_after: u64,
    /// Bits of all weights there, per weight.
    pub bits_per_weight: f64,
    /// In the order of the file.
    pub per_tensor: Vec<TensorReport>,
    /// What a user should know of the whole.
    pub notes: Vec<String>,
}

/// The tensor that is arriving.
struct Current {
    /// Index of the target.
    idx: usize,
    bytes: Vec<u8>,
    /// Elements already written.
    done: u64,
    loss: Loss,
    cleared: u64,
}

/// Takes a model's tensors and writes them to `W` under a plan.
pub struct Rewriter<W: Write> {
    header: Header,
    outline: Outline,
    types: Vec<DType>,
    notes: Vec<Option<String>>,
    options: RewriteOptions,
    /// Of each tensor of the source, its target.
    target_of: Vec<Option<usize>>,
    out: GgufData<Counted<W>>,
    current: Option<Current>,
    report: Report,
}

struct Counted<W> {
    inner: W,
    n_bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Rewriter<W> {
    /// Writes the header of the new file; the tensors of `header` are to follow, all of them in order.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a plan that does not fit, or that rounds again what has been rounded before unless
    /// the options allow it; [`Code::UnsupportedDtype`]; [`Code::Io`].
    pub fn new(
        header: &Header,
        outline: Outline,
        plan: &Plan,
        options: RewriteOptions,
        out: W,
    ) -> Result<Self> {
        let types = plan.types(&outline, header)?;
        for (target, dtype) in outline.tensors.iter().zip(&types) {
            check_source(&header.tensors[target.source], target, *dtype, options.requantize)?;
        }
        let (writer, data_bytes) = writer(&outline, &types)?;
        let mut target_of = vec![None; header.tensors.len()];
        outline.tensors.iter().enumerate().for_each(|(i, t)| target_of[t.source] = Some(i));
        let note = |t: &Target| plan.tensors.iter().find(|p| p.name == t.name).and_then(|p| p.note.clone());
        let report = Report {
            bytes_before: header.data_bytes(),
            bits_per_weight: data_bytes as f64 * 8.0 / outline.parameters().max(1) as f64,
            ..Report::default()
        };
        Ok(Rewriter {
            out: writer.begin(Counted { inner: out, n_bytes: 0 })?,
            notes: outline.tensors.iter().map(note).collect(),
            header: header.clone(),
            outline,
            types,
            options,
            target_of,
            current: None,
            report,
        })
    }

    /// Tensors written.
    pub fn tensors_done(&self) -> usize {
        self.report.per_tensor.len()
    }

    /// Where the bytes go.
    pub fn output(&mut self) -> &mut W {
        &mut self.out.inner_mut().inner
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where tensors are missing; [`Code::Io`].
    pub fn finish(self) -> Result<(W, Report)> {
        let (mut report, mut out) = (self.report, self.out);
        for extra in &self.outline.extra {
            let bytes: Vec<u8> = extra.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            out.write(&bytes)?;
        }
        let counted = out.finish()?;
        report.bytes_after = counted.n_bytes;
        match &self.options.calibration {
            Some(calibration) => report.notes.extend_from_slice(calibration.notes()),
            None if report.bits_per_weight < FEW_BITS => report.notes.push(report.warning()),
            None => {}
        }
        Ok((counted.inner, report))
    }

    /// Whether the tensor's bytes go over as they are.
    fn is_copied(&self, idx: usize) -> bool {
        let target = &self.outline.tensors[idx];
        target.transform == Transform::None && self.types[idx] == self.header.tensors[target.source].dtype
    }

    fn is_whole(&self, idx: usize) -> bool {
        let target = &self.outline.tensors[idx];
        let calibration = self.options.calibration.as_deref();
        !matches!(target.transform, Transform::None | Transform::AddOne)
            || calibration.is_some_and(|c| c.wants_whole(&target.name))
    }

    /// Writes the whole rows that have arrived.
    fn write_rows(&mut self, current: &mut Current) -> Result<()> {
        let target = &self.outline.tensors[current.idx];
        let source = &self.header.tensors[target.source];
        let (format, codec) = source.dtype.codec()?;
        let dtype = self.types[current.idx];
        let shape = declared(target, dtype);
        let k = row_len(&shape, target);
        let n_values = current.bytes.len() / format.block_bytes * format.block_len;
        let n_values = n_values - n_values % k;
        let n_bytes = n_values / format.block_len * format.block_bytes;
        if n_values == 0 {
            return Ok(());
        }
        let rest = current.bytes.split_off(n_bytes);
        let bytes = std::mem::replace(&mut current.bytes, rest);
        let (values, cleared) =
            rows::decode(&codec, format, &bytes, current.done, self.options.zero_nonfinite)?;
        drop(bytes);
        current.cleared += cleared;
        current.done += values.len() as u64;
        let columns = source.shape.iter().skip(1).product::<usize>().max(1);
        let values = match target.transform {
            Transform::None => values,
            _ => {
                let rows = values.len() / columns;
                target.transformed(values, (rows, columns))
            }
        };
        let blocks = self.encode(current, &values, k, dtype)?;
        self.out.write(&blocks)
    }

    fn encode(&mut self, current: &mut Current, values: &[f32], k: usize, dtype: DType) -> Result<Vec<u8>> {
        let target = &self.outline.tensors[current.idx];
        let (format, codec) = dtype.codec()?;
        let is_whole = self.is_whole(current.idx);
        let weights = self.weights(target, k);
        let calibrated = match &mut self.options.calibration {
            Some(calibration) if is_whole => calibration.encode(&target.name, values, k, dtype),
            _ => None,
        };
        let blocks = calibrated
            .unwrap_or_else(|| rows::encode(values, &weights, k, format, &codec, self.options.nearest));
        current.loss.add(values, &vec![1.0; k], &blocks, &codec);
        Ok(blocks)
    }

    /// The weights of the columns of a declared row of `k`.
    fn weights(&self, target: &Target, k: usize) -> Vec<f32> {
        let columns = target.matrix().map_or(k, |(_, k)| k);
        let known = self.options.calibration.as_ref().and_then(|c| c.column_weights(&target.name, columns));
        match known {
            Some(weights) if weights.len() == columns && k.is_multiple_of(columns) => {
                weights.repeat(k / columns)
            }
            _ => vec![1.0; k],
        }
    }

    fn close(&mut self, current: Current) {
        let target = &self.outline.tensors[current.idx];
        let (dtype, source) = (self.types[current.idx], &self.header.tensors[target.source]);
        let mut notes: Vec<String> = self.notes[current.idx].take().into_iter().collect();
        if current.cleared > 0 {
            notes.push(format!("{} weights were NaN or infinite and are zeros now", current.cleared));
        }
        if let Some(sqnr) = current.loss.sqnr_db().filter(|db| *db < 3.0) {
            notes.push(format!("little is left of it: {sqnr:.1} dB"));
        }
        self.report.per_tensor.push(TensorReport {
            name: target.name.clone(),
            dtype: dtype.name(),
            from: source.dtype.name(),
            shape: target.shape.clone(),
            bytes: dtype.bytes_for(target.n_elements()).unwrap_or(0),
            sqnr_db: current.loss.sqnr_db(),
            max_error: current.loss.max,
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        });
    }
}

/// The length of a row as declared; vectors and tables are one row each.
pub(super) fn row_len(shape: &[usize], target: &Target) -> usize {
    match target.matrix() {
        Some(_) if shape.len() == 2 || shape.len() == 3 => shape.last().copied().unwrap_or(1).max(1),
        Some((_, k)) => k,
        None => shape.iter().product::<usize>().max(1),
    }
}

fn check_source(source: &TensorInfo, target: &Target, dtype: DType, requantize: bool) -> Result<()> {
    if source.dtype == dtype && target.transform == Transform::None {
        return Ok(());
    }
    let unusable = |format: &Format, codec: &Codec| format.block_len > 1 && codec.quantize.is_none();
    let named = |e: Error| e.tensor(&target.name);
    source.dtype.codec().map_err(named)?;
    let (format, codec) = dtype.codec().map_err(named)?;
    if unusable(format, &codec) {
        let rule = format!("{} cannot be written", format.name);
        return Err(named(Error::new(Code::UnsupportedQuant, rule)));
    }
    let is_plain = plain_type(target, source) == dtype;
    if !policy::is_float(source.dtype) && !requantize && !is_plain {
        let rule = format!(
            "it has been rounded to {} already; rounding again loses more than rounding the original once",
            source.dtype.name()
        );
        return Err(named(Error::new(Code::BadArgument, rule).key("allowRequantize")));
    }
    Ok(())
}

impl<W: Write> Sink for Rewriter<W> {
    fn header(&mut self, _: &Header) -> Result<()> {
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        let Some(target) = self.target_of.get(idx).copied().flatten() else { return Ok(()) };
        if self.is_copied(target) {
            return self.out.write(bytes);
        }
        let mut current = self.current.take().unwrap_or_else(|| Current::new(target));
        current.bytes.extend_from_slice(bytes);
        if current.bytes.len() >= rows::BATCH && !self.is_whole(target) {
            let name = self.outline.tensors[target].name.clone();
            self.write_rows(&mut current).map_err(|e| e.tensor(name))?;
        }
        self.current = Some(current);
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        let Some(target) = self.target_of.get(idx).copied().flatten() else { return Ok(()) };
        let mut current = self.current.take().unwrap_or_else(|| Current::new(target));
        let name = self.outline.tensors[target].name.clone();
        self.write_rows(&mut current).map_err(|e| e.tensor(name))?;
        self.close(current);
        Ok(())
    }
}

impl Current {
    fn new(idx: usize) -> Self {
        Current { idx, bytes: Vec::new(), done: 0, loss: Loss::default(), cleared: 0 }
    }
}
