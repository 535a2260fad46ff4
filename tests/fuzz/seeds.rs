//! The inputs that the targets for libFuzzer begin with: the tests' own files, and the goldens of ../shared where
//! they are and are not long.

use super::bad_files;
use bitpane::quant::FORMATS;
use image::{DynamicImage, ImageFormat, RgbaImage};
use std::fs;
use std::io::{Cursor, Result};
use std::path::{Path, PathBuf};

/// Longer inputs are changed mostly where it does not matter, and slowly.
const MAX_BYTES: usize = 400_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn write(target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

/// The files of a folder that are not too long; none where it is absent.
fn files(folder: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let is_short = entry.metadata().is_ok_and(|m| m.is_file() && m.len() <= MAX_BYTES as u64);
        let bytes = fs::read(entry.path()).ok().filter(|_| is_short)?;
        Some((entry.file_name().to_string_lossy().into_owned(), bytes))
    })
}

/// Writes them to fuzz/corpus.
pub fn write_all() -> Result<()> {
    for (i, case) in bad_files::gguf::cases().iter().enumerate().filter(|(_, c)| c.bytes.len() <= MAX_BYTES) {
        write("gguf", &format!("case-{i}"), &case.bytes)?;
    }
    for (i, case) in
        bad_files::safetensors::cases().iter().enumerate().filter(|(_, c)| c.bytes.len() <= MAX_BYTES)
    {
        write("safetensors", &format!("case-{i}"), &case.bytes)?;
    }
    let index = br#"{"metadata":{"total_size":8},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#;
    write("safetensors", "index", index)?;
    for folder in ["../shared/golden/arch", "../shared/golden/quant"] {
        for (name, bytes) in files(folder).filter(|(name, _)| name.ends_with(".gguf")) {
            write("gguf", &name, &bytes)?;
            write("tokenizer", &name, &bytes)?;
            for which in [0, 4, 9] {
                write("quantizer", &format!("{which}-{name}"), &[&[which], &bytes[..]].concat())?;
            }
        }
    }
    for (name, bytes) in files("tests/fuzz/corpus/tokenizer_json") {
        write("tokenizer", &name, &[&bytes, &b"\0ab ab<|x|> [CLS] un.able \xe2\x96\x81a"[..]].concat())?;
    }
    for folder in ["tests/fuzz/corpus/template", "../shared/data/tokenizers/llama.cpp/templates"] {
        for (name, bytes) in files(folder) {
            write("template", &name, &bytes)?;
        }
    }
    images()?;
    numbers()
}

fn images() -> Result<()> {
    let picture =
        RgbaImage::from_fn(13, 7, |x, y| image::Rgba([x as u8 * 19, y as u8 * 31, 90, 255 - x as u8]));
    let picture = DynamicImage::from(picture);
    for (format, name) in [
        (ImageFormat::Png, "png"),
        (ImageFormat::Bmp, "bmp"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Jpeg, "jpg"),
    ] {
        for (kind, picture) in [
            ("rgb", DynamicImage::from(picture.to_rgb8())),
            ("grey", DynamicImage::from(picture.to_luma8())),
            ("rgba", picture.clone()),
        ] {
            let mut bytes = Cursor::new(Vec::new());
            if picture.write_to(&mut bytes, format).is_ok() {
                write("image", &format!("{kind}.{name}"), &bytes.into_inner())?;
            }
        }
    }
    files("tests/data/image").try_for_each(|(name, bytes)| write("image", &name, &bytes))
}

/// Blocks of numbers that are small, large, alike, and zero, for every type.
fn numbers() -> Result<()> {
    for which in 0..FORMATS.len() as u8 {
        let wave = (0..512u32).map(|i| ((i * 37 % 101) as f32 - 50.0) * 10f32.powi(i as i32 / 64 - 4));
        let flat = (0..512u32).map(|i| if i < 256 { 0.0 } else { 1.5 });
        for (name, values) in [("wave", wave.collect::<Vec<f32>>()), ("flat", flat.collect())] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            write("quantizer", &format!("{which}-{name}"), &[&[which], &bytes[..]].concat())?;
        }
    }
    Ok(())
}
