//! From file bytes to a model, tensor by tensor while they arrive.

use super::experts::Experts;
use super::{EncoderModel, ModelInfo, TextModel, VisionModel};
use crate::container::stream::{Sink, Stream};
use crate::container::{ContainerKind, Header, TensorInfo, safetensors};
use crate::error::{Code, Error, Result};
use crate::layers::Mode;
use crate::models::vision::{Config, Role, Source};
use crate::models::{Adapter, Family, Tensor, Weights, identify, is_adapter, names};
use crate::quant::{DType, Format, KernelForm, ROUNDED};
use crate::repack::Packer;
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
    /// Type of the key-value cache; `"F32"` is the only one so far.
    pub kv_type: Option<String>,
    /// Compute with float activations: slow, for reference.
    pub reference: bool,
    /// The `config.json` that came with a safetensors file, where there is one: of vision models it says what the
    /// tensors do not show.
    pub config: Option<String>,
    /// Other types for some float tensors than `quantize` or the file's own: `"PATTERN=TYPE"`, where `*` in the
    /// pattern stands for any text. The first that fits a tensor's name holds, also for the first and last layers
    /// of vision models, which otherwise keep at least 8 bits.
    pub overrides: Vec<String>,
}

/// Context length unless the caller or the model says otherwise.
const DEFAULT_CONTEXT: usize = 2048;

/// How far a load is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadProgress {
    /// Tensors packed.
    pub tensors_done: usize,
    /// Tensors in the file; 0 until the header is complete.
    pub tensors_total: usize,
    /// File bytes taken.
    pub bytes: u64,
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
    stream: Stream,
    collect: Collect,
    options: LoadOptions,
    adapters: Vec<(Adapter, f32)>,
}

impl Loader {
    /// A loader; `file_len` is the whole file's length where it is known for certain.
    ///
    /// # Errors
    /// [`Code::BadArgument`] naming the option.
    pub fn new(options: LoadOptions, file_len: Option<u64>) -> Result<Self> {
        let target = options.quantize.as_deref().map(quantize_target).transpose()?;
        let bad = |key: &str, rule: String| Err(Error::new(Code::BadArgument, rule).key(key));
        if options.context_length == Some(0) {
            return bad("contextLength", "must be at least 1".into());
        }
        if let Some(other) = options.kv_type.as_deref().filter(|t| !t.eq_ignore_ascii_case("F32")) {
            return bad("kvType", format!("{other:?} is not supported; supported: F32"));
        }
        let config = options.config.as_deref().map(Config::from_json).transpose()?;
        let overrides =
            options.overrides.iter().map(|given| Override::parse(given)).collect::<Result<_>>()?;
        Ok(Loader {
            stream: Stream::new(file_len),
            collect: Collect {
                target,
                overrides,
                config,
                reference: options.reference,
                ..Collect::default()
            },
            options,
            adapters: Vec::new(),
        })
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
        LoadProgress { tensors_done: self.collect.n_done, tensors_total, bytes: self.stream.received() }
    }

    /// Builds the model after the last byte.
    ///
    /// # Errors
    /// What is missing or wrong in the file or the options.
    pub fn finish(mut self) -> Result<Loaded> {
        self.stream.finish(&mut self.collect)?;
        let Collect { header, family, mut weights, info, config, .. } = self.collect;
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
        let mode = if self.options.reference { Mode::Float } else { Mode::Int8 };
        let mut info = info;
        info.bits_per_weight = info.weight_bytes as f64 * 8.0 / info.parameters.max(1) as f64;
        info.name = header.metadata.str("general.name").ok().flatten().map(String::from);
        let loaded = match family {
            Family::Text(build) => {
                let model = build(&header.metadata, &info.architecture, &mut weights)?;
                weights.check_adapters()?;
                note_unused(&weights, &mut info);
                let n_ctx =
                    context_length(&self.options, model.config().n_ctx_train, model.n_ctx_unstretched())?;
                Loaded::Text(Box::new(TextModel::new(model, &header.metadata, n_ctx, mode, info)?))
            }
            Family::Encoder(build) => {
                let model = build(&header.metadata, &info.architecture, &mut weights)?;
                weights.check_adapters()?;
                note_unused(&weights, &mut info);
                let n_ctx = context_length(&self.options, model.config().n_ctx_train, usize::MAX)?;
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
                Loaded::Vision(Box::new(VisionModel::new(model, &header.metadata, mode, info)?))
            }
        };
        Ok(loaded)
    }

    /// Builds an adapter after the last byte.
    ///
    /// # Errors
    /// What is missing or wrong in the file.
    pub fn finish_adapter(mut self) -> Result<Adapter> {
        self.stream.finish(&mut self.collect)?;
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
        let dtype = quantize_target(name).map_err(|e| bad(e.message))?;
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

fn quantize_target(name: &str) -> Result<DType> {
    let writable = |f: &Format| f.codec.is_some_and(|c| c.quantize.is_some());
    match DType::from_name(name).and_then(DType::format).filter(|f| writable(f)) {
        Some(format) => Ok(format.dtype),
        None => {
            let known: Vec<_> =
                crate::quant::FORMATS.iter().filter(|f| writable(f)).map(|f| f.name).collect();
            let rule = format!("{name:?} cannot be quantized to; supported: {}", known.join(", "));
            Err(Error::new(Code::BadArgument, rule).key("quantize"))
        }
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
    reference: bool,
    header: Option<Header>,
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
    Skipped,
}

impl Collect {
    fn tensor(&self, idx: usize) -> Result<&TensorInfo> {
        let missing = || Error::new(Code::BadOffset, "tensor data without a header");
        self.header.as_ref().and_then(|h| h.tensors.get(idx)).ok_or_else(missing)
    }

    fn start(&mut self, idx: usize) -> Result<Current> {
        let tensor = self.tensor(idx)?;
        if self.role(tensor) == Role::Raw && [DType::I8, DType::I32].contains(&tensor.dtype) {
            return Ok(Current::Raw(Vec::new()));
        }
        if holds_no_weights(tensor.dtype) {
            return Ok(Current::Skipped);
        }
        let (format, codec) = tensor.dtype.codec().map_err(|e| e.tensor(&tensor.name))?;
        let role = self.role(tensor);
        let Some((n_expert, n, k)) = matrix_shape(tensor).filter(|_| role != Role::Table) else {
            return Ok(Current::Values(Vec::new()));
        };
        let is_float = matches!(codec.kernel, KernelForm::F32 | KernelForm::F16 | KernelForm::Bf16);
        let asked = self.overrides.iter().find(|o| is_float && o.fits(&tensor.name));
        let target = match self.target {
            _ if asked.is_some() => asked.map_or(tensor.dtype, |o| fitting(o.dtype, format, k)),
            Some(target) if is_float && !is_kept(&tensor.name) => {
                let wanted = if role == Role::Outer { at_least_8_bits(target) } else { target };
                fitting(wanted, format, k)
            }
            // The reference mode computes with the values of the file, whatever they take.
            _ if self.reference && ROUNDED.contains(&tensor.dtype) => DType::F32,
            _ => tensor.dtype,
        };
        let rounded = (target == tensor.dtype && ROUNDED.contains(&target))
            .then(|| format!("tensors of type {} are held as 8-bit codes, rounded", target.name()))
            .filter(|note| !self.info.notes.contains(note));
        let wanted = asked.map(|o| o.dtype).or(self.target);
        let note = (is_float && !is_kept(&tensor.name) && wanted.is_some_and(|t| t != target))
            .then(|| format!("tensor {:?} is kept as {}", tensor.name, target.name()));
        let named = |e: Error| e.tensor(&tensor.name);
        let current = match n_expert {
            None => Current::Matrix(Box::new(Packer::new(tensor.dtype, target, n, k).map_err(named)?)),
            Some(n_expert) => {
                let experts = Experts::new(tensor.dtype, target, n_expert, n, k).map_err(named)?;
                Current::Experts(Box::new(experts))
            }
        };
        self.info.notes.extend(note.into_iter().chain(rounded));
        Ok(current)
    }
}

impl Collect {
    fn role(&self, tensor: &TensorInfo) -> Role {
        match &self.family {
            Some(Family::Vision(family)) => (family.role)(&(family.canonical)(&tensor.name), &tensor.shape),
            _ if names::is_table(&tensor.name) => Role::Table,
            _ => Role::Matrix,
        }
    }
}

/// Refuses one shard of a split model: its other tensors are in other files.
fn check_whole(header: &Header) -> Result<()> {
    const KEY: &str = "split.count";
    let mismatch = |message: String| Error::new(Code::ShardMismatch, message).key(KEY);
    match header.metadata.u64(KEY).map_err(|e| mismatch(e.message))? {
        None | Some(0 | 1) => Ok(()),
        Some(n) => Err(mismatch(format!("one of {n} shards of a split model: merge them into one file"))),
    }
}

/// Index buffers, masks and the like, which may stand beside the weights of a model.
fn holds_no_weights(dtype: DType) -> bool {
    let numbers = [DType::I8, DType::I16, DType::I32, DType::I64, DType::F64];
    dtype.codec().is_err() && (numbers.contains(&dtype) || dtype.format().is_none())
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

/// `[n, k]` of a tensor that is multiplied, and the number of experts where it is a stack of
/// matrices: rank 2, a convolution kernel of rank 4, or experts of rank 3. What is added or
/// taken element by element is no matrix, whatever its rank.
fn matrix_shape(tensor: &TensorInfo) -> Option<(Option<usize>, usize, usize)> {
    match tensor.shape.as_slice() {
        [n_expert, n, k] if tensor.name.contains("_exps.") => Some((Some(*n_expert), *n, *k)),
        [n, rest @ ..] if matches!(rest.len(), 1 | 3) => Some((None, *n, rest.iter().product())),
        _ => None,
    }
}

/// Matrices whose rounding costs far more than it saves: routers, low-rank projections, and
/// position embeddings, which are only added.
fn is_kept(name: &str) -> bool {
    name == "position_embd.weight"
        || name.contains(".ffn_gate_inp")
        || name.contains(".time_mix_") && !names::is_rwkv_projection(name)
}

fn at_least_8_bits(target: DType) -> DType {
    let Some(format) = target.format() else { return target };
    if format.block_bytes < format.block_len { DType::Q8_0 } else { target }
}

/// The wanted type, or the next finer one whose blocks divide k.
fn fitting(wanted: DType, source: &Format, k: usize) -> DType {
    let fits = |d: &DType| d.format().is_some_and(|f| k.is_multiple_of(f.block_len));
    let plain = if source.dtype == DType::F32 { DType::F16 } else { source.dtype };
    [wanted, DType::Q8_0, plain].into_iter().find(fits).unwrap_or(plain)
}

impl Sink for Collect {
    fn header(&mut self, header: &Header) -> Result<()> {
        check_whole(header)?;
        let (family, architecture) = identify(header, self.config.as_ref())?;
        self.info.architecture = architecture;
        let n_elements = |t: &TensorInfo| t.shape.iter().map(|&d| d as u64).product::<u64>();
        self.info.parameters = header.tensors.iter().map(n_elements).fold(0, u64::saturating_add);
        self.family = Some(family);
        self.header = Some(header.clone());
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
                self.info.weight_bytes += values.len() as u64 * 4;
                Tensor::Values(values)
            }
            Some(Current::Raw(bytes)) => {
                self.info.weight_bytes += bytes.len() as u64;
                Tensor::Raw(bytes)
            }
            Some(Current::Skipped) => unusable(tensor, self.header.as_ref()),
            // A tensor without elements has no bytes.
            None => Tensor::Values(Vec::new()),
        };
        self.weights.insert(name, shape, loaded);
        self.n_done += 1;
        Ok(())
    }
}
