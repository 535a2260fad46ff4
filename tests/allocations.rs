//! Writing a token allocates next to nothing: what the forward pass works on is kept.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::kernels::pool;
use bitpane::tasks::{GenerateOptions, LoadOptions, Loaded, Loader, Step, TextModel};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    COUNT.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes, Relaxed);
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, n: usize) -> *mut u8 {
        count(n);
        unsafe { System.realloc(p, layout, n) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn model(kv_type: &str) -> TextModel {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models/story.gguf");
    let options = LoadOptions { kv_type: Some(kv_type.into()), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(&std::fs::read(path).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("no language model"),
    }
}

/// (allocations, bytes) of each step after the first `skip`.
fn per_token(model: &mut TextModel, options: &GenerateOptions, skip: usize, n: usize) -> (f64, f64) {
    let prompt = model.tokenize("Once upon a time", true, false).unwrap();
    model.forget();
    let mut g = model.start(prompt, options.clone()).unwrap();
    let mut written = 0;
    let mut before = (0, 0);
    while written < skip + n {
        if written == skip {
            before = (COUNT.load(Relaxed), BYTES.load(Relaxed));
        }
        written += usize::from(matches!(model.step(&mut g).unwrap(), Step::Piece { .. }));
    }
    let after = (COUNT.load(Relaxed), BYTES.load(Relaxed));
    ((after.0 - before.0) as f64 / n as f64, (after.1 - before.1) as f64 / n as f64)
}

// One test: the counters are the process's.
#[test]
fn a_token_allocates_its_text_and_nothing_else() {
    let mut options = GenerateOptions { max_tokens: 100, ignore_eos: true, ..GenerateOptions::default() };
    options.sampler.seed = Some(1);
    for threads in [1, 2] {
        pool::set_threads(threads);
        for kv_type in ["F32", "F16", "Q8_0", "Q4_0"] {
            for temperature in [0.0, 1.0] {
                options.sampler.temperature = temperature;
                // Between two doublings of the lists of tokens.
                let (count, bytes) = per_token(&mut model(kv_type), &options, 34, 24);
                println!(
                    "{kv_type}, temperature {temperature}, {threads} threads: {count} allocations, {bytes} bytes"
                );
                // The piece of text as bytes and as characters, and what was held back of it.
                assert!(
                    count <= 4.0 && bytes <= 100.0,
                    "{kv_type}: {count} allocations, {bytes} bytes per token"
                );
            }
        }
    }
}
