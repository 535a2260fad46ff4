//! The files of one model: whether they belong together.

use crate::container::shards::ShardIndex;
use crate::container::{ContainerKind, Header};
use crate::error::{Code, Error, Result};

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// What is known of a model's files.
pub(super) struct Shards {
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
