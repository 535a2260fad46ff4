//! The pool, and that no result depends on the number of threads.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::kernels::act::Activations;
use bitpane::kernels::pool;
use bitpane::kernels::{Product, matmul, matmul_many, parallel};
use bitpane::quant::DType;
use bitpane::repack::{PackedWeights, Packer};
use bitpane::tasks::{LoadOptions, Loaded, Loader};
use common::shared;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The pool is one for the process: tests that set the number of threads take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_part_runs_once_in_ten_thousand_regions() {
    let _turn = alone();
    for threads in 1..=4 {
        assert_eq!(pool::set_threads(threads), threads);
        let parts: Vec<AtomicU32> = (0..40).map(|_| AtomicU32::new(0)).collect();
        for region in 0..2500u32 {
            let n = (region * 7919 % 41) as usize;
            pool::run(n, &|part| {
                parts[part].fetch_add(1, Relaxed);
            });
            // Every write of every part is visible here.
            for (i, part) in parts.iter().enumerate() {
                assert_eq!(part.swap(0, Relaxed), u32::from(i < n), "{threads} threads, part {i} of {n}");
            }
        }
    }
}

#[test]
fn all_threads_take_part() {
    let _turn = alone();
    for threads in [1, 2, 5, 16] {
        assert_eq!(pool::set_threads(threads), threads);
        let seen = Mutex::new(HashSet::new());
        let n_seen = AtomicUsize::new(0);
        let begin = Instant::now();
        // No part ends before as many threads are in one as there should be: each runs one part.
        pool::run(threads, &|_| {
            if seen.lock().unwrap().insert(std::thread::current().id()) {
                n_seen.fetch_add(1, Relaxed);
            }
            while n_seen.load(Relaxed) < threads {
                assert!(begin.elapsed() < Duration::from_secs(20), "{} of {threads}", n_seen.load(Relaxed));
                std::thread::yield_now();
            }
        });
        assert_eq!(seen.lock().unwrap().len(), threads);
    }
    assert_eq!(pool::set_threads(0), 1);
    assert_eq!(pool::set_threads(1000), pool::MAX_THREADS);
}

#[test]
fn sleeping_workers_wake() {
    let _turn = alone();
    pool::set_threads(3);
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5)); // longer than workers poll
        let sum = AtomicUsize::new(0);
        pool::run(9, &|part| {
            sum.fetch_add(part, Relaxed);
        });
        assert_eq!(sum.into_inner(), 36);
    }
}

#[test]
fn a_panic_in_any_part_reaches_the_caller_and_the_pool_lives_on() {
    let _turn = alone();
    pool::set_threads(4);
    for bad in [0, 3, 7] {
        let done = AtomicUsize::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool::run(8, &|part| {
                std::thread::sleep(Duration::from_micros(200));
                assert!(part != bad, "deliberate, in part {part}");
                done.fetch_add(1, Relaxed);
            });
        }));
        let text = outcome.expect_err("a panic").downcast_ref::<String>().cloned().unwrap();
        assert_eq!(text, format!("deliberate, in part {bad}"));
        assert_eq!(done.load(Relaxed), 7, "the other parts");
    }
    let sum = AtomicUsize::new(0);
    pool::run(8, &|part| {
        sum.fetch_add(part, Relaxed);
    });
    assert_eq!(sum.into_inner(), 28);
}

#[test]
fn regions_within_regions_and_from_several_threads_at_once() {
    let _turn = alone();
    pool::set_threads(3);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    pool::run(5, &|_| {
                        pool::run(3, &|_| {
                            count.fetch_add(1, Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.into_inner(), 4 * 300 * 15);
}

#[test]
fn chunks_cover_everything_once() {
    let _turn = alone();
    for threads in 1..=4 {
        pool::set_threads(threads);
        for (units, unit) in [(0, 4), (1, 4), (7, 3), (40_001, 1), (40_001, 4), (197, 768)] {
            let mut x = vec![0f32; units * unit];
            parallel::chunks(&mut x, unit, 16, &|first, values| {
                assert!(first % unit == 0 && values.len() % unit == 0);
                values.iter_mut().enumerate().for_each(|(i, v)| *v += (first + i) as f32);
            });
            assert!(x.iter().enumerate().all(|(i, &v)| v == i as f32), "{threads} threads, {units} x {unit}");
        }
    }
}

/// Values without a pattern (splitmix64, Steele et al. 2014).
fn noise(n: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn pack(dtype: DType, n: usize, k: usize) -> PackedWeights {
    let mut packer = Packer::new(DType::F32, dtype, n, k).unwrap();
    packer.push(&noise(n * k, 7).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    packer.finish().unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn products_are_the_same_bits_with_any_number_of_threads() {
    let _turn = alone();
    let k = 512;
    for dtype in [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::Q2_K, DType::F16, DType::F32] {
        // Large enough to be shared, and not a whole number of strips.
        let (a, b) = (pack(dtype, 1030, k), pack(DType::Q8_0, 333, k));
        for m in [1, 2, 9] {
            let mut act = Activations::default();
            let mut wanted = None;
            for threads in [1, 2, 3, 4, 7, 16] {
                pool::set_threads(threads);
                act.fill(m, k, true).copy_from_slice(&noise(m * k, 9));
                let (mut x, mut y) = (vec![f32::NAN; m * a.n()], vec![f32::NAN; m * b.n()]);
                matmul_many(&mut act, None, &mut [Product::new(&a, &mut x), Product::new(&b, &mut y)]);
                let mut alone = vec![f32::NAN; m * a.n()];
                matmul(&mut act, &a, &mut alone);
                assert_eq!(bits(&alone), bits(&x), "{dtype:?}, m {m}, {threads} threads");
                let got = (bits(&x), bits(&y));
                assert!(x.iter().chain(&y).all(|v| v.is_finite()));
                assert!(
                    got == *wanted.get_or_insert_with(|| got.clone()),
                    "{dtype:?}, m {m}, {threads} threads"
                );
            }
        }
    }
}

fn load(path: &Path, quantize: Option<&str>) -> Loaded {
    let options = LoadOptions { quantize: quantize.map(String::from), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(&std::fs::read(path).unwrap()).unwrap();
    loader.finish().unwrap()
}

/// Prompts, single tokens and photos, in the float types and in all ways in which integers are held.
#[test]
fn logits_are_the_same_bits_with_any_number_of_threads() {
    let _turn = alone();
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/models");
    let mut cases = vec![(built_in.join("story.gguf"), None), (built_in.join("photo.gguf"), None)];
    for (path, quantize) in [
        ("golden/quant/llama-Q4_0.gguf", None),
        ("golden/quant/llama-Q8_0.gguf", None),
        ("golden/quant/llama-Q4_K.gguf", None),
        ("golden/quant/llama-F16.gguf", None),
        ("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors", Some("Q8_0")),
        ("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors", Some("Q4_0")),
    ] {
        cases.extend(shared(path).map(|path| (path, quantize)));
    }
    for (path, quantize) in cases {
        let mut model = load(&path, quantize);
        let mut wanted = None;
        for threads in 1..=4 {
            pool::set_threads(threads);
            let got = match &mut model {
                Loaded::Text(model) => {
                    let tokens: Vec<u32> = (0..40).map(|i| 1 + i * 37 % 200).collect();
                    let mut all = model.logits(&tokens, 3).unwrap().concat();
                    for token in &tokens[..4] {
                        all.extend(model.logits(&[*token], 1).unwrap().concat());
                    }
                    assert_eq!(model.info().backend.threads, threads);
                    all
                }
                Loaded::Encoder(_) => panic!("no model of this test"),
                Loaded::Vision(model) => {
                    let side = model.info().image_size;
                    model.logits(&noise(3 * side * side, 3), &[3, side, side]).unwrap()
                }
            };
            let got = bits(&got);
            assert!(
                got == *wanted.get_or_insert_with(|| got.clone()),
                "{}: {threads} threads",
                path.display()
            );
        }
    }
}
