//! How a model's pictures are prepared: by its `preprocessor_config.json`, by what its file or config says, or by
//! timm's recipe for ImageNet.

use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::image::{Fit, Preprocess, Resample};
use crate::models::vision::{Config, VisionInfo};
use serde_json::Value;

/// Key of GGUF metadata under which a `preprocessor_config.json` may stand.
const EMBEDDED: &str = "preprocessor_config";

/// The recipe; `given` is the text of a `preprocessor_config.json`.
///
/// # Errors
/// [`Code::BadConfig`] naming the key.
pub(super) fn read(
    metadata: &Metadata,
    config: &Config,
    given: Option<&str>,
    info: &VisionInfo,
) -> Result<Preprocess> {
    let mut recipe = timm(config, info)?;
    gguf(metadata, &mut recipe)?;
    if let Some(text) = given.or(metadata.str(EMBEDDED).ok().flatten()) {
        recipe = hugging_face(text, recipe)?;
    }
    if recipe.crop != info.image_size && !info.any_size {
        let rule = format!("pictures of {} pixels for a model of {}", recipe.crop, info.image_size);
        return Err(Error::new(Code::BadConfig, rule).key("size"));
    }
    recipe.validate()?;
    Ok(recipe)
}

fn bad(key: &str, rule: impl Into<String>) -> Error {
    Error::new(Code::BadConfig, rule).key(key)
}

/// timm's keys (`mean`, `std`, `interpolation`, `crop_pct`, `crop_mode`), and its defaults.
fn timm(config: &Config, info: &VisionInfo) -> Result<Preprocess> {
    let crop_pct = crop_share(config.get("crop_pct"), "crop_pct")?.unwrap_or(0.875);
    let mut recipe = Preprocess::timm(info.image_size, crop_pct);
    if let Some([mean, std]) = info.normalization {
        (recipe.mean, recipe.std) = (mean, std);
    }
    if let Some(mean) = triple(config.get("mean"), "mean")? {
        recipe.mean = mean;
    }
    if let Some(std) = triple(config.get("std"), "std")? {
        recipe.std = std;
    }
    match config.str("interpolation") {
        None | Some("bicubic") => {}
        Some("nearest") => recipe.resample = Resample::Nearest,
        Some("bilinear") => recipe.resample = Resample::Bilinear,
        Some("lanczos") => recipe.resample = Resample::Lanczos,
        Some(other) => return Err(bad("interpolation", format!("{other:?} is not supported"))),
    }
    match config.str("crop_mode") {
        None | Some("center") => {}
        // Both sides to what the short one would become.
        Some("squash") => recipe.fit = Fit::Stretch,
        Some(other) => return Err(bad("crop_mode", format!("{other:?} is not supported"))),
    }
    Ok(recipe)
}

/// `vit.image_mean`, `vit.image_std`, `vit.crop_pct`; llama.cpp's converters write `clip.vision.` before them.
fn gguf(metadata: &Metadata, recipe: &mut Preprocess) -> Result<()> {
    for prefix in ["vit", "clip.vision"] {
        let triple = |name: &str| {
            let key = format!("{prefix}.{name}");
            match metadata.array(&key)? {
                None => Ok(None),
                Some(Array::F32(v)) if v.len() == 3 => Ok(Some([v[0], v[1], v[2]])),
                Some(_) => Err(bad(&key, "expected three f32")),
            }
        };
        let key = format!("{prefix}.crop_pct");
        if let Some(share) = metadata.f32(&key)? {
            if !(share > 0.1 && share <= 1.0) {
                return Err(bad(&key, "not in 0.1 ..= 1"));
            }
            recipe.resize = Preprocess::timm(recipe.crop, f64::from(share)).resize;
        }
        if let Some(mean) = triple("image_mean")? {
            recipe.mean = mean;
        }
        if let Some(std) = triple("image_std")? {
            recipe.std = std;
        }
    }
    Ok(())
}

/// The keys of Hugging Face's image processors; `base` holds where they say nothing.
fn hugging_face(text: &str, base: Preprocess) -> Result<Preprocess> {
    let json: Value = serde_json::from_str(text)
        .map_err(|e| bad(EMBEDDED, format!("preprocessor_config.json is not JSON: {e}")).source(e))?;
    if !json.is_object() {
        return Err(bad(EMBEDDED, "preprocessor_config.json is not a JSON object"));
    }
    let flag = |key: &str, default: bool| json[key].as_bool().unwrap_or(default);
    let mut recipe = base;
    size(&json, &mut recipe, flag("do_center_crop", json.get("crop_size").is_some()))?;
    match json["resample"].as_u64() {
        None => {}
        Some(0) => recipe.resample = Resample::Nearest,
        Some(1) => recipe.resample = Resample::Lanczos,
        Some(2) => recipe.resample = Resample::Bilinear,
        Some(3) => recipe.resample = Resample::Bicubic,
        Some(other) => return Err(bad("resample", format!("filter {other} is not supported"))),
    }
    recipe.one = match json.get("rescale_factor").map(|f| (f, f.as_f64())) {
        _ if !flag("do_rescale", true) => 1.0,
        None => recipe.one,
        Some((_, Some(factor))) if factor > 0.0 => (1.0 / factor) as f32,
        Some((other, _)) => return Err(bad("rescale_factor", format!("{other} is not above zero"))),
    };
    if flag("do_normalize", true) {
        recipe.mean = triple(json.get("image_mean"), "image_mean")?.unwrap_or(recipe.mean);
        recipe.std = triple(json.get("image_std"), "image_std")?.unwrap_or(recipe.std);
    } else {
        (recipe.mean, recipe.std) = ([0.0; 3], [1.0; 3]);
    }
    if flag("rescale_offset", false) {
        // EfficientNet's: 1 is subtracted before the mean is.
        recipe.mean.iter_mut().for_each(|mean| *mean += 1.0);
    }
    recipe.blue_first = flag("do_flip_channel_order", false);
    Ok(recipe)
}

/// `size` (a number, the shortest edge, or both sides), `crop_size` and `crop_pct`.
fn size(json: &Value, recipe: &mut Preprocess, crops: bool) -> Result<()> {
    let side = |value: &Value, key: &str| match value.as_u64() {
        Some(n @ 1..=8192) => Ok(n as usize),
        _ => Err(bad(key, format!("{value} is not in 1 ..= 8192"))),
    };
    let square = |value: &Value, key: &str| match (value.get("height"), value.get("width")) {
        (Some(height), Some(width)) if height == width => side(height, key),
        (None, None) => side(value, key),
        _ => Err(bad(key, "only square sizes are supported")),
    };
    let crop = match json.get("crop_size") {
        Some(crop) if crops => Some(square(crop, "crop_size")?),
        _ => None,
    };
    let share = crop_share(json.get("crop_pct"), "crop_pct")?;
    match json.get("size") {
        None => {}
        Some(size) if size.get("shortest_edge").is_some() => {
            let edge = side(&size["shortest_edge"], "size")?;
            recipe.fit = Fit::Short;
            match (crop, share) {
                (Some(crop), _) => (recipe.resize, recipe.crop) = (edge, crop),
                // ConvNeXt's: small pictures lose their margins, large ones their ratio.
                (None, Some(share)) if edge < 384 => {
                    (recipe.resize, recipe.crop) = ((edge as f64 / share) as usize, edge);
                }
                (None, Some(_)) => {
                    (recipe.resize, recipe.crop, recipe.fit) = (edge, edge, Fit::Stretch);
                }
                (None, None) => (recipe.resize, recipe.crop) = (edge, edge),
            }
        }
        Some(size) => {
            let edge = square(size, "size")?;
            // A number alone was the short side where a crop follows.
            recipe.fit = if size.is_number() && crop.is_some() { Fit::Short } else { Fit::Stretch };
            (recipe.resize, recipe.crop) = (edge, crop.unwrap_or(edge));
        }
    }
    if json["do_resize"] == Value::Bool(false) {
        return Err(bad("do_resize", "pictures are always brought to the model's size"));
    }
    Ok(())
}

fn crop_share(value: Option<&Value>, key: &str) -> Result<Option<f64>> {
    match value.filter(|v| !v.is_null()).map(|v| (v, v.as_f64())) {
        None => Ok(None),
        Some((_, Some(share))) if share > 0.1 && share <= 1.0 => Ok(Some(share)),
        Some((v, _)) => Err(bad(key, format!("{v} is not in 0.1 ..= 1"))),
    }
}

/// Three numbers, or one for all channels.
fn triple(value: Option<&Value>, key: &str) -> Result<Option<[f32; 3]>> {
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(None) };
    let number = |v: &Value| v.as_f64().map(|x| x as f32);
    let numbers: Option<Vec<f32>> = match value {
        Value::Array(list) => list.iter().map(number).collect(),
        one => number(one).map(|x| vec![x; 3]),
    };
    match numbers.as_deref() {
        Some(&[r, g, b]) => Ok(Some([r, g, b])),
        _ => Err(bad(key, format!("{value} is not three numbers"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(config: &str, preprocessor: Option<&str>, image_size: usize) -> Result<Preprocess> {
        let info = VisionInfo { image_size, ..VisionInfo::default() };
        read(&Metadata::default(), &Config::from_json(config)?, preprocessor, &info)
    }

    #[test]
    fn published_configs_are_read() {
        let vit = r#"{"do_normalize": true, "do_resize": true, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "resample": 2, "size": 224}"#;
        let vit = recipe("{}", Some(vit), 224).unwrap();
        assert_eq!((vit.fit, vit.resize, vit.crop), (Fit::Stretch, 224, 224));
        assert_eq!((vit.resample, vit.mean, vit.one), (Resample::Bilinear, [0.5; 3], 255.0));

        let clip = r#"{"crop_size": {"height": 224, "width": 224}, "do_center_crop": true, "resample": 3,
            "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 224}}"#;
        let clip = recipe("{}", Some(clip), 224).unwrap();
        assert_eq!((clip.fit, clip.resize, clip.crop, clip.one), (Fit::Short, 224, 224, 255.0));

        let convnext = r#"{"crop_pct": 0.875, "size": {"shortest_edge": 224}}"#;
        assert_eq!(recipe("{}", Some(convnext), 224).unwrap().resize, 256);
        let large = r#"{"crop_pct": 0.875, "size": {"shortest_edge": 384}}"#;
        assert_eq!(recipe("{}", Some(large), 384).unwrap().fit, Fit::Stretch);

        let mobilevit = r#"{"size": {"shortest_edge": 288}, "crop_size": {"height": 256, "width": 256},
            "do_center_crop": true, "do_flip_channel_order": true, "do_normalize": false}"#;
        let mobilevit = recipe("{}", Some(mobilevit), 256).unwrap();
        assert!(mobilevit.blue_first && mobilevit.mean == [0.0; 3] && mobilevit.std == [1.0; 3]);

        let timm = r#"{"architecture": "x", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9,
            "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_mode": "squash"}}"#;
        let timm = recipe(timm, None, 224).unwrap();
        assert_eq!((timm.resize, timm.resample, timm.mean), (248, Resample::Bilinear, [0.1, 0.2, 0.3]));
        assert_eq!(recipe("{}", None, 224).unwrap(), Preprocess::timm(224, 0.875));
    }

    #[test]
    fn impossible_configs_name_the_key() {
        let cases = [
            (r#"{"size": 0}"#, "size"),
            (r#"{"size": {"height": 1, "width": 2}}"#, "size"),
            (r#"{"size": {"shortest_edge": -1}}"#, "size"),
            (r#"{"size": 192}"#, "size"),
            (r#"{"resample": 9}"#, "resample"),
            (r#"{"image_mean": [1, 2]}"#, "image_mean"),
            (r#"{"image_std": [0, 1, 1]}"#, "std"),
            (r#"{"rescale_factor": 0}"#, "rescale_factor"),
            (r#"{"do_resize": false}"#, "do_resize"),
            ("[]", EMBEDDED),
            ("{", EMBEDDED),
        ];
        for (text, key) in cases {
            let error = recipe("{}", Some(text), 224).unwrap_err();
            assert_eq!((error.code, error.key.as_deref()), (Code::BadConfig, Some(key)), "{text}");
        }
        for (text, key) in
            [(r#"{"crop_pct": 0}"#, "crop_pct"), (r#"{"interpolation": "x"}"#, "interpolation")]
        {
            assert_eq!(recipe(text, None, 224).unwrap_err().key.as_deref(), Some(key));
        }
    }
}
