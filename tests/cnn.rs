//! Small CNNs with random weights against timm, torchvision and transformers (`tests/data/cnn_goldens.py` made
//! the logits; the weights follow from the names of the tensors).
#![cfg(not(target_arch = "wasm32"))]

use bitpane::error::Code;
use bitpane::models::vision::{AttentionMap, Output};
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
    load_bytes(&safetensors(golden), options)
}

fn load_bytes(bytes: &[u8], options: LoadOptions) -> bitpane::error::Result<VisionModel> {
    let mut loader = Loader::new(options, Some(bytes.len() as u64))?;
    loader.push(bytes)?;
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

fn golden(name: &str) -> Golden {
    goldens().into_iter().find(|(found, _)| found == name).unwrap().1
}

/// The tensors alone tell the family and, but for what no tensor shows, everything else.
#[test]
fn files_without_a_config_are_recognized() {
    let mut faults = Vec::new();
    for (name, golden) in goldens() {
        // Hugging Face's and TensorFlow's networks pad in ways that only a config tells.
        let is_told = name.starts_with("hf_mobilenet") || name.starts_with("timm_tf");
        let size = json!({"image_size": golden.size}).to_string();
        let options = LoadOptions { config: Some(size), ..LoadOptions::default() };
        match load(&golden, options) {
            Ok(mut model) => {
                let off = max_abs(&logits(&mut model, golden.size), &golden.logits);
                if !is_told && (off.is_nan() || off >= 1e-3) {
                    faults.push(format!("{name}: {} max abs {off}", model.info().architecture));
                }
            }
            Err(e) => faults.push(format!("{name}: {e}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Quantized weights fill up with zeros where blocks do not divide their rows; logits stay near.
#[test]
fn quantized_networks_stay_near() {
    // Random weights magnify what is rounded, the more the deeper and narrower the network, and activations more
    // than weights; where blocks or padding were wrong the cosine would be near 0. Each bound is just below what is found.
    for (name, weights_alone, least) in [
        ("timm_mobilenetv2_100", 0.982, 0.94),
        ("timm_mobilenetv3_large_100", 0.9999, 0.9999),
        ("timm_resnet50", 0.9999, 0.9999),
        ("timm_convnext_tiny", 0.9999, 0.9995),
        ("hf_efficientnet", 0.9999, 0.999),
    ] {
        let golden = golden(name);
        for (reference, least) in [(true, weights_alone), (false, least)] {
            let quantize = Some("Q8_0".to_string());
            let mut model = load(&golden, LoadOptions { quantize, reference, ..options(&golden) }).unwrap();
            let got = logits(&mut model, golden.size);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let cosine =
                dot(&got, &golden.logits) / (dot(&got, &got) * dot(&golden.logits, &golden.logits)).sqrt();
            let bits = model.info().bits_per_weight;
            eprintln!(
                "{name}: Q8_0 cosine {cosine:.5}, float activations {reference}, {bits:.2} bits per weight"
            );
            assert!(cosine > least, "{name}: cosine {cosine}");
            assert!(bits < 20.0, "{name}: {bits} bits");
        }
    }
}

#[test]
fn pooled_and_patch_features() {
    let golden = golden("timm_convnext_tiny");
    let mut model = load(&golden, options(&golden)).unwrap();
    let pixels = vec![0.5f32; 3 * golden.size * golden.size];
    let shape = [3, golden.size, golden.size];
    let patches = model.run(&pixels, &shape, Output::Patches).unwrap();
    assert_eq!(patches.shape, [2, 2, 48]);
    assert_eq!(model.run(&pixels, &shape, Output::Pooled).unwrap().shape, [48]);
    let attention = model.run(&pixels, &shape, Output::Attention(AttentionMap::Rollout));
    assert_eq!(attention.unwrap_err().code, Code::BadArgument);
}

/// Tensors that are missing, of another shape, not finite or too many are errors that name them.
#[test]
fn wrong_tensors_are_named() {
    let base = golden("timm_mobilenetv3_small_100");
    let error = |golden: &Golden| {
        let error = load(golden, options(golden)).err().expect("refused");
        (error.code, error.tensor.unwrap_or_default())
    };
    let at = |name: &str| base.tensors.iter().position(|(n, _)| n == name).unwrap();
    for name in ["conv_stem.weight", "blocks.0.0.bn1.running_var", "blocks.4.0.se.conv_expand.weight"] {
        let mut without = base.clone();
        without.tensors.remove(at(name));
        assert_eq!(error(&without), (Code::MissingTensor, name.into()));
    }
    for (name, shape) in [
        ("conv_stem.weight", vec![16, 4, 3, 3]),
        ("blocks.1.0.conv_pwl.weight", vec![16, 41, 1, 1]),
        ("blocks.1.0.conv_dw.weight", vec![40, 1, 3, 5]),
        ("blocks.1.0.bn1.weight", vec![39]),
        ("classifier.weight", vec![10, 1023]),
    ] {
        let mut other = base.clone();
        other.tensors[at(name)].1 = shape;
        assert_eq!(error(&other), (Code::ShapeMismatch, name.into()));
    }
    let mut more = base.clone();
    more.tensors.push(("blocks.1.0.attn.weight".into(), vec![3]));
    assert_eq!(error(&more), (Code::UnsupportedArch, "blocks.1.0.attn.weight".into()));
    let mut large = base.clone();
    large.config["pretrained_cfg"]["input_size"] = json!([3, 100_000, 100_000]);
    assert_eq!(error(&large).0, Code::BadConfig);

    let mut bytes = safetensors(&base);
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut model = load_bytes(&bytes, options(&base)).unwrap();
    let pixels = vec![0f32; 3 * 80 * 80];
    assert_eq!(model.logits(&pixels, &[3, 80, 80]).unwrap_err().code, Code::NumericFault);
}

#[test]
fn c08_filters_of_codes_come_back_from_their_image() {
    let golden = goldens().into_iter().find(|(name, _)| name == "hf_mobilenet_v2").unwrap().1;
    let options = LoadOptions { quantize: Some("Q8_0".into()), ..options(&golden) };
    let file = safetensors(&golden);
    let mut loader = Loader::new(options.clone(), Some(file.len() as u64)).unwrap();
    loader.push(&file).unwrap();
    let image: Vec<Vec<Vec<u8>>> = (0..loader.progress().tensors_total)
        .map(|i| loader.image(i).into_iter().map(<[u8]>::to_vec).collect())
        .collect();
    assert!(image.iter().any(|pieces| pieces.len() == 2), "codes and scales");
    let mut again = Loader::new(options, None).unwrap();
    again.push(&file[..loader.image_header().unwrap() as usize]).unwrap();
    for tensor in &image[again.progress().tensors_done..] {
        let pieces = again.begin_image().unwrap();
        pieces.into_iter().zip(tensor).for_each(|(to, from)| to.copy_from_slice(from));
        again.end_image().unwrap();
    }
    let [plain, restored] = [loader, again].map(|loader| match loader.finish().unwrap() {
        Loaded::Vision(mut model) => logits(&mut model, golden.size),
        _ => panic!("not a vision model"),
    });
    assert_eq!(plain, restored);
}
