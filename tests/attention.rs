//! Attention over every type of key-value cache, against the formula in f64, on every path of this build,
//! natively and in the browser.

use bitpane::kernels::attention::{KvCache, KvType, Mask, Query, attention, attention_on};
use bitpane::kernels::isa::{Native, Scalar};
use bitpane::kernels::path::P16;
use bitpane::kernels::path16::{D16, X16};
use bitpane::kernels::path32::{D32, Signed, Unsigned};
use bitpane::kernels::pool;

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Deterministic numbers, roughly normal (splitmix64, Steele et al. 2014).
fn normals(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0).collect()
}

/// Heads, key heads, head size, tokens.
const SHAPES: [(usize, usize, usize, usize); 6] =
    [(1, 1, 8, 1), (4, 4, 16, 33), (9, 3, 64, 70), (4, 2, 128, 40), (5, 1, 80, 65), (7, 1, 100, 31)];

struct Case {
    query: Query,
    n_head_kv: usize,
    head_dim: usize,
    n_tokens: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn case(i: usize, mask: Mask) -> Case {
    let (n_head, n_head_kv, head_dim, n_tokens) = SHAPES[i];
    let query = Query::plain(n_head, head_dim, mask);
    let seed = 1000 * i as u64;
    let (mut k, v) = (
        normals(seed + 1, n_tokens * n_head_kv * head_dim),
        normals(seed + 2, n_tokens * n_head_kv * head_dim),
    );
    // One number of each key stands out, as they do in real models.
    k.iter_mut().step_by(head_dim).for_each(|x| *x *= 8.0);
    Case { query, n_head_kv, head_dim, n_tokens, q: normals(seed + 3, n_tokens * n_head * head_dim), k, v }
}

impl Case {
    fn cache(&self, kv_type: KvType) -> KvCache {
        let mut kv = KvCache::new(kv_type, self.n_head_kv, self.head_dim, self.n_tokens).unwrap();
        kv.store(0, &self.k, &self.v, self.n_head_kv * self.head_dim);
        kv
    }

    /// Positions that a token sees, by the definition of the masks.
    fn sees(&self, i: usize, j: usize) -> bool {
        let window = if self.query.window == 0 { usize::MAX } else { self.query.window };
        match self.query.mask {
            Mask::Causal { first_pos } => j <= first_pos + i && first_pos + i - j < window,
            Mask::Full { n } => j < n && i.abs_diff(j) <= window / 2,
        }
    }

    /// softmax(q . k * scale) . v in f64.
    fn expected(&self, k: &[f32], v: &[f32]) -> Vec<f32> {
        let (d, group) = (self.head_dim, self.query.n_head / self.n_head_kv);
        let mut out = Vec::new();
        for (row, q) in self.q.chunks_exact(d).enumerate() {
            let (i, kv_head) = (row / self.query.n_head, row % self.query.n_head / group);
            let at = |j: usize| (j * self.n_head_kv + kv_head) * d;
            let seen: Vec<usize> = (0..self.n_tokens).filter(|&j| self.sees(i, j)).collect();
            let score = |&j: &usize| {
                let s: f64 = q.iter().zip(&k[at(j)..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let (s, cap) = (s * f64::from(self.query.scale), f64::from(self.query.softcap));
                if cap > 0.0 { cap * (s / cap).tanh() } else { s }
            };
            let weights: Vec<f64> = seen.iter().map(|j| score(j).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..d).map(|e| {
                let sum: f64 = seen.iter().zip(&weights).map(|(&j, w)| w * f64::from(v[at(j) + e])).sum();
                (sum / total) as f32
            }));
        }
        out
    }

    fn run(&self, kv: &KvCache) -> Vec<f32> {
        let mut out = vec![0.0; self.q.len()];
        attention(&self.q, &self.query, kv, &mut out);
        out
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}

/// What a cache gives back.
fn loaded(case: &Case, kv: &KvCache) -> (Vec<f32>, Vec<f32>) {
    let n = kv.n_embd();
    let (mut k, mut v) = (vec![0.0; case.k.len()], vec![0.0; case.v.len()]);
    for (pos, (k, v)) in k.chunks_exact_mut(n).zip(v.chunks_exact_mut(n)).enumerate() {
        kv.load(pos, k, v);
    }
    (k, v)
}

fn masks() -> [Mask; 2] {
    [Mask::Causal { first_pos: 0 }, Mask::Full { n: 1 }]
}

/// Every case: shapes, masks, windows, caps.
fn each_case(mut test: impl FnMut(Case)) {
    for (i, shape) in SHAPES.iter().enumerate() {
        for (window, softcap) in [(0, 0.0), (9, 0.0), (0, 5.0)] {
            for mut mask in masks() {
                if let Mask::Full { n } = &mut mask {
                    *n = shape.3;
                }
                let mut case = case(i, mask);
                case.query.window = window;
                case.query.softcap = softcap;
                test(case);
            }
        }
    }
}

#[test]
fn every_type_follows_the_formula() {
    each_case(|case| {
        // Rounding of queries and weights to 8 bits, and nothing else, separates codes from the formula
        // with the keys and values that the cache gives back.
        for (kv_type, bound) in
            [(KvType::F32, 2e-6), (KvType::F16, 2e-6), (KvType::Q8_0, 0.02), (KvType::Q4_0, 0.02)]
        {
            let kv = case.cache(kv_type);
            let (k, v) = loaded(&case, &kv);
            let error = rms(&case.run(&kv), &case.expected(&k, &v));
            assert!(error < bound, "{kv_type:?}, {:?}, {}: {error}", case.query.mask, case.head_dim);
        }
    });
}

/// Where all tokens see all, the softmax's weights have twice as many codes: of a token that sees as much under either
/// mask, what the rounding of weights costs is a quarter as much power.
#[test]
fn full_attention_rounds_weights_more_finely() {
    let mut errors = [0f64; 2];
    for i in [1, 2, 3, 4] {
        let mut causal = case(i, Mask::Causal { first_pos: 0 });
        // Weights that are alike, and queries whose own rounding moves them little.
        causal.q.iter_mut().for_each(|x| *x *= 0.05);
        let mut full = case(i, Mask::Full { n: causal.n_tokens });
        full.q.clone_from(&causal.q);
        let kv = causal.cache(KvType::Q8_0);
        let (k, v) = loaded(&causal, &kv);
        let last = |x: &[f32]| x[x.len() - causal.query.n_head * causal.head_dim..].to_vec();
        let want = last(&causal.expected(&k, &v));
        for (error, case) in errors.iter_mut().zip([&causal, &full]) {
            *error += rms(&last(&case.run(&kv)), &want).powi(2);
        }
    }
    let ratio = errors[1] / errors[0];
    println!("power of the error, full over causal: {ratio:.3}");
    assert!(ratio < 0.5, "{errors:?}");
}

#[test]
fn caches_give_back_what_they_took() {
    for i in 0..SHAPES.len() {
        let case = case(i, Mask::Full { n: 1 });
        for (kv_type, bound) in
            [(KvType::F32, 0.0), (KvType::F16, 4e-4), (KvType::Q8_0, 0.02), (KvType::Q4_0, 0.15)]
        {
            let (k, v) = loaded(&case, &case.cache(kv_type));
            let size = |x: &[f32]| rms(x, &vec![0.0; x.len()]);
            for (got, want) in [(k, &case.k), (v, &case.v)] {
                let error = rms(&got, want) / size(want);
                assert!(error <= bound, "{kv_type:?}, head size {}: {error}", case.head_dim);
            }
        }
    }
}

#[test]
fn a_cache_takes_the_bytes_of_its_type() {
    let n = 4 * 64 * 128 * 2;
    let scales = 2 * 4 * 128 * 4;
    for (kv_type, bytes) in [
        (KvType::F32, n * 4),
        (KvType::F16, n * 2),
        (KvType::Q8_0, n + scales),
        (KvType::Q4_0, n / 2 + scales),
    ] {
        let kv = KvCache::new(kv_type, 4, 64, 128).unwrap();
        assert_eq!(kv.n_bytes(), bytes, "{kv_type:?}");
        assert_eq!(kv.saved_len() * 128, bytes + if kv_type == KvType::Q4_0 { n / 4 } else { 0 });
    }
}

#[test]
fn paths_give_the_same_bits() {
    each_case(|case| {
        for kv_type in KvType::ALL {
            let kv = case.cache(kv_type);
            let mut out = vec![vec![0f32; case.q.len()]; 6];
            let (q, query) = (&case.q, &case.query);
            attention_on::<P16<Scalar>>(q, query, &kv, &mut out[0]);
            attention_on::<P16<Native>>(q, query, &kv, &mut out[1]);
            attention_on::<X16<Native>>(q, query, &kv, &mut out[2]);
            attention_on::<D16<Scalar>>(q, query, &kv, &mut out[3]);
            attention_on::<D32<Scalar, Unsigned>>(q, query, &kv, &mut out[4]);
            attention_on::<D32<Scalar, Signed>>(q, query, &kv, &mut out[5]);
            #[cfg(target_feature = "relaxed-simd")]
            {
                attention_on::<D16<Native>>(q, query, &kv, &mut out[3]);
                attention_on::<D32<Native, Unsigned>>(q, query, &kv, &mut out[4]);
            }
            for other in &out[1..] {
                assert_eq!(bits(other), bits(&out[0]), "{kv_type:?}, head size {}", case.head_dim);
            }
        }
    });
}

#[test]
fn batches_and_threads_change_no_bit() {
    for i in 0..SHAPES.len() {
        let mut case = case(i, Mask::Causal { first_pos: 0 });
        for (window, kv_type) in [0, 9].into_iter().flat_map(|w| KvType::ALL.map(|t| (w, t))) {
            case.query.window = window;
            pool::set_threads(1);
            let (row, n) = (case.n_head_kv * case.head_dim, case.query.n_head * case.head_dim);
            let want = case.run(&case.cache(kv_type));
            // Token by token, each stored when it comes.
            let mut kv = KvCache::new(kv_type, case.n_head_kv, case.head_dim, case.n_tokens).unwrap();
            let mut got = vec![0.0; want.len()];
            for pos in 0..case.n_tokens {
                let at = pos * row..(pos + 1) * row;
                kv.store(pos, &case.k[at.clone()], &case.v[at], row);
                let query = Query { mask: Mask::Causal { first_pos: pos }, ..case.query };
                let at = pos * n..(pos + 1) * n;
                attention(&case.q[at.clone()], &query, &kv, &mut got[at]);
            }
            assert_eq!(bits(&got), bits(&want), "{kv_type:?}, window {window}, head size {}", case.head_dim);
            for threads in [2, 4] {
                pool::set_threads(threads);
                assert_eq!(bits(&case.run(&case.cache(kv_type))), bits(&want), "{threads} threads");
            }
            pool::set_threads(1);
        }
    }
}

#[test]
fn saved_caches_come_back_whole() {
    for i in 0..SHAPES.len() {
        let case = case(i, Mask::Causal { first_pos: 0 });
        for kv_type in KvType::ALL {
            let kv = case.cache(kv_type);
            let mut saved = Vec::new();
            kv.save(case.n_tokens, &mut saved);
            assert_eq!(saved.len(), case.n_tokens * kv.saved_len());
            let mut other = KvCache::new(kv_type, case.n_head_kv, case.head_dim, case.n_tokens).unwrap();
            other.restore(&saved);
            assert_eq!(bits(&case.run(&other)), bits(&case.run(&kv)), "{kv_type:?}");
        }
    }
}

// What ships has its relaxed minima and maxima made plain (xtask/src/exact.rs); a test's binary has not, and
// loses NaN in them.
#[cfg(not(target_feature = "relaxed-simd"))]
#[test]
fn what_is_not_finite_shows_and_is_forgotten() {
    for (kv_type, bad) in KvType::ALL.into_iter().flat_map(|t| [f32::NAN, f32::INFINITY].map(|x| (t, x))) {
        let mut case = case(2, Mask::Causal { first_pos: 0 });
        let want = case.run(&case.cache(kv_type));
        let n = case.query.n_head * case.head_dim;
        if kv_type.is_coded() {
            let at = 40 * case.n_head_kv * case.head_dim + 5;
            let (good_k, good_v) = (case.k[at], case.v[at]);
            for in_values in [false, true] {
                if in_values {
                    case.v[at] = bad
                } else {
                    case.k[at] = bad
                }
                let got = case.run(&case.cache(kv_type));
                assert_eq!(bits(&got[..40 * n]), bits(&want[..40 * n]), "tokens before it");
                assert!(got[40 * n..][..case.head_dim].iter().all(|x| x.is_nan()), "{kv_type:?} {bad}");
                (case.k[at], case.v[at]) = (good_k, good_v);
            }
        }
        // A cache that went back to before the bad token no longer knows of it.
        let mut kv = case.cache(kv_type);
        let width = kv.n_embd();
        kv.store(69, &vec![bad; width], &vec![bad; width], width);
        let query = Query { mask: Mask::Causal { first_pos: 68 }, ..case.query };
        let mut out = vec![0.0; n];
        attention(&case.q[68 * n..69 * n], &query, &kv, &mut out);
        assert_eq!(bits(&out), bits(&want[68 * n..69 * n]), "{kv_type:?} {bad}");
    }
}

#[test]
fn unknown_types_are_typed_errors() {
    assert_eq!(KvType::from_name("q8_0").unwrap(), KvType::Q8_0);
    for name in ["", "Q5_1", "F64", "int8"] {
        let error = KvType::from_name(name).unwrap_err();
        assert_eq!((error.code, error.key.as_deref()), (bitpane::Code::BadArgument, Some("kvType")));
    }
    let error = KvCache::new(KvType::F16, usize::MAX / 8, 64, 1 << 20).err().unwrap();
    assert_eq!(error.code, bitpane::Code::OutOfMemory);
}
