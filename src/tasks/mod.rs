//! What callers do: load a model, generate text, classify images.

mod chat;
pub mod convert;
mod embed;
mod experts;
mod generate;
mod loader;
mod memory;
pub(crate) mod opening;
pub mod sampler;
mod score;
mod session;
mod speculate;
mod stop;
mod text;
mod vision;

pub use chat::{ChatFormat, ChatPrompt, ChatRequest};
pub use embed::{EmbedOptions, Embedder, EncoderModel};
pub use generate::{GenerateOptions, Generation, MAX_LOGPROBS, Reason, Scored, Step, StepLogprobs};
pub use loader::{IMAGE_VERSION, LoadOptions, LoadProgress, Loaded, Loader};
pub use score::{Divergence, Score, ScoreOptions, Scoring};
pub use speculate::Speculation;
pub use text::TextModel;
pub use vision::{AttentionOptions, Class, VisionModel, ZeroShotOptions, similarity};

use crate::image::{Fit, Preprocess};
use crate::kernels::{backend_name, backend_reason, pool};
use crate::layers::Mode;
use serde::Serialize;
use std::collections::BTreeMap;

/// Facts about a loaded model.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    /// `"text"`, `"encoder"` or `"vision"`.
    pub kind: &'static str,
    /// As `general.architecture` says, or as the tensors show.
    pub architecture: String,
    /// `general.name`, where the file has it.
    pub name: Option<String>,
    /// Weights, counted in elements.
    pub parameters: u64,
    /// Bits that a weight takes in memory, on average over all tensors.
    pub bits_per_weight: f64,
    /// Bytes of all weights in memory, in kernel order.
    pub weight_bytes: u64,
    /// Tokens that prompt and answer may have together; 0 for vision models.
    pub context_length: usize,
    /// How keys and values are held, such as `"F16"`; empty for models that keep none.
    pub kv_type: &'static str,
    /// Bytes of the key-value cache.
    pub kv_bytes: u64,
    /// Side of the square input in pixels; 0 for text models.
    pub image_size: usize,
    /// How a vision model's pictures are brought to that size.
    pub resizing: Option<Resizing>,
    /// Names of the classes of vision models, where they are known.
    pub labels: Vec<String>,
    /// Layers of a vision model whose attention can be shown, and the heads of each; 0 where there is none.
    pub n_layer: usize,
    /// See `n_layer`.
    pub n_head: usize,
    /// Whether a vision model compares pictures with texts, and has the tokenizer that this takes.
    pub reads_texts: bool,
    /// Where the template of conversations comes from: `"model"` or `"chatml (the file has none)"`. `None` for
    /// vision models.
    pub chat_template: Option<&'static str>,
    /// Classes or tokens that the output has; of encoders, the length of a vector.
    pub n_output: usize,
    /// How encoders make one vector of a text's: `"mean"`, `"cls"`, `"last"`, `"rank"` or `"none"`.
    pub pooling: Option<&'static str>,
    /// What computes.
    pub backend: Backend,
    /// How the matrices of each of the file's tensor types are held in memory.
    pub formats: BTreeMap<&'static str, String>,
    /// What a user should know: tensors that were ignored or kept in another type.
    pub notes: Vec<String>,
}

/// How pictures are brought to a model's size: resized, then cut to a square around the centre.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resizing {
    /// Pixels of the short side, or of both, after resizing.
    pub resize: usize,
    /// Whether both sides become that, whatever their ratio.
    pub stretch: bool,
    /// Side of the square.
    pub crop: usize,
    /// How far the filter reaches to either side of a pixel's centre: in pixels of the picture where it is enlarged, of the result
    /// where it is reduced.
    pub support: f64,
}

impl Resizing {
    fn of(recipe: &Preprocess) -> Self {
        Resizing {
            resize: recipe.resize,
            stretch: recipe.fit == Fit::Stretch,
            crop: recipe.crop,
            support: recipe.resample.support(),
        }
    }
}

/// What computes.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// Instruction set, such as `"simd128"`.
    pub isa: &'static str,
    /// How products are formed.
    pub kernel: String,
    /// Why so, for people.
    pub kernel_reason: &'static str,
    /// Threads.
    pub threads: usize,
}

impl Backend {
    /// What computes from now on: the choice of paths can be made anew at any time.
    fn in_force(mode: Mode) -> Self {
        let (isa, kernel) = backend_name();
        let (kernel, kernel_reason) = match mode {
            Mode::Int8 => (kernel, backend_reason()),
            Mode::Float => ("float reference".into(), "asked for"),
        };
        Backend { isa, kernel, kernel_reason, threads: pool::threads() }
    }
}

impl ModelInfo {
    /// These facts with the [`Backend`] of this moment.
    fn with_backend(&self, mode: Mode) -> Self {
        ModelInfo { backend: Backend::in_force(mode), ..self.clone() }
    }
}
