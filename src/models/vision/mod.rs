//! Vision architectures: a file each over shared layers, and a row each in [`FAMILIES`].
//!
//! Which family a file is follows from its `config.json`, from GGUF's `general.architecture`, or from the names
//! of its tensors. Whatever a config does not say follows from the shapes.

pub mod beit;
mod block;
pub mod clip;
mod cnn;
pub mod config;
pub mod dinov2;
pub mod dinov3;
pub mod eva;
pub mod names;
mod patches;
mod pool;
pub mod swin;
mod text_tower;
mod tower;
pub mod vit;

pub use block::{EncoderBlock, EncoderSpec, Half};
pub use config::Config;
pub use pool::Pool;
pub use tower::{Tap, Tower, TowerSpec};

use super::Weights;
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::layers::Mode;

/// A normalised picture, `[3, height, width]`.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    /// The values, channels outermost, rows top to bottom.
    pub pixels: &'a [f32],
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
}

/// What a pass is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// `[n_class]`.
    Logits,
    /// One vector of the whole picture, `[n_embd]`: what the last layer reads, or for models of pictures and
    /// texts the vector that is compared with a text's.
    Pooled,
    /// A vector for each patch (or place of the last feature map), `[n_row, n_col, n_embd]`.
    Patches,
    /// How much the picture's vector attends to each patch, `[n_row, n_col]`.
    Attention(AttentionMap),
}

/// Which attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionMap {
    /// That of one layer: of one head, or the mean of all.
    Layer {
        /// The layer.
        layer: usize,
        /// The head.
        head: Option<usize>,
    },
    /// Of all layers together, residuals counted as attention to oneself (Abnar and Zuidema 2020, section 3).
    Rollout,
}

/// Values with their shape, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub values: Vec<f32>,
}

/// What callers need to know of a vision model.
#[derive(Clone, Debug, Default)]
pub struct VisionInfo {
    /// Side of the square input for which it was made, pixels.
    pub image_size: usize,
    /// Sides of the input are multiples of this.
    pub stride: usize,
    /// Whether it takes other sizes than its own.
    pub any_size: bool,
    /// Length of [`Output::Pooled`].
    pub n_embd: usize,
    /// Classes; 0 where there is no classification head.
    pub n_class: usize,
    /// Layers whose attention can be shown, and the heads of each; 0 where there is none.
    pub n_layer: usize,
    /// See `n_layer`.
    pub n_head: usize,
    /// Mean and standard deviation of the pixels that it was made for (values in 0 ..= 1, three channels each),
    /// where that follows from its weights.
    pub normalization: Option<[[f32; 3]; 2]>,
    /// Class names, where the file or its config has them.
    pub labels: Vec<String>,
}

/// A vision model.
pub trait VisionArch {
    /// What it is.
    fn info(&self) -> &VisionInfo;

    /// One output of one picture, whose shape [`VisionInfo::accepts`].
    ///
    /// # Errors
    /// [`Code::BadArgument`] for an output that the model does not have; [`Code::OutOfMemory`].
    fn run(&mut self, picture: Picture, output: Output, mode: Mode) -> Result<Values>;

    /// Its trunk, where that is a [`Tower`] and the only one.
    fn trunk(&mut self) -> Option<&mut Tower> {
        None
    }

    /// How many of the first tokens are all that its heads read of the trunk, where that is so.
    fn n_read(&self) -> Option<usize> {
        None
    }

    /// Its text tower, where it has one.
    fn text(&mut self) -> Option<&mut dyn TextTower> {
        None
    }
}

/// The half of a model that reads texts into the space of pictures.
pub trait TextTower {
    /// Tokens that a text can have, special ones included.
    fn n_ctx(&self) -> usize;

    /// Rows of its token embedding.
    fn n_vocab(&self) -> usize;

    /// The vector `[n_embd]` of a text, not normalised. Between 1 and `n_ctx` tokens, each below `n_vocab`.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    fn embed(&mut self, tokens: &[u32], mode: Mode) -> Result<Vec<f32>>;

    /// What becomes of similarities: scores are `scale * cosine + bias`.
    fn scale_and_bias(&self) -> (f32, f32);

    /// Whether scores are probabilities each by itself (by the logistic function, SigLIP), or together (CLIP).
    fn is_sigmoid(&self) -> bool;
}

/// How a tensor is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix that is multiplied; rank 4 is flattened to `[n, rest]`.
    Matrix,
    /// The same, with at least 8 bits unless an override asks for fewer.
    Outer,
    /// As `Matrix`, for layers that take rows with zeros at their end where blocks do not divide them.
    Filter,
    /// As `Filter`, with at least 8 bits.
    OuterFilter,
    /// Values of f32, whatever the rank.
    Table,
    /// Filters of one channel each, `[n, 1, rows, columns]`: values of f32, or where weights are quantized codes of 8
    /// bits with a scale per filter.
    Depthwise,
    /// Integers, as they are.
    Raw,
}

/// What a family is built from.
pub struct Source<'a> {
    /// What is known of it.
    pub config: &'a Config,
    /// The metadata of its file.
    pub metadata: &'a Metadata,
    /// Its tensors, under canonical names.
    pub weights: &'a mut Weights,
}

/// Whether a file has a tensor of that canonical name.
pub type Has<'a> = &'a dyn Fn(&str) -> bool;

/// A family of vision models.
#[derive(Debug)]
pub struct VisionFamily {
    /// As `general.architecture` of a GGUF file says, and as `info` shows.
    pub name: &'static str,
    /// Hugging Face's `model_type`s, and how timm's names of architectures begin.
    pub model_types: &'static [&'static str],
    /// Whether a file without a config is one, by its canonical names. Asked in the order of [`FAMILIES`].
    pub is_it: fn(Has) -> bool,
    /// The canonical name of a tensor.
    pub canonical: fn(&str) -> String,
    /// How a tensor is kept, by its canonical name and shape.
    pub role: fn(&str, &[usize]) -> Role,
    /// Builds the model.
    pub build: fn(Source) -> Result<Box<dyn VisionArch>>,
}

/// The families. Those that are told by what they have come before those told by what they lack.
#[rustfmt::skip] // one row each
pub const FAMILIES: &[VisionFamily] = &[
    cnn::QCNN,
    cnn::MOBILEVIT,
    cnn::CONVNEXT,
    cnn::RESNET,
    cnn::MOBILENET_V1,
    cnn::MOBILENET_V2,
    cnn::MOBILENET_V3,
    cnn::EFFICIENTNET,
    clip::SIGLIP,
    clip::CLIP,
    swin::FAMILY,
    beit::FAMILY,
    dinov3::FAMILY,
    dinov2::FAMILY,
    eva::FAMILY,
    vit::FAMILY,
];

/// The family of that name, for GGUF files. Those of llama.cpp's converters are all "clip": the class token tells
/// CLIP from SigLIP.
pub fn by_name(name: &str, tensors: &[&str]) -> Option<&'static VisionFamily> {
    let name = match name {
        "clip" if tensors.iter().any(|t| names::transformer(t) == "cls_token") => "clip",
        "clip" => "siglip",
        other => other,
    };
    FAMILIES.iter().find(|f| f.name == name)
}

/// The family that a config names, or that tensors show.
pub fn find(config: Option<&Config>, tensors: &[&str]) -> Option<&'static VisionFamily> {
    if let Some(name) = config.and_then(|config| config.str("model_type")) {
        return FAMILIES.iter().find(|family| family.model_types.contains(&name));
    }
    let named = config.and_then(Config::model_type).and_then(by_timm_name);
    named.or_else(|| {
        FAMILIES.iter().find(|family| {
            let names: std::collections::BTreeSet<String> =
                tensors.iter().map(|name| (family.canonical)(name)).collect();
            (family.is_it)(&|name| names.contains(name))
        })
    })
}

/// The family whose name of an architecture in timm goes on with a size: `resnet50`, `swin_tiny`, but not
/// `swinv2_tiny`. What is called `vit_` there can be of any family.
fn by_timm_name(name: &str) -> Option<&'static VisionFamily> {
    let goes_on = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphabetic());
    let fits = |known: &str| name.strip_prefix(known).is_some_and(goes_on);
    let length = |f: &VisionFamily| {
        f.model_types.iter().filter(|known| fits(known)).map(|known| known.len()).max().unwrap_or(0)
    };
    let best = FAMILIES.iter().filter(|_| !name.starts_with("vit_")).max_by_key(|f| length(f))?;
    (length(best) > 0).then_some(best)
}

/// How a transformer's tensors are kept.
pub fn transformer_role(canonical: &str, _shape: &[usize]) -> Role {
    if names::is_table(canonical) {
        Role::Table
    } else if names::is_outer(canonical) {
        Role::Outer
    } else {
        Role::Matrix
    }
}

impl VisionInfo {
    /// Checks the size of a picture.
    ///
    /// # Errors
    /// [`Code::BadArgument`].
    pub fn accepts(&self, height: usize, width: usize) -> Result<()> {
        let size = self.image_size;
        if (height, width) == (size, size) {
            return Ok(());
        }
        let bad = |rule: String| Err(Error::new(Code::BadArgument, rule).key("shape"));
        if !self.any_size {
            return bad(format!("{height} x {width} pixels, expected {size} x {size}"));
        }
        let fits = |side: usize| side > 0 && side <= MAX_SIDE && side.is_multiple_of(self.stride.max(1));
        if !fits(height) || !fits(width) {
            let stride = self.stride;
            return bad(format!(
                "{height} x {width} pixels, expected multiples of {stride} up to {MAX_SIDE}"
            ));
        }
        Ok(())
    }

    /// The error for an output that the model has not.
    pub fn lacks(&self, what: &str) -> Error {
        Error::new(Code::BadArgument, format!("the model has no {what}")).key("output")
    }
}

/// Longest side of a model's input, pixels.
pub const MAX_SIDE: usize = 4096;
