//! The files of one model: whether they belong together.

use super::shards::ShardIndex;
use super::stream::Sink;
use super::{ContainerKind, Header, TensorInfo};
use crate::error::{Code, Error, Result};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// What is known of a model's files while their headers are seen one after the other.
pub struct Shards {
    /// Files that are given.
    n_files: usize,
    /// Headers seen.
    n_seen: usize,
    index: Option<ShardIndex>,
    /// Tensors in all files, as the first says.
    n_tensors: Option<u64>,
}

impl Default for Shards {
    fn default() -> Self {
        Shards { n_files: 1, n_seen: 0, index: None, n_tensors: None }
    }
}

impl Shards {
    /// That many files.
    pub fn of_files(n_files: usize) -> Self {
        Shards { n_files, ..Shards::default() }
    }

    /// The files that an index lists.
    pub fn of_index(index: ShardIndex) -> Self {
        Shards { n_files: index.files().len(), index: Some(index), ..Shards::default() }
    }

    /// Whether the header of the last file has been seen.
    pub fn is_last(&self) -> bool {
        self.n_seen == self.n_files
    }

    /// Whether the model is in one file.
    pub fn is_alone(&self) -> bool {
        self.n_files == 1
    }

    /// Takes the header of the next file; `whole` is what the files before it hold together.
    ///
    /// # Errors
    /// [`Code::ShardMismatch`] where it is not of this model or not the next, [`Code::MissingTensor`]
    /// where it is not as the index says, [`Code::Duplicate`].
    pub fn take(&mut self, header: &Header, whole: Option<&Header>) -> Result<()> {
        let place = self.n_seen;
        self.n_seen += 1;
        match header.kind {
            ContainerKind::Gguf => self.check_split(header, place)?,
            ContainerKind::Safetensors => {
                self.index.iter().try_for_each(|index| index.check(place, header))?
            }
        }
        if let Some(whole) = whole {
            check_same_model(header, whole)?;
        }
        if self.is_last() && self.index.is_none() {
            let n = (whole.map_or(0, |w| w.tensors.len()) + header.tensors.len()) as u64;
            if let Some(declared) = self.n_tensors.filter(|&declared| declared != n) {
                return Err(mismatch(TENSORS, format!("{n} tensors in all shards, {declared} declared")));
            }
        }
        Ok(())
    }

    fn check_split(&mut self, header: &Header, place: usize) -> Result<()> {
        let number = |key: &'static str| header.metadata.u64(key).map_err(|e| mismatch(key, e.message));
        let (n_files, count) = (self.n_files, number(COUNT)?.unwrap_or(1).max(1));
        if count != n_files as u64 {
            let rule = match (n_files, count) {
                (1, _) => format!("one of {count} shards of a split model: give all of them, in order"),
                (_, 1) => format!("a model in one file, given as one of {n_files} shards"),
                _ => format!("one of {count} shards, given as one of {n_files}"),
            };
            return Err(mismatch(COUNT, rule));
        }
        if n_files == 1 {
            return Ok(());
        }
        match number(NUMBER)? {
            Some(no) if no == place as u64 => {}
            Some(no) => {
                return Err(mismatch(
                    NUMBER,
                    format!("shard {} in the place of shard {}", no + 1, place + 1),
                ));
            }
            None => return Err(mismatch(NUMBER, "a shard does not say which one it is".into())),
        }
        let n_tensors = number(TENSORS)?;
        if place > 0 && n_tensors != self.n_tensors {
            return Err(mismatch(TENSORS, "differs from the first shard's: a shard of another model".into()));
        }
        self.n_tensors = n_tensors;
        Ok(())
    }
}

fn check_same_model(header: &Header, whole: &Header) -> Result<()> {
    const ARCHITECTURE: &str = "general.architecture";
    if header.kind != whole.kind {
        return Err(Error::new(Code::ShardMismatch, "a shard in another format than the first"));
    }
    let architecture = header.metadata.get(ARCHITECTURE);
    if architecture.is_some_and(|name| whole.metadata.get(ARCHITECTURE) != Some(name)) {
        return Err(mismatch(ARCHITECTURE, "differs from the first shard's".into()));
    }
    let mut held: Vec<&str> = whole.tensors.iter().map(|t| t.name.as_str()).collect();
    held.sort_unstable();
    match header.tensors.iter().find(|t| held.binary_search(&t.name.as_str()).is_ok()) {
        None => Ok(()),
        Some(twice) => {
            Err(Error::new(Code::Duplicate, "an earlier shard holds this tensor too").tensor(&twice.name))
        }
    }
}

fn mismatch(key: &str, message: String) -> Error {
    Error::new(Code::ShardMismatch, message).key(key)
}

/// The headers of a model's files as one.
pub struct Joined {
    /// All tensors, their offsets within their own files; the metadata of the first file.
    pub header: Header,
    /// Of each file, its first tensor.
    firsts: Vec<usize>,
}

impl Joined {
    /// All headers of a model, in order, and the index that lists its files, if there is one.
    ///
    /// # Errors
    /// As [`Shards::take`]; [`Code::ShardMismatch`] for no file at all.
    pub fn of(headers: Vec<Header>, index: Option<ShardIndex>) -> Result<Self> {
        let mut shards = match index {
            Some(index) => Shards::of_index(index),
            None => Shards::of_files(headers.len()),
        };
        let (mut whole, mut firsts) = (None::<Header>, Vec::new());
        for header in headers {
            shards.take(&header, whole.as_ref())?;
            match &mut whole {
                None => {
                    firsts.push(0);
                    whole = Some(header);
                }
                Some(whole) => {
                    firsts.push(whole.tensors.len());
                    whole.tensors.extend(header.tensors);
                }
            }
        }
        let mut header = whole.ok_or_else(|| Error::new(Code::ShardMismatch, "no files with weights"))?;
        if !shards.is_last() {
            return Err(Error::new(Code::ShardMismatch, "files of the model are missing").key("source"));
        }
        header.metadata.retain(|key| !key.starts_with("split."));
        Ok(Joined { header, firsts })
    }

    /// Number of files.
    pub fn n_files(&self) -> usize {
        self.firsts.len()
    }

    /// The file that holds a tensor.
    pub fn file_of(&self, tensor: usize) -> usize {
        self.firsts.partition_point(|&first| first <= tensor).saturating_sub(1)
    }

    /// A sink for the bytes of file `i` that hands them on under the numbers of the joined header.
    pub fn part<'a>(&'a self, i: usize, sink: &'a mut dyn Sink) -> Part<'a> {
        let end = self.firsts.get(i + 1).copied().unwrap_or(self.header.tensors.len());
        let first = self.firsts.get(i).copied().unwrap_or(end).min(end);
        Part { sink, first, tensors: &self.header.tensors[first..end] }
    }
}

/// One file of several on its way to a sink of all.
pub struct Part<'a> {
    sink: &'a mut dyn Sink,
    first: usize,
    tensors: &'a [TensorInfo],
}

impl Sink for Part<'_> {
    fn header(&mut self, header: &Header) -> Result<()> {
        let place = |t: &TensorInfo| (t.dtype, t.offset, t.n_bytes);
        let same = |(a, b): (&TensorInfo, &TensorInfo)| a.name == b.name && place(a) == place(b);
        match header.tensors.len() == self.tensors.len() && header.tensors.iter().zip(self.tensors).all(same)
        {
            true => Ok(()),
            false => Err(Error::new(Code::ShardMismatch, "the file has changed since its header was read")),
        }
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        self.sink.tensor_bytes(self.first + idx, bytes)
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        self.sink.tensor_end(self.first + idx)
    }
}
