//! Keys and values as codes: all products are of bytes, summed as integers.

use super::cache::{BLOCK, CODE_GROUP, COLUMNS};
use super::code::{self, Coding};
use super::{Buffers, Tile};
use crate::kernels::act::MR;
use crate::kernels::isa::Isa;
use crate::kernels::path::DotPath;
use crate::kernels::vecmath;
use half::bf16;
use std::array;
use std::hint::black_box;

/// How the codes lie in bytes.
pub(super) trait Codes {
    const CODING: Coding;
    /// Groups of four that 16 bytes hold.
    const GROUPS: usize;

    /// `acc + products` of 16 bytes with group `g` of the activations at `act`, and, where a byte holds two
    /// codes, group `g + half`.
    ///
    /// # Safety
    /// These groups are readable.
    unsafe fn dot<P: DotPath>(
        consts: P::Consts,
        acc: P::Acc,
        codes: <P::I as Isa>::V,
        act: *const u8,
        half: usize,
    ) -> P::Acc;
}

pub(super) struct Bytes;
pub(super) struct Nibbles;

impl Codes for Bytes {
    const CODING: Coding = code::BYTES;
    const GROUPS: usize = 1;

    #[inline(always)]
    unsafe fn dot<P: DotPath>(
        _: P::Consts,
        acc: P::Acc,
        codes: <P::I as Isa>::V,
        act: *const u8,
        _: usize,
    ) -> P::Acc {
        // SAFETY: the caller's.
        P::dot_u7(acc, codes, unsafe { P::load_act(act) })
    }
}

impl Codes for Nibbles {
    const CODING: Coding = code::NIBBLES;
    const GROUPS: usize = 2;

    #[inline(always)]
    unsafe fn dot<P: DotPath>(
        consts: P::Consts,
        acc: P::Acc,
        codes: <P::I as Isa>::V,
        act: *const u8,
        half: usize,
    ) -> P::Acc {
        // SAFETY: the caller's.
        let (low, high) = unsafe { (P::load_act(act), P::load_act(act.add(half * P::ACT_BYTES))) };
        P::dot_nibbles(consts, acc, codes, low, high)
    }
}

/// More loads than there ever are for a sum.
const ALL: usize = 1 << 16;

/// Loads of 16 bytes after which sums have to be widened.
#[inline(always)]
fn loads_at_once<P: DotPath, B: Codes>() -> usize {
    let holds = |n: &usize| P::holds(n * 4 * B::GROUPS, B::CODING.max, 0);
    [ALL, 8, 4, 2].into_iter().find(holds).unwrap_or(1)
}

/// Sums of `n` loads for `C` vectors, which lie side by side every `stride` bytes, with `R` rows of
/// activations, `act_stride` bytes apart. The compiler shall not know `n`, so that loops stay rolled: unrolled ones keep
/// more alive than there are registers.
///
/// # Safety
/// All of that is readable.
#[inline(always)]
unsafe fn dots<P: DotPath, B: Codes, const R: usize, const C: usize>(
    consts: P::Consts,
    w: *const u8,
    stride: usize,
    n: usize,
    act: *const u8,
    act_stride: usize,
) -> [[<P::I as Isa>::V; C]; R] {
    let at_once = loads_at_once::<P, B>();
    let zero = P::I::splat32(0);
    let mut sums = [[zero; C]; R];
    if at_once == 1 {
        // No sums besides: there are no registers for them.
        for g in 0..n {
            // SAFETY: the caller's.
            unsafe {
                let codes: [_; C] = array::from_fn(|c| P::I::load(w.add(g * stride + c * 16)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let act = act.add(r * act_stride + g * P::ACT_BYTES);
                    for (sum, codes) in sums.iter_mut().zip(codes) {
                        let acc = B::dot::<P>(consts, P::begin(zero), codes, act, n);
                        *sum = P::I::add32(*sum, P::total(consts, acc));
                    }
                }
            }
        }
        return sums;
    }
    let mut first = 0;
    loop {
        // Where one turn is enough, as the compiler sees, there are no second sums, either.
        let end = if at_once == ALL { n } else { n.min(first + at_once) };
        let mut acc: [[P::Acc; C]; R] = array::from_fn(|_| array::from_fn(|_| P::begin(zero)));
        for g in first..end {
            // SAFETY: the caller's.
            unsafe {
                let codes: [_; C] = array::from_fn(|c| P::I::load(w.add(g * stride + c * 16)));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let act = act.add(r * act_stride + g * P::ACT_BYTES);
                    for (acc, codes) in acc.iter_mut().zip(codes) {
                        *acc = B::dot::<P>(consts, *acc, codes, act, n);
                    }
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (sum, acc) in sums.iter_mut().zip(acc) {
                let total = P::total(consts, acc);
                *sum = if at_once == ALL { total } else { P::I::add32(*sum, total) };
            }
        }
        first = end;
        if at_once == ALL || first >= n {
            return sums;
        }
    }
}

/// Where the codes of a number begin in a block of values of `n` loads per vector; `column` is a multiple of 4.
#[inline(always)]
fn column_at(column: usize, n: usize) -> usize {
    column / COLUMNS * n * 4 * COLUMNS + column % COLUMNS * 4
}

/// Rows of activations.
#[derive(Clone, Copy, Default)]
struct Rows {
    scales: [f32; MR],
    /// Of the codes.
    sums: [i32; MR],
}

/// Writes the weights of a block, times the scales of values, as codes in the layout of `P`; gives their scale, the
/// sum of the codes, and the sum of weights times middles. `ranges` are as long as `weights`.
#[inline(always)]
fn weight_codes<P: DotPath>(
    weights: &[f32],
    ranges: [&[bf16]; 2],
    finer: bool,
    to: &mut [u8],
) -> (f32, i32, f32) {
    const N: usize = BLOCK / 4;
    assert!(weights.len() == BLOCK && ranges.iter().all(|range| range.len() == BLOCK));
    assert!(to.len() >= BLOCK / 4 * P::ACT_BYTES);
    let zero = P::I::fsplat(0.0);
    let [mut middles, mut all, mut most] = [zero; 3];
    let scaled: [_; N] = array::from_fn(|i| {
        // SAFETY: four of each.
        unsafe {
            let weight = P::I::fload(weights.as_ptr().add(4 * i));
            let [scale, middle] = ranges.map(|range| P::I::load_bf16(range.as_ptr().add(4 * i).cast()));
            // Where nothing is seen the range may be anything.
            let seen = P::I::flt(zero, weight);
            let times = |x| P::I::fmul(weight, P::I::from_bits(P::I::and(seen, P::I::bits(x))));
            let scaled = times(scale);
            middles = P::I::fadd(middles, times(middle));
            all = P::I::fadd(all, scaled);
            most = P::I::fmax(most, scaled);
            scaled
        }
    });
    // 0 times infinity or NaN is NaN.
    let amax = P::I::fhmax(most) + 0.0 * P::I::fsum(all);
    let (steps, offset) = if finer { (2.0 * 127.0, code::SHARE_OFFSET) } else { (127.0, 0) };
    let inv = P::I::fsplat(if amax > 0.0 { steps / amax } else { 0.0 });
    let below = P::I::fsplat(offset as f32);
    let mut sums = P::I::splat32(0);
    for (i, &[a, b]) in scaled.as_chunks::<2>().0.iter().enumerate() {
        let [a, b] = [a, b].map(|x| P::I::round(P::I::fsub(P::I::fmul(x, inv), below)));
        sums = P::I::add32(sums, P::I::add32(a, b));
        // SAFETY: two groups of 4 codes of `to`, whose length is asserted.
        unsafe {
            let p = to.as_mut_ptr().add(2 * i * P::ACT_BYTES);
            P::store_act(p, p.add(P::ACT_BYTES), 4, a, b);
        }
    }
    (amax / steps, P::I::sum32(sums).wrapping_add(offset * BLOCK as i32), P::I::fsum(middles))
}

impl Tile<'_> {
    /// `b.scores = q . k` for all blocks.
    pub(super) fn scores_of_codes<P: DotPath, B: Codes>(&self, b: &mut Buffers) {
        let (d, dim) = (self.kv.head_dim, self.kv.dim);
        let act_stride = dim / 4 * P::ACT_BYTES;
        b.codes.resize(MR * act_stride, 0);
        b.panel.clear();
        b.panel.resize(dim, 0.0);
        let mut rows = Rows::default();
        for r in 0..self.rows {
            b.panel[..d].copy_from_slice(&b.q[r * d..][..d]);
            code::rotate_key(&mut b.panel[..d]);
            let to = &mut b.codes[r * act_stride..][..act_stride];
            (rows.scales[r], rows.sums[r]) = code::activations::<P>(&b.panel, to);
        }
        match self.rows {
            1 => self.score_rows::<P, B, 1, 4>(b, &rows, act_stride),
            2 => self.score_rows::<P, B, 2, 4>(b, &rows, act_stride),
            3 => self.score_rows::<P, B, 3, 2>(b, &rows, act_stride),
            _ => self.score_rows::<P, B, 4, 2>(b, &rows, act_stride),
        }
    }

    /// Apart from the others, as is [`Self::sum_rows`]: in one large function engines keep less in registers.
    #[inline(never)]
    fn score_rows<P: DotPath, B: Codes, const R: usize, const C: usize>(
        &self,
        b: &mut Buffers,
        rows: &Rows,
        act_stride: usize,
    ) {
        const GROUPS: usize = BLOCK / CODE_GROUP;
        let (dim, n_ctx) = (self.kv.dim, self.kv.n_ctx);
        let (consts, n) = (P::consts(), black_box(dim / 4 / B::GROUPS));
        let (keys, ranges) = (self.kv.keys(self.head), self.kv.key_ranges(self.head));
        let end = self.visible.iter().map(|seen| seen.end).max().unwrap_or(0);
        for group in self.blocks.start * GROUPS..end.div_ceil(CODE_GROUP) {
            let keys = &keys[group * n * 64..][..n * 64];
            for first in (0..4).step_by(C) {
                let token = group * CODE_GROUP + 4 * first;
                let ranges = [&ranges[token..][..4 * C], &ranges[n_ctx + token..][..4 * C]];
                // SAFETY: n loads of C of the 4 vectors of the group; R rows of codes; a row of scores
                // has room for all tokens.
                unsafe {
                    let keys = keys.as_ptr().add(first * 16);
                    let sums = dots::<P, B, R, C>(consts, keys, 64, n, b.codes.as_ptr(), act_stride);
                    let ranges: [[_; 2]; C] = array::from_fn(|c| {
                        let [scale, middle] =
                            ranges.map(|range| P::I::load_bf16(range.as_ptr().add(4 * c).cast()));
                        B::CODING.line::<P::I>(scale, middle)
                    });
                    for (r, sums) in sums.into_iter().enumerate() {
                        let to = &mut b.scores[r * n_ctx + token..][..4 * C];
                        let scale = P::I::fsplat(rows.scales[r]);
                        let act_sum = P::I::fsplat(rows.sums[r] as f32);
                        for (c, (sum, [slope, base])) in sums.into_iter().zip(ranges).enumerate() {
                            let sum = P::I::fmul(P::I::to_float(sum), slope);
                            let sum = P::I::fadd(sum, P::I::fmul(act_sum, base));
                            P::I::fstore(to.as_mut_ptr().add(4 * c), P::I::fmul(sum, scale));
                        }
                    }
                }
            }
        }
    }

    /// `b.out = weights . v`, the weights being `b.scores`.
    pub(super) fn sum_codes<P: DotPath, B: Codes>(&self, b: &mut Buffers) {
        if self.finer && b.lacking_of != Some(self.head) {
            self.fill_lacking::<P, B>(b);
        }
        let bases = match self.rows {
            1 => self.sum_rows::<P, B, 1, 4>(b),
            2 => self.sum_rows::<P, B, 2, 4>(b),
            3 => self.sum_rows::<P, B, 3, 2>(b),
            _ => self.sum_rows::<P, B, 4, 2>(b),
        };
        let (d, dim) = (self.kv.head_dim, self.kv.dim);
        for (r, base) in bases.into_iter().enumerate().take(self.rows) {
            let out = &mut b.out[r * dim..][..d];
            vecmath::offset::<P::I>(out, base);
            code::rotate(out);
        }
    }

    /// What sums of values lack where the codes of weights begin at -127: the values' own codes times 127.
    fn fill_lacking<P: DotPath, B: Codes>(&self, b: &mut Buffers) {
        const { assert!(code::SHARE_OFFSET == 127) };
        let (dim, consts, n) = (self.kv.dim, P::consts(), black_box(BLOCK / 4 / B::GROUPS));
        let act_stride = BLOCK / 4 * P::ACT_BYTES;
        b.codes.resize((MR * act_stride).max(b.codes.len()), 0);
        // Ones become the largest code.
        code::activations::<P>(&[1.0; BLOCK], &mut b.codes[..act_stride]);
        b.lacking.resize(self.kv.n_ctx / BLOCK * dim, 0);
        let blocks = self.kv.values(self.head).chunks_exact(4 * n * dim);
        for (values, to) in blocks.zip(b.lacking.chunks_exact_mut(dim)) {
            for column in (0..dim).step_by(4) {
                // SAFETY: n loads of one of the dim / 4 vectors of each; one row of codes; four sums.
                unsafe {
                    let values = values.as_ptr().add(column_at(column, n));
                    let [[sum]] =
                        dots::<P, B, 1, 1>(consts, values, 4 * COLUMNS, n, b.codes.as_ptr(), act_stride);
                    P::I::store(to.as_mut_ptr().add(column).cast(), sum);
                }
            }
        }
        b.lacking_of = Some(self.head);
    }

    /// Leaves what depends on columns in `b.out`; gives what has to be added to all of a row.
    #[inline(never)]
    fn sum_rows<P: DotPath, B: Codes, const R: usize, const C: usize>(&self, b: &mut Buffers) -> [f32; MR] {
        let (dim, n_ctx) = (self.kv.dim, self.kv.n_ctx);
        let act_stride = BLOCK / 4 * P::ACT_BYTES;
        let (consts, n) = (P::consts(), black_box(BLOCK / 4 / B::GROUPS));
        let (values, ranges) = (self.kv.values(self.head), self.kv.value_ranges(self.head));
        b.codes.resize((MR * act_stride).max(b.codes.len()), 0);
        let mut bases = [0f32; MR];
        for block in self.blocks.clone() {
            let mut slopes = [0f32; R];
            let tokens = block * BLOCK..(block + 1) * BLOCK;
            let ranges = [&ranges[tokens.clone()], &ranges[n_ctx..][tokens.clone()]];
            for r in 0..R {
                let scores = &b.scores[r * n_ctx..][tokens.clone()];
                let to = &mut b.codes[r * act_stride..][..act_stride];
                let (scale, sum, middles) = weight_codes::<P>(scores, ranges, self.finer, to);
                let [slope, base] = B::CODING.line_of(scale);
                slopes[r] = slope;
                bases[r] += sum as f32 * base + middles;
            }
            let values = &values[block * n * dim * 4..][..n * dim * 4];
            assert!(b.out.len() >= R * dim);
            let out = b.out.as_mut_ptr();
            for first in (0..dim / 4).step_by(C) {
                // SAFETY: n loads of C of the dim / 4 vectors of each; R rows of codes and of results (asserted).
                unsafe {
                    let values = values.as_ptr().add(column_at(4 * first, n));
                    let mut sums =
                        dots::<P, B, R, C>(consts, values, 4 * COLUMNS, n, b.codes.as_ptr(), act_stride);
                    if self.finer {
                        let lacking = &b.lacking[block * dim + 4 * first..][..4 * C];
                        let lacking: [_; C] =
                            array::from_fn(|c| P::I::load(lacking.as_ptr().add(4 * c).cast()));
                        for sums in &mut sums {
                            sums.iter_mut().zip(lacking).for_each(|(sum, x)| *sum = P::I::add32(*sum, x));
                        }
                    }
                    for (r, sums) in sums.into_iter().enumerate() {
                        let slope = P::I::fsplat(slopes[r]);
                        for (c, sum) in sums.into_iter().enumerate() {
                            let p = out.add(r * dim + 4 * (first + c));
                            let sum = P::I::fmul(P::I::to_float(sum), slope);
                            P::I::fstore(p, P::I::fadd(P::I::fload(p), sum));
                        }
                    }
                }
            }
        }
        bases
    }
}
