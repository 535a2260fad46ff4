//! Checkpoints of PyTorch and .tflite graphs: damaged ones are refused or read, within their own size.

use super::mutate::{Random, corpus, mutated};
use bitpane::container::{pickle, tflite, torch};
use bitpane::tasks::convert::{Extras, tflite_to_gguf, torch_to_gguf};
use std::io::Cursor;
use std::sync::OnceLock;

const WORDS: [&[u8]; 16] = [
    b"ccollections\nOrderedDict\n)R",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"cos\nsystem\n",
    b"}q\0(",
    b"h\0h\0\x86",
    b"K\xff\x85R",
    b"Q",
    b"tR",
    b"u.",
    b"\x8a\xff",
    b"PK\x05\x06",
    b"PK\x01\x02",
    b"TFL3",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
];

pub fn one(seed: u64) {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    let mut random = Random(seed);
    let bytes = mutated(&mut random, SEEDS.get_or_init(|| corpus("checkpoint")), &WORDS);
    let _ = pickle::read(&bytes);
    for tensor in torch::read(&mut Cursor::new(&bytes), bytes.len() as u64).unwrap_or_default() {
        assert!(tensor.len() <= bytes.len(), "more elements than bytes");
        let _ = tensor.read(&mut Cursor::new(&bytes));
    }
    let mut out = Vec::new();
    let _ = torch_to_gguf(&mut Cursor::new(&bytes), bytes.len() as u64, &mut out, &Extras::default());
    if bytes.len() > 8 {
        let graph = [&bytes[..4], b"TFL3", &bytes[8..]].concat();
        let _ = tflite::parse(&graph);
        let _ = tflite_to_gguf(&graph, &Extras::default());
    }
}
