//! Everything that JavaScript sees: thin wrappers over [`crate::tasks`], no arithmetic.
//!
//! Failures cross as plain objects `{ code, message, key?, tensor?, offset? }`. A panic traps
//! the instance; its text is left in the global `bitpanePanic` first, because nothing may be
//! called in a trapped instance.

mod encoder;
mod inspect;
mod pool;
mod text;
mod vision;

pub use encoder::EncoderModel;
pub use inspect::Inspector;
pub use text::{Generation, Scoring, TextModel};
pub use vision::VisionModel;

use crate::error::{Code, Error};
use crate::kernels;
use crate::tasks;
use js_sys::{Object, Reflect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;

/// Runs once in every thread, when the module is instantiated.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| {
        kernels::pool::set_broken(&info.to_string());
        let _ = Reflect::set(&js_sys::global(), &"bitpanePanic".into(), &info.to_string().into());
        console_error_panic_hook::hook(info);
    }));
}

/// The crate's version: JavaScript of another version refuses to work with this module.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// Chooses how products are formed by measuring, which takes some 20 ms. Before a model loads; and again once it has, when the engine has optimised the code.
#[wasm_bindgen(js_name = selectPaths)]
pub fn select_paths() {
    kernels::select_paths(&now_ms);
}

#[wasm_bindgen]
extern "C" {
    /// The clock of pages and workers alike, in milliseconds.
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn now_ms() -> f64;
}

/// Bytes of WebAssembly memory.
#[wasm_bindgen(js_name = memoryBytes)]
pub fn memory_bytes() -> f64 {
    core::arch::wasm32::memory_size::<0>() as f64 * 65536.0
}

/// Takes a model file chunk by chunk.
#[wasm_bindgen]
pub struct Loader {
    inner: tasks::Loader,
    /// The running hash and the one that is wanted, in lower-case hexadecimal.
    sha256: Option<(Sha256, String)>,
}

#[wasm_bindgen]
impl Loader {
    /// A loader. `options` are those of [`tasks::LoadOptions`]; `file_len` is given where it
    /// is certain; `sha256`, 64 hexadecimal digits, is what the whole file must have.
    #[wasm_bindgen(constructor)]
    pub fn new(options: JsValue, file_len: Option<f64>, sha256: Option<String>) -> Result<Loader, JsValue> {
        let inner = tasks::Loader::new(from_js(options)?, file_len.map(|n| n as u64)).map_err(to_object)?;
        Ok(Loader { inner, sha256: sha256.map(|wanted| (Sha256::new(), wanted.to_ascii_lowercase())) })
    }

    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), JsValue> {
        if let Some((hash, _)) = &mut self.sha256 {
            hash.update(bytes);
        }
        self.inner.push(bytes).map_err(to_object)
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
        if let Some((hash, wanted)) = self.sha256 {
            let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if found != wanted {
                let what = format!("the file's SHA-256 is {found}, expected {wanted}");
                return Err(to_object(Error::new(Code::IntegrityError, what).key("sha256")));
            }
        }
        self.inner.finish().map(|model| Loaded { model: Some(model) }).map_err(to_object)
    }
}

/// A LoRA adapter, to be given to a [`Loader`].
#[wasm_bindgen]
pub struct Adapter {
    inner: crate::models::Adapter,
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

/// An error as a plain object.
fn to_object(error: Error) -> JsValue {
    let object = Object::new();
    let set = |key: &str, value: JsValue| {
        let _ = Reflect::set(&object, &key.into(), &value);
    };
    set("code", error.code.as_str().into());
    set("message", error.to_string().into());
    if let Some(key) = error.key {
        set("key", key.into());
    }
    if let Some(tensor) = error.tensor {
        set("tensor", tensor.into());
    }
    if let Some(offset) = error.offset {
        set("offset", (offset as f64).into());
    }
    object.into()
}

/// Options from JavaScript; whatever does not fit is a bad argument.
fn from_js<T: DeserializeOwned + Default>(value: JsValue) -> Result<T, JsValue> {
    if value.is_undefined() {
        return Ok(T::default());
    }
    serde_wasm_bindgen::from_value(value)
        .map_err(|error| to_object(Error::new(Code::BadArgument, error.to_string()).key("options")))
}

/// Plain data to JavaScript: maps become objects, what is absent becomes `undefined`.
fn to_js<T: Serialize>(value: &T) -> Result<JsValue, JsValue> {
    let serializer = serde_wasm_bindgen::Serializer::new().serialize_maps_as_objects(true);
    value.serialize(&serializer).map_err(|error| to_object(Error::new(Code::BadValue, error.to_string())))
}
