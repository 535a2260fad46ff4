//! Quantized CNNs from .tflite files against LiteRT on the sample photos (`tests/data/litert_goldens.py` made
//! the numbers).
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::image::{PixelView, Preprocess, Resample, resize_crop};
use bitpane::tasks::convert::{Extras, tflite_to_gguf};
use bitpane::tasks::{LoadOptions, Loaded, Loader, VisionModel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    model: String,
    file: String,
    input: String,
    top: Vec<(usize, i32)>,
}

fn fnv1a64(data: &[u8]) -> String {
    let hash =
        data.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

fn load(gguf: &[u8]) -> VisionModel {
    let mut loader = Loader::new(LoadOptions::default(), Some(gguf.len() as u64)).unwrap();
    loader.push(gguf).unwrap();
    match loader.finish().unwrap() {
        Loaded::Vision(model) => *model,
        _ => panic!("not a vision model"),
    }
}

#[test]
fn photos_as_litert() {
    let Some(data) = common::shared("data") else { return };
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("data/litert_goldens.json")).unwrap();
    let mut model: Option<(String, VisionModel)> = None;
    let (mut worst, mut exact) = (0, 0);
    for g in &goldens {
        if model.as_ref().is_none_or(|(name, _)| *name != g.model) {
            let bytes = std::fs::read(data.join("cnn").join(format!("{}.tflite", g.model))).unwrap();
            model = Some((g.model.clone(), load(&tflite_to_gguf(&bytes, &Extras::default()).unwrap())));
        }
        let Some((_, model)) = &mut model else { unreachable!("just made") };
        let decoded = image::open(data.join("images").join(&g.file)).unwrap().to_rgb8();
        let view =
            PixelView::new(decoded.as_raw(), decoded.width() as usize, decoded.height() as usize, 3).unwrap();
        let recipe =
            Preprocess { resample: Resample::Bilinear, ..Preprocess::timm(model.info().image_size, 0.875) };
        let rgb = resize_crop(&view, &recipe).unwrap();
        let same_input = fnv1a64(&rgb) == g.input;
        // What preprocessing makes of the bytes; the model gets the bytes back.
        let (scale, zero) =
            if g.model.starts_with("tf2") { (0.007_843_138, 127) } else { (0.007_812_5, 128) };
        let n = rgb.len() / 3;
        let pixels: Vec<f32> =
            (0..rgb.len()).map(|i| (i32::from(rgb[i % n * 3 + i / n]) - zero) as f32 * scale).collect();
        let side = recipe.crop;
        let logits = model.logits(&pixels, &[1, 3, side, side]).unwrap();
        let max = logits.iter().fold(f32::MIN, |m, &v| m.max(v));
        let sum: f32 = logits.iter().map(|l| (l - max).exp()).sum();
        let shares: Vec<i32> =
            logits.iter().map(|l| ((l - max).exp() / sum * 256.0).round().min(255.0) as i32).collect();
        let best = (0..logits.len()).rev().max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        let off = g.top.iter().map(|&(i, share)| (shares[i] - share).abs()).max().unwrap();
        assert_eq!(best, g.top[0].0, "{} {}: LiteRT {:?}", g.model, g.file, g.top);
        if same_input {
            worst = worst.max(off);
            exact += 1;
        }
    }
    eprintln!("{exact} inputs have the very bytes, where shares are at most {worst} / 256 off");
    assert!(exact >= 15 && worst <= 1, "{exact} inputs, {worst} off");
}
