//! A layer of a vision transformer, and its parts apart: a bare .wasm, timed from outside
//! (`node tests/bench/layers.mjs`).

#![allow(unsafe_code)]

mod bare;

use bare::numbers;
use bitpane_core::kernels::attention::{KvCache, KvType, Mask, Query, attention};
use bitpane_core::layers::{
    Activation, Attention, Batch, Heads, LayerNorm, Linear, Mlp, Mode, Norm, Qkv, Up, Workspace,
};
use bitpane_core::quant::DType;
use bitpane_core::repack::Packer;
use std::cell::RefCell;

struct Layer {
    norm: Norm,
    attention: Attention,
    mlp: Mlp,
    kv: KvCache,
    w: Workspace,
    m: usize,
    n_embd: usize,
}

thread_local! {
    static LAYER: RefCell<Option<Layer>> = const { RefCell::new(None) };
}

fn linear(dtype: DType, n: usize, k: usize) -> Linear {
    let (format, codec) = dtype.codec().unwrap();
    let mut blocks = vec![0; n * k / format.block_len * format.block_bytes];
    // Without the search for the best scales, which would take most of the time.
    // As large as trained ones: sums, and so scores, stay near 1.
    let scale = (3.0 / k as f32).sqrt();
    let weights: Vec<f32> = numbers(n * k).iter().map(|x| x * scale).collect();
    (codec.quantize.unwrap())(&weights, &mut blocks);
    let mut packer = Packer::new(dtype, dtype, n, k).unwrap();
    packer.push(&blocks).unwrap();
    let weight = packer.finish().unwrap();
    Linear { name: "bench".into(), weight, bias: Some(numbers(n)), scale: None, lora: Vec::new() }
}

/// Makes a layer of `n_embd` with heads of 64 for `m` tokens, its weights in the tensor type `dtype`.
#[unsafe(no_mangle)]
pub extern "C" fn setup(dtype: u32, m: usize, n_embd: usize) {
    let dtype = DType(dtype);
    let n_head = n_embd / 64;
    let heads = Heads {
        n_head,
        n_head_kv: n_head,
        head_dim: 64,
        scale: 0.125,
        softcap: 0.0,
        window: 0,
        bidirectional: true,
    };
    let attention = Attention {
        heads,
        qkv: Qkv::Fused(linear(dtype, 3 * n_embd, n_embd)),
        clamp: None,
        qk_norm: None,
        rope: None,
        bias: None,
        sub_norm: None,
        output: linear(dtype, n_embd, n_embd),
    };
    let mlp = Mlp {
        up: Up::Plain(linear(dtype, 4 * n_embd, n_embd)),
        activation: Activation::GeluErf,
        sub_norm: None,
        down: linear(dtype, n_embd, 4 * n_embd),
    };
    let norm = Norm::Layer(LayerNorm { weight: vec![1.0; n_embd], bias: vec![0.0; n_embd], eps: 1e-6 });
    let kv = KvCache::new(KvType::Q8_0, n_head, 64, m).unwrap();
    let mut w = Workspace::default();
    w.begin(Batch { m, first_pos: 0, n_ctx: m, mode: Mode::Int8 }, n_embd);
    w.x.copy_from_slice(&numbers(m * n_embd));
    let mut layer = Layer { norm, attention, mlp, kv, w, m, n_embd };
    // Every buffer gets its size.
    part(&mut layer, WHOLE);
    LAYER.set(Some(layer));
}

const WHOLE: usize = 0;

fn part(layer: &mut Layer, which: usize) {
    let Layer { norm, attention: attend, mlp, kv, w, m, n_embd } = layer;
    let (m, n_embd) = (*m, *n_embd);
    match which {
        WHOLE => {
            w.input_norm(norm);
            attend.forward(w, kv);
            w.input_norm(norm);
            mlp.forward(w);
        }
        1 => w.input_norm(norm),
        2 => match &attend.qkv {
            Qkv::Fused(qkv) => {
                w.act.fill(m, n_embd, true);
                w.qkv.resize(m * qkv.n(), 0.0);
                qkv.forward(&mut w.act, &mut w.qkv);
            }
            Qkv::Separate(_) => {}
        },
        3 => kv.store(0, &w.qkv[n_embd..], &w.qkv[2 * n_embd..], 3 * n_embd),
        4 => {
            let query = Query::plain(n_embd / 64, 64, Mask::Full { n: m });
            attention(&w.q, &query, kv, w.act.fill(m, n_embd, true));
        }
        5 => {
            w.act.fill(m, n_embd, true);
            attend.output.forward(&mut w.act, &mut w.out);
        }
        6 => {
            w.act.fill(m, n_embd, true);
            if let Up::Plain(up) = &mlp.up {
                up.forward(&mut w.act, &mut w.gate);
            }
        }
        7 => {
            // What it makes of its own results falls towards 0 or grows: the steps are the same.
            w.gate.copy_from_slice(&w.up);
            Activation::GeluErf.apply(&mut w.gate);
        }
        8 => {
            w.act.fill(m, 4 * n_embd, true);
            mlp.down.forward(&mut w.act, &mut w.out);
        }
        _ => {}
    }
}

/// Runs part `which` `rounds` times: 0 the layer, 1 a norm, 2 queries, keys and values, 3 storing keys and values, 4
/// attention, 5 its output, 6 the first product of the feed-forward layer, 7 its activation, 8 the second product.
/// Products include the quantization of their input, and biases.
#[unsafe(no_mangle)]
pub extern "C" fn run(which: usize, rounds: usize) {
    LAYER.with_borrow_mut(|layer| {
        let Some(layer) = layer else { return };
        layer.w.up.resize(layer.m * 4 * layer.n_embd, 0.5);
        for _ in 0..rounds {
            part(layer, which);
        }
    });
}
