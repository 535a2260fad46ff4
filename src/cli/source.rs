//! A model to be quantized: one file, several, or a folder as Hugging Face keeps it.

use super::open;
use crate::container::joining::Joined;
use crate::container::stream::{Sink, Stream};
use crate::container::{ContainerKind, Header};
use crate::error::{Code, Error, Result};
use crate::quantizer::{Files, Outline, Target, restore_shapes};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Longest `config.json` or tokenizer file.
const MAX_TEXT: u64 = 64 << 20;
/// How Hugging Face calls the list of a model's shards.
const INDEX: &str = "model.safetensors.index.json";

/// The files of a model.
pub(super) struct Source {
    /// Files with weights, in order.
    pub(super) files: Vec<PathBuf>,
    /// Where the other files are, if there is such a place.
    folder: Option<PathBuf>,
    joined: Joined,
}

impl Source {
    /// Opens a file, or a folder with `.safetensors` files.
    ///
    /// # Errors
    /// [`Code::Io`], and what is wrong with the headers.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let open::Files { paths: files, index } = match path.is_dir() {
            true => files_of(path)?,
            false => open::Files::of(path)?,
        };
        let folder = if path.is_dir() { Some(path) } else { path.parent() }.map(Path::to_path_buf);
        let header = |file: &PathBuf| {
            let mut header = open::one_header(file)?;
            restore_shapes(&mut header).map_err(|e| open::in_file(file, e))?;
            Ok(header)
        };
        let headers = files.iter().map(header).collect::<Result<Vec<_>>>()?;
        let joined = Joined::of(headers, index).map_err(|e| open::in_file(path, e))?;
        Ok(Source { files, folder, joined })
    }

    /// All tensors; their offsets count within their files.
    pub(super) fn header(&self) -> &Header {
        &self.joined.header
    }

    /// A file beside the weights, if it is there.
    pub(super) fn beside(&self, name: &str) -> Result<Option<String>> {
        let Some(path) = self.folder.as_ref().map(|f| f.join(name)).filter(|p| p.is_file()) else {
            return Ok(None);
        };
        open::read_text(&path, MAX_TEXT).map(Some)
    }

    /// What the written file will hold.
    ///
    /// # Errors
    /// What is unsupported about the model.
    pub(super) fn outline(&self) -> Result<Outline> {
        let mut files = Files::default();
        if self.header().kind == ContainerKind::Safetensors {
            files.config = self.beside("config.json")?;
            files.tokenizer = self.beside("tokenizer.json")?;
            files.tokenizer_config = self.beside("tokenizer_config.json")?;
            files.chat_template = self.beside("chat_template.jinja")?;
            let folder = self.folder.as_ref().and_then(|f| f.canonicalize().ok());
            files.name = folder.and_then(|f| f.file_name().map(|n| n.to_string_lossy().into_owned()));
        }
        Outline::of(self.header(), &files)
    }

    /// The values of one tensor, as they are in the file that the outline describes.
    ///
    /// # Errors
    /// What cannot be read or decoded.
    pub(super) fn values(&self, target: &Target) -> Result<Vec<f32>> {
        let tensor = &self.header().tensors[target.source];
        let path = &self.files[self.joined.file_of(target.source)];
        let (mut file, _) = open::open(path)?;
        let mut bytes = vec![0; tensor.n_bytes as usize];
        file.seek(SeekFrom::Start(tensor.offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| open::io_error(path, "cannot read", e))?;
        let (format, codec) = tensor.dtype.codec()?;
        let mut values = vec![0f32; bytes.len() / format.block_bytes * format.block_len];
        (codec.dequantize)(&bytes, &mut values);
        let columns = tensor.shape.iter().skip(1).product::<usize>().max(1);
        let rows = values.len() / columns;
        Ok(target.transformed(values, (rows, columns)))
    }

    /// Sends all tensors to `sink`; `progress` gets (bytes done, bytes in all).
    ///
    /// # Errors
    /// What is wrong with the files, or what the sink returned.
    pub(super) fn stream(&self, sink: &mut dyn Sink, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        let total = self.files.iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
        let mut done = 0;
        for (i, path) in self.files.iter().enumerate() {
            let (file, file_len) = open::open(path)?;
            let mut stream = Stream::new(file_len);
            let mut part = self.joined.part(i, sink);
            open::read_chunks(path, file, |bytes| {
                stream.push(bytes, &mut part)?;
                done += bytes.len() as u64;
                progress(done, total);
                Ok(true)
            })?;
            stream.finish(&mut part).map_err(|e| open::in_file(path, e))?;
        }
        Ok(())
    }
}

/// The files of the model in a folder: those of its index, all shards of which one is there, or what there is.
fn files_of(folder: &Path) -> Result<open::Files> {
    let index = folder.join(INDEX);
    if index.is_file() {
        return open::Files::of(&index);
    }
    let paths = weights_of(folder)?;
    match open::Files::of(&paths[0])? {
        shards if shards.paths.len() > 1 => Ok(shards),
        _ => Ok(open::Files { paths, index: None }),
    }
}

/// The files with weights in a folder, in the order of their names, which for shards is theirs.
fn weights_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| open::io_error(folder, "cannot read", e))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| open::io_error(folder, "cannot read", e))?.path();
        let is_weights = path.extension().is_some_and(|e| e == "safetensors") && path.is_file();
        if is_weights {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let rule = format!("{}: no .safetensors file in this folder", folder.display());
        return Err(Error::new(Code::Io, rule));
    }
    Ok(files)
}
