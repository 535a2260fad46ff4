//! WebAssembly SIMD (simd128), without relaxed operations.

use super::Isa;
#[cfg(target_arch = "wasm32")]
use core::arch::wasm32::*;
// The same functions, which take pointers of 64 bits.
#[cfg(target_arch = "wasm64")]
use core::arch::wasm64::*;

/// WebAssembly's fixed-width SIMD.
#[derive(Clone, Copy, Debug)]
pub struct Simd128;

/// The build with relaxed SIMD: the dot product is one operation. Float operations stay plain,
/// so that both builds compute the same bits.
#[cfg(target_feature = "relaxed-simd")]
impl super::Dot8 for Simd128 {
    #[inline(always)]
    fn dot8_unsigned(acc: v128, a: v128, b: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(a, b, acc)
    }
    #[inline(always)]
    fn dot8_signed(acc: v128, a: v128, b: v128) -> v128 {
        i32x4_relaxed_dot_i8x16_i7x16_add(a, b, acc)
    }
}

#[cfg(target_feature = "relaxed-simd")]
impl super::PairDot8 for Simd128 {
    #[inline(always)]
    fn pair_dot8(a: v128, b: v128) -> v128 {
        i16x8_relaxed_dot_i8x16_i7x16(a, b)
    }
}

impl Isa for Simd128 {
    const NAME: &'static str = if cfg!(target_feature = "relaxed-simd") { "relaxed-simd" } else { "simd128" };
    type V = v128;
    type F = v128;

    // SAFETY (all pointer functions): the caller vouches for the bytes; wasm needs no alignment.
    #[inline(always)]
    unsafe fn load(p: *const u8) -> v128 {
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, v: v128) {
        unsafe { v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store64(p: *mut u8, v: v128) {
        unsafe { v128_store64_lane::<0>(v, p.cast()) }
    }
    #[inline(always)]
    unsafe fn load64(p: *const u8) -> v128 {
        unsafe { v128_load64_zero(p.cast()) }
    }
    #[inline(always)]
    fn zip_low8(a: v128, b: v128) -> v128 {
        i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b)
    }
    #[inline(always)]
    fn zip_high8(a: v128, b: v128) -> v128 {
        i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
    }
    #[inline(always)]
    fn extend_low8(a: v128) -> v128 {
        i16x8_extend_low_u8x16(a)
    }
    #[inline(always)]
    fn extend_high8(a: v128) -> v128 {
        i16x8_extend_high_u8x16(a)
    }
    #[inline(always)]
    fn sar32_by(a: v128, n: u32) -> v128 {
        i32x4_shr(a, n)
    }
    #[inline(always)]
    unsafe fn store_lanes32(p: [*mut u8; 4], v: v128) {
        unsafe {
            v128_store32_lane::<0>(v, p[0].cast());
            v128_store32_lane::<1>(v, p[1].cast());
            v128_store32_lane::<2>(v, p[2].cast());
            v128_store32_lane::<3>(v, p[3].cast());
        }
    }
    #[inline(always)]
    unsafe fn store_two32(p0: *mut u8, p1: *mut u8, v: v128) {
        unsafe {
            v128_store32_lane::<0>(v, p0.cast());
            v128_store32_lane::<1>(v, p1.cast());
        }
    }
    #[inline(always)]
    unsafe fn load32_splat(p: *const u8) -> v128 {
        unsafe { v128_load32_splat(p.cast()) }
    }
    #[inline(always)]
    fn splat_lane32<const L: usize>(a: v128) -> v128 {
        match L {
            0 => i32x4_shuffle::<0, 0, 0, 0>(a, a),
            1 => i32x4_shuffle::<1, 1, 1, 1>(a, a),
            2 => i32x4_shuffle::<2, 2, 2, 2>(a, a),
            _ => i32x4_shuffle::<3, 3, 3, 3>(a, a),
        }
    }
    #[inline(always)]
    fn swap32(a: v128) -> v128 {
        i32x4_shuffle::<1, 0, 3, 2>(a, a)
    }
    #[inline(always)]
    fn swap64(a: v128) -> v128 {
        i32x4_shuffle::<2, 3, 0, 1>(a, a)
    }
    #[inline(always)]
    fn splat16(x: u16) -> v128 {
        u16x8_splat(x)
    }
    #[inline(always)]
    fn splat32(x: i32) -> v128 {
        i32x4_splat(x)
    }
    #[inline(always)]
    fn and(a: v128, b: v128) -> v128 {
        v128_and(a, b)
    }
    #[inline(always)]
    fn or(a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }
    #[inline(always)]
    fn xor(a: v128, b: v128) -> v128 {
        v128_xor(a, b)
    }
    #[inline(always)]
    fn shr16<const N: u32>(a: v128) -> v128 {
        u16x8_shr(a, N)
    }
    #[inline(always)]
    fn sar16<const N: u32>(a: v128) -> v128 {
        i16x8_shr(a, N)
    }
    #[inline(always)]
    fn shl16<const N: u32>(a: v128) -> v128 {
        i16x8_shl(a, N)
    }
    #[inline(always)]
    fn shl32<const N: u32>(a: v128) -> v128 {
        i32x4_shl(a, N)
    }
    #[inline(always)]
    fn sar32<const N: u32>(a: v128) -> v128 {
        i32x4_shr(a, N)
    }
    #[inline(always)]
    unsafe fn load8x8(p: *const u8) -> v128 {
        unsafe { i16x8_load_extend_i8x8(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load8x8_unsigned(p: *const u8) -> v128 {
        unsafe { u16x8_load_extend_u8x8(p) }
    }
    #[inline(always)]
    fn extend_low16(a: v128) -> v128 {
        i32x4_extend_low_i16x8(a)
    }
    #[inline(always)]
    fn extend_high16(a: v128) -> v128 {
        i32x4_extend_high_i16x8(a)
    }
    #[inline(always)]
    fn blend16(a: v128, b: v128) -> v128 {
        i16x8_shuffle::<0, 9, 2, 11, 4, 13, 6, 15>(a, b)
    }
    #[inline(always)]
    fn sub16(a: v128, b: v128) -> v128 {
        i16x8_sub(a, b)
    }
    #[inline(always)]
    fn mul16(a: v128, b: v128) -> v128 {
        i16x8_mul(a, b)
    }
    #[inline(always)]
    fn pair_low16(a: v128) -> v128 {
        i16x8_shuffle::<0, 0, 1, 1, 2, 2, 3, 3>(a, a)
    }
    #[inline(always)]
    fn pair_high16(a: v128) -> v128 {
        i16x8_shuffle::<4, 4, 5, 5, 6, 6, 7, 7>(a, a)
    }
    #[inline(always)]
    fn zip_low16(a: v128, b: v128) -> v128 {
        i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b)
    }
    #[inline(always)]
    fn zip_high16(a: v128, b: v128) -> v128 {
        i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b)
    }
    #[inline(always)]
    fn mul32(a: v128, b: v128) -> v128 {
        i32x4_mul(a, b)
    }
    #[inline(always)]
    fn add32(a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }
    #[inline(always)]
    fn sub32(a: v128, b: v128) -> v128 {
        i32x4_sub(a, b)
    }
    #[inline(always)]
    fn add16(a: v128, b: v128) -> v128 {
        i16x8_add(a, b)
    }
    #[inline(always)]
    fn add8(a: v128, b: v128) -> v128 {
        i8x16_add(a, b)
    }
    #[inline(always)]
    fn lookup(table: v128, idx: v128) -> v128 {
        // Within 0..=15, and above 127, the relaxed operation is the plain one, in one instruction.
        #[cfg(target_feature = "relaxed-simd")]
        return i8x16_relaxed_swizzle(table, idx);
        #[cfg(not(target_feature = "relaxed-simd"))]
        i8x16_swizzle(table, idx)
    }
    #[inline(always)]
    fn mul_low8(a: v128, b: v128) -> v128 {
        i16x8_extmul_low_i8x16(a, b)
    }
    #[inline(always)]
    fn mul_high8(a: v128, b: v128) -> v128 {
        i16x8_extmul_high_i8x16(a, b)
    }
    #[inline(always)]
    fn pair_sums16(a: v128) -> v128 {
        i32x4_extadd_pairwise_i16x8(a)
    }
    #[inline(always)]
    fn pair_sums32(a: v128, b: v128) -> v128 {
        i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
    }
    #[inline(always)]
    fn dot16(a: v128, b: v128) -> v128 {
        i32x4_dot_i16x8(a, b)
    }
    #[inline(always)]
    fn narrow16(a: v128, b: v128) -> v128 {
        i16x8_narrow_i32x4(a, b)
    }
    #[inline(always)]
    fn narrow8(a: v128, b: v128) -> v128 {
        i8x16_narrow_i16x8(a, b)
    }
    #[inline(always)]
    fn narrow8_unsigned(a: v128, b: v128) -> v128 {
        u8x16_narrow_i16x8(a, b)
    }
    #[inline(always)]
    fn permute_0213(a: v128) -> v128 {
        i16x8_shuffle::<0, 2, 1, 3, 4, 6, 5, 7>(a, a)
    }
    #[inline(always)]
    fn half_sums32(a: v128) -> [i32; 2] {
        let s = i32x4_add(a, i32x4_shuffle::<1, 0, 3, 2>(a, a));
        [i32x4_extract_lane::<0>(s), i32x4_extract_lane::<2>(s)]
    }
    #[inline(always)]
    fn to_float(a: v128) -> v128 {
        f32x4_convert_i32x4(a)
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> v128 {
        unsafe { v128_load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, v: v128) {
        unsafe { v128_store(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn fload_splat(p: *const f32) -> v128 {
        unsafe { v128_load32_splat(p.cast()) }
    }
    #[inline(always)]
    fn fsplat(x: f32) -> v128 {
        f32x4_splat(x)
    }
    #[inline(always)]
    fn fadd(a: v128, b: v128) -> v128 {
        f32x4_add(a, b)
    }
    #[inline(always)]
    fn fsub(a: v128, b: v128) -> v128 {
        f32x4_sub(a, b)
    }
    #[inline(always)]
    fn fmul(a: v128, b: v128) -> v128 {
        f32x4_mul(a, b)
    }
    #[inline(always)]
    fn fdiv(a: v128, b: v128) -> v128 {
        f32x4_div(a, b)
    }
    #[inline(always)]
    fn fabs(a: v128) -> v128 {
        f32x4_abs(a)
    }
    #[inline(always)]
    fn fmax(a: v128, b: v128) -> v128 {
        f32x4_pmax(a, b)
    }
    #[inline(always)]
    fn fmin(a: v128, b: v128) -> v128 {
        f32x4_pmin(a, b)
    }
    #[inline(always)]
    fn flt(a: v128, b: v128) -> v128 {
        f32x4_lt(a, b)
    }
    #[inline(always)]
    fn bits(a: v128) -> v128 {
        a
    }
    #[inline(always)]
    fn from_bits(a: v128) -> v128 {
        a
    }
    #[inline(always)]
    fn lanes(a: v128) -> [f32; 4] {
        [
            f32x4_extract_lane::<0>(a),
            f32x4_extract_lane::<1>(a),
            f32x4_extract_lane::<2>(a),
            f32x4_extract_lane::<3>(a),
        ]
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> v128 {
        let x = unsafe { i32x4_load_extend_i16x4(p.cast()) };
        let shifted = v128_and(i32x4_shl(x, 13), u32x4_splat(0x8fff_e000));
        f32x4_mul(shifted, u32x4_splat(0x7780_0000))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> v128 {
        i32x4_shl(unsafe { i32x4_load_extend_u16x4(p.cast()) }, 16)
    }
}
