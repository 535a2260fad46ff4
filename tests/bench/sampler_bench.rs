//! What choosing a token costs: natively
//! `cargo test --release --test sampler -- --ignored --nocapture cost`; in WebAssembly
//! `cargo build --profile wasm-release --target wasm32-unknown-unknown --example sampler_bench`, then
//! `node tests/bench/sampler.mjs`.

use bitpane::tasks::sampler::{Sampler, SamplerParams};
use std::cell::RefCell;

const N_VOCAB: usize = 151_936;

struct State {
    sampler: Sampler,
    logits: Vec<f32>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// Settings by number: greedy; top-k 40, top-p 0.95, temperature 0.8; min-p 0.05; top-p 0.95 alone.
fn params(setting: u32) -> SamplerParams {
    let off = SamplerParams { top_k: 0, top_p: 1.0, min_p: 0.0, seed: Some(1), ..Default::default() };
    match setting {
        0 => SamplerParams { temperature: 0.0, ..off },
        1 => SamplerParams { top_k: 40, top_p: 0.95, ..off },
        2 => SamplerParams { min_p: 0.05, ..off },
        _ => SamplerParams { top_p: 0.95, ..off },
    }
}

/// A bell around 0 and 50 logits that stand out, as language models give them.
fn logits() -> Vec<f32> {
    let mut state = 0x9E37_79B9u32;
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

/// Makes a sampler.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub extern "C" fn setup(setting: u32) {
    let sampler = Sampler::new(params(setting)).expect("valid settings");
    STATE.set(Some(State { sampler, logits: logits() }));
}

/// Chooses `n` tokens; gives the sum of their ids.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub extern "C" fn run(n: u32) -> u32 {
    STATE.with_borrow_mut(|state| {
        let state = state.as_mut().expect("setup comes first");
        // No penalty: the logits stay as they are.
        (0..n)
            .map(|_| state.sampler.sample(&mut state.logits, &[]).expect("a token"))
            .fold(0, u32::wrapping_add)
    })
}
