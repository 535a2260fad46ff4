//! Ways to multiply codes with quantized activations. All give the same integers.
//!
//! A path fixes how activations are laid out and which instructions form the products. One
//! unit is a vector of 16 code bytes: 4 columns (32-bit lanes) times 4 consecutive k.

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
    /// Rows per tile of the kernels of several rows, to a multiple of which rows are padded: as many as
    /// leave the sums of 8 columns in the 15 vector registers that engines have on x86.
    const ROWS: usize = 4;
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

    /// The joined sum of both.
    #[inline(always)]
    fn add_sums(a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }

    /// What lanes begin with where activations have this (joined) sum, so that `offset` is
    /// subtracted from every code.
    #[inline(always)]
    fn start_lane(sum: i32, offset: i32) -> i32 {
        sum.wrapping_mul(-offset)
    }

    /// Sums that begin with these lanes.
    fn begin(lanes: <Self::I as Isa>::V) -> Self::Acc;

    /// [`Self::begin`] with [`Self::start_lane`].
    #[inline(always)]
    fn start(sum: i32, offset: i32) -> Self::Acc {
        Self::begin(Self::I::splat32(Self::start_lane(sum, offset)))
    }

    /// The sums of both.
    fn merge(a: Self::Acc, b: Self::Acc) -> Self::Acc;

    /// The sums of 4 columns as i32.
    fn total(consts: Self::Consts, acc: Self::Acc) -> <Self::I as Isa>::V;

    /// `sums + total(acc) * scales`, with scales as [`Self::scales`] gives them.
    fn add_scaled(
        sums: <Self::I as Isa>::V,
        acc: Self::Acc,
        scales: <Self::I as Isa>::V,
    ) -> <Self::I as Isa>::V;

    /// The i8 scales of 8 columns, for [`Self::add_scaled`].
    ///
    /// # Safety
    /// 8 bytes at `p` are readable.
    #[inline(always)]
    unsafe fn scales(p: *const u8) -> [<Self::I as Isa>::V; 2] {
        // SAFETY: the caller's.
        let s = unsafe { Self::I::load8x8(p) };
        [Self::I::extend_low16(s), Self::I::extend_high16(s)]
    }

    /// An i32 scale (of 16 bits) per column, for [`Self::add_scaled`].
    #[inline(always)]
    fn scale_of(scale: <Self::I as Isa>::V) -> <Self::I as Isa>::V {
        scale
    }

    /// The masks of [`Self::dot_field`], for each u16.
    const FIELD_MASKS: [u16; 4];
    /// By how many bits the products of [`Self::dot_field`] are shifted up.
    const FIELD_SHIFTS: [u32; 4];

    /// `acc + products` with the 2-bit codes in field `F` of each byte (bits 2 F and 2 F + 1), mostly
    /// where they are: the products come out as multiples, which costs one shift per sum instead
    /// of one per vector.
    fn dot_field<const F: usize>(
        acc: Self::Acc,
        codes: <Self::I as Isa>::V,
        mask: <Self::I as Isa>::V,
        act: Self::Act,
    ) -> Self::Acc;

    /// Sums over sub-blocks of the products of [`Self::dot_field`] times sub-scales.
    type FieldSums: Copy;
    /// Constant vectors that [`Self::add_fields`] uses.
    type FieldConsts: Copy;

    /// As [`Self::consts`].
    fn field_consts() -> Self::FieldConsts;

    /// No sums.
    fn begin_fields() -> Self::FieldSums;

    /// Adds the sums `acc` over 16 k of each of four fields, times the low nibble of byte f of each lane of
    /// `scales`.
    fn add_fields(
        consts: Self::FieldConsts,
        sums: Self::FieldSums,
        acc: [Self::Acc; 4],
        scales: <Self::I as Isa>::V,
    ) -> Self::FieldSums;

    /// The sums as i32.
    fn end_fields(sums: Self::FieldSums) -> <Self::I as Isa>::V;

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

    /// `acc + products` of one vector of a panel with the activations of its plane.
    fn dot_panel(acc: Self::Acc, panel: <Self::I as Isa>::V, act: <Self::I as Isa>::V) -> Self::Acc;

    /// One unit of codes 0..=127, spread for repeated use, to [`Self::PANEL_VECS`] vectors 32
    /// bytes apart (two units lie side by side).
    ///
    /// # Safety
    /// 16 bytes at each of these places from `p` are writable.
    unsafe fn store_panel_u7(p: *mut u8, codes: <Self::I as Isa>::V);
}

/// A path that also multiplies codes -128..=127.
pub trait SignedPath: DotPath {
    /// Adds the products of a tile of codes -128..=127 (8 groups of 4 units), plus
    /// [`Self::PANEL_OFFSET`] each, with 32 activations.
    ///
    /// # Safety
    /// 512 bytes at `tile` and `8 * ACT_BYTES` at `act` are readable.
    unsafe fn dot_tile_i8(consts: Self::Consts, acc: &mut [Self::Acc; 4], tile: *const u8, act: *const u8);

    /// What [`Self::dot_tile_i8`] and [`Self::store_panel_i8`] add to the codes.
    const PANEL_OFFSET: i32 = 0;

    /// As [`DotPath::dot_panel`], for what [`Self::store_panel_i8`] wrote.
    #[inline(always)]
    fn dot_panel_i8(acc: Self::Acc, panel: <Self::I as Isa>::V, act: <Self::I as Isa>::V) -> Self::Acc {
        Self::dot_panel(acc, panel, act)
    }

    /// One unit of codes -128..=127, as [`DotPath::store_panel_u7`].
    ///
    /// # Safety
    /// As [`DotPath::store_panel_u7`].
    unsafe fn store_panel_i8(p: *mut u8, codes: <Self::I as Isa>::V);
}

/// `sums + acc * scales` where all are i32.
#[inline(always)]
pub(super) fn add_scaled32<I: Isa>(sums: I::V, acc: I::V, scales: I::V) -> I::V {
    I::add32(sums, I::mul32(acc, scales))
}

/// `sum >> shift`, for the shifts of fields.
#[inline(always)]
pub(super) fn shifted_down<I: Isa>(sum: I::V, shift: u32) -> I::V {
    match shift {
        0 => sum,
        2 => I::sar32::<2>(sum),
        4 => I::sar32::<4>(sum),
        6 => I::sar32::<6>(sum),
        _ => unreachable!("fields are two bits apart"),
    }
}

/// `sum >> shift` in the upper half of the lane.
#[inline(always)]
fn shifted_high<I: Isa>(sum: I::V, shift: u32) -> I::V {
    match shift {
        0 => I::shl32::<16>(sum),
        2 => I::shl32::<14>(sum),
        4 => I::shl32::<12>(sum),
        6 => I::shl32::<10>(sum),
        _ => unreachable!("fields are two bits apart"),
    }
}

/// What [`add_fields32`] takes.
#[inline(always)]
pub(super) fn field_nibbles<I: Isa>() -> I::V {
    std::hint::black_box(I::splat16(0x000f))
}

/// [`DotPath::add_fields`] where all sums are i32: over 16 k they fit 16 bits, so that two of them share a product.
#[inline(always)]
pub(super) fn add_fields32<P: DotPath>(
    nibble: <P::I as Isa>::V,
    sums: <P::I as Isa>::V,
    [a, b, c, d]: [<P::I as Isa>::V; 4],
    scales: <P::I as Isa>::V,
) -> <P::I as Isa>::V {
    let shifts = P::FIELD_SHIFTS;
    let even = P::I::blend16(shifted_down::<P::I>(a, shifts[0]), shifted_high::<P::I>(c, shifts[2]));
    let odd = P::I::blend16(shifted_down::<P::I>(b, shifts[1]), shifted_high::<P::I>(d, shifts[3]));
    let even = P::I::dot16(even, P::I::and(scales, nibble));
    let odd = P::I::dot16(odd, P::I::and(P::I::shr16::<8>(scales), nibble));
    P::I::add32(sums, P::I::add32(even, odd))
}

/// The sums of fields of a path of `I` that adds them up as i32 ([`add_fields32`]); `$sums` gives them of its accumulators.
macro_rules! fields_in_i32 {
    ($sums:expr) => {
        type FieldSums = I::V;
        type FieldConsts = I::V;

        #[inline(always)]
        fn field_consts() -> I::V {
            $crate::kernels::path::field_nibbles::<I>()
        }

        #[inline(always)]
        fn begin_fields() -> I::V {
            I::splat32(0)
        }

        #[inline(always)]
        fn add_fields(nibble: I::V, sums: I::V, acc: [Self::Acc; 4], scales: I::V) -> I::V {
            $crate::kernels::path::add_fields32::<Self>(nibble, sums, acc.map($sums), scales)
        }

        #[inline(always)]
        fn end_fields(sums: I::V) -> I::V {
            sums
        }
    };
}
pub(super) use fields_in_i32;

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
    fn begin(lanes: I::V) -> I::V {
        lanes
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

    const FIELD_MASKS: [u16; 4] = [0x0003, 0x000c, 0x0030, 0x00c0];
    const FIELD_SHIFTS: [u32; 4] = [0, 2, 4, 6];

    fields_in_i32!(std::convert::identity);

    #[inline(always)]
    fn dot_field<const F: usize>(acc: I::V, codes: I::V, mask: I::V, act: Self::Act) -> I::V {
        let acc = I::add32(acc, I::dot16(I::and(codes, mask), act.0));
        I::add32(acc, I::dot16(I::and(I::shr16::<8>(codes), mask), act.1))
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
    fn dot_panel(acc: I::V, panel: I::V, act: I::V) -> I::V {
        I::add32(acc, I::dot16(panel, act))
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
