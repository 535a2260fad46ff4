//! From file bytes to a model, tensor by tensor while they arrive.

mod collect;
mod image;
mod overrides;

pub use image::IMAGE_VERSION;

use super::memory::KvNeeds;
use super::{EncoderModel, ModelInfo, TextModel, VisionModel};
use crate::container::Header;
use crate::container::joining::Shards;
use crate::container::shards::ShardIndex;
use crate::error::{Code, Error, Result};
use crate::kernels::attention::KvType;
use crate::layers::Mode;
use crate::models::vision::{Config, Source};
use crate::models::{Adapter, Family, Weights, is_adapter};
use crate::quantizer::writable;
use crate::tokenizer::Tokenizer;
use collect::Collect;
use overrides::Override;
use serde::{Deserialize, Serialize};

/// How to load. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadOptions {
    /// Quantize float weights to this type as they arrive, for example `"Q4_0"`.
    pub quantize: Option<String>,
    /// Tokens that prompt and answer may have together; by default 2048, or the model's own
    /// length where that is less (the one before its positions are stretched).
    pub context_length: Option<usize>,
    /// Type of the key-value cache: `"F32"`, `"F16"`, `"Q8_0"` or `"Q4_0"`; see [`KvType`]. By default
    /// `"F32"` where that takes at most 16 MiB, or with `reference`, and `"Q8_0"` otherwise.
    pub kv_type: Option<String>,
    /// Compute with float activations: slow, for reference.
    pub reference: bool,
    /// The `config.json` that came with a safetensors file, where there is one: of vision models it says what the
    /// tensors do not show.
    pub config: Option<String>,
    /// The `tokenizer.json` of a vision model that reads texts too (CLIP, SigLIP).
    pub tokenizer: Option<String>,
    /// The `preprocessor_config.json` that came with a vision model: how pictures are prepared.
    pub preprocessor: Option<String>,
    /// Other types for some float tensors than `quantize` or the file's own: `"PATTERN=TYPE"`, where `*` in the
    /// pattern stands for any text. The first that fits a tensor's name holds, also for the first and last layers
    /// of vision models, which otherwise keep at least 8 bits.
    pub overrides: Vec<String>,
    /// Bytes that the model may take; without one, what the allocator gives.
    pub memory_limit: Option<u64>,
}

/// Context length unless the caller or the model says otherwise.
pub(super) const DEFAULT_CONTEXT: usize = 2048;

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadProgress {
    /// Tensors packed.
    pub tensors_done: usize,
    /// Tensors in the file; 0 until the header is complete.
    pub tensors_total: usize,
    /// File bytes taken, of all files together.
    pub bytes: u64,
    /// Of the file that is being taken: its bytes so far.
    pub file_bytes: u64,
    /// Least number of bytes that it has, as its header says; 0 until that is complete.
    pub file_end: u64,
}

/// A loaded model.
pub enum Loaded {
    /// A language model.
    Text(Box<TextModel>),
    /// An encoder of texts.
    Encoder(Box<EncoderModel>),
    /// An image classifier.
    Vision(Box<VisionModel>),
}

/// Takes a model file's bytes in any portions and builds the model.
pub struct Loader {
    stream: super::opening::Opening,
    collect: Collect,
    adapters: Vec<(Adapter, f32)>,
    /// Bytes of the files before this one.
    bytes_before: u64,
    /// Whether the current file is complete.
    has_ended: bool,
}

impl Loader {
    /// A loader; `file_len` is the whole file's length where it is known for certain.
    ///
    /// # Errors
    /// [`Code::BadArgument`] naming the option.
    pub fn new(options: LoadOptions, file_len: Option<u64>) -> Result<Self> {
        let target = options.quantize.as_deref().map(|name| writable(name, "quantize")).transpose()?;
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        if options.context_length == Some(0) {
            return bad("contextLength", "must be at least 1".into());
        }
        options.kv_type.as_deref().map(KvType::from_name).transpose()?;
        let config = options.config.as_deref().map(Config::from_json).transpose()?;
        let overrides =
            options.overrides.iter().map(|given| Override::parse(given)).collect::<Result<_>>()?;
        Ok(Loader {
            stream: super::opening::Opening::new(file_len),
            collect: Collect { target, overrides, config, options, ..Collect::default() },
            adapters: Vec::new(),
            bytes_before: 0,
            has_ended: false,
        })
    }

    /// Declares that the model is in `n` files: the first begins with the next byte, each of the others
    /// with a call of [`Self::next_file`].
    pub fn expect_files(&mut self, n: usize) {
        self.collect.shards = Shards::of_files(n);
    }

    /// Declares that the model is in the files that an index lists, in the index's order.
    pub fn expect_index(&mut self, index: ShardIndex) {
        self.collect.shards = Shards::of_index(index);
    }

    /// Declares that the next byte is the first of the next file, whose length is given where it is certain.
    /// Of the first file it may be called, too.
    ///
    /// # Errors
    /// [`Code::Truncated`] where the file before it is not complete.
    pub fn next_file(&mut self, file_len: Option<u64>) -> Result<()> {
        if self.stream.received() > 0 || self.bytes_before > 0 {
            self.end_file()?;
        }
        self.bytes_before += self.stream.received();
        self.stream = super::opening::Opening::new(file_len);
        self.has_ended = false;
        Ok(())
    }

    /// Declares that no byte of the current file follows. The end of the model, or the next file, says it too.
    ///
    /// # Errors
    /// [`Code::Truncated`] where its header declares more bytes.
    pub fn end_file(&mut self) -> Result<()> {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.stream.finish(&mut self.collect)?;
        }
        Ok(())
    }

    /// Has the model changed by an adapter, `scale` times.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a scale that is not finite.
    pub fn adapt(&mut self, adapter: Adapter, scale: f32) -> Result<()> {
        if !scale.is_finite() {
            return Err(Error::new(Code::BadArgument, format!("{scale} is not finite")).key("scale"));
        }
        self.adapters.push((adapter, scale));
        Ok(())
    }

    /// Takes the next file bytes.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.push(bytes, &mut self.collect)
    }

    /// How far the load is.
    pub fn progress(&self) -> LoadProgress {
        let tensors_total = self.collect.header.as_ref().map_or(0, |h| h.tensors.len());
        let bytes = self.bytes_before + self.stream.received();
        LoadProgress {
            tensors_done: self.collect.n_done,
            tensors_total,
            bytes,
            file_bytes: self.stream.received(),
            file_end: self.stream.end_offset(),
        }
    }

    /// Builds the model after the last byte.
    ///
    /// # Errors
    /// What is missing or wrong in the file or the options.
    pub fn finish(mut self) -> Result<Loaded> {
        self.end_file()?;
        self.collect.check_complete()?;
        let Collect { header, family, mut weights, info, options, config, .. } = self.collect;
        let (Some(header), Some(family)) = (header, family) else {
            return Err(Error::new(Code::Truncated, "the file ends before its header"));
        };
        if is_adapter(&header.metadata) {
            let rule = "the file is an adapter: load the model that it belongs to, and give it as `lora`";
            return Err(Error::new(Code::UnsupportedArch, rule).key("general.type"));
        }
        for (adapter, scale) in self.adapters {
            adapter.attach(scale, &info.architecture, &mut weights)?;
        }
        let mode = if options.reference { Mode::Float } else { Mode::Int8 };
        let mut info = info;
        info.bits_per_weight = info.weight_bytes as f64 * 8.0 / info.parameters.max(1) as f64;
        info.name = header.metadata.str("general.name").ok().flatten().map(String::from);
        let loaded = match family {
            Family::Text(build) => {
                let model = build(&header.metadata, &info.architecture, &mut weights)?;
                weights.check_adapters()?;
                note_unused(&weights, &mut info);
                let n_ctx = context_length(&options, model.config().n_ctx_train, model.n_ctx_unstretched())?;
                let kv = KvNeeds::of(&header.metadata, &info.architecture, &options);
                let kv_type = kv.kv_type(n_ctx as u64);
                Loaded::Text(Box::new(TextModel::new(model, &header.metadata, n_ctx, kv_type, mode, info)?))
            }
            Family::Encoder(build) => {
                let model = build(&header.metadata, &info.architecture, &mut weights)?;
                weights.check_adapters()?;
                note_unused(&weights, &mut info);
                let n_ctx = context_length(&options, model.config().n_ctx_train, usize::MAX)?;
                Loaded::Encoder(Box::new(EncoderModel::new(model, &header.metadata, n_ctx, mode, info)?))
            }
            Family::Vision(family) => {
                let config = match config {
                    Some(config) => config,
                    None => Config::from_metadata(&header.metadata, declared(&header, family.name))?,
                };
                weights.rename(family.canonical);
                let metadata = &header.metadata;
                let source = Source { config: &config, metadata, weights: &mut weights };
                let model = (family.build)(source)?;
                weights.check_adapters()?;
                note_unused(&weights, &mut info);
                let preprocessor = options.preprocessor.as_deref();
                let mut model = VisionModel::new(model, metadata, &config, preprocessor, mode, info)?;
                if let Some(json) = options.tokenizer.as_ref().filter(|_| model.has_text_tower()) {
                    model.set_tokenizer(Tokenizer::from_json(json.as_bytes())?)?;
                }
                Loaded::Vision(Box::new(model))
            }
        };
        Ok(loaded)
    }

    /// Builds an adapter after the last byte.
    ///
    /// # Errors
    /// What is missing or wrong in the file.
    pub fn finish_adapter(mut self) -> Result<Adapter> {
        self.end_file()?;
        self.collect.check_complete()?;
        let Collect { header, mut weights, .. } = self.collect;
        let header = header.ok_or_else(|| Error::new(Code::Truncated, "the file ends before its header"))?;
        Adapter::build(&header.metadata, &mut weights)
    }
}

fn note_unused(weights: &Weights, info: &mut ModelInfo) {
    info.notes.extend(weights.names().map(|name| format!("tensor {name:?} is not used")));
}

/// The architecture that a GGUF file names, and after which its keys are called.
fn declared<'a>(header: &'a Header, default: &'a str) -> &'a str {
    header.metadata.str("general.architecture").ok().flatten().unwrap_or(default)
}

/// The context asked for; by default one that is not long, nor more than `unstretched`.
fn context_length(options: &LoadOptions, trained: usize, unstretched: usize) -> Result<usize> {
    match options.context_length {
        Some(n) if n > trained => {
            let rule = format!("{n} is more than the {trained} tokens that the model was trained with");
            Err(Error::new(Code::BadArgument, rule).key("contextLength"))
        }
        Some(n) => Ok(n),
        None => Ok(trained.min(DEFAULT_CONTEXT).min(unstretched)),
    }
}
