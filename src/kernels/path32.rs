//! Four products at a time: `i32x4.relaxed_dot_i8x16_i7x16_add_s`, which is one instruction
//! (vpdpbusd, sdot) on processors that have it.
//!
//! The operation is defined where the second operand's bytes are 0..=127. Codes of up to 7
//! bits are therefore the second operand and give the same sums everywhere. 8-bit codes lie
//! outside: engines read that operand as unsigned (x86) or as signed (ARM), and a probe at
//! start finds out which ([`Reading`]).

use super::isa::Dot8;
use super::path::{DotPath, SignedPath, add_scaled32, fields_in_i32};
use super::path16::{FIELD_MASKS, FIELD_SHIFTS, field};
use std::marker::PhantomData;

/// How an engine reads second-operand bytes above 127.
pub trait Reading: 'static {
    /// Whether as 128..=255.
    const UNSIGNED: bool;
    /// As shown to users.
    const NAME: &'static str;
}

/// As 128..=255, without saturating: AVX-VNNI's vpdpbusd.
pub struct Unsigned;
/// As -128..=-1: ARM's sdot.
pub struct Signed;

impl Reading for Unsigned {
    const UNSIGNED: bool = true;
    const NAME: &'static str = "d32u";
}
impl Reading for Signed {
    const UNSIGNED: bool = false;
    const NAME: &'static str = "d32s";
}

/// The path; activations are plain bytes in k order.
pub struct D32<I, R>(PhantomData<(I, R)>);

/// The constants of [`D32`].
#[derive(Clone, Copy)]
pub struct Consts<V> {
    /// The low nibble of each byte.
    nibble: V,
    /// The top bit of each byte.
    top: V,
}

impl<I: Dot8, R: Reading> DotPath for D32<I, R> {
    type I = I;
    type Signed = Self;
    const NAME: &'static str = R::NAME;
    const ACT_BYTES: usize = 4;
    /// Twelve sums: with eight, the dot product's latency of 4 to 5 cycles would leave units idle. There
    /// is no product to hold besides, as in the other paths.
    const ROWS: usize = 5;
    const PANEL_VECS: usize = 1;
    type Act = I::V;
    type Acc = I::V;
    type Consts = Consts<I::V>;

    #[inline(always)]
    fn consts() -> Self::Consts {
        use std::hint::black_box;
        Consts { nibble: black_box(I::splat16(0x0f0f)), top: black_box(I::splat16(0x8080)) }
    }

    #[inline(always)]
    fn begin(lanes: I::V) -> I::V {
        lanes
    }

    #[inline(always)]
    fn merge(a: I::V, b: I::V) -> I::V {
        I::add32(a, b)
    }

    #[inline(always)]
    fn total(_: Self::Consts, acc: I::V) -> I::V {
        acc
    }

    #[inline(always)]
    fn add_scaled(sums: I::V, acc: I::V, scales: I::V) -> I::V {
        add_scaled32::<I>(sums, acc, scales)
    }

    #[inline(always)]
    unsafe fn store_act(p0: *mut u8, p1: *mut u8, _: usize, a: I::V, b: I::V) {
        let words = I::narrow16(a, b);
        // SAFETY: the caller's.
        unsafe { I::store_two32(p0, p1, I::narrow8(words, words)) }
    }

    #[inline(always)]
    unsafe fn load_act(p: *const u8) -> I::V {
        // SAFETY: the caller's.
        unsafe { I::load32_splat(p) }
    }

    #[inline(always)]
    fn dot_u7(acc: I::V, codes: I::V, act: I::V) -> I::V {
        I::dot8_unsigned(acc, act, codes)
    }

    const FIELD_MASKS: [u16; 4] = FIELD_MASKS;
    const FIELD_SHIFTS: [u32; 4] = FIELD_SHIFTS;

    fields_in_i32!(std::convert::identity);

    #[inline(always)]
    fn dot_field<const F: usize>(acc: I::V, codes: I::V, mask: I::V, act: I::V) -> I::V {
        I::dot8_unsigned(acc, act, field::<I, F>(codes, mask))
    }

    #[inline(always)]
    fn dot_nibbles(consts: Self::Consts, acc: I::V, codes: I::V, lo: I::V, hi: I::V) -> I::V {
        let acc = I::dot8_unsigned(acc, lo, I::and(codes, consts.nibble));
        I::dot8_unsigned(acc, hi, I::and(I::shr16::<4>(codes), consts.nibble))
    }

    #[inline(always)]
    fn dot_panel(acc: I::V, panel: I::V, act: I::V) -> I::V {
        I::dot8_unsigned(acc, act, panel)
    }

    #[inline(always)]
    unsafe fn store_panel_u7(p: *mut u8, codes: I::V) {
        // SAFETY: the caller's.
        unsafe { I::store(p, codes) }
    }
}

impl<I: Dot8, R: Reading> SignedPath for D32<I, R> {
    #[inline(always)]
    unsafe fn dot_tile_i8(consts: Self::Consts, acc: &mut [I::V; 4], tile: *const u8, act: *const u8) {
        // Rounds unknown to the compiler, which would otherwise load more than there are registers for.
        let (mut tile, mut act) = (tile, act);
        for _ in 0..std::hint::black_box(4) {
            // SAFETY: four rounds of two groups of the tile and the activations.
            unsafe {
                let a = [I::load32_splat(act), I::load32_splat(act.add(4))];
                for (c, acc) in acc.iter_mut().enumerate() {
                    for (g, a) in a.into_iter().enumerate() {
                        let codes = I::load(tile.add(g * 64 + c * 16));
                        *acc = if R::UNSIGNED {
                            I::dot8_unsigned(*acc, a, I::xor(codes, consts.top))
                        } else {
                            I::dot8_signed(*acc, a, codes)
                        };
                    }
                }
                tile = tile.add(128);
                act = act.add(8);
            }
        }
    }

    /// Unsigned readers take the codes plus 128: `sum (w + 128) a = sum w a + 128 sum a`.
    const PANEL_OFFSET: i32 = if R::UNSIGNED { 128 } else { 0 };

    #[inline(always)]
    fn dot_panel_i8(acc: I::V, panel: I::V, act: I::V) -> I::V {
        if R::UNSIGNED { I::dot8_unsigned(acc, act, panel) } else { I::dot8_signed(acc, act, panel) }
    }

    #[inline(always)]
    unsafe fn store_panel_i8(p: *mut u8, codes: I::V) {
        let codes = if R::UNSIGNED { I::xor(codes, I::splat16(0x8080)) } else { codes };
        // SAFETY: the caller's.
        unsafe { I::store(p, codes) }
    }
}
