//! The choice in browsers.

use super::{
    Activations, DotPath, Isa, KvCache, Native, Output, PackedWeights, PlainPath, Query, attention_on,
    prepare_on, strips_on,
};
use super::{Dense, Depthwise, Map, Window};
use crate::error::{Code, Error, Result};
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
/// Further rounds where another than the likeliest path leads.
const MORE_ROUNDS: usize = 16;

/// Which of [`KINDS`] chooses for a packing.
fn kind_of(packing: Packing) -> usize {
    match packing {
        Packing::I8 | Packing::I8Half => I8,
        Packing::Super(kind) if kind.n_sub() == 0 => 5,
        Packing::Super(kind) if kind.in_fields() => 4,
        Packing::Super(kind) if kind.sub_len == 16 => 3,
        Packing::Super(_) => 2,
        _ => 1,
    }
}

/// The path for `m` rows times a matrix.
fn chosen(m: usize, w: &PackedWeights) -> u8 {
    CHOICE[usize::from(m > 1)][kind_of(w.packing())].load(Relaxed)
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

/// Whether the engine multiplies pairs of bytes as [`Dense::forward_pairs`] wants it.
#[cfg(target_feature = "relaxed-simd")]
pub fn has_pairs() -> bool {
    use std::sync::LazyLock;
    static HAS: LazyLock<bool> = LazyLock::new(|| relaxed::reading().is_some() && relaxed::reads_pairs());
    *HAS && REASON.load(Relaxed) != UNSOUND
}

/// [`Dense::forward`] on the path that several rows of 8-bit codes take.
pub fn convolve(layer: &Dense, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
    match CHOICE[1][I8].load(Relaxed) {
        #[cfg(target_feature = "relaxed-simd")]
        D32U => layer.forward_bytes::<Native, Unsigned>(input, window, out_width, out),
        #[cfg(target_feature = "relaxed-simd")]
        D32S => layer.forward_bytes::<Native, Signed>(input, window, out_width, out),
        #[cfg(target_feature = "relaxed-simd")]
        _ if has_pairs() && layer.suits_pairs() => {
            layer.forward_pairs::<Native>(input, window, out_width, out)
        }
        _ => layer.forward::<Native>(input, window, out_width, out),
    }
}

/// [`Depthwise::forward`] on the path that several rows of 8-bit codes take.
pub fn convolve_each(layer: &Depthwise, input: Map, window: &Window, out_width: usize, out: &mut [u8]) {
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

/// The paths of a regime, of the kinds that are held: the most common one, and which kinds of codes have others.
fn names(regime: usize) -> String {
    let held = HELD.load(Relaxed);
    let kinds = (0..KINDS.len()).filter(|kind| held >> kind & 1 != 0);
    let chosen: Vec<(u8, &str)> =
        kinds.map(|kind| (CHOICE[regime][kind].load(Relaxed), KINDS[kind].1)).collect();
    let count = |path: u8| chosen.iter().filter(|(other, _)| *other == path).count();
    let common = chosen.iter().rev().map(|&(path, _)| path).max_by_key(|&path| count(path)).unwrap_or(PLAIN);
    let mut text = name(common).to_string();
    for (path, kind) in chosen {
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

/// Kinds of codes that there are weights of, as bits; attention goes by the 4-bit ones.
static HELD: AtomicU8 = AtomicU8::new(1 << 1);
/// Kinds whose code has run enough for the engine to optimise it.
static WARM: AtomicU8 = AtomicU8::new(0);

/// Declares that there are weights of this packing. Only such kinds are measured.
pub fn hold(packing: Packing) {
    if packing.is_integer() {
        HELD.fetch_or(1 << kind_of(packing), Relaxed);
    }
}

/// Runs all paths of the kinds that are held, until the engine can be expected to optimise them, and takes the likeliest
/// meanwhile. Engines do that aside, after some megabytes of quick code: what is measured too early is another code, which
/// ranks the paths otherwise.
pub fn warm_paths(now_ms: &dyn Fn() -> f64) {
    let cold = HELD.load(Relaxed) & !WARM.load(Relaxed);
    for kind in (0..KINDS.len()).filter(|kind| cold >> kind & 1 != 0) {
        WARM.fetch_or(1 << kind, Relaxed);
        decide(kind, |paths, w, m| run_all(paths, w, m, &mut |run| warm(run, now_ms)));
    }
}

/// Asks and measures. `now_ms` is a clock in milliseconds. Calling it again measures anew.
pub fn select_paths(now_ms: &dyn Fn() -> f64) {
    warm_paths(now_ms);
    let held = HELD.load(Relaxed);
    for kind in (0..KINDS.len()).filter(|kind| held >> kind & 1 != 0) {
        decide(kind, |paths, w, m| fastest(paths, w, m, now_ms));
    }
}

/// Takes the path that `choose` finds for a kind, and why, in each regime. An engine that was wrong once, in its quick
/// code or its optimised one, keeps to what can be trusted.
fn decide(kind: usize, choose: impl Fn(&[u8], &PackedWeights, usize) -> Option<(u8, u8)>) {
    if REASON.load(Relaxed) == UNSOUND {
        return;
    }
    let (paths, w) = (candidates(kind), sample(KINDS[kind].0).ok());
    for (regime, &m) in REGIMES.iter().enumerate() {
        let both = paths.as_ref().zip(w.as_ref());
        let found = both.and_then(|(paths, w)| choose(paths, w, m));
        let Some((path, why)) = found else { return trust_none() };
        take(regime, kind, path);
        REASON.store(why, Relaxed);
    }
}

fn trust_none() {
    CHOICE.iter().flatten().for_each(|choice| choice.store(PLAIN, Relaxed));
    REASON.store(UNSOUND, Relaxed);
}

/// What is multiplied: some rows, over and over, rounded without any search.
fn sample(dtype: DType) -> Result<PackedWeights> {
    const ROWS: usize = 8;
    let (format, codec) = dtype.codec()?;
    let values: Vec<f32> = (0..ROWS * K).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
    let mut blocks = vec![0; values.len() / format.block_len * format.block_bytes];
    let quantize = codec.quantize.ok_or_else(|| Error::new(Code::UnsupportedQuant, format.name))?;
    quantize(&values, &mut blocks);
    let mut packer = Packer::new(dtype, dtype, N, K)?;
    for _ in 0..N / ROWS {
        packer.push(&blocks)?;
    }
    packer.finish()
}

/// Columns and length of the rows of the sample.
const N: usize = 64;
const K: usize = 512;

/// What [`run_all`] has each path do: a product, as often as asked.
type Once<'a> = dyn FnMut() + 'a;

/// Runs the paths with `m` rows and weights `w`, each by `each`, and takes the first; `None` where the results of any two
/// differ.
fn run_all(paths: &[u8], w: &PackedWeights, m: usize, each: &mut dyn FnMut(&mut Once)) -> Option<(u8, u8)> {
    let mut act = Activations::default();
    for (j, x) in act.fill(m, K, true).iter_mut().enumerate() {
        *x = ((j * 31) % 255) as f32 - 127.0;
    }
    let mut first = Vec::new();
    for &path in paths {
        let mut out = vec![0f32; m * N];
        each(&mut || with_path!(path, matmul_on(&mut act, None, w, &mut out)));
        let bits: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
        if first.is_empty() {
            first = bits;
        } else if first != bits {
            return None;
        }
    }
    Some((paths[0], UNMEASURED))
}

/// Runs a product for two milliseconds, or where the clock stands still, some times.
fn warm(once: &mut Once, now_ms: &dyn Fn() -> f64) {
    let start = now_ms();
    for n in 1.. {
        once();
        let passed = now_ms() - start;
        if passed > 2.0 || n > 100 || n > 20 && passed <= 0.0 {
            break;
        }
    }
}

/// The fastest of the paths with `m` rows and weights `w`, the first unless another is clearly faster; `None` where the
/// results of any two differ.
fn fastest(paths: &[u8], w: &PackedWeights, m: usize, now_ms: &dyn Fn() -> f64) -> Option<(u8, u8)> {
    let mut best = vec![f64::INFINITY; paths.len()];
    let mut leader = 0;
    for round in 0..ROUNDS + MORE_ROUNDS {
        // The likeliest path may be behind because the engine has not come to optimise it: that takes longer to believe.
        if round >= ROUNDS && leader == 0 {
            break;
        }
        let mut best_of = best.iter_mut();
        run_all(paths, w, m, &mut |product| {
            let best = best_of.next().expect("as many as paths");
            product();
            if paths.len() > 1 {
                *best = best.min(ms_per_round(product, now_ms));
            }
        })?;
        let fastest = (1..paths.len()).fold(0, |a, b| if best[b] < best[a] { b } else { a });
        leader = if best[fastest] < MARGIN * best[0] { fastest } else { 0 };
    }
    let is_guess = best[0].is_infinite() && paths.len() > 1;
    Some((paths[leader], if is_guess { GUESSED } else { MEASURED }))
}

/// Time of one round; infinity where the clock stands still. Page clocks have steps of up to
/// 0.1 ms, so this begins and ends where the clock has just stepped.
fn ms_per_round(once: &mut Once, now_ms: &dyn Fn() -> f64) -> f64 {
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
