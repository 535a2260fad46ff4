//! PyTorch's checkpoints: the tensors of a state dict, read without running anything.
//!
//! A checkpoint is a zip file with a pickle (`data.pkl`) and a file of numbers per storage, or, before PyTorch
//! 1.6, four pickles with all storages after them.
//!
//! Source: PyTorch's `torch/serialization.py`.

use super::pickle::{self, Element, Object, Pickle, Value, View};
use super::zip::{self, Entry, read_at};
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

/// How deep a state dict may lie within dictionaries.
const MAX_DEPTH: usize = 4;
/// Under what names training frameworks keep the state dict; averaged weights come before those of the last step.
const STATE_DICTS: &[&str] = &["state_dict_ema", "model_ema", "state_dict", "model", "module", "net"];

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchTensor {
    /// Its name in the state dict.
    pub name: String,
    /// Type of the elements.
    pub element: Element,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    strides: Vec<u64>,
    /// Of the first element, from the start of the file.
    first_at: u64,
    /// Of the last element from the first, in elements.
    span: u64,
}

impl TorchTensor {
    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Its elements in order, little-endian.
    ///
    /// # Errors
    /// [`Code::Io`], [`Code::Truncated`].
    pub fn read(&self, file: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let size = self.element.n_bytes();
        let bytes = read_at(file, self.first_at, (self.span + 1) * size)?;
        if self.is_contiguous() {
            return Ok(bytes);
        }
        let (size, mut out) = (size as usize, Vec::with_capacity(self.len() * size as usize));
        let mut index = vec![0usize; self.shape.len()];
        for _ in 0..self.len() {
            let at: u64 = index.iter().zip(&self.strides).map(|(&i, &stride)| i as u64 * stride).sum();
            out.extend_from_slice(&bytes[at as usize * size..][..size]);
            for (i, &dim) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < dim {
                    break;
                }
                *i = 0;
            }
        }
        Ok(out)
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&dim, &stride)| {
            let fits = dim == 1 || stride == expected;
            expected *= dim as u64;
            fits
        })
    }
}

/// Whether a file begins as a checkpoint of either form does.
pub fn is_torch(prefix: &[u8]) -> bool {
    zip::is_zip(prefix) || prefix.starts_with(&LEGACY_MAGIC)
}

/// How the older form begins: a pickle of a magic number.
const LEGACY_MAGIC: [u8; 4] = [0x80, 0x02, 0x8a, 0x0a];

/// The tensors of a checkpoint of `len` bytes, in the order of the state dict.
///
/// # Errors
/// [`Code::BadMagic`]; what [`pickle::read`] refuses, and what is wrong with the zip file; [`Code::BadShape`] or
/// [`Code::BadOffset`] with the tensor whose storage does not hold it; [`Code::MissingTensor`] where there are no
/// tensors.
pub fn read(file: &mut (impl Read + Seek), len: u64) -> Result<Vec<TorchTensor>> {
    let prefix = read_at(file, 0, len.min(4))?;
    if zip::is_zip(&prefix) {
        read_zip(file, len)
    } else if is_torch(&prefix) {
        read_legacy(file, len)
    } else {
        Err(Error::new(Code::BadMagic, "not a checkpoint of PyTorch").at(0))
    }
}

fn read_zip(file: &mut (impl Read + Seek), len: u64) -> Result<Vec<TorchTensor>> {
    let entries = zip::directory(file, len)?;
    let missing = || Error::new(Code::BadMagic, "the zip file has no data.pkl: not a checkpoint of PyTorch");
    let data = entries.iter().find(|e| e.name == "data.pkl" || e.name.ends_with("/data.pkl"));
    let data = data.ok_or_else(missing)?;
    let folder = data.name.trim_end_matches("data.pkl");
    let bytes = |file: &mut _, entry: &Entry, most: u64| {
        let at = zip::data_offset(file, entry, len)?;
        read_at(file, at, entry.n_bytes.min(most))
    };
    if let Some(order) = entries.iter().find(|e| e.name == format!("{folder}byteorder"))
        && bytes(file, order, 16)? != b"little"
    {
        return Err(Error::new(Code::UnsupportedVersion, "the checkpoint is not little-endian"));
    }
    let pickle = pickle::read(&bytes(file, data, pickle::MAX_BYTES as u64 + 1)?)?;
    let by_name: BTreeMap<&str, &Entry> = entries.iter().map(|e| (e.name.as_str(), e)).collect();
    let mut places = BTreeMap::new();
    for object in &pickle.objects {
        let Object::Storage { key, .. } = object else { continue };
        if places.contains_key(key) {
            continue;
        }
        if let Some(entry) = by_name.get(format!("{folder}data/{key}").as_str()) {
            places.insert(key.clone(), (zip::data_offset(file, entry, len)?, entry.n_bytes));
        }
    }
    tensors(&pickle, &places)
}

/// Magic number, version, machine, state dict, names of storages; then each storage's length and bytes.
fn read_legacy(file: &mut (impl Read + Seek), len: u64) -> Result<Vec<TorchTensor>> {
    let prefix = read_at(file, 0, len.min(pickle::MAX_BYTES as u64))?;
    let mut at = 0;
    let mut next = || -> Result<Pickle> {
        let pickle = pickle::read(&prefix[at..])?;
        at += pickle.n_bytes;
        Ok(pickle)
    };
    for _ in 0..3 {
        next()?;
    }
    let (pickle, names) = (next()?, next()?);
    let Some(Object::List(keys)) = names.object(names.root) else {
        return Err(Error::new(Code::BadHeader, "the checkpoint does not list its storages").at(at as u64));
    };
    let elements: BTreeMap<&str, Element> = pickle
        .objects
        .iter()
        .filter_map(|object| match object {
            Object::Storage { element, key, .. } => Some((key.as_str(), *element)),
            _ => None,
        })
        .collect();
    let mut places = BTreeMap::new();
    let mut at = at as u64;
    for key in keys {
        let key = names.text(*key).unwrap_or_default();
        let Some(element) = elements.get(key) else {
            return Err(Error::new(Code::BadHeader, format!("storage {key:?} is in no tensor")).at(at));
        };
        let count = read_at(file, at, 8)?;
        let count = count.as_chunks::<8>().0.first().map_or(0, |b| u64::from_le_bytes(*b));
        let n_bytes = count.checked_mul(element.n_bytes()).filter(|n| *n <= len.saturating_sub(at + 8));
        let n_bytes = n_bytes.ok_or_else(|| {
            Error::new(Code::Truncated, format!("storage {key:?} is longer than the file")).at(at)
        })?;
        places.insert(key.to_string(), (at + 8, n_bytes));
        at += 8 + n_bytes;
    }
    file.seek(SeekFrom::Start(0)).map_err(|e| Error::new(Code::Io, e.to_string()).source(e))?;
    tensors(&pickle, &places)
}

/// The tensors of the state dict; `places` says where storages are and how long, in bytes.
fn tensors(pickle: &Pickle, places: &BTreeMap<String, (u64, u64)>) -> Result<Vec<TorchTensor>> {
    let none = || Error::new(Code::MissingTensor, "the checkpoint has no state dict with tensors");
    let dict = state_dict(pickle, pickle.root, 0).ok_or_else(none)?;
    let mut order: Vec<&str> = Vec::new();
    let mut views: BTreeMap<&str, &View> = BTreeMap::new();
    for (key, value) in dict {
        if let (Some(name), Some(Object::Tensor(view))) = (pickle.text(*key), pickle.object(*value))
            && views.insert(name, view).is_none()
        {
            order.push(name);
        }
    }
    let tensor = |name: &str| place(pickle, name, views[name], places).map_err(|e| e.tensor(name));
    order.into_iter().map(tensor).collect()
}

fn state_dict(pickle: &Pickle, value: Value, depth: usize) -> Option<&[(Value, Value)]> {
    let Some(Object::Dict(entries)) = pickle.object(value) else { return None };
    if entries.iter().any(|(_, v)| matches!(pickle.object(*v), Some(Object::Tensor(_)))) {
        return Some(entries);
    }
    if depth == MAX_DEPTH {
        return None;
    }
    let named = |name: &&str| entries.iter().rev().find(|(key, _)| pickle.text(*key) == Some(*name));
    STATE_DICTS.iter().filter_map(named).find_map(|(_, v)| state_dict(pickle, *v, depth + 1))
}

fn place(
    pickle: &Pickle,
    name: &str,
    view: &View,
    places: &BTreeMap<String, (u64, u64)>,
) -> Result<TorchTensor> {
    let Some(Object::Storage { element, key, len }) = pickle.objects.get(view.storage) else {
        return Err(Error::new(Code::BadOffset, "a tensor without a storage"));
    };
    let missing = || Error::new(Code::BadOffset, format!("its storage {key:?} is not in the file"));
    let (at, n_bytes) = *places.get(key).ok_or_else(missing)?;
    let size = element.n_bytes();
    let held = (*len).min(n_bytes / size);
    let n = super::n_elements(&view.shape)?;
    let outside = || Error::new(Code::BadShape, format!("{:?} elements of a storage of {held}", view.shape));
    // Views that repeat elements would make much of little.
    if n > held {
        return Err(outside());
    }
    let mut steps =
        view.shape.iter().zip(&view.strides).map(|(dim, s)| dim.saturating_sub(1).checked_mul(*s));
    let span = steps.try_fold(0u64, |sum, step| sum.checked_add(step?)).ok_or_else(outside)?;
    if n > 0 && view.offset.checked_add(span).is_none_or(|last| last >= held) {
        return Err(outside());
    }
    let shape = view.shape.iter().map(|&d| usize::try_from(d).map_err(|_| outside()));
    Ok(TorchTensor {
        name: name.to_string(),
        element: *element,
        shape: shape.collect::<Result<_>>()?,
        strides: view.strides.clone(),
        first_at: at + view.offset.saturating_mul(size).min(n_bytes),
        span,
    })
}
