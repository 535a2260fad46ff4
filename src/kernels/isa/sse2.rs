//! x86-64's baseline (SSE2): the native twin of simd128, so that native tests and the
//! command line run the tiled kernels at vector speed.

use super::Isa;
use core::arch::x86_64::*;

/// SSE2, which every x86-64 processor has.
#[derive(Clone, Copy, Debug)]
pub struct Sse2;

// SAFETY (whole file): SSE2 is part of x86-64, so its intrinsics are always available;
// pointer functions rely on the caller, as the trait says, and use unaligned accesses.
impl Isa for Sse2 {
    const NAME: &'static str = "sse2";
    type V = __m128i;
    type F = __m128;
    const HAS_LOOKUP: bool = false;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m128i {
        unsafe { _mm_loadu_si128(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, v: __m128i) {
        unsafe { _mm_storeu_si128(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store64(p: *mut u8, v: __m128i) {
        unsafe { _mm_storel_epi64(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn load64(p: *const u8) -> __m128i {
        unsafe { _mm_loadl_epi64(p.cast()) }
    }
    #[inline(always)]
    fn zip_low8(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_unpacklo_epi8(a, b) }
    }
    #[inline(always)]
    fn zip_high8(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_unpackhi_epi8(a, b) }
    }
    #[inline(always)]
    fn extend_low8(a: __m128i) -> __m128i {
        unsafe { _mm_unpacklo_epi8(a, _mm_setzero_si128()) }
    }
    #[inline(always)]
    fn extend_high8(a: __m128i) -> __m128i {
        unsafe { _mm_unpackhi_epi8(a, _mm_setzero_si128()) }
    }
    #[inline(always)]
    fn sar32_by(a: __m128i, n: u32) -> __m128i {
        unsafe { _mm_sra_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    unsafe fn store_lanes32(p: [*mut u8; 4], v: __m128i) {
        let mut lanes = [0i32; 4];
        unsafe { _mm_storeu_si128(lanes.as_mut_ptr().cast(), v) };
        for (p, x) in p.into_iter().zip(lanes) {
            unsafe { p.cast::<i32>().write_unaligned(x) }
        }
    }
    #[inline(always)]
    unsafe fn store_two32(p0: *mut u8, p1: *mut u8, v: __m128i) {
        unsafe {
            p0.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(v));
            p1.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(_mm_shuffle_epi32::<1>(v)));
        }
    }
    #[inline(always)]
    unsafe fn load32_splat(p: *const u8) -> __m128i {
        unsafe { _mm_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    fn splat_lane32<const L: usize>(a: __m128i) -> __m128i {
        unsafe {
            match L {
                0 => _mm_shuffle_epi32::<0b00_00_00_00>(a),
                1 => _mm_shuffle_epi32::<0b01_01_01_01>(a),
                2 => _mm_shuffle_epi32::<0b10_10_10_10>(a),
                _ => _mm_shuffle_epi32::<0b11_11_11_11>(a),
            }
        }
    }
    #[inline(always)]
    fn swap32(a: __m128i) -> __m128i {
        unsafe { _mm_shuffle_epi32::<0b10_11_00_01>(a) }
    }
    #[inline(always)]
    fn swap64(a: __m128i) -> __m128i {
        unsafe { _mm_shuffle_epi32::<0b01_00_11_10>(a) }
    }
    #[inline(always)]
    fn splat16(x: u16) -> __m128i {
        unsafe { _mm_set1_epi16(x as i16) }
    }
    #[inline(always)]
    fn splat32(x: i32) -> __m128i {
        unsafe { _mm_set1_epi32(x) }
    }
    #[inline(always)]
    fn and(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_and_si128(a, b) }
    }
    #[inline(always)]
    fn or(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_or_si128(a, b) }
    }
    #[inline(always)]
    fn xor(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_xor_si128(a, b) }
    }
    #[inline(always)]
    fn shr16<const N: u32>(a: __m128i) -> __m128i {
        unsafe { _mm_srl_epi16(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    fn sar16<const N: u32>(a: __m128i) -> __m128i {
        unsafe { _mm_sra_epi16(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    fn shl16<const N: u32>(a: __m128i) -> __m128i {
        unsafe { _mm_sll_epi16(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    fn shl32<const N: u32>(a: __m128i) -> __m128i {
        unsafe { _mm_sll_epi32(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    fn sar32<const N: u32>(a: __m128i) -> __m128i {
        unsafe { _mm_sra_epi32(a, _mm_cvtsi32_si128(N as i32)) }
    }
    #[inline(always)]
    unsafe fn load8x8(p: *const u8) -> __m128i {
        unsafe {
            let b = _mm_loadl_epi64(p.cast());
            _mm_srai_epi16::<8>(_mm_unpacklo_epi8(b, b))
        }
    }
    #[inline(always)]
    unsafe fn load8x8_unsigned(p: *const u8) -> __m128i {
        unsafe { _mm_unpacklo_epi8(_mm_loadl_epi64(p.cast()), _mm_setzero_si128()) }
    }
    #[inline(always)]
    fn extend_low16(a: __m128i) -> __m128i {
        unsafe { _mm_srai_epi32::<16>(_mm_unpacklo_epi16(a, a)) }
    }
    #[inline(always)]
    fn extend_high16(a: __m128i) -> __m128i {
        unsafe { _mm_srai_epi32::<16>(_mm_unpackhi_epi16(a, a)) }
    }
    #[inline(always)]
    fn blend16(a: __m128i, b: __m128i) -> __m128i {
        unsafe {
            let even = _mm_set1_epi32(0xffff);
            _mm_or_si128(_mm_and_si128(even, a), _mm_andnot_si128(even, b))
        }
    }
    #[inline(always)]
    fn sub16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_sub_epi16(a, b) }
    }
    #[inline(always)]
    fn mul16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_mullo_epi16(a, b) }
    }
    #[inline(always)]
    fn pair_low16(a: __m128i) -> __m128i {
        unsafe { _mm_unpacklo_epi16(a, a) }
    }
    #[inline(always)]
    fn pair_high16(a: __m128i) -> __m128i {
        unsafe { _mm_unpackhi_epi16(a, a) }
    }
    #[inline(always)]
    fn zip_low16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_unpacklo_epi16(a, b) }
    }
    #[inline(always)]
    fn zip_high16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_unpackhi_epi16(a, b) }
    }
    #[inline(always)]
    fn mul32(a: __m128i, b: __m128i) -> __m128i {
        unsafe {
            // The low halves of products do not depend on the sign.
            let even = _mm_mul_epu32(a, b);
            let odd = _mm_mul_epu32(_mm_srli_epi64::<32>(a), _mm_srli_epi64::<32>(b));
            let low = _mm_shuffle_epi32::<0b00_00_10_00>(even);
            _mm_unpacklo_epi32(low, _mm_shuffle_epi32::<0b00_00_10_00>(odd))
        }
    }
    #[inline(always)]
    fn add32(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub32(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn add16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_add_epi16(a, b) }
    }
    #[inline(always)]
    fn add8(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_add_epi8(a, b) }
    }
    #[inline(always)]
    fn lookup(table: __m128i, idx: __m128i) -> __m128i {
        let (mut from, mut to) = ([0u8; 16], [0u8; 16]);
        unsafe {
            _mm_storeu_si128(from.as_mut_ptr().cast(), table);
            _mm_storeu_si128(to.as_mut_ptr().cast(), idx);
            let to = to.map(|i| if i < 128 { from[usize::from(i & 15)] } else { 0 });
            _mm_loadu_si128(to.as_ptr().cast())
        }
    }
    #[inline(always)]
    fn mul_low8(a: __m128i, b: __m128i) -> __m128i {
        unsafe {
            let [a, b] = [a, b].map(|v| _mm_srai_epi16::<8>(_mm_unpacklo_epi8(v, v)));
            _mm_mullo_epi16(a, b)
        }
    }
    #[inline(always)]
    fn mul_high8(a: __m128i, b: __m128i) -> __m128i {
        unsafe {
            let [a, b] = [a, b].map(|v| _mm_srai_epi16::<8>(_mm_unpackhi_epi8(v, v)));
            _mm_mullo_epi16(a, b)
        }
    }
    #[inline(always)]
    fn pair_sums16(a: __m128i) -> __m128i {
        unsafe { _mm_madd_epi16(a, _mm_set1_epi16(1)) }
    }
    #[inline(always)]
    fn pair_sums32(a: __m128i, b: __m128i) -> __m128i {
        unsafe {
            let (a, b) = (_mm_castsi128_ps(a), _mm_castsi128_ps(b));
            let even = _mm_shuffle_ps::<0b10_00_10_00>(a, b);
            let odd = _mm_shuffle_ps::<0b11_01_11_01>(a, b);
            _mm_add_epi32(_mm_castps_si128(even), _mm_castps_si128(odd))
        }
    }
    #[inline(always)]
    fn dot16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_madd_epi16(a, b) }
    }
    #[inline(always)]
    fn narrow16(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_packs_epi32(a, b) }
    }
    #[inline(always)]
    fn narrow8(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_packs_epi16(a, b) }
    }
    #[inline(always)]
    fn narrow8_unsigned(a: __m128i, b: __m128i) -> __m128i {
        unsafe { _mm_packus_epi16(a, b) }
    }
    #[inline(always)]
    fn permute_0213(a: __m128i) -> __m128i {
        unsafe { _mm_shufflehi_epi16::<0b11_01_10_00>(_mm_shufflelo_epi16::<0b11_01_10_00>(a)) }
    }
    #[inline(always)]
    fn half_sums32(a: __m128i) -> [i32; 2] {
        unsafe {
            let s = _mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a));
            [_mm_cvtsi128_si32(s), _mm_cvtsi128_si32(_mm_shuffle_epi32::<0b10_10_10_10>(s))]
        }
    }
    #[inline(always)]
    fn to_float(a: __m128i) -> __m128 {
        unsafe { _mm_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn fload(p: *const f32) -> __m128 {
        unsafe { _mm_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn fstore(p: *mut f32, v: __m128) {
        unsafe { _mm_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn fload_splat(p: *const f32) -> __m128 {
        unsafe { _mm_set1_ps(p.read_unaligned()) }
    }
    #[inline(always)]
    fn fsplat(x: f32) -> __m128 {
        unsafe { _mm_set1_ps(x) }
    }
    #[inline(always)]
    fn fadd(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_add_ps(a, b) }
    }
    #[inline(always)]
    fn fsub(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_sub_ps(a, b) }
    }
    #[inline(always)]
    fn fmul(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_mul_ps(a, b) }
    }
    #[inline(always)]
    fn fdiv(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_div_ps(a, b) }
    }
    #[inline(always)]
    fn fabs(a: __m128) -> __m128 {
        unsafe { _mm_andnot_ps(_mm_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn fmax(a: __m128, b: __m128) -> __m128 {
        // maxps gives its second operand unless the first is greater: pmax(a, b) = maxps(b, a).
        unsafe { _mm_max_ps(b, a) }
    }
    #[inline(always)]
    fn fmin(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_min_ps(b, a) }
    }
    #[inline(always)]
    fn flt(a: __m128, b: __m128) -> __m128i {
        unsafe { _mm_castps_si128(_mm_cmplt_ps(a, b)) }
    }
    #[inline(always)]
    fn bits(a: __m128) -> __m128i {
        unsafe { _mm_castps_si128(a) }
    }
    #[inline(always)]
    fn from_bits(a: __m128i) -> __m128 {
        unsafe { _mm_castsi128_ps(a) }
    }
    #[inline(always)]
    fn lanes(a: __m128) -> [f32; 4] {
        let mut out = [0f32; 4];
        unsafe { _mm_storeu_ps(out.as_mut_ptr(), a) };
        out
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m128 {
        unsafe {
            let h = _mm_loadl_epi64(p.cast());
            let x = _mm_srai_epi32::<16>(_mm_unpacklo_epi16(h, h));
            let shifted = _mm_and_si128(_mm_slli_epi32::<13>(x), _mm_set1_epi32(0x8fff_e000u32 as i32));
            _mm_mul_ps(_mm_castsi128_ps(shifted), _mm_set1_ps(f32::from_bits(0x7780_0000)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> __m128 {
        unsafe { _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64(p.cast()))) }
    }
}
