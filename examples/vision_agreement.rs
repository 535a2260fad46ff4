//! How often a quantized image classifier names the same class first as the same model in its file's own type.
//!
//! ```text
//! cargo run --release --features cli --example vision_agreement -- MODEL PHOTOS N [TYPE[,PATTERN=TYPE...] | FILE ...]
//! ```
//! `PHOTOS` is a folder of pictures, or a ZIP archive of JPEG files, stored without compression (CIFAR-10's test photos,
//! for example); N of them are taken, spread evenly. Each is stretched to the model's size and normalised by ImageNet's
//! mean and deviation. Per type, with other types for the tensors whose names fit a pattern, or per file of the same model:
//! bits per weight, agreement of the first class, divergence in nats with its standard error, mean and lowest cosine of the logits.

use bitpane::image::{Fit, PixelView, Preprocess, preprocess};
use bitpane::kernels::pool;
use bitpane::tasks::{LoadOptions, Loaded, Loader, VisionModel, similarity};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, photos, n, types @ ..] = args.as_slice() else {
        return Err("usage: vision_agreement MODEL PHOTOS N [TYPE[,PATTERN=TYPE...] | FILE ...]".into());
    };
    let bytes = std::fs::read(model)?;
    let mut exact = load(&bytes, None)?;
    let size = exact.info().image_size;
    pool::set_threads(1);
    let files = files_of(std::path::Path::new(photos))?;
    let n = n.parse::<usize>()?.min(files.len());
    let inputs = || (0..n).map(|i| input(&files[i * files.len() / n], size));
    let mut wanted = Vec::with_capacity(n);
    for pixels in inputs() {
        wanted.push(exact.logits(&pixels?, &[3, size, size])?);
    }
    println!("{n} photos, {} classes", exact.info().n_output);
    drop(exact);
    for name in types {
        let mut model = match std::path::Path::new(name).is_file() {
            true => load(&std::fs::read(name)?, None)?,
            false => load(&bytes, Some(name))?,
        };
        let (mut same, mut sum, mut lowest, mut nats, mut squares) = (0, 0f64, 1f32, 0f64, 0f64);
        for (pixels, want) in inputs().zip(&wanted) {
            let got = model.logits(&pixels?, &[3, size, size])?;
            same += usize::from(first(&got) == first(want));
            let cosine = similarity(&got, want);
            sum += f64::from(cosine);
            lowest = lowest.min(cosine);
            let lost = divergence(want, &got);
            nats += lost;
            squares += lost * lost;
        }
        let bits = model.info().bits_per_weight;
        let (share, mean, nats) = (100.0 * same as f64 / n as f64, sum / n as f64, nats / n as f64);
        let error = ((squares / n as f64 - nats * nats) / n as f64).sqrt();
        println!(
            "{name}: {bits:.2} bits, first class agrees {share:.2} %, divergence {nats:.5} +- {error:.5}, \
             cosine {mean:.5}, lowest {lowest:.5}"
        );
    }
    Ok(())
}

fn load(bytes: &[u8], spec: Option<&str>) -> Outcome<VisionModel> {
    let mut parts = spec.unwrap_or_default().split(',').map(String::from);
    let quantize = parts.next().filter(|name| !name.is_empty());
    let options = LoadOptions { quantize, overrides: parts.collect(), ..LoadOptions::default() };
    let mut loader = Loader::new(options, Some(bytes.len() as u64)).map_err(said)?;
    loader.push(bytes).map_err(said)?;
    match loader.finish().map_err(said)? {
        Loaded::Vision(model) => Ok(*model),
        _ => Err("the file holds no vision model".into()),
    }
}

fn said(error: bitpane::error::Error) -> String {
    error.to_string()
}

fn first(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap_or(0)
}

/// Of the shares that softmax makes of `other`, from those of `exact`.
fn divergence(exact: &[f32], other: &[f32]) -> f64 {
    let ln_softmax = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
        row.iter().map(|&v| f64::from(v - max) - sum.ln()).collect()
    };
    let (p, q) = (ln_softmax(exact), ln_softmax(other));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn input(file: &[u8], size: usize) -> Outcome<Vec<f32>> {
    let photo = image::load_from_memory(file)?.to_rgb8();
    let view = PixelView::new(&photo, photo.width() as usize, photo.height() as usize, 3).map_err(said)?;
    let recipe = Preprocess { resize: size, fit: Fit::Stretch, ..Preprocess::timm(size, 1.0) };
    Ok(preprocess(&view, &recipe).map_err(said)?)
}

/// The files of a folder that can be decoded, by name, or those of an archive.
fn files_of(path: &std::path::Path) -> Outcome<Vec<Vec<u8>>> {
    if !path.is_dir() {
        return Ok(stored_files(&std::fs::read(path)?)?.into_iter().map(<[u8]>::to_vec).collect());
    }
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| image::ImageFormat::from_path(path).is_ok());
    paths.sort();
    Ok(paths.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?)
}

/// The JPEG files of a ZIP archive (APPNOTE.TXT, section 4.3.7) whose files are stored as they are.
fn stored_files(archive: &[u8]) -> Outcome<Vec<&[u8]>> {
    let number = |at: usize, len: usize| -> Option<usize> {
        Some(archive.get(at..at + len)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)))
    };
    let mut files = Vec::new();
    let mut at = 0;
    while archive.get(at..at + 4) == Some(b"PK\x03\x04") {
        let field = |offset: usize, len: usize| number(at + offset, len).ok_or("the archive is cut off");
        if field(8, 2)? != 0 || field(6, 2)? & 8 != 0 {
            return Err("only archives without compression can be read".into());
        }
        let start = at + 30 + field(26, 2)? + field(28, 2)?;
        let end = start + field(18, 4)?;
        let content = archive.get(start..end).ok_or("the archive is cut off")?;
        if content.starts_with(&[0xff, 0xd8]) {
            files.push(content);
        }
        at = end;
    }
    if files.is_empty() { Err("the archive holds no JPEG files".into()) } else { Ok(files) }
}
