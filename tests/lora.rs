//! Adapters: beside the matrices they do what they would do merged into them.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::container::{gguf_write::GgufWriter, parse};
use bitpane::models::Adapter;
use bitpane::quant::DType;
use bitpane::tasks::{LoadOptions, Loaded, Loader, TextModel};
use bitpane::{Code, Error, Result};
use common::shared;

const MODEL: &str = "data/lm/stories260K/stories260K.F32.gguf";
const TOKENS: [u32; 6] = [1, 403, 407, 261, 378, 29];
const RANK: usize = 4;
const ALPHA: f32 = 6.0;

/// Deterministic numbers within +-0.1.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2001) as f32 / 10_000.0 - 0.1).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// An adapter file of these (name, shape, values).
fn file(metadata: impl Fn(&mut GgufWriter), tensors: &[(String, [usize; 2], Vec<f32>)]) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    metadata(&mut writer);
    for (name, shape, _) in tensors {
        writer.tensor(name, DType::F32, shape).unwrap();
    }
    let data: Vec<Vec<u8>> = tensors.iter().map(|(_, _, values)| bytes_of(values)).collect();
    writer.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn is_adapter(writer: &mut GgufWriter) {
    writer.str("general.type", "adapter").str("general.architecture", "llama");
    writer.str("adapter.type", "lora").f32("adapter.lora.alpha", ALPHA);
}

fn pair(name: &str, n: usize, k: usize, seed: usize) -> Vec<(String, [usize; 2], Vec<f32>)> {
    vec![
        (format!("{name}.lora_a"), [RANK, k], numbers(RANK * k, seed)),
        (format!("{name}.lora_b"), [n, RANK], numbers(n * RANK, seed + 1)),
    ]
}

fn adapter(bytes: &[u8]) -> Result<Adapter> {
    let mut loader = Loader::new(LoadOptions::default(), Some(bytes.len() as u64))?;
    loader.push(bytes)?;
    loader.finish_adapter()
}

fn model(bytes: &[u8], adapters: Vec<(Adapter, f32)>) -> Result<TextModel> {
    let mut loader = Loader::new(LoadOptions { reference: true, ..LoadOptions::default() }, None)?;
    loader.push(bytes)?;
    for (adapter, scale) in adapters {
        loader.adapt(adapter, scale)?;
    }
    match loader.finish()? {
        Loaded::Text(model) => Ok(*model),
        _ => panic!("no language model"),
    }
}

const CHANGED: [&str; 3] = ["blk.0.attn_q.weight", "blk.2.ffn_down.weight", "blk.4.attn_output.weight"];

/// The model file with `scale * alpha / rank * B A` added to the matrices.
fn merged(file: &[u8], scale: f32) -> Vec<u8> {
    let mut out = file.to_vec();
    let header = parse(file, Some(file.len() as u64)).unwrap().unwrap();
    for (i, name) in CHANGED.iter().enumerate() {
        let tensor = header.tensor(name).unwrap();
        let &[n, k] = tensor.shape.as_slice() else { panic!("{name} is no matrix") };
        let (a, b) = (numbers(RANK * k, 10 * i), numbers(n * RANK, 10 * i + 1));
        for (j, element) in out[tensor.offset as usize..][..4 * n * k].chunks_exact_mut(4).enumerate() {
            let low: f32 = (0..RANK).map(|r| b[j / k * RANK + r] * a[r * k + j % k]).sum();
            let w = f32::from_le_bytes(element.try_into().unwrap()) + scale * ALPHA / RANK as f32 * low;
            element.copy_from_slice(&w.to_le_bytes());
        }
    }
    out
}

fn shape_of(file: &[u8], name: &str) -> (usize, usize) {
    let header = parse(file, Some(file.len() as u64)).unwrap().unwrap();
    let shape = &header.tensor(name).unwrap().shape;
    (shape[0], shape[1])
}

#[test]
fn an_adapter_does_what_merging_it_does() {
    let Some(path) = shared(MODEL) else { return };
    let plain = std::fs::read(path).unwrap();
    let tensors: Vec<_> = CHANGED
        .iter()
        .enumerate()
        .flat_map(|(i, name)| {
            let (n, k) = shape_of(&plain, name);
            pair(name, n, k, 10 * i)
        })
        .collect();
    let lora = file(is_adapter, &tensors);
    let logits = |mut model: TextModel| model.logits(&TOKENS, TOKENS.len()).unwrap().concat();
    let base = logits(model(&plain, Vec::new()).unwrap());
    for scale in [1.0, 0.5, -2.0] {
        let want = logits(model(&merged(&plain, scale), Vec::new()).unwrap());
        let got = logits(model(&plain, vec![(adapter(&lora).unwrap(), scale)]).unwrap());
        let far = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        let (error, effect) = (far(&got, &want), far(&base, &want));
        println!("scale {scale}: off by {error:.1e}, the adapter changes {effect:.2}");
        assert!(error < 2e-4 && effect > 0.1, "{scale}: {error} of {effect}");
    }
    // Two halves make a whole.
    let halves = (0..2).map(|_| (adapter(&lora).unwrap(), 0.5)).collect();
    let (once, twice) =
        (model(&plain, vec![(adapter(&lora).unwrap(), 1.0)]).unwrap(), model(&plain, halves).unwrap());
    assert!(logits(once).iter().zip(logits(twice)).all(|(a, b)| (a - b).abs() < 2e-4));
}

fn failure<T>(result: Result<T>) -> (Code, String) {
    let Error { code, key, tensor, .. } = result.err().expect("an error");
    (code, tensor.or(key).unwrap_or_default())
}

#[test]
fn what_does_not_fit_is_an_error_that_names_it() {
    let Some(path) = shared(MODEL) else { return };
    let plain = std::fs::read(path).unwrap();
    let q = CHANGED[0];
    let (n, k) = shape_of(&plain, q);
    let load = |bytes: &[u8]| model(&plain, vec![(adapter(bytes)?, 1.0)]);
    let named = |code, name: &str| (code, name.to_string());

    assert_eq!(failure(load(&plain)), named(Code::BadConfig, "general.type"));
    assert_eq!(
        failure(model(&file(is_adapter, &pair(q, n, k, 0)), Vec::new())),
        named(Code::UnsupportedArch, "general.type")
    );
    assert_eq!(failure(load(&file(is_adapter, &pair(q, n, k + 1, 0)))), named(Code::ShapeMismatch, q));
    assert_eq!(
        failure(load(&file(is_adapter, &pair("blk.99.attn_q.weight", n, k, 0)))),
        named(Code::MissingTensor, "blk.99.attn_q.weight")
    );
    let one = &pair(q, n, k, 0)[..1];
    assert_eq!(failure(load(&file(is_adapter, one))), named(Code::MissingTensor, &format!("{q}.lora_b")));
    assert_eq!(
        failure(load(&file(is_adapter, &pair(q, n, k, 0)[1..]))),
        named(Code::MissingTensor, &format!("{q}.lora_b"))
    );
    assert_eq!(failure(load(&file(is_adapter, &[]))), named(Code::BadConfig, "general.type"));
    let mut ranks = pair(q, n, k, 0);
    ranks[1] = (ranks[1].0.clone(), [n, RANK + 1], numbers(n * (RANK + 1), 1));
    assert_eq!(failure(load(&file(is_adapter, &ranks))), named(Code::ShapeMismatch, &format!("{q}.lora_b")));
    // The embedding is looked up, not multiplied.
    let (rows, width) = shape_of(&plain, "token_embd.weight");
    assert_eq!(
        failure(load(&file(is_adapter, &pair("token_embd.weight", rows, width, 0)))),
        named(Code::UnsupportedArch, "token_embd.weight")
    );

    let other = |w: &mut GgufWriter| {
        w.str("general.type", "adapter").str("general.architecture", "qwen2").str("adapter.type", "lora");
    };
    let kind = |w: &mut GgufWriter| {
        w.str("general.type", "adapter").str("general.architecture", "llama").str("adapter.type", "loha");
    };
    let alpha = |w: &mut GgufWriter| {
        w.str("general.type", "adapter").str("general.architecture", "llama").str("adapter.type", "lora");
        w.f32("adapter.lora.alpha", f32::NAN);
    };
    let tensors = pair(q, n, k, 0);
    assert_eq!(failure(load(&file(kind, &tensors))), named(Code::BadConfig, "adapter.type"));
    assert_eq!(failure(load(&file(alpha, &tensors))), named(Code::BadConfig, "adapter.lora.alpha"));
    assert!(matches!(failure(load(&file(other, &tensors))).0, Code::BadConfig | Code::UnsupportedArch));
    let fits = || adapter(&file(is_adapter, &tensors)).unwrap();
    assert_eq!(failure(model(&plain, vec![(fits(), f32::NAN)])), named(Code::BadArgument, "scale"));
}
