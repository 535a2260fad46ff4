//! What a model does with data: for importance matrices, GPTQ and measured sensitivities.

use super::probe::Probe;
use super::source::Source;
use super::{open, photo, pictures, sequential};
use crate::error::{Code, Error, Result};
use crate::image::PixelView;
use crate::layers::observe;
use crate::quantizer::{Calibration, Outline, Plan, Planned, RewriteOptions, Rewriter, Statistics};
use crate::tasks::{LoadOptions, Loaded, Loader};
use std::borrow::Cow;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A text of ours for language models.
const TEXT: &str = include_str!("calibration.txt");
/// Most bytes of a text.
const MAX_TEXT: u64 = 16 << 20;
/// Tokens that pass through a model together, at most.
const CHUNK: usize = 256;
/// Tokens and images of a user with which sensitivities are measured, at most: each tensor takes a run.
pub(super) const PROBE: (usize, usize) = (512, 8);

/// RGB, with width and height.
pub(super) type Image = (Vec<u8>, usize, usize);

/// What a model is run on.
pub(super) struct Data {
    /// For language models.
    text: String,
    /// For vision models.
    pub(super) images: Vec<Image>,
    /// Whether the images are ours.
    is_ours: bool,
}

impl Data {
    /// Texts and images from files and folders; ours where none are given.
    ///
    /// # Errors
    /// What cannot be read.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Ok(Data { text: TEXT.into(), images: pictures::to_learn()?, is_ours: true });
        }
        let mut data = Data { text: String::new(), images: Vec::new(), is_ours: false };
        for path in paths {
            if path.is_dir() {
                let entries = std::fs::read_dir(path).map_err(|e| open::io_error(path, "cannot read", e))?;
                let mut files: Vec<PathBuf> =
                    entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| is_image(p)).collect();
                files.sort();
                files.iter().try_for_each(|file| data.add_image(file))?;
            } else if is_image(path) {
                data.add_image(path)?;
            } else {
                data.text += &open::read_text(path, MAX_TEXT)?;
            }
        }
        Ok(data)
    }

    /// What sensitivities are measured on: of ours, pictures that nothing has been learnt from.
    fn probe(&self) -> Result<Data> {
        let images = match self.is_ours {
            true => pictures::to_judge()?,
            false => self.images.iter().take(PROBE.1).cloned().collect(),
        };
        Ok(Data { text: self.text.clone(), images, is_ours: self.is_ours })
    }

    /// What layers are rounded on: of ours, more pictures.
    pub(super) fn for_layers(&self) -> Result<Cow<'_, [Image]>> {
        Ok(match self.is_ours {
            true => pictures::to_round()?.into(),
            false => self.images.as_slice().into(),
        })
    }

    fn add_image(&mut self, path: &Path) -> Result<()> {
        self.images.push(photo::read(path)?.into_pixels());
        Ok(())
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    ["jpg", "jpeg", "png", "bmp", "webp"].contains(&extension.as_str())
}

/// The file under a plan, in memory.
pub(super) fn rewritten(
    source: &Source,
    outline: &Outline,
    plan: &Plan,
    calibration: Option<Box<dyn Calibration>>,
) -> Result<Vec<u8>> {
    let options = RewriteOptions { requantize: true, calibration, ..RewriteOptions::default() };
    let mut rewriter = Rewriter::new(source.header(), outline.clone(), plan, options, Vec::new())?;
    source.stream(&mut rewriter, |_, _| ())?;
    Ok(rewriter.finish()?.0)
}

pub(super) fn loaded(bytes: &[u8]) -> Result<Loaded> {
    let mut loader = Loader::new(LoadOptions::default(), Some(bytes.len() as u64))?;
    loader.push(bytes)?;
    loader.finish()
}

/// The logits of each token or image.
pub(super) fn outputs(model: &mut Loaded, data: &Data, limit: (usize, usize)) -> Result<Vec<Vec<f32>>> {
    let mut rows = Vec::new();
    match model {
        Loaded::Text(model) => {
            let mut tokens = model.tokenize(&data.text, false, false)?;
            tokens.truncate(limit.0);
            let n_chunk = model.info().context_length.min(CHUNK).saturating_sub(1).max(1);
            for piece in tokens.chunks(n_chunk) {
                let tokens: Vec<u32> =
                    model.tokenizer().bos().into_iter().chain(piece.iter().copied()).collect();
                rows.extend(model.logits(&tokens, tokens.len())?);
            }
        }
        Loaded::Vision(model) => {
            let n_class = model.info().n_output;
            for (rgb, width, height) in data.images.iter().take(limit.1) {
                let view = PixelView::new(rgb, *width, *height, 3)?;
                let mut row = vec![0f32; n_class];
                for class in model.classify(&view, n_class)? {
                    row[class.index] = class.logit;
                }
                rows.push(row);
            }
        }
        _ => {
            let rule = "only language models and image classifiers can be calibrated";
            return Err(Error::new(Code::UnsupportedArch, rule));
        }
    }
    if rows.is_empty() {
        return Err(
            Error::new(Code::BadArgument, "no data of the kind that the model takes").key("calibrate")
        );
    }
    Ok(rows)
}

/// Mean divergence of distributions in nats, and the share that has the same largest entry.
pub(super) fn divergence(reference: &[Vec<f32>], other: &[Vec<f32>]) -> (Vec<f64>, f64) {
    let ln_softmax = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
        let sum: f64 = row.iter().map(|&v| libm::exp(f64::from(v - max))).sum();
        row.iter().map(|&v| f64::from(v - max) - libm::log(sum)).collect()
    };
    let top = |row: &[f32]| (1..row.len()).fold(0, |top, i| if row[i] > row[top] { i } else { top });
    let mut same = 0;
    let each: Vec<f64> = reference
        .iter()
        .zip(other)
        .map(|(a, b)| {
            same += usize::from(top(a) == top(b));
            let (p, q) = (ln_softmax(a), ln_softmax(b));
            p.iter().zip(&q).map(|(p, q)| libm::exp(*p) * (p - q)).sum::<f64>().max(0.0)
        })
        .collect();
    let share = same as f64 / each.len().max(1) as f64;
    (each, share)
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// A model that has been run on data.
pub(super) struct Calibrated {
    /// What it has been run on.
    pub(super) data: Data,
    pub(super) statistics: Statistics,
    /// Where types are to be chosen.
    pub(super) probe: Option<Probe>,
    /// Whether its layers can be rounded one after the other.
    pub(super) is_layered: bool,
}

/// What is kept of a model's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Squares of each channel.
    Squares,
    /// And products of all pairs, for GPTQ.
    Pairs,
    /// The same of models that [`sequential`] does not round: it gathers what it needs by itself.
    PairsUnlessLayered,
}

/// Runs the model as it is, and keeps what goes into its matrices; with `has_types` nothing that only the choice of types
/// asks for.
///
/// # Errors
/// What keeps it from running.
pub(super) fn run(
    source: &Source,
    outline: &Outline,
    data: Data,
    keep: Keep,
    has_types: bool,
) -> Result<Calibrated> {
    let bytes = rewritten(source, outline, &as_is(source)?, None)?;
    let mut model = loaded(&bytes)?;
    drop(bytes);
    let statistics = Rc::new(RefCell::new(Statistics::new(keep != Keep::Squares)));
    let is_layered = sequential::can_run(&mut model);
    if keep != Keep::PairsUnlessLayered || !is_layered {
        let watcher = Rc::clone(&statistics);
        let observer = Box::new(move |name: &str, k: usize, x: &[f32]| watcher.borrow_mut().add(name, k, x));
        observe::watch(observer, || outputs(&mut model, &data, (usize::MAX, usize::MAX)))?;
    }
    let probe = if has_types { None } else { Some(Probe::of(&mut model, data.probe()?)?) };
    let mut statistics = statistics.take();
    statistics.finish();
    if matches!(model, Loaded::Vision(_)) {
        statistics.set_few();
    }
    Ok(Calibrated { data, statistics, probe, is_layered })
}

/// Runs two files on the same data, and says how far each matrix's input has moved, and the output.
///
/// # Errors
/// What keeps them from running.
pub(super) fn compare(a: &Source, b: &Source, data: &Data) -> Result<Drift> {
    let limit = (PROBE.0, 16);
    let kept: Rc<RefCell<Vec<Input>>> = Rc::default();
    let (writer, mut first) = (Rc::clone(&kept), loaded(&rewritten(a, &a.outline()?, &as_is(a)?, None)?)?);
    let observer =
        Box::new(move |name: &str, _: usize, x: &[f32]| writer.borrow_mut().push((name.into(), x.to_vec())));
    let reference = observe::watch(observer, || outputs(&mut first, data, limit))?;
    drop(first);
    let kept = kept.take();
    let moved: Rc<RefCell<Vec<(String, f64, f64)>>> = Rc::default();
    let (writer, mut at) = (Rc::clone(&moved), 0);
    let mut second = loaded(&rewritten(b, &b.outline()?, &as_is(b)?, None)?)?;
    let observer = Box::new(move |name: &str, _: usize, x: &[f32]| {
        if let Some((_, before)) = kept.get(at).filter(|(n, before)| n == name && before.len() == x.len()) {
            let power: f64 = before.iter().map(|v| f64::from(*v).powi(2)).sum();
            let error: f64 = before.iter().zip(x).map(|(p, q)| f64::from(p - q).powi(2)).sum();
            let mut moved = writer.borrow_mut();
            match moved.iter_mut().find(|(n, ..)| n == name) {
                Some(entry) => (entry.1, entry.2) = (entry.1 + power, entry.2 + error),
                None => moved.push((name.into(), power, error)),
            }
        }
        at += 1;
    });
    let other = observe::watch(observer, || outputs(&mut second, data, limit))?;
    if reference.len() != other.len() || reference[0].len() != other[0].len() {
        let rule = "the two files are not of one model: their outputs differ in number";
        return Err(Error::new(Code::BadArgument, rule).key("against"));
    }
    let (divergence, same_top) = divergence(&reference, &other);
    let layers = moved.take().into_iter().map(|(name, power, error)| {
        let relative = if power > 0.0 { libm::sqrt(error / power) } else { 0.0 };
        (name, relative)
    });
    Ok(Drift { layers: layers.collect(), mean_divergence: mean(&divergence), divergence, same_top })
}

/// How far two precisions of a model are apart on some data.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drift {
    /// For each matrix, how far its input has moved, as a share of its size.
    pub(super) layers: Vec<(String, f64)>,
    /// Mean divergence of the output, in nats.
    pub(super) mean_divergence: f64,
    /// Of each token or image.
    pub(super) divergence: Vec<f64>,
    /// Share of tokens or images with the same likeliest answer.
    pub(super) same_top: f64,
}

/// The name of a matrix and what it was multiplied with.
type Input = (String, Vec<f32>);

/// Every tensor in the type that it has.
pub(super) fn as_is(source: &Source) -> Result<Plan> {
    let outline = source.outline()?;
    let planned = outline.tensors.iter().map(|t| Planned {
        name: t.name.clone(),
        dtype: source.header().tensors[t.source].dtype.name().into(),
        note: None,
    });
    let tensors = planned.zip(&outline.tensors).filter(|(_, t)| t.matrix().is_some()).map(|(p, _)| p);
    Ok(Plan { tensors: tensors.collect(), ..Plan::default() })
}

/// Reads an importance matrix that fits a model.
///
/// # Errors
/// [`Code::ImatrixMismatch`], and what cannot be read.
pub(super) fn read_imatrix(path: &Path, outline: &Outline) -> Result<Statistics> {
    let bytes = open::read_bytes(path, 1 << 30)?;
    let mut statistics = Statistics::from_bytes(&bytes).map_err(|e| open::in_file(path, e))?;
    statistics.check(outline).map_err(|e| open::in_file(path, e))?;
    Ok(statistics)
}
