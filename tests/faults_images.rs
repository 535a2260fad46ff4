//! Images that are odd or none: rows T12 and T13 of the fault catalogue, with the classifier that comes with the page.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::Code;
use bitpane::tasks::{Loaded, Loader, VisionModel};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::Value;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/photo.gguf");

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red on the left, blue on the right, a dark bar at the bottom.
fn picture() -> DynamicImage {
    DynamicImage::from(RgbImage::from_fn(48, 40, |x, y| match (x < 24, y < 30) {
        (_, false) => Rgb([20, 20, 20]),
        (true, true) => Rgb([220, 30, 30]),
        (false, true) => Rgb([30, 30, 220]),
    }))
}

/// What `bitpane classify` makes of a file of that name: its likeliest class, or the code of its error.
fn classify(name: &str, bytes: &[u8]) -> Result<String, String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bitpane"))
        .args(["classify", MODEL, path.to_str().unwrap(), "--json"])
        .output()
        .unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = &document["results"][0];
    match output.status.code() {
        Some(0) => Ok(result["top"][0]["label"].as_str().unwrap().into()),
        Some(1) => Err(result["error"]["code"].as_str().unwrap().into()),
        other => panic!("{name}: exit code {other:?}"),
    }
}

/// A PNG that declares a size and holds nothing of it.
fn declared(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    let crc = bytes[12..].iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    });
    bytes.extend((!crc).to_be_bytes());
    bytes
}

#[test]
fn t12_images_of_every_kind_are_seen_or_refused() {
    let plain = encoded(&picture(), ImageFormat::Png);
    let seen = classify("plain.png", &plain).unwrap();
    let same = |name: &str, bytes: &[u8]| assert_eq!(classify(name, bytes).as_ref(), Ok(&seen), "{name}");
    same("alpha.png", &encoded(&DynamicImage::from(picture().to_rgba8()), ImageFormat::Png));
    same("deep.png", &encoded(&DynamicImage::from(picture().to_rgb16()), ImageFormat::Png));
    same("plain.bmp", &encoded(&picture(), ImageFormat::Bmp));
    // Told apart by content, whatever the name says.
    same("really-a-png.jpg", &plain);
    for (name, image) in [
        ("gray.png", DynamicImage::from(picture().to_luma8())),
        ("gray16.png", DynamicImage::from(picture().to_luma16())),
        ("dot.png", DynamicImage::from(RgbImage::new(1, 1))),
        ("line.png", DynamicImage::from(RgbImage::new(4000, 1))),
    ] {
        classify(name, &encoded(&image, ImageFormat::Png)).unwrap();
    }
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>alert(1)</script></svg>";
    let refused = |name: &str, bytes: &[u8]| {
        assert_eq!(classify(name, bytes), Err("ImageDecodeError".into()), "{name}");
    };
    refused("none.png", b"");
    refused("text.png", b"hello");
    refused("drawing.svg", svg);
    refused(
        "animated.gif",
        b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    );
    refused("huge.png", &declared(30_000, 30_000));
    refused("endless.png", &declared(u32::MAX, u32::MAX));
    refused("flat.png", &declared(0, 9));
    for n in [9, 33, 60, plain.len() / 2] {
        refused("cut.png", &plain[..n]);
    }
    let jpeg = encoded(&picture(), ImageFormat::Jpeg);
    classify("plain.jpg", &jpeg).unwrap();
    refused("cut.jpg", &jpeg[..100]);
}

/// The camera's orientation is applied: the picture turned by 90 degrees, with a note to turn it back.
#[test]
fn t12_exif_orientation_is_applied() {
    let upright = classify("upright.jpg", &encoded(&picture(), ImageFormat::Jpeg)).unwrap();
    let turned = encoded(&picture().rotate270(), ImageFormat::Jpeg);
    // SOI, then APP1 with one entry: orientation (0x0112) 6, "turn right to see it upright".
    let exif = b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let noted = [&turned[..2], exif, &turned[2..]].concat();
    assert_eq!(classify("turned.jpg", &noted), Ok(upright));
}

fn model() -> VisionModel {
    let mut loader = Loader::new(Default::default(), None).unwrap();
    loader.push(&std::fs::read(MODEL).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Vision(model) => *model,
        _ => panic!("no vision model"),
    }
}

#[test]
fn t13_image_tensors_that_do_not_fit_are_bad_arguments() {
    let mut model = model();
    let n = 3 * 32 * 32;
    let fine = vec![0.5; n];
    let with = |at: usize, value: f32| {
        let mut pixels = fine.clone();
        pixels[at] = value;
        pixels
    };
    for (what, pixels, shape) in [
        ("no shape", fine.clone(), vec![]),
        ("too few axes", fine.clone(), vec![3, 1024]),
        ("too many", fine.clone(), vec![1, 1, 3, 32, 32]),
        ("channels last", fine.clone(), vec![32, 32, 3]),
        ("another size", vec![0.5; 3 * 15 * 15], vec![3, 15, 15]),
        ("two images", vec![0.5; 2 * n], vec![2, 3, 32, 32]),
        ("fewer numbers than the shape", vec![0.5; n - 1], vec![3, 32, 32]),
        ("a shape that overflows", fine.clone(), vec![usize::MAX, 3, 32]),
        ("NaN", with(0, f32::NAN), vec![3, 32, 32]),
        ("infinity", with(n - 1, f32::INFINITY), vec![3, 32, 32]),
    ] {
        let error = model.logits(&pixels, &shape).err().unwrap_or_else(|| panic!("{what} is taken"));
        assert_eq!(error.code, Code::BadArgument, "{what}: {error}");
    }
    // Values are normalised pixels: any finite ones do.
    let far = model.logits(&with(5, -40.0), &[3, 32, 32]).unwrap();
    assert!(far.iter().all(|logit| logit.is_finite()));
}
