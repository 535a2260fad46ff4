//! What each type would cost each tensor: measured on samples of its rows, before a byte is written.

use super::allocate::hull;
use super::plan::{declared, fits, folds, plain_type};
use super::rewrite::{Calibration, row_len};
use super::rows::{self, Loss};
use super::{Outline, Statistics, Target, Transform, policy, shapes};
use crate::container::Header;
use crate::container::stream::Sink;
use crate::error::Result;
use crate::models::vision::Role;
use crate::quant::DType;
use serde::{Deserialize, Serialize};

/// Types that are compared where no others are asked for.
const TYPES: &[DType] = &[
    DType::Q2_K,
    DType::Q3_K,
    DType::IQ4_XS,
    DType::MXFP4,
    DType::Q4_0,
    DType::IQ4_NL,
    DType::Q4_K,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_K,
    DType::Q5_1,
    DType::Q6_K,
    DType::Q8_0,
    DType::F16,
];

/// Weights of a tensor that are measured, about.
const SAMPLE: usize = 1 << 17;

/// A column is an outlier when its root mean square is so many times the median one.
const OUTLIER: f64 = 4.0;
/// Outliers that are listed.
const OUTLIERS: usize = 8;

/// How to measure.
#[derive(Default)]
pub struct SurveyOptions {
    /// Types to compare; empty for the usual ones.
    pub types: Vec<DType>,
    /// Takes NaN and infinities for zeros.
    pub zero_nonfinite: bool,
    /// What is known from data.
    pub calibration: Option<Box<dyn Calibration>>,
}

/// What one type would cost a tensor.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// The type.
    #[serde(rename = "type")]
    pub dtype: String,
    /// Bytes of the tensor.
    pub bytes: u64,
    /// Bytes that the header takes to tell its shape, where GGUF cannot.
    #[serde(default)]
    pub shape_bytes: u64,
    /// Signal to noise ratio of the weights in dB; absent where nothing is lost.
    pub sqnr_db: Option<f64>,
    /// Largest difference of a weight.
    pub max_error: f32,
    /// What it is expected to cost the model.
    pub loss: f64,
}

/// One tensor as measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Surveyed {
    /// Its name in the written file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its type in the source.
    #[serde(rename = "type")]
    pub dtype: String,
    /// Its bytes in the source.
    pub bytes: u64,
    /// Root mean square of its weights.
    pub rms: f64,
    /// Largest magnitude.
    pub max_abs: f32,
    /// Input channels (columns) that stand out, with their root mean square as a multiple of the median one.
    pub outliers: Vec<(usize, f64)>,
    /// How much a given share of lost power in it costs the model, compared with other tensors.
    pub sensitivity: f64,
    /// What it could become, fewest bytes first; one entry for what is not quantized.
    pub choices: Vec<Choice>,
}

/// All tensors as measured.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// As in `general.architecture`.
    pub architecture: String,
    /// Weights.
    pub parameters: u64,
    /// Bytes of the written file beside the tensors' own, without padding.
    pub header_bytes: u64,
    /// What losses are in: "relative" (shares of lost power times sensitivities), or "nats" (divergence of
    /// the model's output).
    pub loss_unit: String,
    /// In the order of the file.
    pub tensors: Vec<Surveyed>,
}

/// Measures a model's tensors as they arrive.
pub struct Surveyor {
    header: Header,
    outline: Outline,
    options: SurveyOptions,
    target_of: Vec<Option<usize>>,
    current: Option<Current>,
    survey: Survey,
}

/// The tensor that is arriving: the rows that are measured.
struct Current {
    bytes: Vec<u8>,
    /// Bytes seen so far.
    seen: u64,
    row_bytes: u64,
    stride: u64,
}

impl Surveyor {
    /// Measures the tensors of `header`, all of them in order.
    ///
    /// # Errors
    /// What makes a file impossible to write.
    pub fn new(header: &Header, outline: Outline, options: SurveyOptions) -> Result<Self> {
        let mut target_of = vec![None; header.tensors.len()];
        outline.tensors.iter().enumerate().for_each(|(i, t)| target_of[t.source] = Some(i));
        let types: Vec<DType> =
            outline.tensors.iter().map(|t| plain_type(t, &header.tensors[t.source])).collect();
        let header_bytes = super::plan::writer(&outline, &types)?.0.header_bytes()?;
        let survey = Survey {
            architecture: outline.architecture.clone(),
            parameters: outline.parameters(),
            header_bytes,
            loss_unit: "relative".into(),
            tensors: Vec::new(),
        };
        Ok(Surveyor { header: header.clone(), outline, options, target_of, current: None, survey })
    }

    /// Tensors measured.
    pub fn tensors_done(&self) -> usize {
        self.survey.tensors.len()
    }

    /// What was measured.
    pub fn finish(self) -> Survey {
        self.survey
    }

    /// In vision transformers the first blocks are felt most: what goes wrong there all later blocks see, while the last
    /// ones matter for the class token only. 1 in the mean; measured on DeiT-Tiny at blocks 0, 3, 6, 9 and 11.
    fn depth_factor(&self, name: &str) -> f64 {
        let block = |name: &str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<usize>().ok();
        let Some(at) = block(name) else { return 1.0 };
        let last = self.outline.tensors.iter().filter_map(|t| block(&t.name)).max().unwrap_or(0).max(1);
        2.3 * libm::pow(1.0 - at as f64 / last as f64, 1.8) + 0.12
    }

    fn is_tied(&self) -> bool {
        !self.outline.tensors.iter().any(|t| t.name == "output.weight")
    }

    fn start(&self, idx: usize) -> Current {
        let target = &self.outline.tensors[idx];
        let source = &self.header.tensors[target.source];
        let is_transposed = target.transform == Transform::Transpose;
        let (n, k) = target.matrix().filter(|_| !is_transposed).unwrap_or((1, 1));
        let row_bytes = (source.n_bytes / n.max(1) as u64).max(1);
        // Whole groups of 16 rows, so that blocks may reach over rows.
        let groups = n.div_ceil(16);
        let wanted = (SAMPLE / (16 * k)).max(1);
        let stride = if is_transposed || n == 1 { 1 } else { groups.div_ceil(wanted) as u64 };
        Current { bytes: Vec::new(), seen: 0, row_bytes: row_bytes * 16, stride }
    }

    fn measure(&self, idx: usize, bytes: &[u8]) -> Result<Surveyed> {
        let target = &self.outline.tensors[idx];
        let source = &self.header.tensors[target.source];
        let mut out = Surveyed {
            name: target.name.clone(),
            shape: target.shape.clone(),
            dtype: source.dtype.name().into(),
            bytes: source.n_bytes,
            rms: 0.0,
            max_abs: 0.0,
            outliers: Vec::new(),
            sensitivity: sensitivity(target, self.is_tied()) * self.depth_factor(&target.name),
            choices: Vec::new(),
        };
        let plain = plain_type(target, source);
        if policy::holds_no_weights(source.dtype) {
            out.choices.push(choice(plain, target, &Loss::default(), 0.0));
            return Ok(out);
        }
        let (format, codec) = source.dtype.codec()?;
        let whole = bytes.len() - bytes.len() % format.block_bytes;
        let (mut values, _) = rows::decode(&codec, format, &bytes[..whole], 0, self.options.zero_nonfinite)?;
        if target.transform == Transform::Transpose {
            let columns = source.shape.iter().skip(1).product::<usize>().max(1);
            let rows = values.len() / columns;
            values = target.transformed(values, (rows, columns));
        }
        let power: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        out.rms = libm::sqrt(power / values.len().max(1) as f64);
        out.max_abs = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let quantizable = policy::is_float(source.dtype) && !policy::is_kept(&target.name);
        let Some((_, k)) = target.matrix().filter(|_| quantizable && target.role != Role::Table) else {
            out.choices.push(choice(plain, target, &Loss::default(), 0.0));
            return Ok(out);
        };
        out.outliers = outliers(&values, k);
        let types = if self.options.types.is_empty() { TYPES } else { &self.options.types };
        let folds = folds(&self.outline);
        for dtype in types.iter().copied().filter(|d| fits(target, *d, folds)) {
            let loss = self.loss(target, &values, k, dtype)?;
            out.choices.push(choice(dtype, target, &loss, out.sensitivity));
        }
        if out.choices.is_empty() {
            out.choices.push(choice(plain, target, &Loss::default(), 0.0));
        }
        out.choices.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.loss.total_cmp(&b.loss)));
        Ok(out)
    }

    fn loss(&self, target: &Target, values: &[f32], k: usize, dtype: DType) -> Result<Loss> {
        let (format, codec) = dtype.codec()?;
        let shape = declared(target, dtype);
        let row = if shape.len() == 2 { shape[1] } else { k };
        let known = self.options.calibration.as_ref().and_then(|c| c.column_weights(&target.name, k));
        let weights = match known {
            Some(weights) if weights.len() == k => weights.repeat(row / k),
            _ => vec![1.0; row],
        };
        let values = &values[..values.len() - values.len() % row];
        let blocks = rows::encode(values, &weights, row, format, &codec, false);
        let mut loss = Loss::default();
        loss.add(values, &weights, &blocks, &codec);
        Ok(loss)
    }
}

impl Surveyed {
    /// Counts losses anew, as shares of the power of products, each type as GPTQ rounds to it. Types that the search says
    /// are not worth their bytes are left out: GPTQ takes its time. Of the rows one group of 16 in `stride` is looked at.
    ///
    /// # Errors
    /// [`crate::error::Code::BadArgument`] for a type that cannot be written.
    pub fn recount(
        &mut self,
        target: &Target,
        values: &[f32],
        known: &mut Statistics,
        stride: usize,
    ) -> Result<()> {
        let Some((_, k)) = target.matrix() else { return Ok(()) };
        let sample: Vec<f32> = values.chunks(16 * k).step_by(stride).flatten().copied().collect();
        let Some(whole) = known.power(&self.name, &sample).filter(|power| *power > 0.0) else {
            return Ok(());
        };
        self.choices = hull(&self.choices).into_iter().map(|i| self.choices[i].clone()).collect();
        let mut lost = vec![0f32; sample.len()];
        for choice in self.choices.iter_mut().filter(|c| c.loss > 0.0) {
            let (format, codec) = super::writable(&choice.dtype, "types")?.codec()?;
            let row = row_len(&declared(target, format.dtype), target);
            let blocks = match stride {
                1 => known.encode_as(target, values, &choice.dtype)?,
                _ => known.encode_rows(&self.name, &sample, row, format.dtype),
            };
            let blocks =
                blocks.unwrap_or_else(|| rows::encode(&sample, &vec![1.0; row], row, format, &codec, false));
            (codec.dequantize)(&blocks, &mut lost);
            lost.iter_mut().zip(&sample).for_each(|(lost, v)| *lost -= v);
            let lost = known.power(&self.name, &lost).unwrap_or(0.0);
            choice.loss = self.sensitivity * lost / whole;
        }
        Ok(())
    }
}

fn choice(dtype: DType, target: &Target, loss: &Loss, sensitivity: f64) -> Choice {
    Choice {
        dtype: dtype.name().into(),
        bytes: dtype.bytes_for(target.n_elements()).unwrap_or(0),
        shape_bytes: shapes::recorded_bytes(target, &declared(target, dtype)),
        sqnr_db: loss.sqnr_db(),
        max_error: loss.max,
        loss: sensitivity * loss.relative(),
    }
}

/// Columns whose weights are much larger than those of others.
fn outliers(values: &[f32], k: usize) -> Vec<(usize, f64)> {
    let mut power = vec![0f64; k];
    for row in values.chunks_exact(k) {
        power.iter_mut().zip(row).for_each(|(p, v)| *p += f64::from(*v) * f64::from(*v));
    }
    let mut sorted = power.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[k / 2];
    if median <= 0.0 {
        return Vec::new();
    }
    let ratio = |p: &f64| libm::sqrt(p / median);
    let mut found: Vec<(usize, f64)> =
        power.iter().map(ratio).enumerate().filter(|(_, r)| *r > OUTLIER).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    found.truncate(OUTLIERS);
    found
}

/// What a share of lost power costs, by the part that the matrix plays: about the divergence in nats per share that we
/// measured by rounding all matrices of a kind (BabyLlama, DeiT-Tiny; `docs/quantization.md`). The order among
/// the matrices of a layer is that of llama.cpp's pull request 1256 for Llama 7B.
fn sensitivity(target: &Target, is_tied: bool) -> f64 {
    const PARTS: &[(&str, f64)] = &[
        ("output.weight", 5.0),
        ("ffn_down", 0.28),
        ("mlp.fc2", 0.60),
        ("attn_v", 0.35),
        ("attn.v.", 0.9),
        ("attn_qkv", 0.15),
        ("attn.qkv", 0.67),
        ("ffn_up", 0.17),
        ("mlp.fc1", 1.27),
        ("ffn_gate", 0.22),
        ("attn_output", 0.21),
        ("attn.proj", 0.52),
        ("attn_q", 0.03),
        ("attn.q.", 0.4),
        ("attn_k", 0.03),
        ("attn.k.", 0.4),
    ];
    match target.role {
        Role::Outer if target.name.contains("head") || target.name.contains("classifier") => 0.55,
        Role::Outer => 5.7,
        // The table of tokens is the output matrix as well.
        _ if target.name == "token_embd.weight" => {
            if is_tied {
                6.0
            } else {
                1.0
            }
        }
        _ => {
            // "attn_output" is no "output".
            let found = PARTS.iter().find(|(part, _)| {
                target.name.contains(part) && (*part != "output.weight" || target.name == *part)
            });
            found.map_or(0.2, |p| p.1)
        }
    }
}

impl Sink for Surveyor {
    fn header(&mut self, _: &Header) -> Result<()> {
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, mut bytes: &[u8]) -> Result<()> {
        let Some(target) = self.target_of.get(idx).copied().flatten() else { return Ok(()) };
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.start(target),
        };
        while !bytes.is_empty() {
            let group = current.seen / current.row_bytes;
            let left = current.row_bytes - current.seen % current.row_bytes;
            let (part, rest) = bytes.split_at(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            if group.is_multiple_of(current.stride) {
                current.bytes.extend_from_slice(part);
            }
            current.seen += part.len() as u64;
            bytes = rest;
        }
        self.current = Some(current);
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        let Some(target) = self.target_of.get(idx).copied().flatten() else { return Ok(()) };
        let current = self.current.take();
        let bytes = current.map_or(Vec::new(), |c| c.bytes);
        let name = &self.outline.tensors[target].name;
        let surveyed = self.measure(target, &bytes).map_err(|e| e.tensor(name))?;
        self.survey.tensors.push(surveyed);
        Ok(())
    }
}
