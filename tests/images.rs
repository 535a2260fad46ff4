//! Row C08: a model's tensors as they are held, taken back as they were.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::Code;
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use std::path::{Path, PathBuf};

/// The pieces of every tensor.
type Image = Vec<Vec<Vec<u8>>>;

fn options(quantize: Option<&str>) -> LoadOptions {
    LoadOptions { quantize: quantize.map(String::from), context_length: None, ..LoadOptions::default() }
}

fn filled(file: &[u8], quantize: Option<&str>) -> Loader {
    let mut loader = Loader::new(options(quantize), Some(file.len() as u64)).unwrap();
    file.chunks(70_000).for_each(|bytes| loader.push(bytes).unwrap());
    loader.end_file().unwrap();
    loader
}

fn image_of(loader: &Loader) -> Image {
    let n = loader.progress().tensors_total;
    (0..n).map(|i| loader.image(i).into_iter().map(<[u8]>::to_vec).collect()).collect()
}

/// A loader that has been given the header and the image.
fn restored(header: &[u8], image: &Image, quantize: Option<&str>) -> Loader {
    let mut loader = Loader::new(options(quantize), None).unwrap();
    loader.push(header).unwrap();
    for tensor in &image[loader.progress().tensors_done..] {
        let mut pieces = loader.begin_image().unwrap();
        assert_eq!(
            pieces.iter().map(|p| p.len()).collect::<Vec<_>>(),
            tensor.iter().map(Vec::len).collect::<Vec<_>>()
        );
        pieces.iter_mut().zip(tensor).for_each(|(to, from)| to.copy_from_slice(from));
        assert_eq!(loader.filled_image(), tensor.iter().map(Vec::as_slice).collect::<Vec<_>>());
        loader.end_image().unwrap();
    }
    loader
}

/// What a model computes and says of itself.
fn outcome(loader: Loader) -> (Vec<f32>, String) {
    match loader.finish().unwrap() {
        Loaded::Text(mut model) => {
            let info = serde_json::to_string(&model.info()).unwrap();
            (model.logits(&[1, 5, 9], 1).unwrap().remove(0), info)
        }
        Loaded::Vision(mut model) => {
            let info = serde_json::to_string(&model.info()).unwrap();
            let side = model.info().image_size;
            let pixels: Vec<f32> =
                (0..3 * side * side).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
            (model.logits(&pixels, &[3, side, side]).unwrap(), info)
        }
        Loaded::Encoder(_) => unreachable!("no encoder is loaded here"),
    }
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = ["www/models/story.gguf", "www/models/story-ternary.gguf", "www/models/photo.gguf"];
    let arch = ["llama-experts", "granitemoe", "mamba2", "gemma3", "phi3", "rwkv7"];
    let mut files: Vec<PathBuf> = own.iter().map(|name| root.join(name)).collect();
    files.extend(arch.iter().map(|name| root.join(format!("tests/data/arch/{name}.gguf"))));
    files.retain(|file| file.exists());
    files
}

#[test]
fn c08_a_model_from_its_image_is_the_model() {
    let files = files();
    assert!(files.len() >= 6, "{files:?}");
    for path in files {
        let file = std::fs::read(&path).unwrap();
        for quantize in [None, Some("Q8_0"), Some("Q4_0")] {
            let loader = filled(&file, quantize);
            let header = loader.image_header().expect("one file that is read as it arrives") as usize;
            let image = image_of(&loader);
            let plain = outcome(loader);
            let loader = restored(&file[..header], &image, quantize);
            assert_eq!(image_of(&loader), image, "{}", path.display());
            assert_eq!(outcome(loader), plain, "{} {quantize:?}", path.display());
        }
    }
}

#[test]
fn c08_what_has_no_image_says_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(root.join("www/models/photo.gguf")).unwrap();
    let mut loader = Loader::new(options(None), None).unwrap();
    assert_eq!(loader.image_header(), None, "before the header");
    assert_eq!(loader.begin_image().unwrap_err().code, Code::BadArgument);
    assert_eq!(loader.end_image().unwrap_err().code, Code::BadArgument);
    loader.push(&file[..filled(&file, None).image_header().unwrap() as usize]).unwrap();
    loader.begin_image().unwrap();
    assert_eq!(loader.begin_image().unwrap_err().code, Code::BadArgument, "one at a time");
    assert!(loader.image(0).is_empty(), "not taken yet");
    assert_eq!(
        loader.push(&file[file.len() - 100..]).unwrap_err().code,
        Code::BadArgument,
        "bytes of the file"
    );
    let mut half = Loader::new(options(None), None).unwrap();
    half.push(&file[..file.len() / 2]).unwrap();
    assert_eq!(half.begin_image().unwrap_err().code, Code::BadArgument, "within a tensor");
    let mut two = Loader::new(options(None), None).unwrap();
    two.expect_files(2);
    assert_eq!(two.push(&file).and(Ok(two.image_header())).unwrap_or(None), None);
}

#[test]
fn c08_an_image_that_ends_early_is_truncated() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(root.join("www/models/photo.gguf")).unwrap();
    let loader = filled(&file, None);
    let header = loader.image_header().unwrap() as usize;
    let mut image = image_of(&loader);
    image.pop();
    let error = restored(&file[..header], &image, None).finish().map(drop).unwrap_err();
    assert_eq!(error.code, Code::Truncated);
}
