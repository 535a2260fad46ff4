//! From file bytes to a model, tensor by tensor while they arrive.

mod image;

pub use image::IMAGE_VERSION;

use super::experts::Experts;
use super::memory::{KvNeeds, Needs};
use super::{EncoderModel, ModelInfo, TextModel, VisionModel};
use crate::container::joining::Shards;
use crate::container::shards::ShardIndex;
use crate::container::stream::Sink;
use crate::container::{ContainerKind, Header, TensorInfo, safetensors};
use crate::error::{Code, Error, Result};
use crate::kernels::{self, attention::KvType};
use crate::layers::Mode;
use crate::models::vision::{Config, Role, Source};
use crate::models::{Adapter, Family, Filters, Tensor, Weights, identify, is_adapter};
use crate::quant::{DType, KernelForm, ROUNDED};
use crate::quantizer::policy::{
    self, at_least_8_bits, fitting, holds_no_weights, is_kept, matrix_shape, padding,
};
use crate::quantizer::{restore_shapes, writable};
use crate::repack::Packer;
use crate::tokenizer::Tokenizer;
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

/// A tensor type for the tensors whose names fit a pattern.
struct Override {
    pattern: String,
    dtype: DType,
}

impl Override {
    fn parse(given: &str) -> Result<Self> {
        let bad = |rule: String| Error::new(Code::BadArgument, rule).key("overrides");
        let (pattern, name) =
            given.rsplit_once('=').ok_or_else(|| bad(format!("{given:?} is not PATTERN=TYPE")))?;
        if pattern.is_empty() {
            return Err(bad(format!("{given:?} names no tensors")));
        }
        let dtype = writable(name, "overrides").map_err(|e| bad(e.message))?;
        Ok(Override { pattern: pattern.into(), dtype })
    }

    fn fits(&self, name: &str) -> bool {
        let mut parts = self.pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let parts: Vec<&str> = parts.collect();
        let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
        for part in middle {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
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

/// Receives tensors and keeps them in kernel order.
#[derive(Default)]
struct Collect {
    target: Option<DType>,
    overrides: Vec<Override>,
    config: Option<Config>,
    options: LoadOptions,
    shards: Shards,
    /// What the files so far hold together, with the metadata of the first.
    header: Option<Header>,
    /// Tensors of the files before the current one.
    n_before: usize,
    family: Option<Family>,
    weights: Weights,
    current: Option<Current>,
    n_done: usize,
    info: ModelInfo,
}

/// The tensor being received.
enum Current {
    Matrix(Box<Packer>),
    Experts(Box<Experts>),
    Values(Vec<u8>),
    Raw(Vec<u8>),
    /// As it will be held, of which the pieces are filled from elsewhere.
    Image(Tensor),
    Skipped,
}

impl Collect {
    fn tensor(&self, idx: usize) -> Result<&TensorInfo> {
        let missing = || Error::new(Code::BadOffset, "tensor data without a header");
        self.header.as_ref().and_then(|h| h.tensors.get(self.n_before + idx)).ok_or_else(missing)
    }

    /// Checks that no file is missing.
    fn check_complete(&self) -> Result<()> {
        match self.shards.is_last() {
            true => Ok(()),
            false => Err(Error::new(Code::ShardMismatch, "shards of the model are missing").key("source")),
        }
    }

    /// The type in which a matrix `[_, k]` is kept, and its k there: rows of filters are filled up with zeros
    /// where blocks do not divide them.
    fn kept_as(&self, tensor: &TensorInfo, target: Option<DType>, k: usize) -> Result<(DType, usize)> {
        let (format, codec) = tensor.dtype.codec()?;
        let is_float = matches!(codec.kernel, KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16);
        let role = self.role(tensor);
        let asked = self.overrides.iter().find(|o| is_float && o.fits(&tensor.name));
        let wanted = match target {
            _ if asked.is_some() => asked.map_or(tensor.dtype, |o| o.dtype),
            Some(target) if is_float && !is_kept(&tensor.name) => {
                let is_outer = matches!(role, Role::Outer | Role::OuterFilter);
                if is_outer { at_least_8_bits(target) } else { target }
            }
            // The reference mode computes with the values of the file, whatever they take.
            _ if self.options.reference && ROUNDED.contains(&tensor.dtype) => return Ok((DType::F32, k)),
            _ => return Ok((tensor.dtype, k)),
        };
        let kept = fitting(wanted, format, k);
        let is_filter = matches!(role, Role::Filter | Role::OuterFilter);
        Ok(padding(wanted, kept, k).filter(|_| is_filter).unwrap_or((kept, k)))
    }

    fn start(&mut self, idx: usize) -> Result<Current> {
        let tensor = self.tensor(idx)?;
        if self.is_raw(tensor) {
            return Ok(Current::Raw(Vec::new()));
        }
        if holds_no_weights(tensor.dtype) {
            return Ok(Current::Skipped);
        }
        let named = |e: Error| e.tensor(&tensor.name);
        let (_, codec) = tensor.dtype.codec().map_err(named)?;
        let Some((n_expert, n, k)) = self.as_matrix(tensor) else {
            return Ok(Current::Values(Vec::new()));
        };
        let is_float = matches!(codec.kernel, KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16);
        let asked = self.overrides.iter().find(|o| is_float && o.fits(&tensor.name));
        let (target, padded_k) = self.kept_as(tensor, self.target, k).map_err(named)?;
        let rounded = (target == tensor.dtype && ROUNDED.contains(&target))
            .then(|| format!("tensors of type {} are held as 8-bit codes, rounded", target.name()))
            .filter(|note| !self.info.notes.contains(note));
        let wanted = asked.map(|o| o.dtype).or(self.target);
        let note = (is_float && !is_kept(&tensor.name) && wanted.is_some_and(|t| t != target))
            .then(|| format!("tensor {:?} is kept as {}", tensor.name, target.name()));
        let held = target.held_as().unwrap_or_default();
        let held = if target == tensor.dtype { held } else { format!("{}: {held}", target.name()) };
        let dtype = tensor.dtype.name();
        let current = match n_expert {
            None => {
                let packer = Packer::padded(tensor.dtype, target, n, k, padded_k).map_err(named)?;
                kernels::hold(packer.packing());
                Current::Matrix(Box::new(packer))
            }
            Some(n_expert) => {
                let experts = Experts::new(tensor.dtype, target, n_expert, n, k).map_err(named)?;
                Current::Experts(Box::new(experts))
            }
        };
        self.info.notes.extend(note.into_iter().chain(rounded));
        self.info.formats.insert(dtype, held);
        Ok(current)
    }

    fn role(&self, tensor: &TensorInfo) -> Role {
        policy::role(self.family.as_ref(), &tensor.name, &tensor.shape)
    }

    /// Whether a tensor is kept as the bytes that it is.
    fn is_raw(&self, tensor: &TensorInfo) -> bool {
        self.role(tensor) == Role::Raw && [DType::I8, DType::I32].contains(&tensor.dtype)
    }

    /// Whether a depthwise convolution's filters are held as codes.
    fn is_rounded(&self, tensor: &TensorInfo) -> bool {
        let is_quantized = self.target.is_some_and(|t| at_least_8_bits(t) == DType::Q8_0);
        is_quantized && self.role(tensor) == Role::Depthwise
    }

    /// Number of experts, n and k of a tensor that is held as a matrix.
    fn as_matrix(&self, tensor: &TensorInfo) -> Option<(Option<usize>, usize, usize)> {
        matrix_shape(tensor).filter(|_| !matches!(self.role(tensor), Role::Table | Role::Depthwise))
    }

    /// Bytes in memory of the weights of all files so far, if float ones are quantized to `target`.
    fn weight_bytes(&self, header: &Header, target: Option<DType>) -> u64 {
        let bytes = |tensor: &TensorInfo| {
            if self.is_raw(tensor) {
                return Some(tensor.n_bytes);
            }
            if holds_no_weights(tensor.dtype) {
                return Some(0);
            }
            let n_elements = tensor.shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64))?;
            match self.as_matrix(tensor) {
                None => Some(values_bytes(n_elements, self.is_rounded(tensor))),
                Some((n_expert, n, k)) => {
                    let (kept, k) = self.kept_as(tensor, target, k).ok()?;
                    Packer::n_bytes(kept, n, k)?.checked_mul(n_expert.unwrap_or(1) as u64)
                }
            }
        };
        // A tensor that cannot be packed is refused when its turn comes.
        header.tensors.iter().filter_map(bytes).fold(0, u64::saturating_add)
    }

    /// Compares what the model will take with what there is.
    fn check_memory(&self, header: &Header) -> Result<()> {
        let needs = Needs::of(
            header,
            &self.info.architecture,
            matches!(self.family, Some(Family::Text(_))),
            self.weight_bytes(header, self.target),
            &self.options,
        );
        let smaller = [DType::Q8_0, DType::Q4_0].map(|t| (t.name(), self.weight_bytes(header, Some(t))));
        needs.check(self.options.memory_limit, &smaller)
    }
}

fn unusable(tensor: &TensorInfo, header: Option<&Header>) -> Tensor {
    match header.map(|h| h.kind) {
        Some(ContainerKind::Safetensors) => Tensor::Unusable {
            code: Code::UnsupportedDtype,
            dtype: safetensors::dtype_name(tensor.dtype).unwrap_or(tensor.dtype.name()),
        },
        _ => Tensor::Unusable { code: Code::UnsupportedQuant, dtype: tensor.dtype.name() },
    }
}

/// Bytes of values that are not multiplied as a matrix.
fn values_bytes(n: u64, is_rounded: bool) -> u64 {
    if is_rounded { n } else { n.saturating_mul(4) }
}

impl Sink for Collect {
    fn header(&mut self, header: &Header) -> Result<()> {
        let mut restored = header.clone();
        restore_shapes(&mut restored)?;
        let header = &restored;
        self.shards.take(header, self.header.as_ref())?;
        let whole = match self.header.take() {
            None => header.clone(),
            Some(mut whole) => {
                self.n_before = whole.tensors.len();
                whole.tensors.extend(header.tensors.iter().cloned());
                whole
            }
        };
        let n_elements = |t: &TensorInfo| t.shape.iter().map(|&d| d as u64).product::<u64>();
        self.info.parameters = whole.tensors.iter().map(n_elements).fold(0, u64::saturating_add);
        match identify(&whole, self.config.as_ref()) {
            Ok((family, architecture)) => {
                self.info.architecture = architecture;
                self.family = Some(family);
            }
            // Of safetensors it is the names of tensors that tell, which may all be in later files.
            Err(_) if whole.kind == ContainerKind::Safetensors && !self.shards.is_last() => {}
            Err(e) => return Err(e),
        }
        self.check_memory(&whole)?;
        self.header = Some(whole);
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.start(idx)?,
        };
        match &mut current {
            Current::Matrix(packer) => {
                if let Err(e) = packer.push(bytes) {
                    return Err(e.tensor(&self.tensor(idx)?.name));
                }
            }
            Current::Experts(experts) => {
                if let Err(e) = experts.push(bytes) {
                    return Err(e.tensor(&self.tensor(idx)?.name));
                }
            }
            Current::Values(held) | Current::Raw(held) => held.extend_from_slice(bytes),
            Current::Skipped => {}
            Current::Image(_) => {
                return Err(Error::new(Code::BadArgument, "bytes of the file follow the image of a tensor"));
            }
        }
        self.current = Some(current);
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        let current = self.current.take();
        let tensor = self.tensor(idx)?;
        let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
        let loaded = match current {
            Some(Current::Matrix(packer)) => {
                let packed = packer.finish().map_err(|e| e.tensor(&name))?;
                self.info.weight_bytes += packed.n_bytes() as u64;
                Tensor::Matrix(packed)
            }
            Some(Current::Experts(experts)) => {
                let packed = experts.finish().map_err(|e| e.tensor(&name))?;
                self.info.weight_bytes += packed.iter().map(|m| m.n_bytes() as u64).sum::<u64>();
                Tensor::Experts(packed)
            }
            Some(Current::Values(bytes)) => {
                let (format, codec) = tensor.dtype.codec()?;
                let mut values = vec![0f32; bytes.len() / format.block_bytes * format.block_len];
                (codec.dequantize)(&bytes, &mut values);
                let is_rounded = self.is_rounded(tensor);
                self.info.weight_bytes += values_bytes(values.len() as u64, is_rounded);
                match is_rounded {
                    true => Tensor::Filters(Filters::round(&values, shape[0])),
                    false => Tensor::Values(values),
                }
            }
            Some(Current::Raw(bytes)) => {
                self.info.weight_bytes += bytes.len() as u64;
                Tensor::Raw(bytes)
            }
            Some(Current::Image(tensor)) => tensor,
            Some(Current::Skipped) => unusable(tensor, self.header.as_ref()),
            // A tensor without elements has no bytes.
            None => Tensor::Values(Vec::new()),
        };
        self.weights.insert(name, shape, loaded);
        self.n_done += 1;
        Ok(())
    }
}
