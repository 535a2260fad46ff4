//! The readers of files that `bitpane convert` takes, on files made by hand: each field, each limit.
#![cfg(not(target_arch = "wasm32"))]

#[path = "readers/tflite.rs"]
mod tflite;
#[path = "readers/torch.rs"]
mod torch;
#[path = "readers/zip.rs"]
mod zip;
