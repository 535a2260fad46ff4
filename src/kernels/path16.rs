//! Sums in 16 bits, widened once per sub-block: fewer instructions where there is no dot
//! product of four bytes.
//!
//! Only the finished lanes must fit ([`DotPath::holds`]): additions wrap, so what passes the
//! limit on the way comes back.

use super::isa::{Isa, PairDot8};
use super::path::{DotPath, P16, SignedPath, add_scaled32, fields_in_i32, shifted_down};
use std::marker::PhantomData;

/// Largest magnitude of an activation's code.
const ACT_MAX: i32 = 127;

/// `i16x8.relaxed_dot_i8x16_i7x16_s` (pmaddubsw on x86): lanes hold two of every four k.
///
/// Codes are the second operand and at most 127, where the operation is defined and, with 63,
/// does not saturate. Activations lie as in [`super::path32::D32`]; their sums as two i16,
/// over k % 4 = 0, 1 and 2, 3, so that the sums can begin at the offset of the codes.
pub struct D16<I>(PhantomData<I>);

/// The constants of [`D16`] and [`X16`].
#[derive(Clone, Copy)]
pub struct Consts<V> {
    /// The low nibble of each byte.
    nibble: V,
    /// One in each u16.
    ones: V,
}

impl<V: Copy> Consts<V> {
    #[inline(always)]
    fn new<I: Isa<V = V>>() -> Self {
        use std::hint::black_box;
        Consts { nibble: black_box(I::splat16(0x0f0f)), ones: black_box(I::splat16(1)) }
    }
}

/// Two fields of a byte where they are, two shifted: sums over 64 k then fit 16 bits four times over.
pub(super) const FIELD_MASKS: [u16; 4] = [0x0303, 0x0c0c, 0x0303, 0x0c0c];
pub(super) const FIELD_SHIFTS: [u32; 4] = [0, 2, 0, 2];

/// See [`DotPath::dot_field`].
#[inline(always)]
pub(super) fn field<I: Isa, const F: usize>(codes: I::V, mask: I::V) -> I::V {
    I::and(if F >= 2 { I::shr16::<4>(codes) } else { codes }, mask)
}

/// Two i16 in an i32.
#[inline(always)]
fn pair(low: i32, high: i32) -> i32 {
    low & 0xffff | high << 16
}

/// Eight activations as bytes.
///
/// # Safety
/// 4 bytes at `p0` and at `p1` are writable.
#[inline(always)]
unsafe fn store_bytes<I: Isa>(p0: *mut u8, p1: *mut u8, a: I::V, b: I::V) {
    let words = I::narrow16(a, b);
    // SAFETY: the caller's.
    unsafe { I::store_two32(p0, p1, I::narrow8(words, words)) }
}

impl<I: PairDot8> DotPath for D16<I> {
    type I = I;
    type Signed = P16<I>;
    const NAME: &'static str = "d16";
    const ACT_BYTES: usize = 4;
    const PANEL_VECS: usize = 1;
    type Act = I::V;
    type Acc = I::V;
    type Consts = Consts<I::V>;

    #[inline(always)]
    fn consts() -> Self::Consts {
        Consts::new::<I>()
    }

    #[inline(always)]
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, _: usize, a: I::V, b: I::V) {
        // SAFETY: the caller's.
        unsafe { store_bytes::<I>(p0, p1, a, b) }
    }

    #[inline(always)]
    unsafe fn load_act(p: *const u8) -> I::V {
        // SAFETY: the caller's.
        unsafe { I::load32_splat(p) }
    }

    #[inline(always)]
    fn join_sums(low: i32, high: i32) -> i32 {
        pair(low, high)
    }

    #[inline(always)]
    fn whole_sum(joined: i32) -> i32 {
        i32::from(joined as i16) + (joined >> 16)
    }

    #[inline(always)]
    fn holds(k: usize, max: i32, offset: i32) -> bool {
        k as i32 / 2 * ACT_MAX * offset.max(max - offset) <= i32::from(i16::MAX)
    }

    #[inline(always)]
    fn add_sums(a: i32, b: i32) -> i32 {
        pair(a.wrapping_add(b), (a >> 16).wrapping_add(b >> 16))
    }

    #[inline(always)]
    fn start_lane(sum: i32, offset: i32) -> i32 {
        pair(sum.wrapping_mul(-offset), (sum >> 16).wrapping_mul(-offset))
    }

    #[inline(always)]
    fn begin(lanes: I::V) -> I::V {
        lanes
    }

    #[inline(always)]
    fn merge(a: I::V, b: I::V) -> I::V {
        I::add16(a, b)
    }

    #[inline(always)]
    fn total(consts: Self::Consts, acc: I::V) -> I::V {
        I::dot16(acc, consts.ones)
    }

    #[inline(always)]
    unsafe fn scales(p: *const u8) -> [I::V; 2] {
        // SAFETY: the caller's.
        let s = unsafe { I::load8x8(p) };
        [I::pair_low16(s), I::pair_high16(s)]
    }

    #[inline(always)]
    fn scale_of(scale: I::V) -> I::V {
        I::blend16(scale, I::shl32::<16>(scale))
    }

    #[inline(always)]
    fn add_scaled(sums: I::V, acc: I::V, scales: I::V) -> I::V {
        I::add32(sums, I::dot16(acc, scales))
    }

    #[inline(always)]
    fn dot_u7(acc: I::V, codes: I::V, act: I::V) -> I::V {
        I::add16(acc, I::pair_dot8(act, codes))
    }

    const FIELD_MASKS: [u16; 4] = FIELD_MASKS;
    const FIELD_SHIFTS: [u32; 4] = FIELD_SHIFTS;

    /// Of the fields where they are, and of those four times too large.
    type FieldSums = [I::V; 2];
    /// The low nibble of each byte, and what puts byte f of each lane into both of its i16.
    type FieldConsts = (I::V, [I::V; 4]);

    #[inline(always)]
    fn field_consts() -> Self::FieldConsts {
        let spread = |f: usize| {
            // 0x80 gives zero.
            let bytes: [u8; 16] =
                std::array::from_fn(|i| if i % 2 == 0 { (i / 4 * 4 + f) as u8 } else { 0x80 });
            // SAFETY: 16 bytes.
            std::hint::black_box(unsafe { I::load(bytes.as_ptr()) })
        };
        (std::hint::black_box(I::splat16(0x0f0f)), std::array::from_fn(spread))
    }

    #[inline(always)]
    fn begin_fields() -> Self::FieldSums {
        [I::splat32(0); 2]
    }

    #[inline(always)]
    fn add_fields(
        (nibble, spread): Self::FieldConsts,
        [even, odd]: Self::FieldSums,
        acc: [I::V; 4],
        scales: I::V,
    ) -> Self::FieldSums {
        let scales = I::and(scales, nibble);
        let term = |f: usize| I::dot16(acc[f], I::lookup(scales, spread[f]));
        [I::add32(even, I::add32(term(0), term(2))), I::add32(odd, I::add32(term(1), term(3)))]
    }

    #[inline(always)]
    fn end_fields([even, odd]: Self::FieldSums) -> I::V {
        I::add32(even, shifted_down::<I>(odd, FIELD_SHIFTS[1]))
    }

    #[inline(always)]
    fn dot_field<const F: usize>(acc: Self::Acc, codes: I::V, mask: I::V, act: I::V) -> Self::Acc {
        Self::dot_u7(acc, field::<I, F>(codes, mask), act)
    }

    #[inline(always)]
    fn dot_nibbles(consts: Self::Consts, acc: I::V, codes: I::V, lo: I::V, hi: I::V) -> I::V {
        let acc = Self::dot_u7(acc, I::and(codes, consts.nibble), lo);
        Self::dot_u7(acc, I::and(I::shr16::<4>(codes), consts.nibble), hi)
    }

    #[inline(always)]
    fn dot_panel(acc: I::V, panel: I::V, act: I::V) -> I::V {
        Self::dot_u7(acc, panel, act)
    }

    #[inline(always)]
    unsafe fn store_panel_u7(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe { I::store(p, codes) }
    }
}

/// Plain SIMD where products of bytes are one instruction (smull, smull2 on ARM): lanes hold one
/// of every four k.
pub struct X16<I>(PhantomData<I>);

/// Sums of [`X16`].
#[derive(Clone, Copy)]
pub struct WideAcc<V> {
    /// i16 sums of columns 0 and 1, by k % 4.
    low: V,
    /// i16 sums of columns 2 and 3.
    high: V,
    /// What is already i32: the offset's part, or sums of signed codes.
    whole: V,
}

impl<I: Isa> DotPath for X16<I> {
    type I = I;
    type Signed = Self;
    const NAME: &'static str = "x16";
    const ACT_BYTES: usize = 4;
    const PANEL_VECS: usize = 1;
    type Act = I::V;
    type Acc = WideAcc<I::V>;
    type Consts = Consts<I::V>;

    #[inline(always)]
    fn consts() -> Self::Consts {
        Consts::new::<I>()
    }

    #[inline(always)]
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, _: usize, a: I::V, b: I::V) {
        // SAFETY: the caller's.
        unsafe { store_bytes::<I>(p0, p1, a, b) }
    }

    #[inline(always)]
    unsafe fn load_act(p: *const u8) -> I::V {
        // SAFETY: the caller's.
        unsafe { I::load32_splat(p) }
    }

    #[inline(always)]
    fn holds(k: usize, max: i32, _: i32) -> bool {
        k as i32 / 4 * ACT_MAX * max <= i32::from(i16::MAX)
    }

    #[inline(always)]
    fn begin(lanes: I::V) -> Self::Acc {
        WideAcc { low: I::splat32(0), high: I::splat32(0), whole: lanes }
    }

    #[inline(always)]
    fn merge(a: Self::Acc, b: Self::Acc) -> Self::Acc {
        WideAcc {
            low: I::add16(a.low, b.low),
            high: I::add16(a.high, b.high),
            whole: I::add32(a.whole, b.whole),
        }
    }

    #[inline(always)]
    fn total(_: Self::Consts, acc: Self::Acc) -> I::V {
        Self::whole(acc)
    }

    #[inline(always)]
    fn add_scaled(sums: I::V, acc: Self::Acc, scales: I::V) -> I::V {
        add_scaled32::<I>(sums, Self::whole(acc), scales)
    }

    #[inline(always)]
    fn dot_u7(acc: Self::Acc, codes: I::V, act: I::V) -> Self::Acc {
        WideAcc {
            low: I::add16(acc.low, I::mul_low8(codes, act)),
            high: I::add16(acc.high, I::mul_high8(codes, act)),
            whole: acc.whole,
        }
    }

    const FIELD_MASKS: [u16; 4] = FIELD_MASKS;
    const FIELD_SHIFTS: [u32; 4] = FIELD_SHIFTS;

    fields_in_i32!(Self::whole);

    #[inline(always)]
    fn dot_field<const F: usize>(acc: Self::Acc, codes: I::V, mask: I::V, act: I::V) -> Self::Acc {
        Self::dot_u7(acc, field::<I, F>(codes, mask), act)
    }

    #[inline(always)]
    fn dot_nibbles(consts: Self::Consts, acc: Self::Acc, codes: I::V, lo: I::V, hi: I::V) -> Self::Acc {
        let acc = Self::dot_u7(acc, I::and(codes, consts.nibble), lo);
        Self::dot_u7(acc, I::and(I::shr16::<4>(codes), consts.nibble), hi)
    }

    #[inline(always)]
    fn dot_panel(acc: Self::Acc, panel: I::V, act: I::V) -> Self::Acc {
        Self::dot_u7(acc, panel, act)
    }

    #[inline(always)]
    unsafe fn store_panel_u7(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe { I::store(p, codes) }
    }
}

impl<I: Isa> X16<I> {
    /// The sums of 4 columns.
    #[inline(always)]
    fn whole(acc: WideAcc<I::V>) -> I::V {
        I::add32(acc.whole, I::pair_sums32(I::pair_sums16(acc.low), I::pair_sums16(acc.high)))
    }

    /// Adds products of signed bytes: as i32 at once, since two of them fill 15 bits.
    #[inline(always)]
    fn add_signed(whole: I::V, codes: I::V, act: I::V) -> I::V {
        let low = I::pair_sums16(I::mul_low8(codes, act));
        let high = I::pair_sums16(I::mul_high8(codes, act));
        I::add32(whole, I::pair_sums32(low, high))
    }
}

impl<I: Isa> SignedPath for X16<I> {
    #[inline(always)]
    unsafe fn dot_tile_i8(_: Self::Consts, acc: &mut [Self::Acc; 4], tile: *const u8, act: *const u8) {
        for (c, acc) in acc.iter_mut().enumerate() {
            let mut sums = [I::splat32(0); 2];
            for g in 0..4 {
                // SAFETY: g and c stay within the tile and the 8 activation groups.
                unsafe {
                    let a = [2 * g, 2 * g + 1].map(|g| I::load32_splat(act.add(g * 4)));
                    let w = [2 * g, 2 * g + 1].map(|g| I::load(tile.add(g * 64 + c * 16)));
                    // Two products of bytes fit: 2 x 128 x 127.
                    let low = I::add16(I::mul_low8(w[0], a[0]), I::mul_low8(w[1], a[1]));
                    let high = I::add16(I::mul_high8(w[0], a[0]), I::mul_high8(w[1], a[1]));
                    sums = [I::add32(sums[0], I::pair_sums16(low)), I::add32(sums[1], I::pair_sums16(high))];
                }
            }
            acc.whole = I::add32(acc.whole, I::pair_sums32(sums[0], sums[1]));
        }
    }

    #[inline(always)]
    fn dot_panel_i8(acc: Self::Acc, panel: I::V, act: I::V) -> Self::Acc {
        WideAcc { whole: Self::add_signed(acc.whole, panel, act), ..acc }
    }

    #[inline(always)]
    unsafe fn store_panel_i8(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe { I::store(p, codes) }
    }
}
