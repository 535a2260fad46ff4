//! How keys and values come into the cache.

use super::cache::{KvCache, KvType, Layout, Place};
use super::code::{BYTES, Coder};
use crate::kernels::isa::{Isa, Native};
use crate::kernels::parallel::{self, Shared, work};
use half::{bf16, f16};
use std::cell::RefCell;

/// Tokens whose values lie in the same bytes.
const FOUR: usize = 4;

/// What storing needs; one per thread, kept.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    bytes: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// The keys or the values of a head, and the ranges of their codes.
struct Side<'a> {
    bytes: &'a mut [u8],
    ranges: &'a mut [bf16],
}

impl KvCache {
    /// Stores the keys and values of tokens from `pos` on. Each token's are `[n_head_kv, head_dim]`;
    /// those of the next begin `stride` numbers later.
    ///
    /// # Panics
    /// Where they do not fit: a bug in the caller.
    pub fn store(&mut self, pos: usize, k: &[f32], v: &[f32], stride: usize) {
        let (width, d) = (self.n_embd(), self.head_dim);
        // The last token need not fill its stride.
        let n = v.len().div_ceil(stride.max(1));
        let len = n.saturating_sub(1) * stride + width;
        assert!(n > 0 && k.len() >= len && v.len() >= len && pos + n <= self.n_ctx, "no room for these keys");
        let layout = Layout::of(self);
        let (n_head_kv, n_ctx, head_bytes) = (self.n_head_kv, self.n_ctx, layout.head_bytes());
        let coded = self.kv_type.is_coded();
        let ranges = |head: usize| if coded { 2 * head * n_ctx..2 * (head + 1) * n_ctx } else { 0..0 };
        let (ks, vs) = (Shared::new(&mut self.k), Shared::new(&mut self.v));
        let (k_ranges, v_ranges) = (Shared::new(&mut self.k_ranges), Shared::new(&mut self.v_ranges));
        // Keys and values of a head apart: with few heads threads have more to share.
        parallel::ranges(2 * n_head_kv, n * d * work::ROUND, &|sides| {
            BUFFERS.with_borrow_mut(|b| {
                for side in sides {
                    let (head, is_value) = (side / 2, side % 2 == 1);
                    let bytes = head * head_bytes..(head + 1) * head_bytes;
                    let of = |i: usize| i * stride + head * d..i * stride + (head + 1) * d;
                    if !is_value {
                        // SAFETY: the keys of a head are in one range only.
                        let (bytes, ranges) = unsafe { (ks.part(bytes), k_ranges.part(ranges(head))) };
                        let mut keys = Side { bytes, ranges };
                        for i in 0..n {
                            layout.put(layout.key(pos + i), &k[of(i)], &mut keys, b);
                        }
                        continue;
                    }
                    // SAFETY: as are its values.
                    let (bytes, ranges) = unsafe { (vs.part(bytes), v_ranges.part(ranges(head))) };
                    let mut values = Side { bytes, ranges };
                    let mut i = 0;
                    while i < n {
                        if (pos + i).is_multiple_of(FOUR) && i + FOUR <= n && layout.takes_four(d) {
                            let four = [0, 1, 2, 3].map(|j| &v[of(i + j)]);
                            layout.put_values(pos + i, four, &mut values, b);
                            i += FOUR;
                        } else {
                            layout.put(layout.value(pos + i), &v[of(i)], &mut values, b);
                            i += 1;
                        }
                    }
                }
            });
        });
    }
}

impl Layout {
    /// Stores the numbers `x` of a head at a place, and the range of their codes.
    fn put(self, place: Place, x: &[f32], to: &mut Side, b: &mut Buffers) {
        b.bytes.clear();
        match self.kv_type.coding() {
            Some(coding) => {
                b.x.clear();
                b.x.extend_from_slice(x);
                place.rotate(&mut b.x);
                let range = coding.range(&b.x);
                coding.encode(&b.x, range, &mut b.bytes);
                (to.ranges[place.pos], to.ranges[self.n_ctx + place.pos]) = (range.scale, range.middle);
                b.bytes.resize(self.dim, 0);
                if self.kv_type == KvType::Q4_0 && place.nibble.is_none() {
                    let half = self.dim / 2;
                    (0..half).for_each(|i| b.bytes[i] |= b.bytes[i + half] << 4);
                    b.bytes.truncate(half);
                }
            }
            _ if self.kv_type == KvType::F16 => {
                b.bytes
                    .extend(x.iter().flat_map(|&x| f16::from_f32(x.clamp(-65504.0, 65504.0)).to_le_bytes()));
                b.bytes.resize(2 * self.dim, 0);
            }
            _ => {
                b.bytes.extend(x.iter().flat_map(|x| x.to_le_bytes()));
                b.bytes.resize(4 * self.dim, 0);
            }
        }
        place.write(to.bytes, &b.bytes);
    }

    /// Whether [`Self::put_values`] is for such heads.
    fn takes_four(self, head_dim: usize) -> bool {
        self.kv_type == KvType::Q8_0 && head_dim.is_multiple_of(4)
    }

    /// As [`Self::put`] the values of four tokens from `pos` on, a multiple of 4: their codes for a number lie
    /// beside each other.
    fn put_values(self, pos: usize, values: [&[f32]; FOUR], to: &mut Side, b: &mut Buffers) {
        let place = self.value(pos);
        b.x.clear();
        let d = values[0].len();
        let coders: [Coder<Native>; FOUR] = std::array::from_fn(|i| {
            b.x.extend_from_slice(values[i]);
            let x = &mut b.x[i * d..];
            place.rotate(x);
            let range = BYTES.range(x);
            (to.ranges[pos + i], to.ranges[self.n_ctx + pos + i]) = (range.scale, range.middle);
            Coder::new(BYTES, range)
        });
        let (to, x) = (&mut to.bytes[place.offset..], &b.x[..FOUR * d]);
        let (per_run, n) = (place.run / 4, d / 4);
        let runs =
            to.chunks_mut(place.run_stride).flat_map(|run| run.as_chunks_mut::<16>().0[..per_run].iter_mut());
        for (j, to) in runs.take(n).enumerate() {
            // SAFETY: numbers 4j .. 4j + 4 of the d of each token; 16 bytes.
            unsafe {
                let code = |i: usize| coders[i].codes(Native::fload(x.as_ptr().add(i * d + 4 * j)));
                let low = Native::or(code(0), Native::shl32::<8>(code(1)));
                let high = Native::or(Native::shl32::<16>(code(2)), Native::shl32::<24>(code(3)));
                Native::store(to.as_mut_ptr(), Native::or(low, high));
            }
        }
    }
}
