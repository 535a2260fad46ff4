//! The readers of files on files made by hand: each field, each limit.
#![cfg(not(target_arch = "wasm32"))]

#[path = "readers/joining.rs"]
mod joining;
#[path = "readers/metadata.rs"]
mod metadata;
#[path = "readers/pickle.rs"]
mod pickle;
#[path = "readers/reader.rs"]
mod reader;
#[path = "readers/shards.rs"]
mod shards;
#[path = "readers/sniff.rs"]
mod sniff;
#[path = "readers/stream.rs"]
mod stream;
#[path = "readers/tflite.rs"]
mod tflite;
#[path = "readers/torch.rs"]
mod torch;
#[path = "readers/zip.rs"]
mod zip;
