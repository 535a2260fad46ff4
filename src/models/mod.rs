//! Architectures: one file each, reading as the published forward pass.
//!
//! To add one: its file, its row in [`TEXT`], [`ENCODERS`] or [`vision::FAMILIES`], a golden.

mod adapter;
mod block;
mod builder;
pub mod config;
mod context;
mod decoder;
pub mod encoder;
pub mod hparams;
pub mod names;
mod weights;

pub mod arcee;
pub mod bert;
pub mod bitnet;
pub mod cohere2;
pub mod command_r;
pub mod ernie4_5;
pub mod exaone4;
pub mod falcon;
pub mod gemma;
pub mod gemma2;
pub mod gemma3;
pub mod gemma_embedding;
pub mod glm4;
pub mod gpt2;
pub mod gptneox;
pub mod granite;
pub mod granitemoe;
pub mod hunyuan_dense;
pub mod lfm2;
pub mod llama;
pub mod mamba2;
pub mod minicpm;
pub mod modern_bert;
pub mod nemotron;
pub mod nomic_bert;
pub mod olmo;
pub mod olmo2;
pub mod olmoe;
pub mod orion;
pub mod phi2;
pub mod phi3;
pub mod qcnn;
pub mod qwen2;
pub mod qwen2moe;
pub mod qwen3;
pub mod qwen3moe;
pub mod rwkv7;
pub mod smollm3;
pub mod stablelm;
pub mod starcoder2;
pub mod vision;

pub use adapter::{Adapter, is_adapter};
pub use block::{Block, FeedForward, Memory, Parallel, PostNorm, PreNorm, Sandwich};
pub use builder::{Builder, NormKind};
pub use context::{Context, ContextParams, KvContext};
pub use decoder::Decoder;
pub use encoder::{Encoder, Pooling};
pub use weights::{Filters, Tensor, Weights};

use crate::container::{ContainerKind, Header, Metadata};
use crate::error::{Code, Error, Result};
use crate::layers::Mode;

/// A decoder that turns tokens into logits.
pub trait LanguageModel {
    /// Its dimensions.
    fn config(&self) -> &TextConfig;

    /// The longest context in which it computes as it was first trained; in longer ones positions
    /// are stretched for all tokens, from the first on.
    fn n_ctx_unstretched(&self) -> usize {
        usize::MAX
    }

    /// An empty context.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    fn new_context(&self, params: &ContextParams) -> Result<Box<dyn Context>>;

    /// Forgets the `n` tokens from position `from` on; those after them move up, their keys turned back to their
    /// new positions (what they remember of the forgotten ones stays). Whether that can be done with this
    /// model; if not, nothing changes.
    fn shift(&mut self, _context: &mut dyn Context, _from: usize, _n: usize) -> bool {
        false
    }

    /// Appends `tokens` to the context and gives their vectors before the output product, `[n_tokens, n_embd]`.
    fn hidden(&mut self, context: &mut dyn Context, tokens: &[u32], mode: Mode) -> &[f32];

    /// Appends `tokens` to the context and writes the logits of the last `n_out` of them to
    /// `logits`, `[n_out, n_vocab]`. Token ids are below `n_vocab` and fit the context.
    fn forward(
        &mut self,
        context: &mut dyn Context,
        tokens: &[u32],
        n_out: usize,
        mode: Mode,
        logits: &mut Vec<f32>,
    ) {
        while !self.forward_part(context, tokens, n_out, mode, logits) {}
    }

    /// As [`Self::forward`], of which each call does a part; whether that was the last. Until then all arguments
    /// stay the same and nothing else is computed with the model. Who stops earlier truncates the context, at
    /// whatever length.
    fn forward_part(
        &mut self,
        context: &mut dyn Context,
        tokens: &[u32],
        n_out: usize,
        mode: Mode,
        logits: &mut Vec<f32>,
    ) -> bool;
}

/// What callers need to know of a language model.
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Width of the feed-forward layers.
    pub n_ff: usize,
    /// Tokens in the vocabulary.
    pub n_vocab: usize,
    /// Context length in training; `usize::MAX` where the memory does not grow with the context.
    pub n_ctx_train: usize,
}

/// Builds a language model from metadata and weights.
pub type BuildText = fn(&Metadata, &str, &mut Weights) -> Result<Box<dyn LanguageModel>>;

/// The language-model architectures, by `general.architecture`.
#[rustfmt::skip] // one row each
pub const TEXT: &[(&str, BuildText)] = &[
    ("arcee", arcee::build),
    ("bitnet", bitnet::build),
    ("cohere2", cohere2::build),
    ("command-r", command_r::build),
    ("ernie4_5", ernie4_5::build),
    ("exaone", qwen2::build),
    ("exaone4", exaone4::build),
    ("falcon", falcon::build),
    ("gemma", gemma::build),
    ("gemma2", gemma2::build),
    ("gemma3", gemma3::build),
    ("glm4", glm4::build),
    ("gpt2", gpt2::build),
    ("gptneox", gptneox::build),
    ("granite", granite::build),
    ("granitemoe", granitemoe::build),
    ("hunyuan-dense", hunyuan_dense::build),
    ("internlm2", llama::build),
    ("lfm2", lfm2::build),
    ("llama", llama::build),
    ("mamba2", mamba2::build),
    ("minicpm", minicpm::build),
    ("nemotron", nemotron::build),
    ("olmo", olmo::build),
    ("olmo2", olmo2::build),
    ("olmoe", olmoe::build),
    ("orion", orion::build),
    ("phi2", phi2::build),
    ("phi3", phi3::build),
    ("qwen2", qwen2::build),
    ("qwen2moe", qwen2moe::build),
    ("qwen3", qwen3::build),
    ("qwen3moe", qwen3moe::build),
    ("rwkv7", rwkv7::build),
    ("smollm3", smollm3::build),
    ("stablelm", stablelm::build),
    ("starcoder", gpt2::build),
    ("starcoder2", starcoder2::build),
];

/// Builds an encoder from metadata and weights.
pub type BuildEncoder = fn(&Metadata, &str, &mut Weights) -> Result<Encoder>;

/// The architectures that make vectors of texts and write none, by `general.architecture`.
pub const ENCODERS: &[(&str, BuildEncoder)] = &[
    ("bert", bert::build),
    ("gemma-embedding", gemma_embedding::build),
    ("modern-bert", modern_bert::build),
    ("nomic-bert", nomic_bert::build),
];

/// What a file holds.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// A language model and its builder.
    Text(BuildText),
    /// An encoder of texts and its builder.
    Encoder(BuildEncoder),
    /// A vision model.
    Vision(&'static vision::VisionFamily),
}

/// Decides from the header, and from a `config.json` where one is given, what a file holds, and gives the
/// architecture's name.
///
/// # Errors
/// [`Code::UnsupportedArch`] listing the known architectures.
pub fn identify(header: &Header, config: Option<&vision::Config>) -> Result<(Family, String)> {
    let unknown = |found: String| {
        let texts = TEXT.iter().map(|(name, _)| *name).chain(ENCODERS.iter().map(|(name, _)| *name));
        let known: Vec<_> = texts.chain(vision::FAMILIES.iter().map(|f| f.name)).collect();
        Error::new(Code::UnsupportedArch, format!("{found}; supported: {}", known.join(", ")))
    };
    let tensors = || header.tensors.iter().map(|t| t.name.as_str()).collect::<Vec<_>>();
    if header.kind == ContainerKind::Safetensors {
        return match vision::find(config, &tensors()) {
            Some(family) => Ok((Family::Vision(family), family.name.into())),
            None => Err(unknown(match config.and_then(vision::Config::model_type) {
                Some(name) => format!("model type {:?} is not supported", short(name)),
                None => "the tensor names are of no known model".into(),
            })),
        };
    }
    let key = "general.architecture";
    let name = header.metadata.str(key).map_err(|e| unknown(e.message).key(key))?;
    let name = name.ok_or_else(|| unknown("the file names no architecture".into()).key(key))?;
    if let Some(family) = vision::by_name(name, &tensors()) {
        return Ok((Family::Vision(family), family.name.into()));
    }
    if let Some((_, build)) = ENCODERS.iter().find(|(known, _)| *known == name) {
        return Ok((Family::Encoder(*build), name.into()));
    }
    match TEXT.iter().find(|(known, _)| *known == name) {
        Some((_, build)) => Ok((Family::Text(*build), name.into())),
        None => Err(unknown(format!("architecture {:?} is not supported", short(name))).key(key)),
    }
}

/// The beginning of a name from a file.
fn short(name: &str) -> String {
    name.chars().take(64).collect()
}
