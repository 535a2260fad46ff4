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
    /// The path that multiplies signed bytes instead, where this one does not.
    type Signed: SignedPath<I = Self::I>;
    /// As shown to users.
    const NAME: &'static str;
    /// Bytes that 4 quantized activations take.
    const ACT_BYTES: usize;
    /// Vectors that one unit takes in an unpacked panel.
    const PANEL_VECS: usize;
    /// 4 activations, ready to multiply.
    type Act: Copy;
    /// Sums of 4 columns in the making: i32 lanes, or what turns into them ([`Self::total`]).
    type Acc: Copy;
    /// Constant vectors that loops use.
    type Consts: Copy;

    /// The constants. Made outside of loops and opaque to the compiler, because engines build
    /// a literal vector anew (up to five instructions) wherever it stands in the code.
    fn consts() -> Self::Consts;

    /// Writes 8 activations (four i32 lanes `a`, then `b`, each within +-127) as two groups of 4,
    /// the planes of a group `plane_stride` bytes apart.
    ///
    /// # Safety
    /// 4 bytes at each of the `ACT_BYTES / 4` planes from `p0` and from `p1` are writable.
    unsafe fn store_act(
        p0: *mut u8,
        p1: *mut u8,
        plane_stride: usize,
        a: <Self::I as Isa>::V,
        b: <Self::I as Isa>::V,
    );

    /// Four activations, their planes 4 bytes apart, for all lanes.
    ///
    /// # Safety
    /// [`Self::ACT_BYTES`] bytes at `p` are readable.
    unsafe fn load_act(p: *const u8) -> Self::Act;

    /// How the sum of some activations is kept, given the sums over k % 4 = 0, 1 and 2, 3.
    #[inline(always)]
    fn join_sums(low: i32, high: i32) -> i32 {
        low.wrapping_add(high)
    }

    /// The whole of what [`Self::join_sums`] gave.
    #[inline(always)]
    fn whole_sum(joined: i32) -> i32 {
        joined
    }

    /// Whether an accumulator holds the products of `k` codes of `0..=max` with activations,
    /// begun at their offset.
    #[inline(always)]
    fn holds(_k: usize, _max: i32, _offset: i32) -> bool {
        true
    }

    /// Where sums over activations with these (joined) sums begin, so that `offset` is
    /// subtracted from every code.
    fn start(sum: i32, offset: i32) -> Self::Acc;

    /// The sums of both.
    fn merge(a: Self::Acc, b: Self::Acc) -> Self::Acc;

    /// The sums of 4 columns as i32.
    fn total(consts: Self::Consts, acc: Self::Acc) -> <Self::I as Isa>::V;

    /// `sums + total(acc) * scales`, each i16 scale twice in its column's lane.
    fn add_scaled(
        sums: <Self::I as Isa>::V,
        acc: Self::Acc,
        scales: <Self::I as Isa>::V,
    ) -> <Self::I as Isa>::V;

    /// `acc + products` with codes 0..=127.
    fn dot_u7(acc: Self::Acc, codes: <Self::I as Isa>::V, act: Self::Act) -> Self::Acc;

    /// `acc + products` with two 4-bit codes per byte: low nibbles times `lo`, high ones times `hi`.
    fn dot_nibbles(
        consts: Self::Consts,
        acc: Self::Acc,
        codes: <Self::I as Isa>::V,
        lo: Self::Act,
        hi: Self::Act,
    ) -> Self::Acc;

    /// Adds the products of two panel units (8 columns x 4 k) with 4 activations of each of
    /// [`MR`] rows.
    ///
    /// # Safety
    /// `32 * PANEL_VECS` bytes at `w` and `MR * ACT_BYTES` at `a` are readable.
    unsafe fn micro_step(acc: &mut [[Self::Acc; 2]; MR], w: *const u8, a: *const u8);

    /// One unit of codes 0..=127, spread for repeated use, to [`Self::PANEL_VECS`] vectors 32
    /// bytes apart (two units lie side by side).
    ///
    /// # Safety
    /// 16 bytes at each of these places from `p` are writable.
    unsafe fn store_panel_u7(p: *mut u8, codes: <Self::I as Isa>::V);
}

/// A path that also multiplies codes -128..=127.
pub trait SignedPath: DotPath {
    /// Adds the products of a tile of codes -128..=127 (8 groups of 4 units) with 32 activations.
    ///
    /// # Safety
    /// 512 bytes at `tile` and `8 * ACT_BYTES` at `act` are readable.
    unsafe fn dot_tile_i8(consts: Self::Consts, acc: &mut [Self::Acc; 4], tile: *const u8, act: *const u8);

    /// As [`DotPath::micro_step`], for a panel of codes -128..=127 whose sums began at
    /// [`Self::panel_bias_i8`].
    ///
    /// # Safety
    /// As [`DotPath::micro_step`].
    #[inline(always)]
    unsafe fn micro_step_i8(_: Self::Consts, acc: &mut [[Self::Acc; 2]; MR], w: *const u8, a: *const u8) {
        // SAFETY: the caller's.
        unsafe { Self::micro_step(acc, w, a) }
    }

    /// Where the sums of a tile's 8 columns (signed panel of 8 groups) have to begin; `None`
    /// for zero.
    ///
    /// # Safety
    /// `256 * PANEL_VECS` bytes at `panel` are readable.
    #[inline(always)]
    unsafe fn panel_bias_i8(_panel: *const u8) -> Option<[Self::Acc; 2]> {
        None
    }

    /// One unit of codes -128..=127, as [`DotPath::store_panel_u7`].
    ///
    /// # Safety
    /// As [`DotPath::store_panel_u7`].
    unsafe fn store_panel_i8(p: *mut u8, codes: <Self::I as Isa>::V);
}

/// `sums + acc * scales` where sums are i32 all along; each i16 scale is twice in its lane.
#[inline(always)]
pub(super) fn add_scaled32<I: Isa>(sums: I::V, acc: I::V, scales: I::V) -> I::V {
    I::add32(sums, I::mul32(acc, I::sar32::<16>(scales)))
}

/// Plain SIMD on x86: codes widened to i16 in even and odd planes, multiplied by
/// `i32x4.dot_i16x8_s` (pmaddwd). The activations of one group lie as the i16 pairs
/// (a0, a2), (a1, a3), which is how the planes split the bytes of a lane.
pub struct P16<I>(PhantomData<I>);

impl<I: Isa> DotPath for P16<I> {
    type I = I;
    type Signed = Self;
    const NAME: &'static str = "p16";
    const ACT_BYTES: usize = 8;
    const PANEL_VECS: usize = 2;
    type Act = (I::V, I::V);
    type Acc = I::V;
    /// The low nibble of each u16.
    type Consts = I::V;

    #[inline(always)]
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, plane_stride: usize, a: I::V, b: I::V) {
        let pairs = I::permute_0213(I::narrow16(a, b));
        // SAFETY: the caller's.
        unsafe { I::store_lanes32([p0, p0.add(plane_stride), p1, p1.add(plane_stride)], pairs) }
    }

    #[inline(always)]
    unsafe fn load_act(p: *const u8) -> Self::Act {
        // SAFETY: the caller's.
        unsafe { (I::load32_splat(p), I::load32_splat(p.add(4))) }
    }

    #[inline(always)]
    fn consts() -> I::V {
        std::hint::black_box(I::splat16(0x000f))
    }

    #[inline(always)]
    fn start(sum: i32, offset: i32) -> I::V {
        I::splat32(sum.wrapping_mul(-offset))
    }

    #[inline(always)]
    fn merge(a: I::V, b: I::V) -> I::V {
        I::add32(a, b)
    }

    #[inline(always)]
    fn total(_: I::V, acc: I::V) -> I::V {
        acc
    }

    #[inline(always)]
    fn add_scaled(sums: I::V, acc: I::V, scales: I::V) -> I::V {
        add_scaled32::<I>(sums, acc, scales)
    }

    #[inline(always)]
    fn dot_u7(acc: I::V, codes: I::V, act: Self::Act) -> I::V {
        let even = I::shr16::<8>(I::shl16::<8>(codes));
        let odd = I::shr16::<8>(codes);
        I::add32(I::add32(acc, I::dot16(even, act.0)), I::dot16(odd, act.1))
    }

    #[inline(always)]
    fn dot_nibbles(mask: I::V, acc: I::V, codes: I::V, lo: Self::Act, hi: Self::Act) -> I::V {
        // One plane per nibble of the u16 lane: one operation fewer than through bytes.
        let acc = I::add32(acc, I::dot16(I::and(codes, mask), lo.0));
        let acc = I::add32(acc, I::dot16(I::and(I::shr16::<8>(codes), mask), lo.1));
        let acc = I::add32(acc, I::dot16(I::and(I::shr16::<4>(codes), mask), hi.0));
        I::add32(acc, I::dot16(I::shr16::<12>(codes), hi.1))
    }

    #[inline(always)]
    unsafe fn micro_step(acc: &mut [[I::V; 2]; MR], w: *const u8, a: *const u8) {
        // SAFETY: the caller's; per plane two vectors of codes and MR pairs of activations.
        unsafe {
            for plane in 0..2 {
                let w0 = I::load(w.add(32 * plane));
                let w1 = I::load(w.add(32 * plane + 16));
                let act = I::load(a.add(16 * plane));
                row::<I, 0>(acc, w0, w1, act);
                row::<I, 1>(acc, w0, w1, act);
                row::<I, 2>(acc, w0, w1, act);
                row::<I, 3>(acc, w0, w1, act);
                // Keeps the loads of the next plane behind this one: hoisted, they would need
                // more registers than x86 has.
                std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_panel_u7(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe {
            I::store(p, I::and(codes, I::splat16(0x00ff)));
            I::store(p.add(32), I::shr16::<8>(codes));
        }
    }
}

impl<I: Isa> SignedPath for P16<I> {
    #[inline(always)]
    unsafe fn dot_tile_i8(_: I::V, acc: &mut [I::V; 4], tile: *const u8, act: *const u8) {
        for g in 0..8 {
            // SAFETY: g and c stay within the tile and the 8 activation groups.
            unsafe {
                let a = Self::load_act(act.add(g * Self::ACT_BYTES));
                for (c, acc) in acc.iter_mut().enumerate() {
                    let codes = I::load(tile.add(g * 64 + c * 16));
                    let even = I::sar16::<8>(I::shl16::<8>(codes));
                    let odd = I::sar16::<8>(codes);
                    *acc = I::add32(I::add32(*acc, I::dot16(even, a.0)), I::dot16(odd, a.1));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store_panel_i8(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe {
            I::store(p, I::sar16::<8>(I::shl16::<8>(codes)));
            I::store(p.add(32), I::sar16::<8>(codes));
        }
    }
}

/// One row of the micro-kernel: lane `R` of `act` against both vectors of codes.
#[inline(always)]
pub(super) fn row<I: Isa, const R: usize>(acc: &mut [[I::V; 2]; MR], w0: I::V, w1: I::V, act: I::V) {
    let act = I::splat_lane32::<R>(act);
    acc[R][0] = I::add32(acc[R][0], I::dot16(w0, act));
    acc[R][1] = I::add32(acc[R][1], I::dot16(w1, act));
}
