//! The choice in builds with relaxed SIMD.

use super::{Activations, DotPath, Isa, Native, Output, PackedWeights, PlainPath, prepare_on, strips_on};
use crate::kernels::act::MR;
use crate::kernels::isa::Dot8;
use crate::kernels::matmul_on;
use crate::kernels::path32::{D32, Signed, Unsigned};
use crate::quant::DType;
use crate::repack::{Packer, Packing};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};

type D32u = D32<Native, Unsigned>;
type D32s = D32<Native, Signed>;

const PLAIN: u8 = 0;
const UNSIGNED: u8 = 1;
const SIGNED: u8 = 2;

/// Chosen path for codes 0..=127 and for signed bytes.
static U7: AtomicU8 = AtomicU8::new(PLAIN);
static I8: AtomicU8 = AtomicU8::new(PLAIN);

/// Why these, as an index into [`REASONS`].
static REASON: AtomicUsize = AtomicUsize::new(UNMEASURED);
const REASONS: [&str; 3] =
    ["not measured", "the fastest here, as measured", "the engine computes the relaxed dot product wrongly"];
const UNMEASURED: usize = 0;
const MEASURED: usize = 1;
const UNSOUND: usize = 2;

/// The path chosen for a matrix.
fn chosen(w: &PackedWeights) -> u8 {
    if w.packing() == Packing::I8 { I8.load(Relaxed) } else { U7.load(Relaxed) }
}

pub(in crate::kernels) fn prepare(act: &mut Activations, w: &PackedWeights) {
    match chosen(w) {
        UNSIGNED => prepare_on::<D32u>(act, w),
        SIGNED => prepare_on::<D32s>(act, w),
        _ => prepare_on::<PlainPath>(act, w),
    }
}

pub(in crate::kernels) fn strips(act: &Activations, w: &PackedWeights, strips: Range<usize>, out: Output) {
    match chosen(w) {
        UNSIGNED => strips_on::<D32u>(act, w, strips, out),
        SIGNED => strips_on::<D32s>(act, w, strips, out),
        _ => strips_on::<PlainPath>(act, w, strips, out),
    }
}

fn run(path: u8, act: &mut Activations, w: &PackedWeights, out: &mut [f32]) {
    match path {
        UNSIGNED => matmul_on::<D32u>(act, None, w, out),
        SIGNED => matmul_on::<D32s>(act, None, w, out),
        _ => matmul_on::<PlainPath>(act, None, w, out),
    }
}

fn name(path: u8) -> &'static str {
    match path {
        UNSIGNED => D32u::NAME,
        SIGNED => D32s::NAME,
        _ => PlainPath::NAME,
    }
}

/// As shown to users: instruction set, and path per kind of codes.
pub fn backend_name() -> (&'static str, String) {
    let (u7, i8) = (name(U7.load(Relaxed)), name(I8.load(Relaxed)));
    (<Native as Isa>::NAME, if u7 == i8 { u7.into() } else { format!("{u7}, {i8} for 8-bit weights") })
}

/// Why these paths, for people.
pub fn backend_reason() -> &'static str {
    REASONS[REASON.load(Relaxed)]
}

/// How the engine reads second-operand bytes above 127; `None` where it saturates or gives
/// something else. Operands pass through memory, so that the compiler cannot answer.
fn reading() -> Option<u8> {
    let dot = |a: i8, b: u8| {
        let a = std::hint::black_box([a; 16]);
        let b = std::hint::black_box([b; 16]);
        // SAFETY: 16 bytes each.
        let v = unsafe {
            Native::dot8_unsigned(
                Native::splat32(5),
                Native::load(a.as_ptr().cast()),
                Native::load(b.as_ptr()),
            )
        };
        Native::sum32(v) / 4 - 5
    };
    // What must hold everywhere; an engine that fails here computes the operation wrongly.
    if dot(-127, 127) != -4 * 127 * 127 || dot(127, 127) != 4 * 127 * 127 || dot(-1, 1) != -4 {
        return None;
    }
    match (dot(1, 255), dot(127, 255), dot(-128, 128)) {
        (1020, 129_540, -65_536) => Some(UNSIGNED),
        (-4, -508, 65_536) => Some(SIGNED),
        _ => Some(PLAIN),
    }
}

/// Asks and measures. `now_ms` is a clock in milliseconds. Calling it again measures anew,
/// for engines that have optimised the code meanwhile.
pub fn select_paths(now_ms: &dyn Fn() -> f64) {
    let measured = reading().and_then(|reading| {
        let dots = if reading == SIGNED { SIGNED } else { UNSIGNED };
        Some((faster(dots, DType::Q4_0, now_ms)?, faster(reading, DType::Q8_0, now_ms)?))
    });
    let (u7, i8) = measured.unwrap_or((PLAIN, PLAIN));
    U7.store(u7, Relaxed);
    I8.store(i8, Relaxed);
    REASON.store(if measured.is_some() { MEASURED } else { UNSOUND }, Relaxed);
}

/// The faster of the plain path and `candidate` for weights of `dtype`; `None` where their
/// results differ.
fn faster(candidate: u8, dtype: DType, now_ms: &dyn Fn() -> f64) -> Option<u8> {
    const K: usize = 512;
    const N: usize = 64;
    if candidate == PLAIN {
        return Some(PLAIN);
    }
    let values: Vec<u8> =
        (0..N * K).flat_map(|i| (((i * 7919) % 1009) as f32 / 504.5 - 1.0).to_le_bytes()).collect();
    let packed =
        Packer::new(DType::F32, dtype, N, K).and_then(|mut p| p.push(&values).and_then(|()| p.finish()));
    let w = packed.ok()?;
    let mut act = Activations::default();
    for (j, x) in act.fill(MR, K, true).iter_mut().enumerate() {
        *x = ((j * 31) % 255) as f32 - 127.0;
    }
    let mut out = [vec![0f32; MR * N], vec![0f32; MR * N]];
    let mut best = [f64::INFINITY; 2];
    for _ in 0..5 {
        for (i, path) in [PLAIN, candidate].into_iter().enumerate() {
            let once = || run(path, &mut act, &w, &mut out[i]);
            best[i] = best[i].min(ms_per_round(once, now_ms));
        }
        if out[0].iter().zip(&out[1]).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return None;
        }
    }
    Some(if best[1] < best[0] { candidate } else { PLAIN })
}

/// Time of one round, over as many rounds as take half a millisecond: page clocks have steps
/// of up to 0.1 ms. Bounded, for clocks that stand still.
fn ms_per_round(mut once: impl FnMut(), now_ms: &dyn Fn() -> f64) -> f64 {
    let start = now_ms();
    for n in 1..=1000 {
        once();
        let passed = now_ms() - start;
        if passed >= 0.5 {
            return passed / f64::from(n);
        }
    }
    f64::INFINITY
}
