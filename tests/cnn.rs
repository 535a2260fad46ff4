//! Small CNNs with random weights against timm, torchvision and transformers (`tests/data/cnn_goldens.py` made
//! the logits; the weights follow from the names of the tensors).
#![cfg(not(target_arch = "wasm32"))]

use bitpane::tasks::{LoadOptions, Loaded, Loader, VisionModel};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Clone, Deserialize)]
struct Golden {
    config: Value,
    size: usize,
    gain: f64,
    tensors: Vec<(String, Vec<usize>)>,
    logits: Vec<f32>,
}

/// `n` numbers in 0 .. 1 of the splitmix64 stream that the name seeds.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f64> {
    let seed =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 24)
    })
}

fn values(name: &str, shape: &[usize], gain: f64) -> Vec<f32> {
    let inner: usize = shape[1..].iter().product();
    let value = |u: f64| {
        if name.ends_with("running_var") {
            0.5 + u
        } else if shape.len() >= 2 && inner > 1 {
            (2.0 * u - 1.0) * (gain / inner as f64).sqrt()
        } else if name.ends_with("bias") || name.ends_with("running_mean") {
            0.2 * (2.0 * u - 1.0)
        } else {
            0.8 + 0.4 * u
        }
    };
    uniform(name, shape.iter().product()).map(|u| value(u) as f32).collect()
}

fn safetensors(golden: &Golden) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape) in &golden.tensors {
        let begin = data.len();
        data.extend(values(name, shape, golden.gain).into_iter().flat_map(f32::to_le_bytes));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

fn load(golden: &Golden, options: LoadOptions) -> bitpane::error::Result<VisionModel> {
    let bytes = safetensors(golden);
    let mut loader = Loader::new(options, Some(bytes.len() as u64))?;
    loader.push(&bytes)?;
    match loader.finish()? {
        Loaded::Vision(model) => Ok(*model),
        _ => panic!("not a vision model"),
    }
}

fn options(golden: &Golden) -> LoadOptions {
    LoadOptions { config: Some(golden.config.to_string()), ..LoadOptions::default() }
}

fn goldens() -> Vec<(String, Golden)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cnn");
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().to_string();
    let read = |path: &std::path::Path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    found.iter().map(|path| (name(path), read(path))).collect()
}

fn logits(model: &mut VisionModel, size: usize) -> Vec<f32> {
    let pixels: Vec<f32> =
        uniform("input", 3 * size * size).map(|u| (2.0 * (2.0 * u - 1.0)) as f32).collect();
    model.logits(&pixels, &[1, 3, size, size]).unwrap()
}

fn max_abs(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Files say everything that the published code knows, by a config; in F32 the logits are its.
#[test]
fn logits_are_those_of_the_published_code() {
    let goldens = goldens();
    assert!(goldens.len() >= 23, "{} goldens", goldens.len());
    let mut faults = Vec::new();
    for (name, golden) in &goldens {
        match load(golden, options(golden)) {
            Ok(mut model) => {
                let off = max_abs(&logits(&mut model, golden.size), &golden.logits);
                eprintln!("{name}: {} max abs {off:.1e}", model.info().architecture);
                if off.is_nan() || off > 1e-3 {
                    faults.push(format!("{name}: max abs {off}"));
                }
            }
            Err(e) => faults.push(format!("{name}: {e}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
