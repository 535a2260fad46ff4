//! Ways to multiply codes with quantized activations. All give the same integers.
//!
//! A path fixes how activations are laid out and which instructions form the products. One
//! unit is a vector of 16 code bytes: 4 columns (32-bit lanes) times 4 consecutive k.

use super::act::MR;
use super::isa::Isa;
use std::marker::PhantomData;

/// How 16 code bytes meet 4 activations.
pub trait DotPath: 'static {
    /// The instruction set.
    type I: Isa;
    /// As shown to users.
    const NAME: &'static str;
    /// Bytes that 4 quantized activations take.
    const ACT_BYTES: usize;
    /// Vectors that one unit takes in an unpacked panel.
    const PANEL_VECS: usize;
    /// 4 activations, ready to multiply.
    type Act: Copy;

    /// Writes 8 activations (four i32 lanes `a`, then `b`, each within +-127) as two groups of 4.
    ///
    /// # Safety
    /// [`Self::ACT_BYTES`] bytes at each pointer are writable.
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, a: <Self::I as Isa>::V, b: <Self::I as Isa>::V);

    /// Four activations for all lanes.
    ///
    /// # Safety
    /// [`Self::ACT_BYTES`] bytes at `p` are readable.
    unsafe fn load_act(p: *const u8) -> Self::Act;

    /// `acc + products` with codes 0..=127.
    fn dot_u7(acc: <Self::I as Isa>::V, codes: <Self::I as Isa>::V, act: Self::Act) -> <Self::I as Isa>::V;

    /// `acc + products` with codes -128..=127.
    fn dot_i8(acc: <Self::I as Isa>::V, codes: <Self::I as Isa>::V, act: Self::Act) -> <Self::I as Isa>::V;

    /// `acc + products` with two 4-bit codes per byte: low nibbles times `lo`, high ones times `hi`.
    #[inline(always)]
    fn dot_nibbles(
        acc: <Self::I as Isa>::V,
        codes: <Self::I as Isa>::V,
        lo: Self::Act,
        hi: Self::Act,
    ) -> <Self::I as Isa>::V {
        let mask = Self::I::splat16(0x0f0f);
        let low = Self::I::and(codes, mask);
        let high = Self::I::and(Self::I::shr16::<4>(codes), mask);
        Self::dot_u7(Self::dot_u7(acc, low, lo), high, hi)
    }

    /// Adds the products of two panel units (8 columns x 4 k) with 4 activations of each of
    /// [`MR`] rows.
    ///
    /// # Safety
    /// `32 * PANEL_VECS` bytes at `w` and `MR * ACT_BYTES` at `a` are readable.
    unsafe fn micro_step(acc: &mut [[<Self::I as Isa>::V; 2]; MR], w: *const u8, a: *const u8);

    /// One unit of codes 0..=127, spread for repeated use, to [`Self::PANEL_VECS`] vectors.
    ///
    /// # Safety
    /// `16 * PANEL_VECS` bytes at `p` are writable.
    unsafe fn store_panel_u7(p: *mut u8, codes: <Self::I as Isa>::V);

    /// One unit of codes -128..=127, likewise.
    ///
    /// # Safety
    /// As [`Self::store_panel_u7`].
    unsafe fn store_panel_i8(p: *mut u8, codes: <Self::I as Isa>::V);
}

/// Plain SIMD on x86: codes widened to i16 in even and odd planes, multiplied by
/// `i32x4.dot_i16x8_s` (pmaddwd). The activations of one group lie as the i16 pairs
/// (a0, a2), (a1, a3), which is how the planes split the bytes of a lane.
pub struct P16<I>(PhantomData<I>);

impl<I: Isa> DotPath for P16<I> {
    type I = I;
    const NAME: &'static str = "p16";
    const ACT_BYTES: usize = 8;
    const PANEL_VECS: usize = 2;
    type Act = (I::V, I::V);

    #[inline(always)]
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, a: I::V, b: I::V) {
        let pairs = I::permute_0213(I::narrow16(a, b));
        // SAFETY: the caller's.
        unsafe { I::store_halves(p0, p1, pairs) }
    }

    #[inline(always)]
    unsafe fn load_act(p: *const u8) -> Self::Act {
        // SAFETY: the caller's.
        unsafe { (I::load32_splat(p), I::load32_splat(p.add(4))) }
    }

    #[inline(always)]
    fn dot_u7(acc: I::V, codes: I::V, act: Self::Act) -> I::V {
        let even = I::and(codes, I::splat16(0x00ff));
        let odd = I::shr16::<8>(codes);
        I::add32(I::add32(acc, I::dot16(even, act.0)), I::dot16(odd, act.1))
    }

    #[inline(always)]
    fn dot_i8(acc: I::V, codes: I::V, act: Self::Act) -> I::V {
        let even = I::sar16::<8>(I::shl16::<8>(codes));
        let odd = I::sar16::<8>(codes);
        I::add32(I::add32(acc, I::dot16(even, act.0)), I::dot16(odd, act.1))
    }

    #[inline(always)]
    fn dot_nibbles(acc: I::V, codes: I::V, lo: Self::Act, hi: Self::Act) -> I::V {
        // One plane per nibble of the u16 lane: one operation fewer than through bytes.
        let mask = I::splat16(0x000f);
        let acc = I::add32(acc, I::dot16(I::and(codes, mask), lo.0));
        let acc = I::add32(acc, I::dot16(I::and(I::shr16::<8>(codes), mask), lo.1));
        let acc = I::add32(acc, I::dot16(I::and(I::shr16::<4>(codes), mask), hi.0));
        I::add32(acc, I::dot16(I::shr16::<12>(codes), hi.1))
    }

    #[inline(always)]
    unsafe fn micro_step(acc: &mut [[I::V; 2]; MR], w: *const u8, a: *const u8) {
        // SAFETY: the caller's; unit c is at 32c, its odd plane 16 bytes on.
        unsafe {
            for plane in 0..2 {
                let w0 = I::load(w.add(16 * plane));
                let w1 = I::load(w.add(32 + 16 * plane));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let act = I::load32_splat(a.add(8 * r + 4 * plane));
                    acc[0] = I::add32(acc[0], I::dot16(w0, act));
                    acc[1] = I::add32(acc[1], I::dot16(w1, act));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_panel_u7(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe {
            I::store(p, I::and(codes, I::splat16(0x00ff)));
            I::store(p.add(16), I::shr16::<8>(codes));
        }
    }

    #[inline(always)]
    unsafe fn store_panel_i8(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe {
            I::store(p, I::sar16::<8>(I::shl16::<8>(codes)));
            I::store(p.add(16), I::sar16::<8>(codes));
        }
    }
}
