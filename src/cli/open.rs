//! Model files: opened, checked and read in portions.

use super::Failure;
use super::output::Progress;
use crate::container::shards::{self, ShardIndex};
use crate::container::stream::Sink;
use crate::container::{self, Header};
use crate::error::{Code, Error, Result};
use crate::kernels::pool;
use crate::models::Adapter;
use crate::tasks::opening::Opening;
use crate::tasks::{Embedder, EncoderModel, LoadOptions, Loaded, Loader, TextModel, VisionModel};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// How every command that computes loads its model.
#[derive(Clone, clap::Args)]
#[command(next_help_heading = "Loading")]
pub(super) struct LoadArgs {
    /// Quantize float weights to this type while loading, such as Q8_0 or Q4_0
    #[arg(long, value_name = "TYPE")]
    quantize: Option<String>,
    /// How keys and values are held: F32, F16, Q8_0 or Q4_0 [default: F32 where that
    /// takes at most 16 MiB, or with --reference; Q8_0 otherwise]
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<String>,
    /// Compute with float activations: slow and exact, for comparison
    #[arg(long)]
    reference: bool,
    #[command(flatten)]
    threads: Threads,
    /// Change the model by this LoRA adapter, a GGUF file; a scale may follow (may be given several times)
    #[arg(long, value_name = "FILE[=SCALE]")]
    lora: Vec<String>,
    /// Quantize the float tensors whose names fit a pattern to another type; `*` stands for any text (may be given
    /// several times; the first that fits holds)
    #[arg(long = "override", value_name = "PATTERN=TYPE")]
    overrides: Vec<String>,
    /// The config.json of a vision model in safetensors [default: the one in the model's folder, if any]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The preprocessor_config.json of a vision model [default: the one in the model's folder, if any]
    #[arg(long, value_name = "FILE")]
    preprocessor: Option<PathBuf>,
    /// The tokenizer.json of a vision model that reads texts [default: the one in the model's folder, if any]
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// Far more than a config or a tokenizer needs.
const MAX_JSON_BYTES: u64 = 64 << 20;

impl LoadArgs {
    /// Options for the loader, with room for that many tokens (or the default).
    fn options(&self, context_length: Option<usize>) -> LoadOptions {
        LoadOptions {
            quantize: self.quantize.clone(),
            reference: self.reference,
            overrides: self.overrides.clone(),
            kv_type: self.kv_type.clone(),
            context_length,
            ..LoadOptions::default()
        }
    }

    /// The same with what lies beside the model. GGUF files say of themselves what they are.
    fn options_for(&self, model: &Path, context_length: Option<usize>) -> Result<LoadOptions> {
        let is_safetensors = model.to_string_lossy().contains(".safetensors");
        let read = |given: &Option<PathBuf>, name: &str, beside: bool| -> Result<Option<String>> {
            match given {
                Some(path) => read_text(path, MAX_JSON_BYTES).map(Some),
                None => {
                    let path = model.with_file_name(name);
                    if beside && path.is_file() {
                        read_text(&path, MAX_JSON_BYTES).map(Some)
                    } else {
                        Ok(None)
                    }
                }
            }
        };
        Ok(LoadOptions {
            config: read(&self.config, "config.json", is_safetensors)?,
            preprocessor: read(&self.preprocessor, "preprocessor_config.json", is_safetensors)?,
            tokenizer: read(&self.tokenizer, "tokenizer.json", is_safetensors)?,
            ..self.options(context_length)
        })
    }

    /// The same for a model that adapters do not fit.
    pub(super) fn without_adapters(&self) -> LoadArgs {
        LoadArgs { lora: Vec::new(), ..self.clone() }
    }
}

/// How many threads compute.
#[derive(clap::Args, Clone)]
pub(super) struct Threads {
    /// Threads to compute with, 1 to 16; results are the same [default: half of this machine's logical
    /// cores, but all of up to four, and at most 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=pool::MAX_THREADS as i64))]
    threads: Option<u8>,
}

impl Threads {
    /// Starts them.
    pub(super) fn start(&self) {
        pool::set_threads(self.threads.map_or_else(default_threads, usize::from));
    }
}

/// A guess of the physical cores: small processors often have one for each logical core.
fn default_threads() -> usize {
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    logical.div_ceil(2).max(logical.min(4)).min(8)
}

/// Names the file in an error's message.
pub(super) fn in_file(path: &Path, mut error: Error) -> Error {
    error.message = format!("{}: {}", path.display(), error.message);
    error
}

/// An input or output error with the file's name.
pub(super) fn io_error(path: &Path, what: &str, error: std::io::Error) -> Error {
    Error::new(Code::Io, format!("{}: {what}: {error}", path.display())).source(error)
}

/// Opens a file for reading; its length where it is a regular file.
///
/// # Errors
/// [`Code::Io`] where it is missing, unreadable or a directory.
pub(super) fn open(path: &Path) -> Result<(File, Option<u64>)> {
    let file = File::open(path).map_err(|e| io_error(path, "cannot open", e))?;
    let metadata = file.metadata().map_err(|e| io_error(path, "cannot open", e))?;
    if metadata.is_dir() {
        return Err(Error::new(Code::Io, format!("{}: is a directory, not a file", path.display())));
    }
    Ok((file, metadata.is_file().then_some(metadata.len())))
}

/// Reads a whole file of at most `max_bytes`.
///
/// # Errors
/// [`Code::Io`], [`Code::LimitExceeded`].
pub(super) fn read_bytes(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| io_error(path, "cannot read", e))?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("{}: longer than {max_bytes} bytes", path.display());
        return Err(Error::new(Code::LimitExceeded, message));
    }
    Ok(bytes)
}

/// The first `n` bytes of a file, or all of a shorter one.
///
/// # Errors
/// [`Code::Io`].
pub(super) fn prefix(path: &Path, n: u64) -> Result<Vec<u8>> {
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(n).read_to_end(&mut bytes).map_err(|e| io_error(path, "cannot read", e))?;
    Ok(bytes)
}

/// The file of that name in the folder of another, where there is one.
pub(super) fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    Some(path.parent()?.join(name)).filter(|found| found.is_file())
}

/// Reads a text file (labels, a text to measure) of at most `max_bytes`.
///
/// # Errors
/// As [`read_bytes`], and [`Code::BadValue`] where it is not UTF-8.
pub(super) fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    String::from_utf8(read_bytes(path, max_bytes)?).map_err(|e| {
        let offset = e.utf8_error().valid_up_to() as u64;
        Error::new(Code::BadValue, format!("{}: not UTF-8 text", path.display())).at(offset)
    })
}

/// Gives a file's bytes to `take`, portion by portion, until it returns false or the file ends.
pub(super) fn read_chunks(
    path: &Path,
    mut file: File,
    mut take: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                if !take(&chunk[..n]).map_err(|e| in_file(path, e))? {
                    return Ok(());
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io_error(path, "cannot read", e)),
        }
    }
}

/// Keeps the header and ignores the tensors.
struct HeaderOnly(Option<Header>);

impl Sink for HeaderOnly {
    fn header(&mut self, header: &Header) -> Result<()> {
        self.0 = Some(header.clone());
        Ok(())
    }

    fn tensor_bytes(&mut self, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn tensor_end(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
}

/// The files of one model.
pub(super) struct Files {
    pub(super) paths: Vec<PathBuf>,
    pub(super) index: Option<ShardIndex>,
}

impl Files {
    /// The file itself, all shards where it is one of a split model, or those that it lists as an index.
    pub(super) fn of(path: &Path) -> Result<Files> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = |names: &[String]| names.iter().map(|name| path.with_file_name(name)).collect();
        if name.ends_with(shards::INDEX_SUFFIX) {
            let bytes = read_bytes(path, crate::container::limits::HEADER_BYTES)?;
            let index = ShardIndex::parse(&bytes).map_err(|e| in_file(path, e))?;
            return Ok(Files { paths: beside(index.files()), index: Some(index) });
        }
        let paths = match shards::siblings(&name).map_err(|e| in_file(path, e))? {
            Some(names) => beside(&names),
            None => vec![path.to_path_buf()],
        };
        Ok(Files { paths, index: None })
    }
}

/// Reads what the files of a model say before their tensor data, and no further; a .tflite file as a whole, of which the
/// header is that of the GGUF file that it is loaded as.
///
/// # Errors
/// What is wrong with a file or its header.
pub(super) fn header(path: &Path) -> Result<Header> {
    let header = |path: &Path| open(path).and_then(|(file, len)| header_by(path, file, Opening::new(len)));
    let mut headers = Files::of(path)?.paths.into_iter().map(|path| header(&path));
    let first = headers.next().unwrap_or_else(|| header(path))?;
    headers.try_fold(first, |mut whole, header| {
        whole.tensors.extend(header?.tensors);
        Ok(whole)
    })
}

/// Whether a file is a .tflite file, by its first bytes.
///
/// # Errors
/// [`Code::Io`].
pub(super) fn is_tflite(path: &Path) -> Result<bool> {
    let mut prefix = Vec::new();
    let file = open(path)?.0;
    file.take(8).read_to_end(&mut prefix).map_err(|e| in_file(path, Error::new(Code::Io, e.to_string())))?;
    Ok(container::tflite::is_tflite(&prefix))
}

/// Of one file alone, GGUF or safetensors.
pub(super) fn one_header(path: &Path) -> Result<Header> {
    let (file, file_len) = open(path)?;
    header_by(path, file, Opening::of_container(file_len))
}

fn header_by(path: &Path, file: File, mut opening: Opening) -> Result<Header> {
    let mut sink = HeaderOnly(None);
    read_chunks(path, file, |bytes| {
        opening.push(bytes, &mut sink)?;
        Ok(sink.0.is_none())
    })?;
    if sink.0.is_none() {
        opening.finish(&mut sink).map_err(|e| in_file(path, e))?;
    }
    sink.0.ok_or_else(|| in_file(path, Error::new(Code::Truncated, "the file ends before its header")))
}

/// Loads a model of either kind.
fn load(path: &Path, args: &LoadArgs, context_length: Option<usize>) -> std::result::Result<Loaded, Failure> {
    // Options are judged before the file, so that a mistyped one never costs a long load.
    Loader::new(args.options(context_length), None).map_err(Failure::Usage)?;
    args.threads.start();
    let adapters = args.lora.iter().map(|given| adapter(given)).collect::<Result<Vec<_>>>()?;
    let mut loader = read_into(path, args.options_for(path, context_length)?)?;
    for (adapter, scale) in adapters {
        loader.adapt(adapter, scale).map_err(Failure::Usage)?;
    }
    Ok(loader.finish().map_err(|e| in_file(path, e))?)
}

/// A loader that has taken all files of a model.
fn read_into(path: &Path, options: LoadOptions) -> Result<Loader> {
    let Files { paths, index } = Files::of(path)?;
    let total: u64 = paths.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).sum();
    let mut loader = Loader::new(options, None)?;
    match index {
        Some(index) => loader.expect_index(index),
        None => loader.expect_files(paths.len()),
    }
    let mut progress = Progress::new();
    for (i, path) in paths.iter().enumerate() {
        let (file, file_len) = open(path)?;
        loader.next_file(file_len).map_err(|e| in_file(&paths[i.saturating_sub(1)], e))?;
        read_chunks(path, file, |bytes| {
            loader.push(bytes)?;
            progress.show("loading", loader.progress().bytes, total);
            Ok(true)
        })?;
    }
    Ok(loader)
}

/// Loads `FILE` or `FILE=SCALE`.
fn adapter(given: &str) -> Result<(Adapter, f32)> {
    let scaled = given.rsplit_once('=').and_then(|(file, scale)| Some((file, scale.parse().ok()?)));
    let (file, scale) = scaled.unwrap_or((given, 1.0));
    let path = Path::new(file);
    let loader = read_into(path, LoadOptions::default())?;
    Ok((loader.finish_adapter().map_err(|e| in_file(path, e))?, scale))
}

/// Loads a language model.
pub(super) fn text_model(
    path: &Path,
    args: &LoadArgs,
    context_length: Option<usize>,
) -> std::result::Result<Box<TextModel>, Failure> {
    match load(path, args, context_length)? {
        Loaded::Text(model) => Ok(model),
        other => Err(wrong_kind(path, &other, "a language model")),
    }
}

/// Loads an encoder of texts.
pub(super) fn encoder_model(path: &Path, args: &LoadArgs) -> std::result::Result<Box<EncoderModel>, Failure> {
    match load(path, args, None)? {
        Loaded::Encoder(model) => Ok(model),
        other => Err(wrong_kind(path, &other, "a model with a classification head")),
    }
}

/// Loads a model that makes vectors of texts.
pub(super) fn embedder(path: &Path, args: &LoadArgs) -> std::result::Result<Embedder, Failure> {
    embedder_with(path, args, None)
}

/// The same with room for that many tokens (or the default).
pub(super) fn embedder_with(
    path: &Path,
    args: &LoadArgs,
    context_length: Option<usize>,
) -> std::result::Result<Embedder, Failure> {
    match load(path, args, context_length)? {
        Loaded::Encoder(model) => Ok(Embedder::Encoder(model)),
        Loaded::Text(model) => Ok(Embedder::Text(model)),
        other => Err(wrong_kind(path, &other, "an encoder or a language model")),
    }
}

/// Loads an image classifier.
pub(super) fn vision_model(path: &Path, args: &LoadArgs) -> std::result::Result<Box<VisionModel>, Failure> {
    match load(path, args, None)? {
        Loaded::Vision(model) => Ok(model),
        other => Err(wrong_kind(path, &other, "an image classifier")),
    }
}

fn wrong_kind(path: &Path, is: &Loaded, wanted: &str) -> Failure {
    let is = match is {
        Loaded::Text(_) => "a language model",
        Loaded::Encoder(_) => "an encoder, which writes no text",
        Loaded::Vision(_) => "an image classifier",
    };
    Failure::Input(Error::new(
        Code::UnsupportedArch,
        format!("{}: {is}; this needs {wanted}", path.display()),
    ))
}
