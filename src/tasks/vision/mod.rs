//! A vision model with its preprocessing and labels.

mod preprocessing;
mod zero_shot;

pub use zero_shot::{ZeroShotOptions, similarity};

use super::{ModelInfo, Resizing};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::image::{PixelView, Preprocess, preprocess};
use crate::layers::Mode;
use crate::models::vision::{AttentionMap, Config, Output, Picture, Tap, Tower, Values, VisionArch};
use crate::tokenizer::Tokenizer;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One class of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// The class.
    pub index: usize,
    /// Its name, or its number where no names are known.
    pub label: String,
    /// Probability.
    pub score: f32,
    /// Before the softmax.
    pub logit: f32,
}

/// Which attention of a picture to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttentionOptions {
    /// The layer; by default that of all layers together (attention rollout).
    pub layer: Option<usize>,
    /// The head of that layer; by default the mean of all.
    pub head: Option<usize>,
}

impl AttentionOptions {
    fn map(self) -> Result<AttentionMap> {
        match (self.layer, self.head) {
            (Some(layer), head) => Ok(AttentionMap::Layer { layer, head }),
            (None, None) => Ok(AttentionMap::Rollout),
            (None, Some(_)) => Err(Error::new(Code::BadArgument, "a head needs its layer").key("head")),
        }
    }
}

/// A loaded vision model.
pub struct VisionModel {
    model: Box<dyn VisionArch>,
    preprocess: Preprocess,
    labels: Vec<String>,
    tokenizer: Option<Tokenizer>,
    /// Vectors of the texts that were compared last, of length 1.
    texts: BTreeMap<String, Vec<f32>>,
    mode: Mode,
    info: ModelInfo,
}

impl VisionModel {
    pub(super) fn new(
        model: Box<dyn VisionArch>,
        metadata: &Metadata,
        config: &Config,
        preprocessor: Option<&str>,
        mode: Mode,
        mut info: ModelInfo,
    ) -> Result<Self> {
        let facts = model.info();
        info.kind = "vision";
        info.image_size = facts.image_size;
        info.n_output = facts.n_class;
        (info.n_layer, info.n_head) = (facts.n_layer, facts.n_head);
        let preprocess = preprocessing::read(metadata, config, preprocessor, facts)?;
        info.resizing = Some(Resizing::of(&preprocess));
        let mut labels = facts.labels.clone();
        if !labels.is_empty() && labels.len() != facts.n_class {
            info.notes.push(format!("{} names for {} classes are not used", labels.len(), facts.n_class));
            labels.clear();
        }
        if labels.is_empty() {
            labels = imagenet_names(facts.n_class);
        }
        info.labels = labels.clone();
        let texts = BTreeMap::new();
        Ok(VisionModel { model, preprocess, labels, tokenizer: None, texts, mode, info })
    }

    /// Facts about the model; [`ModelInfo::backend`] is what computes at this moment.
    pub fn info(&self) -> ModelInfo {
        self.info.with_backend(self.mode)
    }

    /// Names of the classes; empty where none are known.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Sets the names of the classes.
    ///
    /// # Errors
    /// [`Code::BadArgument`] where their number is not the model's.
    pub fn set_labels(&mut self, labels: Vec<String>) -> Result<()> {
        if labels.len() != self.info.n_output {
            let rule = format!("{} labels for {} classes", labels.len(), self.info.n_output);
            return Err(Error::new(Code::BadArgument, rule).key("labels"));
        }
        self.info.labels = labels.clone();
        self.labels = labels;
        Ok(())
    }

    /// The `top_k` most probable classes of a picture, best first.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for `top_k` of 0; [`Code::NumericFault`].
    pub fn classify(&mut self, image: &PixelView, top_k: usize) -> Result<Vec<Class>> {
        if top_k == 0 {
            return Err(Error::new(Code::BadArgument, "must be at least 1").key("topK"));
        }
        let logits = self.show(image, Output::Logits)?.values;
        let mut classes = ranked(&logits, &softmax(&logits), &self.labels);
        classes.truncate(top_k);
        Ok(classes)
    }

    /// Logits of normalised pixels; `shape` is `[1, 3, height, width]` or `[3, height, width]`.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for another shape or a value that is not finite; [`Code::NumericFault`].
    pub fn logits(&mut self, pixels: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
        self.run(pixels, shape, Output::Logits).map(|out| out.values)
    }

    /// One output for normalised pixels; `shape` is `[1, 3, height, width]` or `[3, height, width]`.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for another shape, a value that is not finite, or an output that the model has not;
    /// [`Code::NumericFault`], [`Code::OutOfMemory`].
    pub fn run(&mut self, pixels: &[f32], shape: &[usize], output: Output) -> Result<Values> {
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        let inner = if let [1, inner @ ..] = shape { inner } else { shape };
        let &[3, height, width] = inner else {
            let size = self.info.image_size;
            return bad("shape", format!("{shape:?}, expected [1, 3, {size}, {size}]"));
        };
        self.model.info().accepts(height, width)?;
        if pixels.len() != 3 * height * width {
            return bad("pixels", format!("{} values for shape {shape:?}", pixels.len()));
        }
        if let Some(i) = pixels.iter().position(|p| !p.is_finite()) {
            return bad("pixels", format!("value {i} is {}", pixels[i]));
        }
        let out = self.model.run(Picture { pixels, height, width }, output, self.mode)?;
        if out.values.iter().any(|v| !v.is_finite()) {
            return Err(Error::new(Code::NumericFault, "the model computed NaN or infinity"));
        }
        Ok(out)
    }

    /// One output for a picture.
    fn show(&mut self, image: &PixelView, output: Output) -> Result<Values> {
        let size = self.preprocess.crop;
        let pixels = preprocess(image, &self.preprocess)?;
        self.run(&pixels, &[3, size, size], output)
    }

    /// Logits of a picture, and what each layer reads, for [`Self::logits_from`]; nothing where the layers cannot be run
    /// one by one.
    ///
    /// # Errors
    /// What preprocessing refuses; [`Code::NumericFault`].
    pub fn logits_and_inputs(&mut self, image: &PixelView) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
        if let Some(tower) = self.model.trunk() {
            tower.set_tap(Tap::Keep(Vec::new()));
        }
        let logits = self.show(image, Output::Logits);
        let kept = self.model.trunk().map(|tower| tower.set_tap(Tap::Off));
        let inputs = if let Some(Tap::Keep(inputs)) = kept { inputs } else { Vec::new() };
        Ok((logits?.values, inputs))
    }

    /// Its trunk, where layers can be run one by one.
    pub fn trunk(&mut self) -> Option<&mut Tower> {
        self.model.trunk()
    }

    /// How many of the first tokens are all that its heads read of the trunk, where that is so.
    pub fn n_read(&self) -> Option<usize> {
        self.model.n_read()
    }

    /// What the first layer of the trunk reads of a picture.
    ///
    /// # Errors
    /// What preprocessing refuses, and [`Code::BadArgument`] where layers cannot be run one by one.
    pub fn first_input(&mut self, image: &PixelView) -> Result<Vec<f32>> {
        let size = self.preprocess.crop;
        let pixels = preprocess(image, &self.preprocess)?;
        let Some(tower) = self.model.trunk() else { return Err(no_trunk()) };
        let picture = Picture { pixels: &pixels, height: size, width: size };
        Ok(tower.first_input(picture, self.mode)?.to_vec())
    }

    /// Logits of a picture of which layer `first` reads `input`, or what follows the last one; the layers before it are
    /// left out.
    ///
    /// # Errors
    /// As [`Self::logits_and_inputs`], and [`Code::BadArgument`] for a layer that is not there or an input that is not its
    /// own.
    pub fn logits_from(&mut self, image: &PixelView, first: usize, input: Vec<f32>) -> Result<Vec<f32>> {
        let Some(tower) = self.model.trunk() else { return Err(no_trunk()) };
        tower.set_tap(Tap::From(first, input));
        let logits = self.show(image, Output::Logits);
        self.model.trunk().map(|tower| tower.set_tap(Tap::Off));
        Ok(logits?.values)
    }

    /// The pooled feature vector of a picture.
    ///
    /// # Errors
    /// What preprocessing refuses; [`Code::NumericFault`].
    pub fn features(&mut self, image: &PixelView) -> Result<Vec<f32>> {
        self.show(image, Output::Pooled).map(|out| out.values)
    }

    /// The feature vectors of a picture's patches, `[n_row, n_col, n_embd]`.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn patches(&mut self, image: &PixelView) -> Result<Values> {
        self.show(image, Output::Patches)
    }

    /// How much the model attends to each patch of a picture, `[n_row, n_col]`: as its class token sees it, or for
    /// models without one the mean over all patches.
    ///
    /// # Errors
    /// As [`Self::features`], and [`Code::BadArgument`] for a layer or head that is not there, or a model in which
    /// no patch attends to all others.
    pub fn attention(&mut self, image: &PixelView, options: AttentionOptions) -> Result<Values> {
        self.show(image, Output::Attention(options.map()?))
    }
}

fn no_trunk() -> Error {
    Error::new(Code::BadArgument, "the layers of this model cannot be run one by one").key("first")
}

/// ImageNet-1k's classes, where a model has as many (or one more before them, "background", as in TensorFlow).
fn imagenet_names(n_class: usize) -> Vec<String> {
    let names = include_str!("imagenet.txt").lines().map(String::from);
    match n_class {
        1000 => names.collect(),
        1001 => std::iter::once("background".into()).chain(names).collect(),
        _ => Vec::new(),
    }
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    let weights: Vec<f32> = logits.iter().map(|&l| libm::expf(l - max)).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// All classes, best first.
fn ranked(logits: &[f32], scores: &[f32], labels: &[String]) -> Vec<Class> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let class = |index: usize| Class {
        index,
        label: labels.get(index).cloned().unwrap_or_else(|| format!("class {index}")),
        score: scores[index],
        logit: logits[index],
    };
    order.into_iter().map(class).collect()
}
