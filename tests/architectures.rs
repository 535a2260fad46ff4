//! Every architecture against llama.cpp: its logits for a tiny model with random weights, held to
//! its logits for the same model in float32.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::models::{ENCODERS, TEXT};
use bitpane::tasks::{LoadOptions, Loaded, Loader, TextModel};
use common::{json, numbers, shared};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// llama.cpp's error that ours may reach; more where it multiplies floats too, since its error is
/// then only the rounding of activations to 16 bits.
const BOUND: f64 = 1.25;
const FLOAT_BOUND: f64 = 1.5;
/// The stored logits have six digits.
const STORED: f64 = 2e-5;

/// A model and what llama.cpp computes for it.
struct Golden {
    name: String,
    gguf: PathBuf,
    json: Value,
}

impl Golden {
    /// The goldens of a folder whose architecture is a registered language model.
    fn all(folder: &Path) -> Vec<Golden> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
        paths.sort();
        let goldens = paths.into_iter().map(|gguf| {
            let name = gguf.file_stem().unwrap().to_string_lossy().into_owned();
            Golden { name, json: json(&gguf.with_extension("json")), gguf }
        });
        goldens
            .filter(|g| {
                let known = TEXT.iter().any(|(arch, _)| g.json["architecture"] == *arch);
                let is_text = g.json["kind"] == "logits";
                if is_text && !known {
                    println!("{}: architecture {} is not registered", g.name, g.json["architecture"]);
                }
                known && is_text
            })
            .collect()
    }

    fn load(&self) -> TextModel {
        // llama.cpp ran with this many.
        let options = LoadOptions { context_length: Some(256), ..LoadOptions::default() };
        let mut loader = Loader::new(options, None).unwrap();
        let loaded = loader.push(&std::fs::read(&self.gguf).unwrap()).and_then(|()| loader.finish());
        match loaded.unwrap_or_else(|e| panic!("{}: {e}", self.name)) {
            Loaded::Text(model) => *model,
            _ => panic!("{} is no language model", self.name),
        }
    }

    fn tokens(&self) -> Vec<u32> {
        numbers(&self.json["token_ids"]).iter().map(|&id| id as u32).collect()
    }

    fn n_rows(&self) -> usize {
        self.json["positions"].as_array().unwrap().len()
    }

    /// Whether llama.cpp multiplies floats: no tensor is quantized.
    fn is_float(&self) -> bool {
        let types = self.json["tensors"].as_object().unwrap().values();
        types.into_iter().all(|t| ["F32", "F16", "BF16"].contains(&t[0].as_str().unwrap()))
    }
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// The largest entry and its distance from the second.
fn top(row: &[f32]) -> (usize, f32) {
    let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    let second = row.iter().enumerate().filter(|(i, _)| *i != best).fold(f32::MIN, |m, (_, &x)| m.max(x));
    (best, row[best] - second)
}

/// What is wrong with our logits, if anything.
fn compare(golden: &Golden) -> Vec<String> {
    let (tokens, n_rows) = (golden.tokens(), golden.n_rows());
    let mut model = golden.load();
    let got = model.logits(&tokens, n_rows).unwrap();
    let stepwise = model.logits_in_batches(&tokens, n_rows, 1).unwrap();
    let exact = numbers(&golden.json["logits_f32"]);
    let theirs = rms(&numbers(&golden.json["logits_llamacpp"]), &exact);
    let ours = rms(&got.concat(), &exact);
    let bound = theirs * if golden.is_float() { FLOAT_BOUND } else { BOUND } + STORED;
    let step = got.concat().iter().zip(stepwise.concat()).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    println!("{:<20} {ours:>10.2e} {theirs:>10.2e} {:>6.2} {step:>10.1e}", golden.name, ours / theirs);
    let mut wrong = Vec::new();
    if ours.is_nan() || ours > bound {
        wrong.push(format!("{}: RMS error {ours:.3e} is above {bound:.3e}", golden.name));
    }
    for (i, (row, exact)) in got.iter().zip(exact.chunks_exact(got[0].len())).enumerate() {
        let ((best, _), (want, margin)) = (top(row), top(exact));
        if best != want && f64::from(margin) > bound {
            wrong.push(format!("{}: row {i} prefers {best}, not {want}", golden.name));
        }
    }
    if step.is_nan() || step > 2e-4 {
        wrong.push(format!("{}: token by token differs by {step:.1e}", golden.name));
    }
    wrong
}

fn check(folder: &Path) -> usize {
    println!("{:<20} {:>10} {:>10} {:>6} {:>10}", "model", "RMS error", "llama.cpp", "ratio", "stepwise");
    let goldens = Golden::all(folder);
    let wrong: Vec<String> = goldens.iter().flat_map(compare).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    goldens.len()
}

#[test]
fn the_readme_names_every_architecture() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let encoders = ENCODERS.iter().map(|(name, _)| name);
    for name in TEXT.iter().map(|(name, _)| name).chain(encoders) {
        assert!(readme.contains(&format!("`{name}`")), "{name} is missing");
    }
}

/// Unless more is asked for, positions are not stretched.
#[test]
fn the_default_context_is_that_of_the_short_factors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch/phi3-long.gguf");
    let n_ctx = |context_length: Option<usize>| {
        let mut loader = Loader::new(LoadOptions { context_length, ..LoadOptions::default() }, None).unwrap();
        loader.push(&std::fs::read(&path).unwrap()).unwrap();
        let Loaded::Text(model) = loader.finish().unwrap() else { panic!("no language model") };
        model.info().context_length
    };
    assert_eq!((n_ctx(None), n_ctx(Some(200))), (128, 200));
}

#[test]
fn our_goldens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch");
    assert!(check(&folder) > 0);
}

#[test]
fn logits_are_as_near_as_those_of_llama_cpp() {
    let Some(folder) = shared("golden/arch") else { return };
    assert!(check(&folder) > 0);
}
