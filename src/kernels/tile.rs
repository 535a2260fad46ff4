//! The integer tiles of `repack`, as the drivers see them: 16 columns x 32 k of codes, then
//! 16 scales. To add a code width: a layout in `repack` and an implementation here.

use super::isa::Isa;
use super::path::{DotPath, SignedPath};
use crate::repack::{Packing, bit_tile};

/// What makes f32 of f16.
pub struct HalfConsts<I: Isa> {
    /// Sign, exponent and mantissa once they are in place.
    mask: I::V,
    /// 2^112, the difference of the exponents' biases.
    up: I::F,
}

impl<I: Isa> Clone for HalfConsts<I> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<I: Isa> Copy for HalfConsts<I> {}

impl<I: Isa> HalfConsts<I> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        use std::hint::black_box;
        let up = f32::from_bits((127 + 112) << 23);
        HalfConsts { mask: black_box(I::splat32(0x8fff_e000_u32 as i32)), up: black_box(I::fsplat(up)) }
    }

    /// The f16 in the low and in the high half of each lane; subnormal ones too, but neither infinity nor NaN.
    #[inline(always)]
    pub(super) fn floats(self, halves: I::V) -> [I::F; 2] {
        // The exponent's 5 bits become the lowest of f32's 8; between them and the sign the mask clears its copies.
        let float = |high: I::V| I::fmul(I::from_bits(I::and(I::sar32::<3>(high), self.mask)), self.up);
        [float(I::shl32::<16>(halves)), float(halves)]
    }
}

/// One integer packing, as `P` multiplies it.
pub trait Tile<P: DotPath>: 'static {
    /// Which one.
    const PACKING: Packing;
    /// Subtracted from every code.
    const OFFSET: i32;

    /// Where the codes and the 16 scales of tile `t` are in a strip.
    #[inline(always)]
    fn place(t: usize) -> (usize, usize) {
        let at = t * Self::PACKING.tile_bytes();
        (at, at + Self::PACKING.tile_code_bytes())
    }

    /// What [`Self::scales`] uses, opaque to the compiler (see [`DotPath::consts`]).
    #[inline(always)]
    fn scale_consts() -> HalfConsts<P::I> {
        HalfConsts::new()
    }

    /// The 8 scales of half a tile, of those that [`Self::place`] gives the place of.
    ///
    /// # Safety
    /// All 16 at `scales` are readable; half < 2.
    #[inline(always)]
    unsafe fn scales(consts: HalfConsts<P::I>, scales: *const u8, half: usize) -> [<P::I as Isa>::F; 2] {
        // SAFETY: the caller's.
        unsafe {
            if Self::PACKING.has_half_scales() {
                return consts.floats(P::I::load(scales.add(16 * half)));
            }
            let scales = scales.cast::<f32>().add(8 * half);
            [P::I::fload(scales), P::I::fload(scales.add(4))]
        }
    }

    /// Adds the products of the tile with 32 activations (`act`, the path's layout) to the
    /// sums of 16 columns, four per vector.
    ///
    /// # Safety
    /// A whole tile at `tile` and `8 * P::ACT_BYTES` bytes at `act` are readable.
    unsafe fn dot(consts: P::Consts, acc: &mut [P::Acc; 4], tile: *const u8, act: *const u8);

    /// Spreads 8 columns (`half` 0 or 1) of the tile into a panel: for each of 8 groups of 4 k,
    /// two units of `P::PANEL_VECS` vectors.
    ///
    /// # Safety
    /// A whole tile at `tile` is readable and `256 * P::PANEL_VECS` bytes at `panel` writable.
    unsafe fn unpack(tile: *const u8, half: usize, panel: *mut u8);

    /// What has to be subtracted from every code of the panel.
    const PANEL_OFFSET: i32 = Self::OFFSET;

    /// [`DotPath::dot_panel`] for what [`Self::unpack`] wrote.
    #[inline(always)]
    fn dot_panel(acc: P::Acc, panel: <P::I as Isa>::V, act: <P::I as Isa>::V) -> P::Acc {
        P::dot_panel(acc, panel, act)
    }
}

/// 4-bit codes with offset 8.
pub struct TileU4;

impl<P: DotPath> Tile<P> for TileU4 {
    const PACKING: Packing = Packing::U4;
    const OFFSET: i32 = 8;

    #[inline(always)]
    unsafe fn dot(consts: P::Consts, acc: &mut [P::Acc; 4], tile: *const u8, act: *const u8) {
        // Groups at once: as many as leave registers for the sums. The number of rounds is unknown to
        // the compiler, which would unroll the loop, hoist all loads and spill.
        const fn groups(act_bytes: usize) -> usize {
            8 / act_bytes
        }
        let (mut tile, mut act) = (tile, act);
        for _ in 0..std::hint::black_box(4 / groups(P::ACT_BYTES)) {
            // SAFETY: 4 groups of the tile in all, and the 8 activation groups.
            unsafe {
                let load = |g: usize| P::load_act(act.add(g * P::ACT_BYTES));
                if groups(P::ACT_BYTES) == 2 {
                    let (lo, hi) = ([load(0), load(1)], [load(4), load(5)]);
                    for (c, acc) in acc.iter_mut().enumerate() {
                        let codes = [P::I::load(tile.add(c * 16)), P::I::load(tile.add(64 + c * 16))];
                        let first = P::dot_nibbles(consts, *acc, codes[0], lo[0], hi[0]);
                        *acc = P::dot_nibbles(consts, first, codes[1], lo[1], hi[1]);
                    }
                } else {
                    let (lo, hi) = (load(0), load(4));
                    for (c, acc) in acc.iter_mut().enumerate() {
                        *acc = P::dot_nibbles(consts, *acc, P::I::load(tile.add(c * 16)), lo, hi);
                    }
                }
                tile = tile.add(64 * groups(P::ACT_BYTES));
                act = act.add(8);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(tile: *const u8, half: usize, panel: *mut u8) {
        let group = 32 * P::PANEL_VECS;
        let mask = P::I::splat16(0x0f0f);
        for g in 0..4 {
            for c in 0..2 {
                // SAFETY: within the tile; groups g and 4 + g within the panel's 8.
                unsafe {
                    let codes = P::I::load(tile.add(g * 64 + half * 32 + c * 16));
                    let high = P::I::and(P::I::shr16::<4>(codes), mask);
                    P::store_panel_u7(panel.add(g * group + c * 16), P::I::and(codes, mask));
                    P::store_panel_u7(panel.add((4 + g) * group + c * 16), high);
                }
            }
        }
    }
}

macro_rules! signed_bytes {
    ($($(#[$doc:meta])* $name:ident: $packing:ident;)*) => { $(
        $(#[$doc])*
        pub struct $name;

        impl<P: SignedPath> Tile<P> for $name {
            const PACKING: Packing = Packing::$packing;
            const OFFSET: i32 = P::PANEL_OFFSET;

            #[inline(always)]
            unsafe fn dot(consts: P::Consts, acc: &mut [P::Acc; 4], tile: *const u8, act: *const u8) {
                // SAFETY: the caller's.
                unsafe { P::dot_tile_i8(consts, acc, tile, act) }
            }

            #[inline(always)]
            unsafe fn unpack(tile: *const u8, half: usize, panel: *mut u8) {
                for g in 0..8 {
                    for c in 0..2 {
                        // SAFETY: within the tile and the panel.
                        unsafe {
                            let codes = P::I::load(tile.add(g * 64 + half * 32 + c * 16));
                            P::store_panel_i8(panel.add(g * 32 * P::PANEL_VECS + c * 16), codes);
                        }
                    }
                }
            }

            const PANEL_OFFSET: i32 = P::PANEL_OFFSET;

            #[inline(always)]
            fn dot_panel(acc: P::Acc, panel: <P::I as Isa>::V, act: <P::I as Isa>::V) -> P::Acc {
                P::dot_panel_i8(acc, panel, act)
            }
        }
    )* };
}

signed_bytes! {
    /// 8-bit signed codes, scales as f32.
    TileI8: I8;
    /// 8-bit signed codes, scales as f16.
    TileI8Half: I8Half;
}

/// Signs, as codes 0 and 2 with offset 1.
pub struct TileBits;

impl TileBits {
    /// The codes of group `2 v + HALF` of 4 k and column group `c`.
    ///
    /// # Safety
    /// A whole tile at `tile` is readable; v and c below 4.
    #[inline(always)]
    unsafe fn unit<I: Isa, const HALF: usize>(tile: *const u8, v: usize, c: usize) -> I::V {
        // SAFETY: the caller's.
        let bits = unsafe { I::load(tile.add(16 * v)) };
        let nibbles = match 2 * c + HALF {
            0 => bits,
            1 => I::sar32::<4>(bits),
            2 => I::sar32::<8>(bits),
            3 => I::sar32::<12>(bits),
            4 => I::sar32::<16>(bits),
            5 => I::sar32::<20>(bits),
            6 => I::sar32::<24>(bits),
            _ => I::sar32::<28>(bits),
        };
        // Bit b of the nibble goes to bit 1 of byte b.
        let spread = I::mul32(I::and(nibbles, I::splat32(15)), I::splat32(0x0040_8102));
        I::and(spread, I::splat16(0x0202))
    }
}

impl<P: DotPath> Tile<P> for TileBits {
    const PACKING: Packing = Packing::Bits;
    const OFFSET: i32 = 1;

    #[inline(always)]
    fn place(t: usize) -> (usize, usize) {
        bit_tile(t)
    }

    #[inline(always)]
    unsafe fn dot(_: P::Consts, acc: &mut [P::Acc; 4], tile: *const u8, act: *const u8) {
        for v in 0..4 {
            // SAFETY: 8 groups, four column groups.
            unsafe {
                let low = P::load_act(act.add(2 * v * P::ACT_BYTES));
                let high = P::load_act(act.add((2 * v + 1) * P::ACT_BYTES));
                for (c, acc) in acc.iter_mut().enumerate() {
                    *acc = P::dot_u7(*acc, Self::unit::<P::I, 0>(tile, v, c), low);
                    *acc = P::dot_u7(*acc, Self::unit::<P::I, 1>(tile, v, c), high);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(tile: *const u8, half: usize, panel: *mut u8) {
        let group = 32 * P::PANEL_VECS;
        for v in 0..4 {
            for c in 0..2 {
                // SAFETY: within the tile and the panel's 8 groups.
                unsafe {
                    let to = panel.add(2 * v * group + c * 16);
                    P::store_panel_u7(to, Self::unit::<P::I, 0>(tile, v, half * 2 + c));
                    P::store_panel_u7(to.add(group), Self::unit::<P::I, 1>(tile, v, half * 2 + c));
                }
            }
        }
    }
}
