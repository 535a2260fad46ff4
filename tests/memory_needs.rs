//! Row M01 of the fault catalogue: what a model will take is known from its header, and said in numbers.

mod bad_files;

use bad_files::model::Model;
use bitpane::container::Header;
use bitpane::container::stream::Sink;
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use bitpane::{Code, Error, Result};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn load(file: &[u8], options: LoadOptions) -> Result<Loaded> {
    let mut loader = Loader::new(options, None)?;
    file.chunks(1000).try_for_each(|piece| loader.push(piece))?;
    loader.finish()
}

/// The error under a limit. It has to come from the header: no weight is given.
fn refusal(file: &[u8], memory_limit: u64, options: LoadOptions) -> Error {
    let mut stream = bitpane::container::stream::Stream::new(None);
    let mut found = HeaderLen(0);
    file.chunks(64).try_for_each(|piece| stream.push(piece, &mut found)).unwrap();
    let mut loader = Loader::new(LoadOptions { memory_limit: Some(memory_limit), ..options }, None).unwrap();
    let e = loader.push(&file[..found.0]).expect_err("refused by its header");
    assert_eq!(e.code, Code::OutOfMemory, "{e}");
    e
}

struct HeaderLen(usize);

impl Sink for HeaderLen {
    fn header(&mut self, header: &Header) -> Result<()> {
        self.0 = header.data_offset as usize;
        Ok(())
    }
    fn tensor_bytes(&mut self, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn tensor_end(&mut self, _: usize) -> Result<()> {
        Ok(())
    }
}

fn context(n: usize) -> LoadOptions {
    LoadOptions { context_length: Some(n), ..LoadOptions::default() }
}

#[test]
fn m01_too_little_memory_is_known_from_the_header() {
    let file = Model::llama().gguf();
    let e = refusal(&file, 1 << 20, LoadOptions::default());
    let (needed, available) = **e.memory.as_ref().expect("the numbers");
    assert_eq!(available, 1 << 20);
    assert!(needed > available && e.message.contains("1.0 MB are available"), "{e}");
    // What it says to be enough is enough, and one byte less is not.
    let limited = |limit| LoadOptions { memory_limit: Some(limit), ..LoadOptions::default() };
    assert!(load(&file, limited(needed)).is_ok());
    assert!(load(&file, limited(needed - 1)).is_err());
}

#[test]
fn m01_the_error_says_which_context_would_fit() {
    let trained = 100_000u32.to_le_bytes();
    let file = Model::llama().set("llama.context_length", bad_files::gguf::U32, &trained).gguf();
    let all = refusal(&file, 1, context(100_000)).memory.unwrap().0;
    let limit = all - 5_000_000;
    let e = refusal(&file, limit, context(100_000));
    let words = e.message.split("contextLength ").nth(1).unwrap_or_else(|| panic!("{e}"));
    let n: usize = words.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!((64..100_000).contains(&n), "{e}");
    assert!(load(&file, LoadOptions { memory_limit: Some(limit), ..context(n) }).is_ok(), "{e}");
    assert!(load(&file, LoadOptions { memory_limit: Some(limit), ..context(n + 128) }).is_err());
}

#[test]
fn m01_the_error_says_which_type_would_fit() {
    let mut model = Model::llama();
    for i in 0..40 {
        model = model.tensor(&format!("blk.0.extra{i}.weight"), &[1024, 64], bad_files::gguf::F32);
    }
    let file = model.gguf();
    let all = refusal(&file, 1, LoadOptions::default()).memory.unwrap().0;
    let e = refusal(&file, all - 5_000_000, LoadOptions::default());
    assert!(e.message.contains("quantize \"Q8_0\"") && e.message.contains("quantize \"Q4_0\""), "{e}");
    let e = refusal(&file, all - 8_200_000, LoadOptions::default());
    assert!(!e.message.contains("Q8_0") && e.message.contains("quantize \"Q4_0\""), "{e}");
}

/// What the error says to be needed grows by exactly what the weights and the context take.
#[cfg(not(target_arch = "wasm32"))]
fn compare(path: &std::path::Path) {
    let file = std::fs::read(path).unwrap();
    let needed = |options| refusal(&file, 1, options).memory.unwrap().0;
    let taken = |options| match load(&file, options).unwrap() {
        Loaded::Text(model) => (model.info().weight_bytes, model.info().kv_bytes),
        Loaded::Encoder(model) => (model.info().weight_bytes, model.info().kv_bytes),
        Loaded::Vision(model) => (model.info().weight_bytes, model.info().kv_bytes),
    };
    let quantized = |n| LoadOptions { quantize: Some("Q8_0".into()), ..context(n) };
    let ((weights, short), (_, long)) = (taken(context(64)), taken(context(128)));
    let ((less, _), name) = (taken(quantized(64)), path.display());
    let base = needed(context(64));
    assert_eq!(needed(context(128)) - base, long - short, "{name}: context");
    assert_eq!(base as i64 - needed(quantized(64)) as i64, weights as i64 - less as i64, "{name}: weights");
    assert!(base >= weights + short, "{name}");
}

#[cfg(not(target_arch = "wasm32"))]
#[test]
fn m01_the_estimate_is_what_models_then_take() {
    let mut n = 0;
    for folder in ["tests/data/arch", "../shared/golden/arch"] {
        let Ok(files) = std::fs::read_dir(folder) else {
            println!("skipped: {folder} absent");
            continue;
        };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|e| e == "gguf") {
                compare(&file);
                n += 1;
            }
        }
    }
    assert!(n >= 10, "{n} models");
}
