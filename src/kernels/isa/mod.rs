//! The vector operations that kernels are written in, once per instruction set.
//!
//! An [`Isa`] is one 128-bit register of bytes ([`Isa::V`]) and one of four floats
//! ([`Isa::F`]). Every float operation is a single IEEE operation in a fixed order (no fused
//! multiply-add), so that all implementations give the same bits.
//!
//! To add an instruction set: write its file, then add it to [`Native`] below.

mod scalar;
#[cfg(target_family = "wasm")]
mod simd128;
#[cfg(target_arch = "x86_64")]
mod sse2;

pub use scalar::Scalar;
#[cfg(target_family = "wasm")]
pub use simd128::Simd128;
#[cfg(target_arch = "x86_64")]
pub use sse2::Sse2;

/// The best instruction set of this build.
#[cfg(target_family = "wasm")]
pub type Native = Simd128;
/// The best instruction set of this build.
#[cfg(target_arch = "x86_64")]
pub type Native = Sse2;
/// The best instruction set of this build.
#[cfg(not(any(target_family = "wasm", target_arch = "x86_64")))]
pub type Native = Scalar;

/// An instruction set with dot products of bytes: i32 lane j gets the sum over its four bytes.
#[allow(missing_docs)]
pub trait Dot8: Isa {
    /// `acc + a . b` with `a` signed and `b` within 0..=127; where the engine reads `b` as
    /// unsigned, up to 255.
    fn dot8_unsigned(acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// `acc + a . b` with both signed, for engines that read `b` so.
    fn dot8_signed(acc: Self::V, a: Self::V, b: Self::V) -> Self::V;
}

/// An instruction set with products of bytes summed in pairs: i16 lane j gets
/// `a[2j] * b[2j] + a[2j+1] * b[2j+1]`.
#[allow(missing_docs)]
pub trait PairDot8: Isa {
    /// `a` signed, `b` within 0..=127.
    fn pair_dot8(a: Self::V, b: Self::V) -> Self::V;
}

/// One 128-bit instruction set. Lane widths are in the names; integers wrap.
///
/// Functions that take pointers are `unsafe`: the caller vouches that the bytes read or
/// written lie in one live allocation. No alignment is required.
#[allow(missing_docs)]
pub trait Isa: Copy + Send + Sync + 'static {
    /// As reported to users.
    const NAME: &'static str;
    /// 16 bytes.
    type V: Copy;
    /// Four f32.
    type F: Copy;
    /// Whether [`Self::lookup`] is an instruction or two.
    const HAS_LOOKUP: bool = true;

    /// # Safety
    /// 16 bytes at `p` are readable.
    unsafe fn load(p: *const u8) -> Self::V;
    /// # Safety
    /// 16 bytes at `p` are writable.
    unsafe fn store(p: *mut u8, v: Self::V);
    /// i32 lane i of `v` to `p[i]`.
    /// # Safety
    /// 4 bytes at each pointer are writable.
    unsafe fn store_lanes32(p: [*mut u8; 4], v: Self::V);
    /// i32 lanes 0 and 1 of `v` to `p0` and `p1`.
    /// # Safety
    /// 4 bytes at each pointer are writable.
    unsafe fn store_two32(p0: *mut u8, p1: *mut u8, v: Self::V);
    /// The first 8 bytes of `v` to `p`.
    /// # Safety
    /// 8 bytes at `p` are writable.
    unsafe fn store64(p: *mut u8, v: Self::V);
    /// Eight bytes, then zeros.
    /// # Safety
    /// 8 bytes at `p` are readable.
    unsafe fn load64(p: *const u8) -> Self::V;
    /// # Safety
    /// 4 bytes at `p` are readable.
    unsafe fn load32_splat(p: *const u8) -> Self::V;

    /// i32 lane `L` in all lanes.
    fn splat_lane32<const L: usize>(a: Self::V) -> Self::V;
    /// i32 lanes 1, 0, 3, 2.
    fn swap32(a: Self::V) -> Self::V;
    /// i32 lanes 2, 3, 0, 1.
    fn swap64(a: Self::V) -> Self::V;
    /// Eight i8 at `p`, widened to i16.
    /// # Safety
    /// 8 bytes at `p` are readable.
    unsafe fn load8x8(p: *const u8) -> Self::V;
    /// Eight u8 at `p`, widened to i16.
    /// # Safety
    /// 8 bytes at `p` are readable.
    unsafe fn load8x8_unsigned(p: *const u8) -> Self::V;
    fn splat16(x: u16) -> Self::V;
    fn splat32(x: i32) -> Self::V;
    fn and(a: Self::V, b: Self::V) -> Self::V;
    fn or(a: Self::V, b: Self::V) -> Self::V;
    fn xor(a: Self::V, b: Self::V) -> Self::V;
    /// u16 lanes, logical right shift.
    fn shr16<const N: u32>(a: Self::V) -> Self::V;
    /// i16 lanes, arithmetic right shift.
    fn sar16<const N: u32>(a: Self::V) -> Self::V;
    fn shl16<const N: u32>(a: Self::V) -> Self::V;
    fn shl32<const N: u32>(a: Self::V) -> Self::V;
    fn sar32<const N: u32>(a: Self::V) -> Self::V;
    /// The same by a number from 0 to 31 that is no constant.
    fn sar32_by(a: Self::V, n: u32) -> Self::V;
    fn sub16(a: Self::V, b: Self::V) -> Self::V;
    /// i16 lanes, low half of the product.
    fn mul16(a: Self::V, b: Self::V) -> Self::V;
    /// i16 lanes 0, 0, 1, 1, 2, 2, 3, 3.
    fn pair_low16(a: Self::V) -> Self::V;
    /// i16 lanes 4, 4, 5, 5, 6, 6, 7, 7.
    fn pair_high16(a: Self::V) -> Self::V;
    /// i16 lanes `a0, b0, a1, b1, a2, b2, a3, b3`.
    fn zip_low16(a: Self::V, b: Self::V) -> Self::V;
    /// i16 lanes `a4, b4, a5, b5, a6, b6, a7, b7`.
    fn zip_high16(a: Self::V, b: Self::V) -> Self::V;
    /// i16 lanes 0..4, widened to i32.
    fn extend_low16(a: Self::V) -> Self::V;
    /// i16 lanes 4..8, widened to i32.
    fn extend_high16(a: Self::V) -> Self::V;
    /// The even i16 lanes of `a` and the odd ones of `b`.
    fn blend16(a: Self::V, b: Self::V) -> Self::V;
    /// i32 lanes, low half of the product.
    fn mul32(a: Self::V, b: Self::V) -> Self::V;
    fn add32(a: Self::V, b: Self::V) -> Self::V;
    fn sub32(a: Self::V, b: Self::V) -> Self::V;
    fn add16(a: Self::V, b: Self::V) -> Self::V;
    fn add8(a: Self::V, b: Self::V) -> Self::V;
    /// Byte i is `table[idx[i]]`, or 0 where the index is 128 or more; others are 0..=15.
    fn lookup(table: Self::V, idx: Self::V) -> Self::V;
    /// i16 products of the low eight i8.
    fn mul_low8(a: Self::V, b: Self::V) -> Self::V;
    /// i16 products of the high eight i8.
    fn mul_high8(a: Self::V, b: Self::V) -> Self::V;
    /// i32 lane j = `a16[2j] + a16[2j+1]` (signed).
    fn pair_sums16(a: Self::V) -> Self::V;
    /// i32 lanes `a0 + a1, a2 + a3, b0 + b1, b2 + b3`.
    fn pair_sums32(a: Self::V, b: Self::V) -> Self::V;
    /// i32 lane j = `a16[2j] * b16[2j] + a16[2j+1] * b16[2j+1]` (signed).
    fn dot16(a: Self::V, b: Self::V) -> Self::V;
    /// Eight i32 to i16 with signed saturation; `a` gives lanes 0..4.
    fn narrow16(a: Self::V, b: Self::V) -> Self::V;
    /// Sixteen i16 to i8 with signed saturation; `a` gives lanes 0..8.
    fn narrow8(a: Self::V, b: Self::V) -> Self::V;
    /// Sixteen i16 to u8 with saturation; `a` gives lanes 0..8.
    fn narrow8_unsigned(a: Self::V, b: Self::V) -> Self::V;
    /// Bytes 0 of `a` and of `b`, bytes 1 and so on, of the first eight.
    fn zip_low8(a: Self::V, b: Self::V) -> Self::V;
    /// The same of the last eight.
    fn zip_high8(a: Self::V, b: Self::V) -> Self::V;
    /// The first eight u8 as i16.
    fn extend_low8(a: Self::V) -> Self::V;
    /// The last eight u8 as i16.
    fn extend_high8(a: Self::V) -> Self::V;
    /// i16 lanes in the order 0, 2, 1, 3, 4, 6, 5, 7.
    fn permute_0213(a: Self::V) -> Self::V;
    /// Wrapping sums of i32 lanes 0 and 1, and 2 and 3.
    fn half_sums32(a: Self::V) -> [i32; 2];
    fn to_float(a: Self::V) -> Self::F;

    /// # Safety
    /// 16 bytes at `p` are readable.
    unsafe fn fload(p: *const f32) -> Self::F;
    /// # Safety
    /// 16 bytes at `p` are writable.
    unsafe fn fstore(p: *mut f32, v: Self::F);
    /// # Safety
    /// 4 bytes at `p` are readable.
    unsafe fn fload_splat(p: *const f32) -> Self::F;
    fn fsplat(x: f32) -> Self::F;
    fn fadd(a: Self::F, b: Self::F) -> Self::F;
    fn fsub(a: Self::F, b: Self::F) -> Self::F;
    fn fmul(a: Self::F, b: Self::F) -> Self::F;
    fn fdiv(a: Self::F, b: Self::F) -> Self::F;
    fn fabs(a: Self::F) -> Self::F;
    /// `a < b ? b : a`, lane by lane (wasm's pmax: no special case for NaN or -0).
    fn fmax(a: Self::F, b: Self::F) -> Self::F;
    /// `b < a ? b : a`, lane by lane (wasm's pmin).
    fn fmin(a: Self::F, b: Self::F) -> Self::F;
    /// All ones where `a < b`.
    fn flt(a: Self::F, b: Self::F) -> Self::V;
    fn bits(a: Self::F) -> Self::V;
    fn from_bits(a: Self::V) -> Self::F;
    fn lanes(a: Self::F) -> [f32; 4];

    /// Four f16 (the low 8 bytes at `p`) to f32; subnormals exact, infinity and NaN become
    /// large finite values.
    /// # Safety
    /// 8 bytes at `p` are readable.
    unsafe fn load_f16(p: *const u8) -> Self::F;
    /// Four bf16 at `p` to f32.
    /// # Safety
    /// 8 bytes at `p` are readable.
    unsafe fn load_bf16(p: *const u8) -> Self::F;

    /// Wrapping sum of the i32 lanes.
    #[inline(always)]
    fn sum32(a: Self::V) -> i32 {
        let [low, high] = Self::half_sums32(a);
        low.wrapping_add(high)
    }

    /// `(l0 + l2) + (l1 + l3)`.
    #[inline(always)]
    fn fsum(a: Self::F) -> f32 {
        let l = Self::lanes(a);
        (l[0] + l[2]) + (l[1] + l[3])
    }

    /// Largest lane.
    #[inline(always)]
    fn fhmax(a: Self::F) -> f32 {
        let l = Self::lanes(a);
        let m = |x: f32, y: f32| if x < y { y } else { x };
        m(m(l[0], l[2]), m(l[1], l[3]))
    }

    /// Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves it in the low
    /// mantissa bits.
    #[inline(always)]
    fn round(a: Self::F) -> Self::V {
        const MAGIC: f32 = 12_582_912.0;
        let shifted = Self::fadd(a, Self::fsplat(MAGIC));
        Self::sub32(Self::bits(shifted), Self::splat32(MAGIC.to_bits() as i32))
    }
}
