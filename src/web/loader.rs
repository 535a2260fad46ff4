//! Model files on their way in.

use super::{EncoderModel, TextModel, VisionModel, from_js, now_ms, to_js, to_object};
use crate::container::shards;
use crate::kernels;
use crate::models;
use crate::tasks;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;
use xxhash_rust::xxh64::Xxh64;

/// Names of all shards of a split model, in order, if `name` is one of them.
#[wasm_bindgen(js_name = shardNames)]
pub fn shard_names(name: &str) -> Result<Option<Vec<String>>, JsValue> {
    shards::siblings(name).map_err(to_object)
}

/// Which file of a safetensors model holds which tensor.
#[wasm_bindgen]
pub struct ShardIndex {
    inner: shards::ShardIndex,
}

#[wasm_bindgen]
impl ShardIndex {
    /// Reads an index (`model.safetensors.index.json`).
    #[wasm_bindgen(constructor)]
    pub fn new(json: &[u8]) -> Result<ShardIndex, JsValue> {
        shards::ShardIndex::parse(json).map(|inner| ShardIndex { inner }).map_err(to_object)
    }

    /// Names of the files, in the order in which a [`Loader`] takes them.
    pub fn files(&self) -> Vec<String> {
        self.inner.files().to_vec()
    }
}

impl ShardIndex {
    /// What it is outside of JavaScript.
    pub(super) fn into_inner(self) -> shards::ShardIndex {
        self.inner
    }
}

/// Hashes of bytes that arrive in portions: SHA-256 of all of them, XXH64 of each block.
#[wasm_bindgen]
pub struct Hasher {
    sha256: Option<Sha256>,
    xxh64: Xxh64,
}

#[wasm_bindgen]
impl Hasher {
    /// A hasher of no bytes yet. XXH64 is quick and tells accidents; SHA-256 tells everything.
    #[wasm_bindgen(constructor)]
    pub fn new(with_sha256: bool) -> Hasher {
        Hasher { sha256: with_sha256.then(Sha256::new), xxh64: Xxh64::new(0) }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.xxh64.update(bytes);
        if let Some(hash) = &mut self.sha256 {
            hash.update(bytes);
        }
    }

    /// XXH64 of the bytes since the last call, 16 hexadecimal digits.
    #[wasm_bindgen(js_name = takeBlock)]
    pub fn take_block(&mut self) -> String {
        let digest = self.xxh64.digest();
        self.xxh64.reset(0);
        format!("{digest:016x}")
    }

    /// SHA-256 of all bytes, 64 hexadecimal digits, if it was asked for.
    pub fn sha256(&self) -> Option<String> {
        let hash = self.sha256.clone()?;
        Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Address and length, exact in doubles also where memories are larger than 4 GiB.
fn place(bytes: &[u8]) -> [f64; 2] {
    [bytes.as_ptr().addr() as f64, bytes.len() as f64]
}

fn sum(pieces: &[&[u8]]) -> String {
    let mut hash = Xxh64::new(0);
    pieces.iter().for_each(|piece| hash.update(piece));
    format!("{:016x}", hash.digest())
}

/// [`tasks::IMAGE_VERSION`].
#[wasm_bindgen(js_name = imageVersion)]
pub fn image_version() -> u32 {
    tasks::IMAGE_VERSION
}

/// Takes a model's files chunk by chunk.
#[wasm_bindgen]
pub struct Loader {
    inner: tasks::Loader,
}

#[wasm_bindgen]
impl Loader {
    /// A loader. `options` are those of [`tasks::LoadOptions`]; `file_len` is given where it is certain.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue, file_len: Option<f64>) -> Result<Loader, JsValue> {
        let inner = tasks::Loader::new(from_js(options)?, file_len.map(|n| n as u64)).map_err(to_object)?;
        Ok(Loader { inner })
    }

    /// Declares in how many files the model is.
    #[wasm_bindgen(js_name = expectFiles)]
    pub fn expect_files(&mut self, n: usize) {
        self.inner.expect_files(n);
    }

    /// Declares that the model is in the files of an index.
    #[wasm_bindgen(js_name = expectIndex)]
    pub fn expect_index(&mut self, index: &ShardIndex) {
        self.inner.expect_index(index.inner.clone());
    }

    /// Declares that the next byte is the first of the next file.
    #[wasm_bindgen(js_name = nextFile)]
    pub fn next_file(&mut self, file_len: Option<f64>) -> Result<(), JsValue> {
        self.inner.next_file(file_len.map(|n| n as u64)).map_err(to_object)
    }

    /// Declares that the file is complete.
    #[wasm_bindgen(js_name = endFile)]
    pub fn end_file(&mut self) -> Result<(), JsValue> {
        self.inner.end_file().map_err(to_object)
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        self.inner.push(bytes).map_err(to_object)?;
        kernels::warm_paths(&now_ms);
        Ok(())
    }

    /// Takes the next bytes if this is their XXH64; whether it is.
    #[wasm_bindgen(js_name = pushChecked)]
    pub fn push_checked(&mut self, bytes: &[u8], xxh64: &str) -> Result<bool, JsValue> {
        if format!("{:016x}", xxhash_rust::xxh64::xxh64(bytes, 0)) != xxh64 {
            return Ok(false);
        }
        self.push(bytes)?;
        Ok(true)
    }

    /// Takes the next bytes, and has them hashed.
    #[wasm_bindgen(js_name = pushHashed)]
    pub fn push_hashed(&mut self, bytes: &[u8], hasher: &mut Hasher) -> Result<(), JsValue> {
        hasher.update(bytes);
        self.push(bytes)
    }

    /// As [`tasks::Loader::image_header`].
    #[wasm_bindgen(js_name = imageHeader)]
    pub fn image_header(&self) -> Option<f64> {
        self.inner.image_header().map(|n| n as f64)
    }

    /// Where the pieces of a tensor's image lie in memory until the next call: address and length of each.
    pub fn image(&self, idx: usize) -> Vec<f64> {
        self.inner.image(idx).iter().flat_map(|piece| place(piece)).collect()
    }

    /// XXH64 of a tensor's image.
    #[wasm_bindgen(js_name = imageSum)]
    pub fn image_sum(&self, idx: usize) -> String {
        sum(&self.inner.image(idx))
    }

    /// Begins the next tensor as an image: where the pieces to be filled lie, as [`Self::image`].
    #[wasm_bindgen(js_name = beginImage)]
    pub fn begin_image(&mut self) -> Result<Vec<f64>, JsValue> {
        let pieces = self.inner.begin_image().map_err(to_object)?;
        kernels::warm_paths(&now_ms);
        Ok(pieces.iter().flat_map(|piece| place(piece)).collect())
    }

    /// Takes the pieces as they are filled now if this is their XXH64; whether it is.
    #[wasm_bindgen(js_name = endImage)]
    pub fn end_image(&mut self, xxh64: &str) -> Result<bool, JsValue> {
        if sum(&self.inner.filled_image()) != xxh64 {
            return Ok(false);
        }
        self.inner.end_image().map_err(to_object)?;
        Ok(true)
    }

    /// How far the load is: [`tasks::LoadProgress`].
    pub fn progress(&self) -> Result<JsValue, JsValue> {
        to_js(&self.inner.progress())
    }

    /// Has the model changed by an adapter, `scale` times.
    pub fn adapt(&mut self, adapter: Adapter, scale: f32) -> Result<(), JsValue> {
        self.inner.adapt(adapter.inner, scale).map_err(to_object)
    }

    /// Builds an adapter after the last byte.
    #[wasm_bindgen(js_name = finishAdapter)]
    pub fn finish_adapter(self) -> Result<Adapter, JsValue> {
        self.inner.finish_adapter().map(|inner| Adapter { inner }).map_err(to_object)
    }

    /// Builds the model after the last byte.
    pub fn finish(self) -> Result<Loaded, JsValue> {
        self.inner.finish().map(|model| Loaded { model: Some(model) }).map_err(to_object)
    }
}

/// A LoRA adapter, to be given to a [`Loader`].
#[wasm_bindgen]
pub struct Adapter {
    inner: models::Adapter,
}

/// A loaded model of either kind, to be taken out as what it is.
#[wasm_bindgen]
pub struct Loaded {
    model: Option<tasks::Loaded>,
}

#[wasm_bindgen]
impl Loaded {
    /// `"text"`, `"encoder"`, `"vision"`, or `"taken"`.
    pub fn kind(&self) -> String {
        match self.model {
            Some(tasks::Loaded::Text(_)) => "text",
            Some(tasks::Loaded::Encoder(_)) => "encoder",
            Some(tasks::Loaded::Vision(_)) => "vision",
            None => "taken",
        }
        .into()
    }

    /// The language model, if it is one and has not been taken.
    #[wasm_bindgen(js_name = takeText)]
    pub fn take_text(&mut self) -> Option<TextModel> {
        match self.model.take() {
            Some(tasks::Loaded::Text(model)) => Some(TextModel::new(*model)),
            other => {
                self.model = other;
                None
            }
        }
    }

    /// The encoder, if it is one and has not been taken.
    #[wasm_bindgen(js_name = takeEncoder)]
    pub fn take_encoder(&mut self) -> Option<EncoderModel> {
        match self.model.take() {
            Some(tasks::Loaded::Encoder(model)) => Some(EncoderModel::new(*model)),
            other => {
                self.model = other;
                None
            }
        }
    }

    /// The vision model, if it is one and has not been taken.
    #[wasm_bindgen(js_name = takeVision)]
    pub fn take_vision(&mut self) -> Option<VisionModel> {
        match self.model.take() {
            Some(tasks::Loaded::Vision(model)) => Some(VisionModel::new(*model)),
            other => {
                self.model = other;
                None
            }
        }
    }
}
