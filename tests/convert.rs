//! Checkpoints of PyTorch and .tflite files as GGUF, and what is refused. What the readers take is in readers.rs.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::container::{self, tflite};
use bitpane::error::Code;
use bitpane::tasks::convert::{Extras, tflite_to_gguf, torch_to_gguf};
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use std::io::Cursor;

#[test]
fn what_is_no_vision_model_is_refused() {
    let file = std::fs::read(format!("{}/tests/data/torch/zip.pth", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let convert = |file: &[u8]| {
        let mut out = Vec::new();
        torch_to_gguf(&mut Cursor::new(file), file.len() as u64, &mut out, &Extras::default())
    };
    assert_eq!(convert(&file).unwrap_err().code, Code::UnsupportedArch);
}

/// The codes, scales and biases of a .tflite are in the GGUF file as they were.
#[test]
fn tflite_keeps_codes_and_scales_exactly() {
    let Some(folder) = common::shared("data/cnn") else { return };
    for name in ["mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq", "mobilenet_v1_0.25_128_quant"]
    {
        let file = std::fs::read(folder.join(format!("{name}.tflite"))).unwrap();
        let gguf = tflite_to_gguf(&file, &Extras { name: Some(name.into()), ..Extras::default() }).unwrap();
        let header = container::parse(&gguf, Some(gguf.len() as u64)).unwrap().unwrap();
        assert_eq!(header.metadata.str("general.name").unwrap(), Some(name));
        let graph = tflite::parse(&file).unwrap();
        let is_product = |o: &&tflite::Operator| {
            matches!(o.kind, tflite::Kind::Conv2d(_) | tflite::Kind::DepthwiseConv2d(_))
        };
        let mut weights = header.tensors.iter().filter(|t| t.name.ends_with(".weight"));
        let data = |t: &container::TensorInfo| &gguf[t.offset as usize..][..t.n_bytes as usize];
        for operator in graph.operators.iter().filter(is_product) {
            let part = |i: usize| &graph.tensors[operator.inputs[i].unwrap()];
            let weight = weights.next().unwrap();
            let flip = if part(1).element == tflite::ElementType::U8 { 0x80 } else { 0 };
            assert!(data(weight).iter().eq(part(1).data.iter().map(|b| b ^ flip).collect::<Vec<_>>().iter()));
            let other = |suffix: &str| data(header.tensor(&weight.name.replace("weight", suffix)).unwrap());
            assert_eq!(other("bias"), part(2).data);
            let scale: Vec<u8> = part(1).scale.iter().flat_map(|s| s.to_le_bytes()).collect();
            assert_eq!(other("scale"), scale);
        }
        assert!(weights.next().is_none(), "{name}: all of them");
    }
}

/// Bytes changed at random places: an error or a model, and nothing else. The first bytes hold most offsets.
#[test]
fn damaged_tflite_files_are_errors() {
    let Some(folder) = common::shared("data/cnn") else { return };
    let whole = std::fs::read(folder.join("mobilenet_v1_0.25_128_quant.tflite")).unwrap();
    // What labels and descriptions follow the graph are not needed.
    for len in (0..whole.len() * 9 / 10).step_by(whole.len() / 50) {
        assert!(tflite_to_gguf(&whole[..len], &Extras::default()).is_err(), "{len} bytes");
    }
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut loaded = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(4) {
            // Tables and offsets are at both ends, weights between.
            let at = if random(2) == 0 { random(4096) } else { bytes.len() - 1 - random(40_000) };
            bytes[at] = random(256) as u8;
        }
        if let Ok(gguf) = tflite_to_gguf(&bytes, &Extras::default()) {
            let mut loader = Loader::new(LoadOptions::default(), None).unwrap();
            loaded += usize::from(loader.push(&gguf).and_then(|()| loader.finish()).is_ok());
        }
    }
    assert!(loaded > 20, "{loaded}: too few changes pass the reader to test what follows it");
}

/// Graphs whose lists have been changed at random compute something or are refused.
#[test]
fn damaged_graphs_are_errors() {
    let Some(folder) = common::shared("data/cnn") else { return };
    let file = std::fs::read(folder.join("mobilenet_v1_0.25_128_quant.tflite")).unwrap();
    let whole = tflite_to_gguf(&file, &Extras::default()).unwrap();
    let header = container::parse(&whole, None).unwrap().unwrap();
    let mut state = 5u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let mut computed = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        // Numbers of the lists, in whose low bytes small changes stay plausible.
        let at = random(header.data_offset as usize);
        bytes[at] = [bytes[at] ^ 1 << random(8), random(4) as u8][random(2)];
        let mut loader = Loader::new(LoadOptions::default(), None).unwrap();
        let Ok(Loaded::Vision(mut model)) = loader.push(&bytes).and_then(|()| loader.finish()) else {
            continue;
        };
        let size = model.info().image_size;
        if size <= 256 {
            computed += usize::from(model.logits(&vec![0.1; 3 * size * size], &[3, size, size]).is_ok());
        }
    }
    assert!(computed > 50, "{computed}: too few graphs are computed to test what they do");
}
