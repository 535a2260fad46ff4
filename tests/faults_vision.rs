//! Vision models that are not what they say: typed errors that name what is wrong, and never a panic.
#![cfg(not(target_arch = "wasm32"))]

#[path = "common/checkpoint.rs"]
mod checkpoint;

use bitpane::error::{Code, Error};
use bitpane::models::vision::{AttentionMap, Output};
use bitpane::tasks::LoadOptions;
use checkpoint::{Checkpoint, load};
use serde_json::{Value, json};

const NAMES: &[&str] = &[
    "beit-shared",
    "clip",
    "deit-distilled",
    "dinov2",
    "dinov3-gated",
    "mobilevit",
    "siglip",
    "swin",
    "timm-eva02",
    "timm-vit-siglip",
];

/// Loads it and asks for everything: whatever loads must run, or say why not.
fn try_all(checkpoint: &Checkpoint, what: &str) -> Option<Error> {
    let mut model = match checkpoint.load() {
        Ok(model) => model,
        Err(e) => {
            let known = [
                Code::MissingTensor,
                Code::ShapeMismatch,
                Code::BadConfig,
                Code::UnsupportedArch,
                Code::BadHeader,
                Code::BadShape,
                Code::LimitExceeded,
                Code::OutOfMemory,
                Code::NonFiniteWeight,
            ];
            assert!(known.contains(&e.code), "{what}: {:?}: {e}", e.code);
            return Some(e);
        }
    };
    let side = model.info().image_size;
    if side > 512 {
        return None;
    }
    let pixels = vec![0.5; 3 * side * side];
    let map = AttentionMap::Layer { layer: 0, head: None };
    for output in [Output::Logits, Output::Pooled, Output::Patches, Output::Attention(map)] {
        if let Err(e) = model.run(&pixels, &[3, side, side], output) {
            assert!(matches!(e.code, Code::BadArgument | Code::NumericFault), "{what}: {:?}: {e}", e.code);
        }
    }
    if model.has_text_tower() {
        model.embed_text_tokens(&[1]).unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    None
}

#[test]
fn missing_tensors_are_named_or_not_needed() {
    for name in NAMES {
        let whole = Checkpoint::read(name);
        let mut n_needed = 0;
        for i in 0..whole.tensors.len() {
            let mut cut = whole.clone();
            let (gone, ..) = cut.tensors.remove(i);
            if let Some(e) = try_all(&cut, &format!("{name} without {gone}")) {
                let is_named = e.tensor.is_some() || e.key.is_some() || e.code == Code::UnsupportedArch;
                assert!(is_named, "{name} without {gone}: {e}");
                n_needed += 1;
            }
        }
        assert!(3 * n_needed > whole.tensors.len(), "{name}: only {n_needed} tensors are needed");
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    for name in NAMES {
        let whole = Checkpoint::read(name);
        for i in 0..whole.tensors.len() {
            let (tensor, info, data) = &whole.tensors[i];
            // One layer is like the next.
            if info["dtype"] != "F16" || tensor.contains(".1.") {
                continue;
            }
            let n = data.len() / 2;
            let mut reversed = info["shape"].as_array().unwrap().clone();
            reversed.reverse();
            let shapes = [json!([0]), json!([n]), json!([1, n]), json!(reversed), json!([7])];
            for shape in shapes {
                let mut bent = whole.clone();
                let len: u64 = shape.as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
                bent.tensors[i].1["shape"] = shape.clone();
                bent.tensors[i].2.resize(2 * len as usize, 0);
                try_all(&bent, &format!("{name}: {tensor} as {shape}"));
            }
        }
    }
}

#[test]
fn configs_outside_their_domain_are_refused() {
    let keys = [
        "hidden_size",
        "image_size",
        "patch_size",
        "num_attention_heads",
        "layer_norm_eps",
        "hidden_act",
        "window_size",
        "rope_theta",
        "model_type",
        "id2label",
        "vision_config",
        "text_config",
        "pretrained_cfg",
        "model_args",
    ];
    let values = [
        json!(0),
        json!(-1),
        json!(3),
        json!(1u64 << 40),
        json!(1e300),
        json!("x"),
        json!([]),
        json!([3, 4]),
        json!({}),
        json!({"0": 1}),
        json!(true),
    ];
    for name in NAMES {
        let whole = Checkpoint::read(name);
        for key in keys {
            for value in &values {
                let mut odd = whole.clone();
                odd.config[key] = value.clone();
                if odd.config.get("vision_config").is_some_and(Value::is_object) && key != "vision_config" {
                    odd.config["vision_config"][key] = value.clone();
                }
                try_all(&odd, &format!("{name}: {key} = {value}"));
            }
        }
    }
    for config in ["", "[1]", "nonsense", "{\"model_type\": \"swinv2\"}"] {
        let options = LoadOptions { config: Some(config.into()), ..LoadOptions::default() };
        let code = load(&Checkpoint::read("swin").bytes(), options).err().map(|e| e.code);
        assert!(matches!(code, Some(Code::BadConfig | Code::UnsupportedArch)), "{config}: {code:?}");
    }
}

#[test]
fn weights_and_pixels_that_are_no_numbers() {
    for name in NAMES {
        let mut bad = Checkpoint::read(name);
        let is_norm =
            |name: &str| ["norm1.weight", "layernorm_before.weight"].iter().any(|n| name.ends_with(n));
        let norm = bad.tensors.iter().position(|(name, ..)| is_norm(name));
        let (_, _, data) = &mut bad.tensors[norm.unwrap()];
        data[..2].copy_from_slice(&0x7e00u16.to_le_bytes());
        let mut model = bad.load().unwrap();
        let side = model.info().image_size;
        let pixels = vec![0.5; 3 * side * side];
        let error = model.run(&pixels, &[1, 3, side, side], Output::Pooled);
        // The text tower's layers come first in some files: then it is the text that fails.
        let code = match error {
            Err(e) => e.code,
            Ok(_) => model.embed_text_tokens(&[1]).unwrap_err().code,
        };
        assert_eq!(code, Code::NumericFault, "{name}");
    }
    let mut model = Checkpoint::read("deit-distilled").load().unwrap();
    let good = vec![0.5; 3 * 32 * 32];
    let mut nan = good.clone();
    nan[7] = f32::NAN;
    let mut infinite = good.clone();
    infinite[7] = f32::INFINITY;
    let shapes: [(&[f32], &[usize]); 10] = [
        (&nan, &[1, 3, 32, 32]),
        (&infinite, &[1, 3, 32, 32]),
        (&good, &[1, 1, 32, 32]),
        (&good, &[1, 4, 32, 32]),
        (&good, &[2, 3, 32, 32]),
        (&good, &[3, 32]),
        (&good, &[]),
        (&good, &[1, 3, 33, 32]),
        (&good, &[1, 3, 0, 0]),
        (&good, &[1, 3, 1 << 20, 1 << 20]),
    ];
    for (pixels, shape) in shapes {
        let error = model.run(pixels, shape, Output::Logits).unwrap_err();
        assert_eq!(error.code, Code::BadArgument, "{shape:?}: {error}");
    }
    let map = |layer, head| Output::Attention(AttentionMap::Layer { layer, head });
    for output in [map(2, None), map(usize::MAX, None), map(0, Some(4))] {
        let error = model.run(&good, &[3, 32, 32], output).unwrap_err();
        assert_eq!(error.code, Code::BadArgument, "{output:?}: {error}");
    }
    assert_eq!(model.embed_text("a cat").unwrap_err().code, Code::BadArgument);
}

#[test]
fn types_by_pattern() {
    let load = |overrides: &[&str], quantize: Option<&str>| {
        let checkpoint = Checkpoint::read("deit-distilled");
        let overrides = overrides.iter().map(ToString::to_string).collect();
        let config = Some(checkpoint.config.to_string());
        let quantize = quantize.map(Into::into);
        let options = LoadOptions { overrides, config, quantize, ..LoadOptions::default() };
        load(&checkpoint.bytes(), options).map(|model| model.info().bits_per_weight)
    };
    let bits = |overrides: &[&str], quantize| load(overrides, quantize).unwrap();
    let (plain, four) = (bits(&[], None), bits(&[], Some("Q4_0")));
    let some = bits(&["*intermediate.dense.weight=Q4_0"], None);
    assert!(four < some && some < plain, "{four} {some} {plain}");
    // The first and last layers keep 8 bits unless they are named.
    assert!(bits(&["*projection.weight=Q4_0", "cls_classifier.weight=Q4_0"], Some("Q4_0")) < four);
    // The first that fits holds.
    assert_eq!(bits(&["*=Q8_0", "*=Q4_0"], None), bits(&["*=Q8_0"], None));
    for bad in ["Q4_0", "=Q4_0", "*=", "*=Q9", "*=Q8_1"] {
        let error = load(&[bad], None).unwrap_err();
        assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some("overrides")), "{bad}");
    }
}
