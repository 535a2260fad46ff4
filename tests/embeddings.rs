//! Encoders against llama.cpp: the vectors of tokens and of a text, held to what it computes for the same
//! model in float32; and what language models give as vectors.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::Code;
use bitpane::models::ENCODERS;
use bitpane::tasks::{EmbedOptions, EncoderModel, LoadOptions, Loaded, Loader, TextModel};
use common::{json, numbers, shared};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// llama.cpp's error that ours may reach where it multiplies floats.
const FLOAT_BOUND: f64 = 1.5;
/// The stored values have six digits.
const STORED: f64 = 2e-5;

fn load(path: &Path) -> Loaded {
    let mut loader = Loader::new(LoadOptions::default(), None).unwrap();
    let loaded = loader.push(&std::fs::read(path).unwrap()).and_then(|()| loader.finish());
    loaded.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn encoder(path: &Path) -> EncoderModel {
    let Loaded::Encoder(model) = load(path) else { panic!("{} is no encoder", path.display()) };
    *model
}

fn decoder(path: &Path) -> TextModel {
    let Loaded::Text(model) = load(path) else { panic!("{} is no language model", path.display()) };
    *model
}

fn plain(pooling: &str) -> EmbedOptions {
    EmbedOptions { pooling: Some(pooling.into()), normalize: false }
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

fn tokens(golden: &Value) -> Vec<u32> {
    numbers(&golden["token_ids"]).iter().map(|&id| id as u32).collect()
}

/// The goldens of a folder whose architecture is a registered encoder.
fn goldens(folder: &Path) -> Vec<(String, PathBuf, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "gguf"));
    paths.sort();
    let all = paths.into_iter().map(|p| {
        let name = p.file_stem().unwrap().to_string_lossy().into_owned();
        (name, p.clone(), json(&p.with_extension("json")))
    });
    all.filter(|(_, _, golden)| {
        let known = ENCODERS.iter().any(|(arch, _)| golden["architecture"] == *arch);
        assert!(known || golden["kind"] != "embedding", "{} is not registered", golden["architecture"]);
        known
    })
    .collect()
}

fn check(folder: &Path) -> usize {
    let goldens = goldens(folder);
    let mut wrong = Vec::new();
    println!("{:<20} {:<8} {:>10} {:>10} {:>6}", "model", "of", "RMS error", "llama.cpp", "ratio");
    for (name, path, golden) in &goldens {
        let (mut model, ids) = (encoder(path), tokens(golden));
        assert!(model.info().notes.is_empty(), "{name}: {:?}", model.info().notes);
        let each = model.embed_tokens(&ids, &plain("none")).unwrap();
        let pooling = golden["pooling_type"].as_str().unwrap();
        let pooled = model.embed_tokens(&ids, &plain(pooling)).unwrap();
        for (what, got) in [("token_embeddings", each), ("pooled", pooled)] {
            let exact = numbers(&golden[format!("{what}_f32")]);
            // Token by token only the last positions are stored.
            let ours = rms(&got[got.len() - exact.len()..], &exact);
            let theirs = rms(&numbers(&golden[format!("{what}_llamacpp")]), &exact);
            println!("{name:<20} {:<8} {ours:>10.2e} {theirs:>10.2e} {:>6.2}", &what[..5], ours / theirs);
            if ours.is_nan() || ours > FLOAT_BOUND * theirs + STORED {
                wrong.push(format!("{name}, {what}: RMS error {ours:.3e}, llama.cpp's {theirs:.3e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    goldens.len()
}

#[test]
fn vectors_are_as_near_as_those_of_llama_cpp() {
    let Some(folder) = shared("golden/arch") else { return };
    assert!(check(&folder) > 0);
}

#[test]
fn our_goldens() {
    assert!(check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch")) > 0);
}

#[test]
fn documents_are_scored_against_a_query() {
    let mut model = encoder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/arch/bert-rank.gguf"));
    assert_eq!((model.info().pooling, model.info().n_output), (Some("rank"), 16));
    let scores = model.rerank("abc", &["de", "f g", "de"]).unwrap();
    assert_eq!(scores[0], scores[2]);
    assert_ne!(scores[0], scores[1]);
    let (pair, second) = model.tokenizer().encode_pair("abc", "de").unwrap();
    assert_eq!(pair[..second], model.tokenizer().encode("abc", true, false).unwrap());
    assert_eq!(pair[second..], model.tokenizer().encode("de", false, false).unwrap());
    // A document is of the second token type: as one text, the same tokens have another score.
    let scores_of_one = model.embed_tokens(&pair, &EmbedOptions::default()).unwrap();
    assert!((scores_of_one[0] - scores[0]).abs() > 1e-3);
    assert_eq!(model.rerank("abc", &[]).unwrap_err().key.as_deref(), Some("documents"));
    let long = "a ".repeat(200);
    assert_eq!(model.rerank("abc", &[&long]).unwrap_err().code, Code::ContextOverflow);
}

fn length(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

#[test]
fn poolings_and_lengths() {
    let Some(path) = shared("golden/arch/bert.gguf") else { return };
    let ids = tokens(&json(&path.with_extension("json")));
    let mut model = encoder(&path);
    let n_embd = model.info().n_output;
    let each = model.embed_tokens(&ids, &plain("none")).unwrap();
    assert_eq!(each.len(), ids.len() * n_embd);
    assert_eq!(model.embed_tokens(&ids, &plain("cls")).unwrap(), each[..n_embd]);
    assert_eq!(model.embed_tokens(&ids, &plain("last")).unwrap(), each[each.len() - n_embd..]);
    let mean = model.embed_tokens(&ids, &plain("mean")).unwrap();
    for (i, mean) in mean.iter().enumerate() {
        let sum: f32 = each.iter().skip(i).step_by(n_embd).sum();
        assert!((mean - sum / ids.len() as f32).abs() < 1e-5);
    }
    // The file says mean, and vectors have length 1 unless asked otherwise.
    let vector = model.embed_tokens(&ids, &EmbedOptions::default()).unwrap();
    assert!((length(&vector) - 1.0).abs() < 1e-6);
    assert!(
        rms(&vector, &mean.iter().map(|x| (f64::from(*x) / length(&mean)) as f32).collect::<Vec<_>>()) < 1e-7
    );
    let rows = EmbedOptions { pooling: Some("none".into()), normalize: true };
    for row in model.embed_tokens(&ids, &rows).unwrap().chunks_exact(n_embd) {
        assert!((length(row) - 1.0).abs() < 1e-6);
    }
    // One text leaves nothing behind for the next.
    model.embed_tokens(&ids[..3], &plain("mean")).unwrap();
    assert_eq!(model.embed_tokens(&ids, &plain("mean")).unwrap(), mean);
}

#[test]
fn vectors_of_language_models() {
    for name in ["qwen2", "mamba2", "lfm2", "olmoe"] {
        let Some(path) = shared(&format!("golden/arch/{name}.gguf")) else { return };
        let ids = tokens(&json(&path.with_extension("json")));
        let mut model = decoder(&path);
        let each = model.embed_tokens(&ids, &plain("none")).unwrap();
        let n_embd = each.len() / ids.len();
        assert_eq!(model.embed_tokens(&ids, &plain("last")).unwrap(), each[each.len() - n_embd..], "{name}");
        // A causal model's vectors do not depend on what follows.
        let shorter = model.embed_tokens(&ids[..10], &plain("none")).unwrap();
        assert!(rms(&shorter, &each[..10 * n_embd]) < 1e-5, "{name}");
        // And generating afterwards starts from nothing.
        let logits = model.logits(&ids, 1).unwrap();
        model.embed_tokens(&ids[..5], &EmbedOptions::default()).unwrap();
        assert_eq!(model.logits(&ids, 1).unwrap(), logits, "{name}");
        let error = model.embed_tokens(&ids, &plain("rank")).unwrap_err();
        assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some("pooling")), "{error}");
    }
}

#[test]
fn what_encoders_refuse() {
    let Some(path) = shared("golden/arch/bert.gguf") else { return };
    let mut model = encoder(&path);
    let mut refused = |ids: &[u32], pooling: &str| model.embed_tokens(ids, &plain(pooling)).unwrap_err();
    let n_ctx = 256;
    for (error, code, key) in [
        (refused(&[], "mean"), Code::BadArgument, "tokens"),
        (refused(&[1, 512], "mean"), Code::BadArgument, "tokens"),
        (refused(&[1, u32::MAX], "mean"), Code::BadArgument, "tokens"),
        (refused(&vec![1; n_ctx + 1], "mean"), Code::ContextOverflow, "tokens"),
        (refused(&[1], "rank"), Code::BadArgument, "pooling"),
        (refused(&[1], "median"), Code::BadArgument, "pooling"),
    ] {
        assert_eq!((error.code, error.key.as_deref()), (code, Some(key)), "{error}");
    }
    assert_eq!(model.embed_tokens(&vec![1; n_ctx], &plain("mean")).unwrap().len(), 96);
    assert_eq!(model.rerank("a", &["b"]).unwrap_err().code, Code::BadArgument);
}
