//! The sampler gives the same tokens natively and in WebAssembly.

use bitpane::tasks::sampler::{Sampler, SamplerParams};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

const N_VOCAB: usize = 150_000;

/// Logits as a model might give them: a bell around 0 and a few that stand out.
fn logits(step: u32) -> Vec<f32> {
    let mut state = 0x9E37_79B9u32.wrapping_mul(step + 1);
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / 16_777_216.0
    };
    let mut logits: Vec<f32> =
        (0..N_VOCAB).map(|_| (0..4).map(|_| uniform()).sum::<f32>() * 4.0 - 8.0).collect();
    for rank in 0..50 {
        logits[(uniform() * N_VOCAB as f32) as usize] = 14.0 - 0.2 * rank as f32;
    }
    logits
}

/// 64 tokens with the history of the tokens themselves.
fn run(params: SamplerParams) -> u64 {
    let mut sampler = Sampler::new(params).unwrap();
    let mut history = Vec::new();
    for step in 0..64 {
        let token = sampler.sample(&mut logits(step), &history).unwrap();
        history.push(token);
    }
    let fnv = |hash: u64, id: &u32| (hash ^ u64::from(*id)).wrapping_mul(0x100_0000_01b3);
    history.iter().fold(0xcbf2_9ce4_8422_2325, fnv)
}

#[test]
fn a10_tokens_are_the_same_on_every_platform() {
    let plain = SamplerParams { seed: Some(42), ..Default::default() };
    let hot = SamplerParams { temperature: 3.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..plain.clone() };
    let nucleus = SamplerParams { temperature: 1.5, top_k: 0, top_p: 0.999, ..hot.clone() };
    let penalized = SamplerParams { repeat_penalty: 1.3, top_k: 5, ..plain.clone() };
    let every_stage = SamplerParams {
        top_n_sigma: 2.5,
        typical_p: 0.9,
        xtc_probability: 0.5,
        xtc_threshold: 0.05,
        dry_multiplier: 0.8,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        dynatemp_range: 0.5,
        dynatemp_exponent: 1.3,
        ..plain.clone()
    };
    let mirostat = SamplerParams { mirostat: 2, ..plain.clone() };
    let got = [plain, hot, nucleus, penalized, every_stage, mirostat].map(run);
    assert_eq!(got, EXPECTED, "{got:#x?}");
}

/// FNV-1a over the tokens, one for each setting above: native x86-64 gave these.
const EXPECTED: [u64; 6] = [
    0x3f5173fb543b30a1,
    0x5474f52f501d9a7f,
    0x9e0d217bbe155e8f,
    0xb0243ed817aa37a7,
    0x4d765c21f296378f,
    0xfea84bf8de635131,
];

#[cfg(not(target_arch = "wasm32"))]
#[path = "bench/sampler_bench.rs"]
mod bench;

#[cfg(not(target_arch = "wasm32"))]
#[test]
#[ignore = "a measurement"]
fn cost_of_choosing_a_token() {
    for (setting, name) in ["greedy", "top-k 40, top-p 0.95", "min-p 0.05", "top-p 0.95"].iter().enumerate() {
        bench::setup(setting as u32);
        bench::run(20);
        let mut times: Vec<f64> = (0..15)
            .map(|_| {
                let begin = std::time::Instant::now();
                bench::run(20);
                begin.elapsed().as_secs_f64() * 1e6 / 20.0
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{name:<24}{:8.1} us (median of 15)", times[7]);
    }
}
