//! Files of other programs to GGUF.

mod tflite;

pub use tflite::tflite_to_gguf;
