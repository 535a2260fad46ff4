//! One row of activations times one-bit weights by table: four bits of a column pick one of 16
//! sums of four signed activations, so that one lookup does the work of four products.
//!
//! A sum of four codes lies within +-508, too wide for a byte. It is kept as `32 h + l` in two
//! tables of bytes, h in -16..=15 and l in 0..=31, whose sums over the 8 groups of a tile are
//! bytes again: nothing widens within 32 k, and nothing is rounded.

use super::act::Coded;
use super::isa::Isa;
use super::output::Output;
use super::path::{DotPath, P16};
use crate::repack::{BIT_SCALE_K, NR, PackedWeights, Packing, TILE_K, bit_tile};
use std::ops::Range;

/// Groups of 4 k per tile.
const GROUPS: usize = TILE_K / 4;
/// Bytes of the two tables of a group.
const TABLE_BYTES: usize = 32;

/// The tables of one row.
#[derive(Default)]
pub struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Makes the tables of activations coded for [`P16`].
    pub fn fill<I: Isa>(&mut self, act: &Coded) {
        let groups = act.codes.as_chunks::<8>().0;
        self.bytes.resize(groups.len() * TABLE_BYTES, 0);
        let plus = |bit: bool| if bit { 1u32 } else { 0xffff };
        let signs = |a: bool, b: bool| plus(a) | plus(b) << 16;
        // Lanes are the entries 4 q ..: bits 0 and 1 differ between lanes, bits 2 and 3 with q.
        let lanes = |f: &dyn Fn(usize) -> u32| {
            let lanes: [u32; 4] = std::array::from_fn(f);
            // SAFETY: 16 bytes.
            unsafe { I::load(lanes.as_ptr().cast()) }
        };
        let even = [false, true].map(|bit2| lanes(&|i| signs(i & 1 != 0, bit2)));
        let odd = [false, true].map(|bit3| lanes(&|i| signs(i & 2 != 0, bit3)));
        let low = I::splat16(31);
        for (group, to) in groups.iter().zip(self.bytes.as_chunks_mut::<TABLE_BYTES>().0) {
            // SAFETY: 8 bytes of activations, 32 of tables.
            unsafe {
                let (a, b) = P16::<I>::load_act(group.as_ptr());
                let sums = |q: usize| I::add32(I::dot16(a, even[q & 1]), I::dot16(b, odd[q >> 1]));
                let first = I::narrow16(sums(0), sums(1));
                let second = I::narrow16(sums(2), sums(3));
                let to = to.as_mut_ptr();
                I::store(to, I::narrow8(I::and(first, low), I::and(second, low)));
                I::store(to.add(16), I::narrow8(I::sar16::<5>(first), I::sar16::<5>(second)));
            }
        }
    }
}

/// The strips' columns of `out[n] = act[k] . w[n, k]`; `act` is coded for [`P16`] over 32 k.
///
/// One strip after the other: several at once would read each table once for all of them, but as many streams of
/// memory come at little more than half the rate of one.
pub fn gemv<I: Isa>(tables: &Tables, act: &Coded, w: &PackedWeights, strips: Range<usize>, out: Output) {
    assert!(w.packing() == Packing::Bits && tables.bytes.len() == w.k() / 4 * TABLE_BYTES);
    assert!(out.n() == w.n() && strips.end <= w.n_strips() && act.scales(0).len() == w.k() / TILE_K);
    for i in strips {
        let mut columns = [0f32; NR];
        // SAFETY: the strip holds k bits per column, tables and scales cover k (asserted).
        unsafe { strip_sums::<I>(tables, act, w.strip(i).as_ptr(), &mut columns) };
        out.write_strip(i, &columns);
    }
}

/// # Safety
/// `strip` holds as many tiles as `act` has scales, `tables` as many times 8 tables.
#[inline(always)]
unsafe fn strip_sums<I: Isa>(tables: &Tables, act: &Coded, strip: *const u8, out: &mut [f32; NR]) {
    let mut total = [I::fsplat(0.0); 4];
    let nibble = std::hint::black_box(I::splat16(0x0f0f));
    let high_byte = std::hint::black_box(I::splat16(0xff00));
    let rounds = std::hint::black_box(GROUPS / 2);
    let mut table = tables.bytes.as_ptr();
    for (t, &d) in act.scales(0).iter().enumerate() {
        let (codes_at, scales_at) = bit_tile(t);
        // SAFETY: tile t of the strip, and its 8 tables.
        unsafe {
            let (mut low, mut high) = (I::splat32(0), I::splat32(0));
            let mut codes = strip.add(codes_at);
            for _ in 0..rounds {
                let groups = I::load(codes);
                let first = I::and(groups, nibble);
                low = I::add8(low, I::lookup(I::load(table), first));
                high = I::add8(high, I::lookup(I::load(table.add(16)), first));
                let second = I::and(I::shr16::<4>(groups), nibble);
                low = I::add8(low, I::lookup(I::load(table.add(32)), second));
                high = I::add8(high, I::lookup(I::load(table.add(48)), second));
                table = table.add(2 * TABLE_BYTES);
                codes = codes.add(16);
            }
            let d = I::fsplat(d);
            let scales = strip.add(scales_at).cast::<f32>();
            for (c, sums) in widen::<I>(low, high, high_byte).into_iter().enumerate() {
                let scale = I::fmul(I::fload(scales.add(4 * c)), d);
                total[c] = I::fadd(total[c], I::fmul(I::to_float(sums), scale));
            }
        }
    }
    for (c, &total) in total.iter().enumerate() {
        // SAFETY: 16 floats in out.
        unsafe { I::fstore(out.as_mut_ptr().add(4 * c), total) };
    }
}

/// `32 high + low` of 16 bytes as i32: byte 4 i + c goes to lane i of vector c.
#[inline(always)]
fn widen<I: Isa>(low: I::V, high: I::V, high_byte: I::V) -> [I::V; 4] {
    let even = I::add16(I::sar16::<3>(I::shl16::<8>(high)), I::shr16::<8>(I::shl16::<8>(low)));
    let odd = I::add16(I::sar16::<3>(I::and(high, high_byte)), I::shr16::<8>(low));
    let first = |v: I::V| I::sar32::<16>(I::shl32::<16>(v));
    [first(even), first(odd), I::sar32::<16>(even), I::sar32::<16>(odd)]
}

const _: () = assert!(BIT_SCALE_K.is_multiple_of(TILE_K));
