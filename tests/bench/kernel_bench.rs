//! Kernel micro-benchmarks: a bare .wasm whose exports run one kernel many times, timed from
//! outside (`node tests/bench/kernels.mjs`).

#![allow(unsafe_code)]

use bitpane::kernels::act::{Activations, Span};
use bitpane::kernels::attention::{KvCache, Mask, Query, Scratch, attention};
use bitpane::kernels::{PlainPath, isa, matmul};
use bitpane::quant::DType;
use bitpane::repack::{PackedWeights, Packer};
use std::cell::RefCell;

#[derive(Default)]
struct State {
    weights: Vec<PackedWeights>,
    act: Activations,
    out: Vec<f32>,
    kv: Option<KvCache>,
    scratch: Scratch,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Milliseconds, from the page.
    safe fn now() -> f64;
}

/// Chooses the paths, as a page does at start.
#[unsafe(no_mangle)]
pub extern "C" fn select() {
    bitpane::kernels::select_paths(&|| now());
}

/// Takes path `index` of p16, x16, d16, d32u, d32s; gives 1 where this build and engine have it.
#[unsafe(no_mangle)]
pub extern "C" fn take(index: usize) -> u32 {
    let name = ["p16", "x16", "d16", "d32u", "d32s"].get(index).unwrap_or(&"");
    u32::from(bitpane::kernels::take_path(name))
}

/// Makes `copies` matrices `[n, k]` of tensor type `dtype` (so that they need not stay in
/// cache) and activations `[m, k]`.
#[unsafe(no_mangle)]
pub extern "C" fn setup(dtype: u32, m: usize, n: usize, k: usize, copies: usize) {
    STATE.with_borrow_mut(|s| {
        let bytes: Vec<u8> = numbers(n * k).iter().flat_map(|v| v.to_le_bytes()).collect();
        s.weights = (0..copies)
            .map(|_| {
                let mut packer = Packer::new(DType::F32, DType(dtype), n, k).unwrap();
                packer.push(&bytes).unwrap();
                packer.finish().unwrap()
            })
            .collect();
        s.act.fill(m, k, true).copy_from_slice(&numbers(m * k));
        s.out = vec![0.0; m * n];
    });
}

/// Runs `rounds` products, going round the matrices.
#[unsafe(no_mangle)]
pub extern "C" fn run_matmul(rounds: usize) {
    STATE.with_borrow_mut(|s| {
        for i in 0..rounds {
            matmul(&mut s.act, &s.weights[i % s.weights.len()], &mut s.out);
        }
    });
}

/// Quantizes the activations `rounds` times.
#[unsafe(no_mangle)]
pub extern "C" fn run_quantize(rounds: usize) {
    STATE.with_borrow_mut(|s| {
        for _ in 0..rounds {
            let (m, k) = (s.act.m(), s.act.k());
            s.act.fill(m, k, true);
            s.act.make_codes::<PlainPath>(Span::Tile);
        }
    });
}

/// Makes a cache of `n_ctx` tokens and queries of `m` tokens.
#[unsafe(no_mangle)]
pub extern "C" fn setup_attention(m: usize, n_head: usize, n_head_kv: usize, head_dim: usize, n_ctx: usize) {
    STATE.with_borrow_mut(|s| {
        let mut kv = KvCache::new(n_head_kv, head_dim, n_ctx).unwrap();
        let row = numbers(n_head_kv * head_dim);
        (0..n_ctx).for_each(|i| kv.store(i, &row, &row));
        s.kv = Some(kv);
        s.act.fill(m, n_head * head_dim, true).copy_from_slice(&numbers(m * n_head * head_dim));
        s.out = vec![0.0; m * n_head * head_dim];
    });
}

/// Runs `rounds` attentions of the queries over `n` tokens.
#[unsafe(no_mangle)]
pub extern "C" fn run_attention(rounds: usize, n_head: usize, n: usize) {
    STATE.with_borrow_mut(|s| {
        let Some(kv) = &s.kv else { return };
        for _ in 0..rounds {
            let mask = Mask::Full { n };
            attention::<isa::Native>(
                s.act.x(),
                &Query::plain(n_head, 64, mask),
                kv,
                &mut s.scratch,
                &mut s.out,
            );
        }
    });
}
