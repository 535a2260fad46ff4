//! Preprocessing against Pillow: small formula images byte for byte, and the sample photos where
//! they are present (`tests/data/image_goldens.py` made the numbers).
#![cfg(not(target_arch = "wasm32"))]

use bitpane::error::Code;
use bitpane::image::{Fit, PixelView, Preprocess, Region, Resample, preprocess, resize_crop};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    small: Vec<Small>,
    photos: Vec<Photo>,
}

#[derive(Deserialize)]
struct Small {
    width: usize,
    height: usize,
    resize: usize,
    crop: usize,
    fit: String,
    filter: String,
    rgb: String,
}

#[derive(Deserialize)]
struct Photo {
    file: String,
    decoded: String,
    filter: String,
    crop: String,
    means: [f64; 3],
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("data/image_goldens.json")).expect("goldens are JSON")
}

fn recipe(resize: usize, crop: usize, fit: &str, filter: &str) -> Preprocess {
    let resample = match filter {
        "nearest" => Resample::Nearest,
        "bilinear" => Resample::Bilinear,
        "bicubic" => Resample::Bicubic,
        "lanczos" => Resample::Lanczos,
        other => panic!("unknown filter {other}"),
    };
    let fit = if fit == "stretch" { Fit::Stretch } else { Fit::Short };
    Preprocess { resize, crop, fit, resample, ..Preprocess::timm(crop, 1.0) }
}

/// The image of `image_goldens.py`, `[height, width, channels]`.
fn formula(width: usize, height: usize, channels: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let stripe = if (x + y) % 3 == 0 { 128 } else { 0 };
                out.push(((x * x * 31 + y * 57 + x * y * 13 + c * 91 + stripe) % 256) as u8);
            }
        }
    }
    out
}

fn fnv1a64(data: &[u8]) -> String {
    let hash =
        data.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

#[test]
fn small_images_equal_pillow() {
    let goldens = goldens();
    assert!(goldens.small.len() >= 24);
    let mut wrong = Vec::new();
    for g in &goldens.small {
        for channels in [3, 4] {
            let data = formula(g.width, g.height, channels);
            let pixels = PixelView::new(&data, g.width, g.height, channels).expect("valid view");
            let rgb =
                resize_crop(&pixels, &recipe(g.resize, g.crop, &g.fit, &g.filter)).expect("valid recipe");
            let hex: String = rgb.iter().map(|b| format!("{b:02x}")).collect();
            if hex != g.rgb {
                wrong.push(format!("{}x{} {} {} {channels}ch", g.width, g.height, g.fit, g.filter));
            }
        }
    }
    assert!(wrong.is_empty(), "differ from Pillow: {wrong:?}");
}

/// Sizes and recipes in which the seen part lies at the edges, inside, or is all; enlarged and reduced.
fn cases_of_parts() -> Vec<(usize, usize, Preprocess)> {
    let sizes = [(1, 1), (1, 40), (31, 17), (64, 64), (65, 200), (233, 61), (512, 93)];
    let mut cases = Vec::new();
    for (width, height) in sizes {
        for filter in ["nearest", "bilinear", "bicubic", "lanczos"] {
            for (resize, crop, fit) in [
                (32, 28, "short"),
                (33, 28, "short"),
                (64, 9, "short"),
                (28, 28, "stretch"),
                (80, 17, "stretch"),
            ] {
                cases.push((width, height, recipe(resize, crop, fit, filter)));
            }
        }
    }
    cases
}

/// The pixels of a part of a picture.
fn cut(data: &[u8], width: usize, channels: usize, part: Region) -> Vec<u8> {
    let rows = data.chunks_exact(width * channels).skip(part.y).take(part.height);
    rows.flat_map(|row| &row[part.x * channels..][..part.width * channels]).copied().collect()
}

#[test]
fn the_part_that_is_read_gives_what_the_whole_gives() {
    let mut n_smaller = 0;
    for (width, height, recipe) in cases_of_parts() {
        let least = recipe.region(width, height).expect("valid recipe");
        // One pixel more to the left and above, where there is one.
        let (x, y) = (least.x.saturating_sub(1), least.y.saturating_sub(1));
        let more = Region { x, y, width: least.width + least.x - x, height: least.height + least.y - y };
        for (channels, part) in [(3, least), (4, least), (3, more), (4, more)] {
            let data = formula(width, height, channels);
            let whole = PixelView::new(&data, width, height, channels).expect("valid view");
            let data = cut(&data, width, channels, part);
            let seen = PixelView::of_part(&data, part, width, height, channels).expect("valid part");
            assert_eq!(
                preprocess(&seen, &recipe).expect("enough is there"),
                preprocess(&whole, &recipe).expect("valid recipe"),
                "{width} x {height}, {channels} channels, {recipe:?}"
            );
        }
        n_smaller += usize::from(least.width * least.height < width * height);
    }
    assert!(n_smaller > 50, "{n_smaller} parts are smaller than the whole");
}

#[test]
fn parts_that_do_not_do_are_refused() {
    let code = |result: bitpane::error::Result<Vec<f32>>| result.map_err(|e| (e.code, e.key));
    let recipe = recipe(32, 28, "short", "bicubic");
    let least = recipe.region(65, 200).expect("valid recipe");
    let of = |part: Region| {
        let data = vec![0; part.width.saturating_mul(part.height).min(1 << 20) * 3];
        code(PixelView::of_part(&data, part, 65, 200, 3).and_then(|view| preprocess(&view, &recipe)))
    };
    assert!(of(least).is_ok());
    let Region { x, y, width, height } = least;
    for part in [
        Region { width: width - 1, ..least },
        Region { x: x + 1, width: width - 1, ..least },
        Region { height: height - 1, ..least },
        Region { y: y + 1, height: height - 1, ..least },
        Region { width: 0, ..least },
        Region { height: 0, ..least },
        Region { x: 1, y, width: 65, height },
        Region { x: usize::MAX, y, width: 2, height },
        Region { x, y: 199, width, height: 2 },
    ] {
        assert_eq!(of(part), Err((Code::BadArgument, Some("part".into()))), "{part:?}");
    }
    assert_eq!(recipe.region(0, 5).map_err(|e| e.code), Err(Code::ImageDecodeError));
}

#[test]
fn planes_hold_normalised_values() {
    let data = formula(30, 20, 3);
    let pixels = PixelView::new(&data, 30, 20, 3).expect("valid view");
    let recipe = Preprocess::timm(8, 0.875);
    let rgb = resize_crop(&pixels, &recipe).expect("valid recipe");
    let planes = preprocess(&pixels, &recipe).expect("valid recipe");
    assert_eq!(planes.len(), rgb.len());
    for (i, &value) in rgb.iter().enumerate() {
        let (pixel, c) = (i / 3, i % 3);
        let expected = (f32::from(value) / 255.0 - recipe.mean[c]) / recipe.std[c];
        assert_eq!(planes[c * 64 + pixel], expected, "pixel {pixel} channel {c}");
    }
}

/// The photos, decoded by the `image` crate. Where its decoder gives Pillow's very pixels (BMP), the
/// crop must be Pillow's very bytes; JPEG decoders round colours differently by a level here and
/// there, so there the channel means decide.
#[test]
fn photos_equal_pillow() {
    const JPEG_MEAN_TOLERANCE: f64 = 0.02; // of 255
    let folder = std::path::Path::new("../shared/data/images");
    if !folder.is_dir() {
        eprintln!("skipped: {} absent", folder.display());
        return;
    }
    let mut n_exact = 0;
    for g in goldens().photos {
        let decoded = image::open(folder.join(&g.file)).expect("photo decodes").to_rgb8();
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        let pixels = PixelView::new(decoded.as_raw(), width, height, 3).expect("valid view");
        let rgb = resize_crop(&pixels, &recipe(256, 224, "short", &g.filter)).expect("valid recipe");
        if fnv1a64(decoded.as_raw()) == g.decoded {
            n_exact += 1;
            assert_eq!(fnv1a64(&rgb), g.crop, "{} {}", g.file, g.filter);
        } else {
            assert!(g.file.ends_with(".jpg"), "{} decodes to other pixels", g.file);
        }
        for (c, expected) in g.means.into_iter().enumerate() {
            let mean = rgb.iter().skip(c).step_by(3).map(|&v| f64::from(v)).sum::<f64>() / (224.0 * 224.0);
            assert!((mean - expected).abs() < JPEG_MEAN_TOLERANCE, "{} {}: {mean}", g.file, g.filter);
        }
    }
    assert!(n_exact >= 15, "only {n_exact} comparisons were exact");
}
