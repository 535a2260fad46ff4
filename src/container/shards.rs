//! Models in several files: how they are named, and the index that lists them.
//!
//! Sources: llama.cpp's `gguf-split` (`NAME-00001-of-00003.gguf`, keys `split.*`); the sharded
//! checkpoints of transformers (`model.safetensors.index.json` with a `weight_map`).

use super::{Header, check_unique, limits};
use crate::error::{Code, Error, Result};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

/// What an index's name ends with.
pub const INDEX_SUFFIX: &str = ".safetensors.index.json";
/// Most files of one model.
pub const MAX_FILES: usize = 4096;
/// Digits of the numbers in a shard's name.
const DIGITS: usize = 5;

/// Names of all shards, in order, if `name` is one of a split model (`NAME-00002-of-00003.gguf`, or
/// the same with `.safetensors`); `None` where it is a file by itself.
///
/// # Errors
/// [`Code::LimitExceeded`] for more than [`MAX_FILES`], [`Code::ShardMismatch`] for number 4 of 3.
pub fn siblings(name: &str) -> Result<Option<Vec<String>>> {
    let Some((stem, extension)) = name.rsplit_once('.') else { return Ok(None) };
    let numbers = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (base, number) = rest.rsplit_once('-')?;
        Some((base, parse_number(number)?, parse_number(count)?))
    };
    match numbers() {
        Some((base, number, count)) if matches!(extension, "gguf" | "safetensors") => {
            if number == 0 || number > count {
                return Err(Error::new(
                    Code::ShardMismatch,
                    format!("{name:?} is shard {number} of {count}"),
                ));
            }
            if count > MAX_FILES {
                let rule = format!("{name:?} is one of {count} files; the limit is {MAX_FILES}");
                return Err(Error::new(Code::LimitExceeded, rule));
            }
            Ok(Some((1..=count).map(|i| format!("{base}-{i:05}-of-{count:05}.{extension}")).collect()))
        }
        _ => Ok(None),
    }
}

fn parse_number(digits: &str) -> Option<usize> {
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Which file of a safetensors model holds which tensor.
#[derive(Clone, Debug)]
pub struct ShardIndex {
    /// Names of the files in order; all in the folder of the index.
    files: Vec<String>,
    /// Tensor names with the index of their file, by file and then by name.
    tensors: Vec<(usize, String)>,
}

impl ShardIndex {
    /// Reads an index.
    ///
    /// # Errors
    /// [`Code::BadHeader`] where it is no index, [`Code::BadShardPath`] where it names a file outside of
    /// its own folder, [`Code::Duplicate`], [`Code::LimitExceeded`].
    pub fn parse(json: &[u8]) -> Result<Self> {
        if json.len() as u64 > limits::HEADER_BYTES {
            let rule = format!("an index of {} bytes; the limit is {}", json.len(), limits::HEADER_BYTES);
            return Err(Error::new(Code::LimitExceeded, rule));
        }
        let bad = |e: serde_json::Error| Error::new(Code::BadHeader, format!("not an index of shards: {e}"));
        let WeightMap(entries) = serde_json::from_slice::<Document>(json).map_err(bad)?.weight_map;
        if entries.is_empty() {
            return Err(Error::new(Code::BadHeader, "the index lists no tensor").key("weight_map"));
        }
        if entries.len() as u64 > limits::TENSORS {
            let rule = format!("the index lists {} tensors; the limit is {}", entries.len(), limits::TENSORS);
            return Err(Error::new(Code::LimitExceeded, rule));
        }
        check_unique(entries.iter().map(|(name, _)| name.as_str()), |name| {
            Error::new(Code::Duplicate, "the index lists this tensor twice").tensor(name)
        })?;
        if let Some((tensor, file)) = entries.iter().find(|(_, file)| !is_plain_name(file)) {
            let shown: String = file.chars().take(80).collect();
            let rule = format!("{shown:?} is no name of a file beside the index");
            return Err(Error::new(Code::BadShardPath, rule).tensor(tensor));
        }
        let mut files: Vec<String> = entries.iter().map(|(_, file)| file.clone()).collect();
        files.sort_unstable();
        files.dedup();
        if files.len() > MAX_FILES {
            let rule = format!("the index names {} files; the limit is {MAX_FILES}", files.len());
            return Err(Error::new(Code::LimitExceeded, rule));
        }
        let place = |file: &String| files.binary_search(file).unwrap_or_default();
        let mut tensors: Vec<_> = entries.into_iter().map(|(name, file)| (place(&file), name)).collect();
        tensors.sort_unstable();
        Ok(ShardIndex { files, tensors })
    }

    /// Names of the files, in the order in which they are read.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Checks that file `i` holds what the index says.
    ///
    /// # Errors
    /// [`Code::MissingTensor`], naming it.
    pub fn check(&self, i: usize, header: &Header) -> Result<()> {
        let mut held: Vec<&str> = header.tensors.iter().map(|t| t.name.as_str()).collect();
        held.sort_unstable();
        let start = self.tensors.partition_point(|(file, _)| *file < i);
        let listed = self.tensors[start..].iter().take_while(|(file, _)| *file == i);
        match listed.map(|(_, name)| name).find(|name| held.binary_search(&name.as_str()).is_err()) {
            None => Ok(()),
            Some(name) => {
                let file = self.files.get(i).map_or("", String::as_str);
                let rule = format!("the index says that {file:?} holds this tensor, but it does not");
                Err(Error::new(Code::MissingTensor, rule).tensor(name))
            }
        }
    }
}

/// Whether a name stays in its folder, as a path and as a part of an address.
fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && name.bytes().all(plain)
}

#[derive(serde::Deserialize)]
struct Document {
    // What else there is ("metadata" with the total size) decides nothing.
    weight_map: WeightMap,
}

/// Entries in file order, with those that come twice.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object from tensor names to file names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}
