//! Vision models against their public Python implementations (`tests/data/vision_goldens.py`): tiny checkpoints with
//! random weights.
#![cfg(not(target_arch = "wasm32"))]

#[path = "common/checkpoint.rs"]
mod checkpoint;
mod common;

use bitpane::container::gguf_write::GgufWriter;
use bitpane::error::Code;
use bitpane::image::PixelView;
use bitpane::models::vision::{AttentionMap, Half, Output, Tap, Values};
use bitpane::quant::DType;
use bitpane::tasks::{LoadOptions, VisionModel, similarity};
use bitpane::tokenizer::Tokenizer;
use checkpoint::{Checkpoint, folder};
use common::{json, numbers};
use serde_json::Value;

/// The largest difference from the reference, with float products.
const TOLERANCE: f32 = 1e-3;

fn goldens() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .filter(|path| path.with_extension("safetensors").exists())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().into())
        .collect();
    names.sort();
    assert!(names.len() >= 18, "{names:?}");
    names
}

fn load(name: &str, options: LoadOptions) -> VisionModel {
    let checkpoint = Checkpoint::read(name);
    let options = LoadOptions { config: Some(checkpoint.config.to_string()), ..options };
    checkpoint::load(&checkpoint.bytes(), options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn reference() -> LoadOptions {
    LoadOptions { reference: true, ..LoadOptions::default() }
}

/// The formula of the script.
fn pixels(height: usize, width: usize) -> Vec<f32> {
    (0..3 * height * width).map(|i| ((i * 7919) % 1009) as f32 / 1009.0 * 4.0 - 2.0).collect()
}

fn size(case: &Value) -> (usize, usize) {
    (case["height"].as_u64().unwrap() as usize, case["width"].as_u64().unwrap() as usize)
}

fn run(model: &mut VisionModel, case: &Value, output: Output) -> Values {
    let (height, width) = size(case);
    model.run(&pixels(height, width), &[1, 3, height, width], output).unwrap()
}

fn worst(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len(), "lengths");
    got.iter().zip(want).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

/// What a case holds: its name, the output it is of, and its values.
fn outputs(case: &Value) -> Vec<(&'static str, Output, &Value)> {
    let map = AttentionMap::Layer { layer: 1, head: Some(2) };
    let all = [
        ("logits", Output::Logits),
        ("pooled", Output::Pooled),
        ("patches", Output::Patches),
        ("patches_flat", Output::Patches),
        ("attention", Output::Attention(map)),
        ("rollout", Output::Attention(AttentionMap::Rollout)),
    ];
    all.into_iter().filter_map(|(key, output)| Some((key, output, case.get(key)?))).collect()
}

#[test]
fn every_output_is_the_references() {
    let mut faults = Vec::new();
    for name in goldens() {
        let golden = json(&folder().join(format!("{name}.json")));
        let mut model = load(&name, reference());
        let notes = model.info().notes;
        if !notes.is_empty() {
            faults.push(format!("{name}: {notes:?}"));
        }
        for case in golden["cases"].as_array().unwrap() {
            for (key, output, want) in outputs(case) {
                let got = run(&mut model, case, output);
                if let Some(shape) = want.get("shape") {
                    let shape: Vec<usize> = numbers(shape).iter().map(|&n| n as usize).collect();
                    assert_eq!(got.shape, shape, "{name}: {key}");
                }
                assert_eq!(got.shape.iter().product::<usize>(), got.values.len(), "{name}: {key}");
                let worst = worst(&got.values, &numbers(want.get("values").unwrap_or(want)));
                println!("{name} {:?}: {key} {worst:.1e}", size(case));
                if worst.is_nan() || worst > TOLERANCE {
                    faults.push(format!("{name} {:?}: {key} is off by {worst}", size(case)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Halves of layers, run one after the other, hand on what whole layers do, bit for bit.
#[test]
fn a_picture_goes_through_halves_of_layers() {
    for name in ["deit-distilled", "dinov2", "dinov3-gated", "beit", "timm-eva02"] {
        let mut model = load(name, LoadOptions::default());
        let size = model.info().image_size;
        let bytes: Vec<u8> = (0..3 * size * size).map(|i| (i * 7919 % 251) as u8).collect();
        let picture = PixelView::new(&bytes, size, size, 3).unwrap();
        let mut stream = model.first_input(&picture).unwrap();
        model.trunk().unwrap().set_tap(Tap::Keep(Vec::new()));
        model.patches(&picture).unwrap();
        let tower = model.trunk().unwrap();
        let Tap::Keep(inputs) = tower.set_tap(Tap::Off) else { panic!("{name}: nothing is kept") };
        assert!(inputs.len() > 1, "{name}");
        for (layer, input) in inputs.iter().enumerate() {
            assert!(*input == stream, "{name}: layer {layer}");
            for half in [Half::Attention, Half::Mlp] {
                tower.run_half(layer, half, &mut stream);
            }
        }
    }
}

/// Layers whose outputs are known need not run again: from any of them on, the logits are the same, bit for bit.
#[test]
fn a_picture_goes_on_from_any_layer() {
    let mut model = load("deit-distilled", LoadOptions::default());
    let size = model.info().image_size;
    let bytes: Vec<u8> = (0..3 * size * size).map(|i| (i * 7919 % 251) as u8).collect();
    let picture = PixelView::new(&bytes, size, size, 3).unwrap();
    let whole = model.classify(&picture, 1).unwrap()[0].logit;
    let (logits, inputs) = model.logits_and_inputs(&picture).unwrap();
    assert!(logits.contains(&whole) && inputs.len() > 1);
    for (first, input) in inputs.iter().enumerate() {
        assert_eq!(model.logits_from(&picture, first, input.clone()).unwrap(), logits, "layer {first}");
    }
    let n_layer = inputs.len();
    let mut stream = inputs[n_layer - 1].clone();
    model.first_input(&picture).unwrap();
    let tower = model.trunk().unwrap();
    [Half::Attention, Half::Mlp].iter().for_each(|half| tower.run_half(n_layer - 1, *half, &mut stream));
    assert_eq!(model.logits_from(&picture, n_layer, stream).unwrap(), logits, "behind the last layer");
    for (first, input) in [(n_layer + 1, inputs[0].clone()), (0, Vec::new())] {
        assert_eq!(model.logits_from(&picture, first, input).unwrap_err().code, Code::BadArgument);
    }
    assert_eq!(model.classify(&picture, 1).unwrap()[0].logit, whole);
}

#[test]
fn texts_meet_pictures_as_in_the_reference() {
    for name in ["clip", "siglip"] {
        let golden = json(&folder().join(format!("{name}.json")));
        let case = &golden["cases"][0];
        let mut model = load(name, reference());
        let picture = run(&mut model, case, Output::Pooled).values;
        for (i, ids) in case["texts"].as_array().unwrap().iter().enumerate() {
            let ids: Vec<u32> = numbers(ids).iter().map(|&id| id as u32).collect();
            let got = model.embed_text_tokens(&ids).unwrap();
            let want = numbers(&case["text_embeds"][i]);
            let length = want.iter().map(|x| x * x).sum::<f32>().sqrt();
            let want: Vec<f32> = want.iter().map(|x| x / length).collect();
            assert!(worst(&got, &want) < TOLERANCE, "{name}: text {i} is off by {}", worst(&got, &want));
            let (logits, scores) = model.compare(&picture, &[got]).unwrap();
            let want = case["text_scores"][i].as_f64().unwrap() as f32;
            assert!((logits[0] - want).abs() < TOLERANCE, "{name}: score {} is not {want}", logits[0]);
            let probability = if name == "clip" { 1.0 } else { 1.0 / (1.0 + (-want).exp()) };
            assert!((scores[0] - probability).abs() < TOLERANCE, "{name}: {scores:?}");
        }
    }
}

#[test]
fn texts_are_cut_as_in_the_reference() {
    for name in ["clip", "siglip"] {
        let golden = json(&folder().join(format!("{name}.json")));
        let text = std::fs::read_to_string(folder().join(format!("{name}.tokenizer.json"))).unwrap();
        let tokenizer = Tokenizer::from_json(text.as_bytes()).unwrap();
        let mut model = load(name, LoadOptions { tokenizer: Some(text), ..reference() });
        assert!(model.info().reads_texts);
        let n_ctx = if name == "clip" { 12 } else { 10 };
        for case in golden["cases"][0]["strings"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let mut ids: Vec<u32> = numbers(&case["ids"]).iter().map(|&id| id as u32).collect();
            assert_eq!(tokenizer.encode(text, true, false).unwrap(), ids, "{name}: {text:?}");
            if ids.len() > n_ctx {
                let end = ids[ids.len() - 1];
                ids.truncate(n_ctx - 1);
                ids.push(end);
            }
            assert_eq!(
                model.embed_text(text).unwrap(),
                model.embed_text_tokens(&ids).unwrap(),
                "{name}: {text:?}"
            );
        }
    }
}

#[test]
fn eight_bits_are_near() {
    for name in goldens() {
        let golden = json(&folder().join(format!("{name}.json")));
        let mut model = load(&name, LoadOptions { quantize: Some("Q8_0".into()), ..LoadOptions::default() });
        let case = &golden["cases"][0];
        let (key, output) = match case.get("logits") {
            Some(_) => ("logits", Output::Logits),
            None => ("pooled", Output::Pooled),
        };
        let cosine = similarity(&run(&mut model, case, output).values, &numbers(&case[key]));
        println!("{name}: Q8_0 cosine {cosine:.6}");
        assert!(cosine > 0.995, "{name}: {cosine}");
    }
}

/// What llama.cpp's converter makes of the names of CLIP and SigLIP.
fn gguf_name(name: &str) -> Option<String> {
    const PARTS: &[(&str, &str)] = &[
        ("vision_model.embeddings.class_embedding", "v.class_embd"),
        ("vision_model.embeddings.patch_embedding.", "v.patch_embd."),
        ("vision_model.embeddings.position_embedding.", "v.position_embd."),
        ("vision_model.pre_layrnorm.", "v.pre_ln."),
        ("vision_model.post_layernorm.", "v.post_ln."),
        ("vision_model.encoder.layers.", "v.blk."),
        ("text_model.embeddings.token_embedding.", "t.token_embd."),
        ("text_model.embeddings.position_embedding.", "t.position_embd."),
        ("text_model.final_layer_norm.", "t.post_ln."),
        ("text_model.encoder.layers.", "t.blk."),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.out_proj", "attn_out"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
        ("layer_norm1", "ln1"),
        ("layer_norm2", "ln2"),
    ];
    let is_kept = !name.starts_with("vision_model.head.");
    is_kept.then(|| PARTS.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to)))
}

/// A checkpoint as a GGUF file with llama.cpp's keys.
fn as_gguf(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "clip")
        .bool("clip.has_vision_encoder", true)
        .bool("clip.use_gelu", false);
    for (section, key) in [("vision_config", "clip.vision"), ("text_config", "clip.text")] {
        for (from, to) in [
            ("image_size", "image_size"),
            ("patch_size", "patch_size"),
            ("hidden_size", "embedding_length"),
            ("num_hidden_layers", "block_count"),
            ("num_attention_heads", "attention.head_count"),
            ("max_position_embeddings", "context_length"),
        ] {
            if let Some(value) = checkpoint.config[section][from].as_u64() {
                writer.uint(&format!("{key}.{to}"), value);
            }
        }
    }
    let mut data: Vec<&[u8]> = Vec::new();
    for (name, info, bytes) in &checkpoint.tensors {
        let Some(name) = gguf_name(name) else { continue };
        if info["dtype"] != "F16" {
            continue;
        }
        let shape: Vec<usize> = numbers(&info["shape"]).iter().map(|&n| n as usize).collect();
        // A scalar has one dimension there.
        let shape = if shape.is_empty() { vec![1] } else { shape };
        writer.tensor(&name, DType::F16, &shape).unwrap();
        data.push(bytes);
    }
    writer.to_bytes(&data).unwrap()
}

#[test]
fn files_with_the_names_of_llama_cpp_are_the_same_models() {
    for name in ["clip", "siglip"] {
        let checkpoint = Checkpoint::read(name);
        let golden = json(&folder().join(format!("{name}.json")));
        let case = &golden["cases"][0];
        let mut model = checkpoint::load(&as_gguf(&checkpoint), reference()).unwrap();
        assert_eq!(model.info().architecture, name);
        let patches = run(&mut model, case, Output::Patches);
        let worst_patch = worst(&patches.values, &numbers(&case["patches"]["values"]));
        assert!(worst_patch < TOLERANCE, "{name}: {worst_patch}");
        if name == "clip" {
            let pooled = run(&mut model, case, Output::Pooled);
            assert!(worst(&pooled.values, &numbers(&case["pooled"])) < TOLERANCE);
            let ids: Vec<u32> = numbers(&case["texts"][0]).iter().map(|&id| id as u32).collect();
            let got = model.embed_text_tokens(&ids).unwrap();
            assert!(similarity(&got, &numbers(&case["text_embeds"][0])) > 0.999_999);
        }
    }
}
