//! Kernel micro-benchmarks: a bare .wasm whose exports run one kernel many times, timed from
//! outside (`node tests/bench/kernels.mjs`).

#![allow(unsafe_code)]

mod bare;

use bare::numbers;
use bitpane_core::kernels::act::{Activations, Span};
use bitpane_core::kernels::attention::{KvCache, KvType, Mask, Query, attention};
use bitpane_core::kernels::isa::{Isa, Native};
use bitpane_core::kernels::path::DotPath;
use bitpane_core::kernels::{PlainPath, matmul};
use bitpane_core::quant::DType;
use bitpane_core::repack::{PackedWeights, Packer};
use std::cell::RefCell;

#[derive(Default)]
struct State {
    weights: Vec<PackedWeights>,
    act: Activations,
    out: Vec<f32>,
    kv: Option<KvCache>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Takes path `index` of p16, x16, d16, d32u, d32s; gives 1 where this build and engine have it.
#[unsafe(no_mangle)]
pub extern "C" fn take(index: usize) -> u32 {
    let name = ["p16", "x16", "d16", "d32u", "d32s"].get(index).unwrap_or(&"");
    u32::from(bitpane_core::kernels::take_path(name))
}

/// Makes `copies` matrices `[n, k]` of tensor type `dtype` (so that they need not stay in
/// cache) and activations `[m, k]`.
#[unsafe(no_mangle)]
pub extern "C" fn setup(dtype: u32, m: usize, n: usize, k: usize, copies: usize) {
    STATE.with_borrow_mut(|s| {
        let dtype = DType(dtype);
        let (format, codec) = dtype.codec().unwrap();
        let mut blocks = vec![0; n * k / format.block_len * format.block_bytes];
        // Without the search for the best scales, which would take most of the time.
        (codec.quantize.unwrap())(&numbers(n * k), &mut blocks);
        s.weights = (0..copies)
            .map(|_| {
                let mut packer = Packer::new(dtype, dtype, n, k).unwrap();
                packer.push(&blocks).unwrap();
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

/// A digest (FNV-1a) of the bits of the last product.
#[unsafe(no_mangle)]
pub extern "C" fn digest() -> u32 {
    STATE.with_borrow(|s| {
        s.out.iter().fold(0x811c_9dc5, |hash, x| (hash ^ x.to_bits()).wrapping_mul(0x0100_0193))
    })
}

/// Bytes of the operands of [`roof`]: they stay in the first-level cache.
const ROOF_BYTES: usize = 12 * 1024;

/// The most that a path can do: `rounds` times 12 KiB of unpacked codes from the first-level cache, each vector
/// into a sum of its own with an activation that stays in a register. Gives the products of a round.
#[unsafe(no_mangle)]
pub extern "C" fn roof(index: usize, rounds: usize) -> usize {
    use bitpane_core::kernels::path16;
    match index {
        0 => dots::<PlainPath>(rounds),
        1 => dots::<path16::X16<Native>>(rounds),
        #[cfg(target_feature = "relaxed-simd")]
        2 => dots::<path16::D16<Native>>(rounds),
        #[cfg(target_feature = "relaxed-simd")]
        _ => dots::<bitpane_core::kernels::path32::D32<Native, bitpane_core::kernels::path32::Unsigned>>(
            rounds,
        ),
        #[cfg(not(target_feature = "relaxed-simd"))]
        _ => 0,
    }
}

/// Operands on cache lines of their own.
#[repr(align(64))]
struct Operands([u8; ROOF_BYTES]);

fn dots<P: DotPath<I = Native>>(rounds: usize) -> usize {
    const SUMS: usize = 12;
    let codes = std::hint::black_box(Operands([0x21; ROOF_BYTES]));
    let act = std::hint::black_box(Native::splat32(0x0102_0304));
    let mut sums = [P::begin(Native::splat32(0)); SUMS];
    for _ in 0..rounds {
        let mut from = codes.0.as_ptr();
        for _ in 0..std::hint::black_box(ROOF_BYTES / (16 * SUMS)) {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the steps cover the codes.
                *sum = P::dot_panel(*sum, unsafe { Native::load(from.add(16 * i)) }, act);
            }
            from = from.wrapping_add(16 * SUMS);
        }
    }
    let consts = P::consts();
    std::hint::black_box(sums.map(|sum| Native::sum32(P::total(consts, sum))));
    ROOF_BYTES / P::PANEL_VECS
}

/// Reads the packed matrices once, front to back; gives the bytes of them all.
#[unsafe(no_mangle)]
pub extern "C" fn stream(rounds: usize) -> usize {
    STATE.with_borrow(|s| {
        for _ in 0..rounds {
            for w in &s.weights {
                let mut sums = [Native::splat32(0); 4];
                for i in 0..w.n_strips() {
                    for line in w.strip(i).chunks_exact(64) {
                        for (c, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: 64 bytes.
                            *sum = Native::xor(*sum, unsafe { Native::load(line.as_ptr().add(16 * c)) });
                        }
                    }
                }
                std::hint::black_box(sums.map(Native::sum32));
            }
        }
        s.weights.iter().map(PackedWeights::n_bytes).sum()
    })
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

/// Makes a cache of `n_ctx` tokens, of type `kv_type` of F32, F16, Q8_0 and Q4_0, and queries of `m` tokens.
#[unsafe(no_mangle)]
pub extern "C" fn setup_attention(
    kv_type: usize,
    m: usize,
    n_head: usize,
    n_head_kv: usize,
    head_dim: usize,
    n_ctx: usize,
) {
    STATE.with_borrow_mut(|s| {
        let mut kv = KvCache::new(KvType::ALL[kv_type], n_head_kv, head_dim, n_ctx).unwrap();
        let row = numbers(n_head_kv * head_dim);
        (0..n_ctx).for_each(|i| kv.store(i, &row, &row, row.len()));
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
            attention(s.act.x(), &Query::plain(n_head, kv.head_dim(), mask), kv, &mut s.out);
        }
    });
}
