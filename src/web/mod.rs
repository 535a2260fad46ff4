//! Everything that JavaScript sees: thin wrappers over [`crate::tasks`], no arithmetic.
//!
//! Failures cross as plain objects `{ code, message, key?, tensor?, offset?, needed?, available? }`. A panic traps
//! the instance; its text is left in the global `bitpanePanic` first, because nothing may be
//! called in a trapped instance.

mod encoder;
mod inspect;
mod loader;
mod pool;
mod quantize;
mod text;
mod vision;

pub use encoder::EncoderModel;
pub use inspect::Inspector;
pub use loader::{Adapter, Hasher, Loaded, Loader, ShardIndex, shard_names};
pub use quantize::{Quantizer, Surveyor};
pub use text::{Generation, Scoring, TextModel};
pub use vision::VisionModel;

use crate::error::{Code, Error};
use crate::kernels;
use crate::repack::CacheLines;
#[cfg(target_arch = "wasm32")]
use core::arch::wasm32::memory_size;
#[cfg(target_arch = "wasm64")]
use core::arch::wasm64::memory_size;
use js_sys::{Object, Reflect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::prelude::*;

#[global_allocator]
static ALLOCATOR: CacheLines = CacheLines;

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

/// Chooses how products are formed by measuring, which takes some 20 ms. Once a model has loaded, when the engine has
/// optimised the code.
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
    memory_size::<0>() as f64 * 65536.0
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
    if let Some(&(needed, available)) = error.memory.as_deref() {
        set("needed", (needed as f64).into());
        set("available", (available as f64).into());
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
