//! Plain arrays: the portable implementation, and the oracle for the others.

use super::{Dot8, Isa, PairDot8};
use half::f16;

/// Portable scalar code.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

type V = [u32; 4];
type F = [f32; 4];

#[inline(always)]
fn map16(a: V, f: impl Fn(u16) -> u16) -> V {
    a.map(|x| u32::from(f(x as u16)) | u32::from(f((x >> 16) as u16)) << 16)
}

#[inline(always)]
fn zip<A: Copy, B>(a: [A; 4], b: [A; 4], f: impl Fn(A, A) -> B) -> [B; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

#[inline(always)]
fn halves(a: V) -> [u16; 8] {
    std::array::from_fn(|i| (a[i / 2] >> (16 * (i % 2))) as u16)
}

#[inline(always)]
fn from_halves(h: [u16; 8]) -> V {
    std::array::from_fn(|i| u32::from(h[2 * i]) | u32::from(h[2 * i + 1]) << 16)
}

impl Isa for Scalar {
    const NAME: &'static str = "scalar";
    type V = V;
    type F = F;

    // SAFETY (all pointer functions): the caller vouches for the bytes; unaligned accesses only.
    #[inline(always)]
    unsafe fn load(p: *const u8) -> V {
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, v: V) {
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store64(p: *mut u8, v: V) {
        unsafe { p.cast::<[u32; 2]>().write_unaligned([v[0], v[1]]) }
    }
    #[inline(always)]
    unsafe fn load64(p: *const u8) -> V {
        let [a, b] = unsafe { p.cast::<[u32; 2]>().read_unaligned() };
        [a, b, 0, 0]
    }
    #[inline(always)]
    fn zip_low8(a: V, b: V) -> V {
        let (a, b) = (bytes(a), bytes(b));
        from_bytes(std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
    }
    #[inline(always)]
    fn zip_high8(a: V, b: V) -> V {
        let (a, b) = (bytes(a), bytes(b));
        from_bytes(std::array::from_fn(|i| if i % 2 == 0 { a[8 + i / 2] } else { b[8 + i / 2] }))
    }
    #[inline(always)]
    fn extend_low8(a: V) -> V {
        Self::zip_low8(a, [0; 4])
    }
    #[inline(always)]
    fn extend_high8(a: V) -> V {
        Self::zip_high8(a, [0; 4])
    }
    #[inline(always)]
    fn sar32_by(a: V, n: u32) -> V {
        a.map(|x| ((x as i32) >> n) as u32)
    }
    #[inline(always)]
    unsafe fn store_lanes32(p: [*mut u8; 4], v: V) {
        for (p, x) in p.into_iter().zip(v) {
            unsafe { p.cast::<u32>().write_unaligned(x) }
        }
    }
    #[inline(always)]
    unsafe fn store_two32(p0: *mut u8, p1: *mut u8, v: V) {
        unsafe {
            p0.cast::<u32>().write_unaligned(v[0]);
            p1.cast::<u32>().write_unaligned(v[1]);
        }
    }
    #[inline(always)]
    unsafe fn load32_splat(p: *const u8) -> V {
        [unsafe { p.cast::<u32>().read_unaligned() }; 4]
    }
    #[inline(always)]
    fn splat_lane32<const L: usize>(a: V) -> V {
        [a[L]; 4]
    }
    #[inline(always)]
    fn swap32(a: V) -> V {
        [a[1], a[0], a[3], a[2]]
    }
    #[inline(always)]
    fn swap64(a: V) -> V {
        [a[2], a[3], a[0], a[1]]
    }
    #[inline(always)]
    fn splat16(x: u16) -> V {
        [u32::from(x) | u32::from(x) << 16; 4]
    }
    #[inline(always)]
    fn splat32(x: i32) -> V {
        [x as u32; 4]
    }
    #[inline(always)]
    fn and(a: V, b: V) -> V {
        zip(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn or(a: V, b: V) -> V {
        zip(a, b, |x, y| x | y)
    }
    #[inline(always)]
    fn xor(a: V, b: V) -> V {
        zip(a, b, |x, y| x ^ y)
    }
    #[inline(always)]
    fn shr16<const N: u32>(a: V) -> V {
        map16(a, |x| x >> N)
    }
    #[inline(always)]
    fn sar16<const N: u32>(a: V) -> V {
        map16(a, |x| (x as i16 >> N) as u16)
    }
    #[inline(always)]
    fn shl16<const N: u32>(a: V) -> V {
        map16(a, |x| x << N)
    }
    #[inline(always)]
    fn shl32<const N: u32>(a: V) -> V {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn sar32<const N: u32>(a: V) -> V {
        a.map(|x| (x as i32 >> N) as u32)
    }
    #[inline(always)]
    unsafe fn load8x8(p: *const u8) -> V {
        let b = unsafe { p.cast::<[i8; 8]>().read_unaligned() };
        from_halves(b.map(|x| i16::from(x) as u16))
    }
    #[inline(always)]
    unsafe fn load8x8_unsigned(p: *const u8) -> V {
        let b = unsafe { p.cast::<[u8; 8]>().read_unaligned() };
        from_halves(b.map(u16::from))
    }
    #[inline(always)]
    fn extend_low16(a: V) -> V {
        let a = halves(a);
        std::array::from_fn(|i| i32::from(a[i] as i16) as u32)
    }
    #[inline(always)]
    fn extend_high16(a: V) -> V {
        let a = halves(a);
        std::array::from_fn(|i| i32::from(a[4 + i] as i16) as u32)
    }
    #[inline(always)]
    fn blend16(a: V, b: V) -> V {
        std::array::from_fn(|i| a[i] & 0xffff | b[i] & 0xffff_0000)
    }
    #[inline(always)]
    fn sub16(a: V, b: V) -> V {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|i| a[i].wrapping_sub(b[i])))
    }
    #[inline(always)]
    fn mul16(a: V, b: V) -> V {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|i| a[i].wrapping_mul(b[i])))
    }
    #[inline(always)]
    fn pair_low16(a: V) -> V {
        let h = halves(a);
        from_halves(std::array::from_fn(|i| h[i / 2]))
    }
    #[inline(always)]
    fn pair_high16(a: V) -> V {
        let h = halves(a);
        from_halves(std::array::from_fn(|i| h[4 + i / 2]))
    }
    #[inline(always)]
    fn zip_low16(a: V, b: V) -> V {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
    }
    #[inline(always)]
    fn zip_high16(a: V, b: V) -> V {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|i| if i % 2 == 0 { a[4 + i / 2] } else { b[4 + i / 2] }))
    }
    #[inline(always)]
    fn mul32(a: V, b: V) -> V {
        zip(a, b, u32::wrapping_mul)
    }
    #[inline(always)]
    fn add32(a: V, b: V) -> V {
        zip(a, b, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub32(a: V, b: V) -> V {
        zip(a, b, u32::wrapping_sub)
    }
    #[inline(always)]
    fn add16(a: V, b: V) -> V {
        let (a, b) = (halves(a), halves(b));
        from_halves(std::array::from_fn(|i| a[i].wrapping_add(b[i])))
    }
    #[inline(always)]
    fn add8(a: V, b: V) -> V {
        let (a, b) = (bytes(a), bytes(b));
        from_bytes(std::array::from_fn(|i| a[i].wrapping_add(b[i])))
    }
    #[inline(always)]
    fn lookup(table: V, idx: V) -> V {
        let table = bytes(table);
        from_bytes(bytes(idx).map(|i| if i < 128 { table[usize::from(i)] } else { 0 }))
    }
    #[inline(always)]
    fn mul_low8(a: V, b: V) -> V {
        mul8(&bytes(a)[..8], &bytes(b)[..8])
    }
    #[inline(always)]
    fn mul_high8(a: V, b: V) -> V {
        mul8(&bytes(a)[8..], &bytes(b)[8..])
    }
    #[inline(always)]
    fn pair_sums16(a: V) -> V {
        a.map(|x| (i32::from(x as i16) + i32::from((x >> 16) as i16)) as u32)
    }
    #[inline(always)]
    fn pair_sums32(a: V, b: V) -> V {
        let add = u32::wrapping_add;
        [add(a[0], a[1]), add(a[2], a[3]), add(b[0], b[1]), add(b[2], b[3])]
    }
    #[inline(always)]
    fn dot16(a: V, b: V) -> V {
        zip(a, b, |x, y| {
            let lo = i32::from(x as i16) * i32::from(y as i16);
            let hi = i32::from((x >> 16) as i16) * i32::from((y >> 16) as i16);
            lo.wrapping_add(hi) as u32
        })
    }
    #[inline(always)]
    fn narrow16(a: V, b: V) -> V {
        let n = |x: u32| (x as i32).clamp(-32768, 32767) as i16 as u16;
        from_halves(std::array::from_fn(|i| n(if i < 4 { a[i] } else { b[i - 4] })))
    }
    #[inline(always)]
    fn narrow8(a: V, b: V) -> V {
        let n = |x: u16| u32::from((x as i16).clamp(-128, 127) as i8 as u8);
        let (a, b) = (halves(a), halves(b));
        let byte = |i: usize| n(if i < 8 { a[i] } else { b[i - 8] });
        std::array::from_fn(|l| (0..4).map(|i| byte(4 * l + i) << (8 * i)).sum())
    }
    #[inline(always)]
    fn narrow8_unsigned(a: V, b: V) -> V {
        let n = |x: u16| u32::from((x as i16).clamp(0, 255) as u8);
        let (a, b) = (halves(a), halves(b));
        let byte = |i: usize| n(if i < 8 { a[i] } else { b[i - 8] });
        std::array::from_fn(|l| (0..4).map(|i| byte(4 * l + i) << (8 * i)).sum())
    }
    #[inline(always)]
    fn permute_0213(a: V) -> V {
        let h = halves(a);
        from_halves([h[0], h[2], h[1], h[3], h[4], h[6], h[5], h[7]])
    }
    #[inline(always)]
    fn half_sums32(a: V) -> [i32; 2] {
        [a[0].wrapping_add(a[1]) as i32, a[2].wrapping_add(a[3]) as i32]
    }
    #[inline(always)]
    fn to_float(a: V) -> F {
        a.map(|x| x as i32 as f32)
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> F {
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, v: F) {
        unsafe { p.cast::<F>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn fload_splat(p: *const f32) -> F {
        [unsafe { p.read_unaligned() }; 4]
    }
    #[inline(always)]
    fn fsplat(x: f32) -> F {
        [x; 4]
    }
    #[inline(always)]
    fn fadd(a: F, b: F) -> F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn fsub(a: F, b: F) -> F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn fmul(a: F, b: F) -> F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn fdiv(a: F, b: F) -> F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fabs(a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn fmax(a: F, b: F) -> F {
        zip(a, b, |x, y| if x < y { y } else { x })
    }
    #[inline(always)]
    fn fmin(a: F, b: F) -> F {
        zip(a, b, |x, y| if y < x { y } else { x })
    }
    #[inline(always)]
    fn flt(a: F, b: F) -> V {
        zip(a, b, |x, y| if x < y { u32::MAX } else { 0 })
    }
    #[inline(always)]
    fn bits(a: F) -> V {
        a.map(f32::to_bits)
    }
    #[inline(always)]
    fn from_bits(a: V) -> F {
        a.map(f32::from_bits)
    }
    #[inline(always)]
    fn lanes(a: F) -> [f32; 4] {
        a
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> F {
        let h = unsafe { p.cast::<[u16; 4]>().read_unaligned() };
        // The vector versions scale an f32 whose exponent is off by 112; same result here,
        // infinities and NaN included.
        h.map(|x| {
            let shifted = ((i32::from(x as i16) << 13) as u32) & 0x8fff_e000;
            debug_assert!(f16::from_bits(x).is_finite() || x & 0x7c00 == 0x7c00);
            f32::from_bits(shifted) * f32::from_bits(0x7780_0000)
        })
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> F {
        let h = unsafe { p.cast::<[u16; 4]>().read_unaligned() };
        h.map(|x| f32::from_bits(u32::from(x) << 16))
    }
}

#[inline(always)]
fn bytes(a: V) -> [u8; 16] {
    std::array::from_fn(|i| (a[i / 4] >> (8 * (i % 4))) as u8)
}

#[inline(always)]
fn from_bytes(b: [u8; 16]) -> V {
    std::array::from_fn(|l| u32::from_le_bytes([b[4 * l], b[4 * l + 1], b[4 * l + 2], b[4 * l + 3]]))
}

#[inline(always)]
fn mul8(a: &[u8], b: &[u8]) -> V {
    from_halves(std::array::from_fn(|i| (i16::from(a[i] as i8) * i16::from(b[i] as i8)) as u16))
}

impl PairDot8 for Scalar {
    #[inline(always)]
    fn pair_dot8(a: V, b: V) -> V {
        let (a, b) = (bytes(a), bytes(b));
        let product = |i: usize| i32::from(a[i] as i8) * i32::from(b[i]);
        from_halves(std::array::from_fn(|j| {
            // Saturates, as x86 does; the operands that paths use stay below.
            (product(2 * j) + product(2 * j + 1)).clamp(-32768, 32767) as u16
        }))
    }
}

#[inline(always)]
fn dot8(acc: V, a: V, b: V, product: impl Fn(u8, u8) -> i32) -> V {
    std::array::from_fn(|l| {
        let (x, y) = (a[l].to_le_bytes(), b[l].to_le_bytes());
        (0..4).fold(acc[l], |sum, i| sum.wrapping_add(product(x[i], y[i]) as u32))
    })
}

impl Dot8 for Scalar {
    #[inline(always)]
    fn dot8_unsigned(acc: V, a: V, b: V) -> V {
        dot8(acc, a, b, |x, y| i32::from(x as i8) * i32::from(y))
    }
    #[inline(always)]
    fn dot8_signed(acc: V, a: V, b: V) -> V {
        dot8(acc, a, b, |x, y| i32::from(x as i8) * i32::from(y as i8))
    }
}
