//! The choice in browsers.

use super::{
    Activations, DotPath, Isa, KvCache, Native, Output, PackedWeights, PlainPath, Query, attention_on,
    prepare_on, strips_on,
};
use super::{Dense, Map, Window};
use crate::kernels::matmul_on;
#[cfg(target_feature = "relaxed-simd")]
use crate::kernels::path32::{Signed, Unsigned};
use crate::quant::DType;
use crate::repack::{Packer, Packing};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Calls `$run::<P>($args)` with the path that `$path` stands for.
macro_rules! with_path {
    ($path:expr, $run:ident($($arg:expr),*)) => {
        match $path {
            #[cfg(target_feature = "relaxed-simd")]
            D32U => $run::<crate::kernels::path32::D32<Native, crate::kernels::path32::Unsigned>>($($arg),*),
            #[cfg(target_feature = "relaxed-simd")]
            D32S => $run::<crate::kernels::path32::D32<Native, crate::kernels::path32::Signed>>($($arg),*),
            #[cfg(target_feature = "relaxed-simd")]
            D16 => $run::<crate::kernels::path16::D16<Native>>($($arg),*),
            #[cfg(not(target_feature = "relaxed-simd"))]
            X16 => $run::<crate::kernels::path16::X16<Native>>($($arg),*),
            _ => $run::<PlainPath>($($arg),*),
        }
    };
}

const PLAIN: u8 = 0;
#[cfg(target_feature = "relaxed-simd")]
const D32U: u8 = 1;
#[cfg(target_feature = "relaxed-simd")]
const D32S: u8 = 2;
#[cfg(target_feature = "relaxed-simd")]
const D16: u8 = 3;
#[cfg(not(target_feature = "relaxed-simd"))]
const X16: u8 = 4;

/// Kinds of codes that choose apart, each by the type that stands for it: kernels of one kind take about
/// the same steps.
const KINDS: [(DType, &str); 6] = [
    (DType::Q8_0, "8-bit"),
    (DType::Q4_0, "4-bit"),
    (DType::Q4_K, "Q4_K and Q5_K"),
    (DType::Q6_K, "Q3_K and Q6_K"),
    (DType::Q2_K, "Q2_K"),
    (DType::TQ2_0, "ternary"),
];
const I8: usize = 0;

/// Rows of the measurement: decoding, prompts (a multiple of every path's tile).
const REGIMES: [usize; 2] = [1, 20];

/// The chosen paths, by regime and kind.
static CHOICE: [[AtomicU8; KINDS.len()]; REGIMES.len()] =
    [const { [const { AtomicU8::new(PLAIN) }; KINDS.len()] }; REGIMES.len()];

/// Why these, as an index into [`REASONS`].
static REASON: AtomicU8 = AtomicU8::new(UNMEASURED);
const REASONS: [&str; 5] = [
    "not measured",
    "the fastest here, as measured",
    "the engine computes the relaxed dot product wrongly",
    "asked for by name",
    "the clock stands still, so this is the likeliest for this engine",
];
const UNMEASURED: u8 = 0;
const MEASURED: u8 = 1;
const UNSOUND: u8 = 2;
const NAMED: u8 = 3;
const GUESSED: u8 = 4;

/// The likeliest path stays while no other is faster by this factor, so that those which are near each
/// other do not change places from load to load.
const MARGIN: f64 = 0.93;
/// Rounds for each path, in turns; the fastest counts, since other work only ever slows one.
const ROUNDS: usize = 4;

/// The path for `m` rows times a matrix.
fn chosen(m: usize, w: &PackedWeights) -> u8 {
    let kind = match w.packing() {
        Packing::I8 | Packing::I8Half => I8,
        Packing::Super(kind) if kind.n_sub() == 0 => 5,
        Packing::Super(kind) if kind.in_fields() => 4,
        Packing::Super(kind) if kind.sub_len == 16 => 3,
        Packing::Super(_) => 2,
        _ => 1,
    };
    CHOICE[usize::from(m > 1)][kind].load(Relaxed)
}

pub(in crate::kernels) fn prepare(act: &mut Activations, w: &PackedWeights) {
    with_path!(chosen(act.n_taken(), w), prepare_on(act, w));
}

pub(in crate::kernels) fn strips(act: &Activations, w: &PackedWeights, strips: Range<usize>, out: Output) {
    with_path!(chosen(out.m(), w), strips_on(act, w, strips, out));
}

/// Attention goes by what was measured with 4-bit codes: all its codes are below 128.
pub(in crate::kernels) fn attention(q: &[f32], query: &Query, kv: &KvCache, out: &mut [f32]) {
    let several = q.len() > query.n_head * kv.head_dim();
    with_path!(CHOICE[usize::from(several)][1].load(Relaxed), attention_on(q, query, kv, out));
}

/// [`Dense::forward`] on the path that several rows of 8-bit codes take.
pub fn convolve(layer: &Dense, input: Map, window: &Window, out_width: usize, out: &mut [i16]) {
    match CHOICE[1][I8].load(Relaxed) {
        #[cfg(target_feature = "relaxed-simd")]
        D32U => layer.forward_bytes::<Native, Unsigned>(input, window, out_width, out),
        #[cfg(target_feature = "relaxed-simd")]
        D32S => layer.forward_bytes::<Native, Signed>(input, window, out_width, out),
        _ => layer.forward::<Native>(input, window, out_width, out),
    }
}

fn name(path: u8) -> &'static str {
    fn name_of<P: DotPath>() -> &'static str {
        P::NAME
    }
    with_path!(path, name_of())
}

/// The paths of a regime: the most common one, and which kinds of codes have others.
fn names(regime: usize) -> String {
    let chosen = CHOICE[regime].each_ref().map(|path| path.load(Relaxed));
    let count = |path: u8| chosen.iter().filter(|&&other| other == path).count();
    let common = chosen.iter().rev().copied().max_by_key(|&path| count(path)).unwrap_or(PLAIN);
    let mut text = name(common).to_string();
    for (path, (_, kind)) in chosen.into_iter().zip(KINDS) {
        if path != common {
            text.push_str(&format!(", {} for {kind}", name(path)));
        }
    }
    text
}

/// As shown to users: instruction set, and paths.
pub fn backend_name() -> (&'static str, String) {
    let [decode, prompt] = [0, 1].map(names);
    let both = if decode == prompt { decode } else { format!("{decode}; prompts: {prompt}") };
    (<Native as Isa>::NAME, both)
}

/// Why these paths, for people.
pub fn backend_reason() -> &'static str {
    REASONS[usize::from(REASON.load(Relaxed))]
}

fn take(regime: usize, kind: usize, path: u8) {
    CHOICE[regime][kind].store(path, Relaxed);
}

/// Takes the path of that name for all codes that it multiplies, faster or not, and the plain
/// path for the others; whether this build and engine have it.
pub fn take_path(name: &str) -> bool {
    let found = candidates(I8 + 1).into_iter().flatten().find(|&path| self::name(path) == name);
    let Some(path) = found else { return false };
    for (regime, kinds) in CHOICE.iter().enumerate() {
        for kind in 0..kinds.len() {
            let has = candidates(kind).into_iter().flatten().any(|candidate| candidate == path);
            take(regime, kind, if has { path } else { PLAIN });
        }
    }
    REASON.store(NAMED, Relaxed);
    true
}

#[cfg(target_feature = "relaxed-simd")]
mod relaxed;

/// Paths for a kind of codes, the likeliest for this engine first; `None` where the engine is
/// unsound.
#[cfg(target_feature = "relaxed-simd")]
fn candidates(kind: usize) -> Option<Vec<u8>> {
    use relaxed::Reading;
    let signed_bytes = kind == I8;
    Some(match relaxed::reading()? {
        Reading::Unsigned if signed_bytes => vec![D32U, PLAIN],
        Reading::Unsigned => vec![D32U, D16, PLAIN],
        Reading::Signed if signed_bytes => vec![D32S, PLAIN],
        Reading::Signed => vec![D32S, D16, PLAIN],
        Reading::Saturating if signed_bytes => vec![PLAIN],
        // There the dot product of four is five instructions: never the fastest.
        Reading::Saturating => vec![D16, PLAIN],
    })
}

/// As above: x86 has instructions for the one, ARM for the other.
#[cfg(not(target_feature = "relaxed-simd"))]
fn candidates(_kind: usize) -> Option<Vec<u8>> {
    Some(vec![PLAIN, X16])
}

/// Asks and measures. `now_ms` is a clock in milliseconds. Calling it again measures anew,
/// for engines that have optimised the code meanwhile.
pub fn select_paths(now_ms: &dyn Fn() -> f64) {
    let mut reason = MEASURED;
    for (regime, &m) in REGIMES.iter().enumerate() {
        for (kind, &(dtype, _)) in KINDS.iter().enumerate() {
            let fastest = candidates(kind).and_then(|paths| fastest(&paths, dtype, m, now_ms));
            let (path, why) = fastest.unwrap_or((PLAIN, UNSOUND));
            take(regime, kind, path);
            reason = if reason == MEASURED || why == UNSOUND { why } else { reason };
        }
    }
    REASON.store(reason, Relaxed);
}

/// The fastest of the paths with `m` rows and weights of `dtype`, the first unless another is
/// clearly faster; `None` where the results of any two differ.
fn fastest(paths: &[u8], dtype: DType, m: usize, now_ms: &dyn Fn() -> f64) -> Option<(u8, u8)> {
    const K: usize = 512;
    const N: usize = 64;
    let values: Vec<u8> =
        (0..N * K).flat_map(|i| (((i * 7919) % 1009) as f32 / 504.5 - 1.0).to_le_bytes()).collect();
    let packed =
        Packer::new(DType::F32, dtype, N, K).and_then(|mut p| p.push(&values).and_then(|()| p.finish()));
    let w = packed.ok()?;
    let mut act = Activations::default();
    for (j, x) in act.fill(m, K, true).iter_mut().enumerate() {
        *x = ((j * 31) % 255) as f32 - 127.0;
    }
    let run = |path: u8, act: &mut Activations, out: &mut [f32]| {
        with_path!(path, matmul_on(act, None, &w, out));
    };
    let mut out = vec![vec![0f32; m * N]; paths.len()];
    for (&path, out) in paths.iter().zip(&mut out) {
        run(path, &mut act, out);
    }
    let bits = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    if out.iter().any(|other| bits(other) != bits(&out[0])) {
        return None;
    }
    let mut best = vec![f64::INFINITY; paths.len()];
    let rounds = if paths.len() > 1 { ROUNDS } else { 0 };
    for _ in 0..rounds {
        for (i, &path) in paths.iter().enumerate() {
            best[i] = best[i].min(ms_per_round(|| run(path, &mut act, &mut out[0]), now_ms));
        }
    }
    if best[0].is_infinite() && paths.len() > 1 {
        return Some((paths[0], GUESSED));
    }
    let fastest = (1..paths.len()).fold(0, |a, b| if best[b] < best[a] { b } else { a });
    let chosen = if best[fastest] < MARGIN * best[0] { fastest } else { 0 };
    Some((paths[chosen], MEASURED))
}

/// Time of one round; infinity where the clock stands still. Page clocks have steps of up to
/// 0.1 ms, so this begins and ends where the clock has just stepped.
fn ms_per_round(mut once: impl FnMut(), now_ms: &dyn Fn() -> f64) -> f64 {
    const AT_LEAST: f64 = 0.2;
    const MOST_ROUNDS: usize = 1000;
    let first = now_ms();
    let Some(start) = (0..MOST_ROUNDS).find_map(|_| {
        once();
        let now = now_ms();
        (now > first).then_some(now)
    }) else {
        return f64::INFINITY;
    };
    for n in 1..=MOST_ROUNDS {
        once();
        let passed = now_ms() - start;
        if passed >= AT_LEAST {
            return passed / n as f64;
        }
    }
    f64::INFINITY
}
