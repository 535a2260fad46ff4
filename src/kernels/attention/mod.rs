//! Scaled dot-product attention over a key-value cache in kernel layout ([`KvCache`]).
//!
//! The queries that share a key head are taken up to [`MR`] at a time: their scores with all
//! visible tokens, the softmax in one pass over them, and the weighted sum of the values, block by
//! block of 32 tokens. Tiles of queries are shared among threads. Nothing in a row's result
//! depends on the rows beside it, nor on the thread.

mod cache;
mod code;
mod coded;
mod float;
mod store;

use super::act::MR;
use super::isa::Isa;
use super::parallel::{self, Shared};
use super::path::DotPath;
use super::vecmath;
use cache::BLOCK;
pub use cache::{KvCache, KvType};
use std::cell::RefCell;
use std::ops::Range;

/// How queries meet keys.
#[derive(Clone, Copy)]
pub struct Query {
    /// Query heads, a multiple of the cache's: consecutive heads share a key head.
    pub n_head: usize,
    /// Multiplies every score.
    pub scale: f32,
    /// Scores s become `softcap * tanh(s / softcap)`; 0 for none (Gemma 2, arXiv 2408.00118).
    pub softcap: f32,
    /// Which positions a token sees.
    pub mask: Mask,
    /// How many positions at most, itself included; 0 for no limit. A token that sees all sees
    /// `window / 2` to either side.
    pub window: usize,
}

impl Query {
    /// Scores times `1 / sqrt(head_dim)`, nothing else.
    pub fn plain(n_head: usize, head_dim: usize, mask: Mask) -> Self {
        Query { n_head, scale: 1.0 / (head_dim as f32).sqrt(), softcap: 0.0, mask, window: 0 }
    }

    /// The positions that token `i` of the batch sees.
    fn visible(&self, i: usize) -> Range<usize> {
        let reach = |side: usize| if self.window == 0 { usize::MAX } else { side };
        match self.mask {
            Mask::Causal { first_pos } => {
                let end = first_pos + i + 1;
                end.saturating_sub(reach(self.window))..end
            }
            Mask::Full { n } => {
                let side = reach(self.window / 2);
                i.saturating_sub(side)..n.min(i.saturating_add(side).saturating_add(1))
            }
        }
    }
}

/// Which positions a token sees.
#[derive(Clone, Copy, Debug)]
pub enum Mask {
    /// Token i of the batch sees cache positions `0 ..= first_pos + i`.
    Causal {
        /// Position of the batch's first token.
        first_pos: usize,
    },
    /// Every token sees positions `0 .. n`.
    Full {
        /// Tokens in the cache.
        n: usize,
    },
}

/// What a thread needs for a tile of rows; kept.
#[derive(Default)]
struct Buffers {
    /// `[rows][head_dim]`, scaled.
    q: Vec<f32>,
    /// `[rows][n_ctx]`.
    scores: Vec<f32>,
    /// `[rows][dim]`.
    out: Vec<f32>,
    /// Queries as codes.
    codes: Vec<u8>,
    /// Keys or values as f32, where they are held in another type.
    panel: Vec<f32>,
    /// What the sums of a head's values lack ([`Tile::fill_lacking`]), `[n_ctx / 32][dim]`.
    lacking: Vec<i32>,
    /// Which head's.
    lacking_of: Option<usize>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Some queries of one key head, and what they see.
struct Tile<'a> {
    kv: &'a KvCache,
    head: usize,
    rows: usize,
    softcap: f32,
    /// Whether weights are rounded to twice as many codes, which takes sums of the head's values: where rows come many at a
    /// time, and an output is read off at once.
    finer: bool,
    /// Per row.
    visible: [Range<usize>; MR],
    /// The visible of all rows, in whole blocks.
    blocks: Range<usize>,
}

/// `out = softmax(q . k * scale + mask) . v` per head; `q` and `out` are
/// `[n_tokens, n_head, head_dim]`.
///
/// # Panics
/// Where the shapes do not agree: a bug in the caller.
pub fn attention(q: &[f32], query: &Query, kv: &KvCache, out: &mut [f32]) {
    super::select::attention(q, query, kv, out);
}

/// [`attention`] on a given path, which matters where keys and values are codes.
pub fn attention_on<P: DotPath>(q: &[f32], query: &Query, kv: &KvCache, out: &mut [f32]) {
    let (d, n_head) = (kv.head_dim, query.n_head);
    assert!(
        q.len() == out.len() && q.len().is_multiple_of(n_head * d) && n_head.is_multiple_of(kv.n_head_kv)
    );
    let group = n_head / kv.n_head_kv;
    let n_rows = q.len() / (n_head * d) * group;
    let per_tile = tile_rows(n_rows, kv.n_head_kv);
    let n_tiles = n_rows.div_ceil(per_tile);
    let seen = query.visible((n_rows / group).saturating_sub(1)).len();
    let out = Shared::new(out);
    parallel::ranges(kv.n_head_kv * n_tiles, 2 * seen * d * per_tile, &|items| {
        BUFFERS.with_borrow_mut(|b| {
            b.lacking_of = None;
            for item in items {
                let (head, first) = (item / n_tiles, item % n_tiles * per_tile);
                let rows = (n_rows - first).min(per_tile);
                // One row of the tile is one (token, query head) pair of this key head.
                let place = |r: usize| {
                    let row = first + r;
                    let at = (row / group * n_head + head * group + row % group) * d;
                    at..at + d
                };
                b.q.resize(MR * d, 0.0);
                for r in 0..rows {
                    let to = b.q[r * d..][..d].iter_mut();
                    to.zip(&q[place(r)]).for_each(|(to, &x)| *to = x * query.scale);
                }
                let visible = std::array::from_fn(|r| query.visible((first + r.min(rows - 1)) / group));
                let tile = Tile::new(kv, head, rows, query, visible);
                tile.attend::<P>(b);
                for r in 0..rows {
                    // SAFETY: a row is in one tile only.
                    unsafe { out.part(place(r)) }.copy_from_slice(&b.out[r * kv.dim..][..d]);
                }
            }
        });
    });
}

/// Rows that a thread takes together: what they share is read once, but every thread shall have some.
fn tile_rows(n_rows: usize, n_head_kv: usize) -> usize {
    let enough = |rows: &usize| n_head_kv * n_rows.div_ceil(*rows) >= 2 * super::pool::threads();
    match super::pool::threads() {
        1 => MR,
        _ => (2..=MR).rev().find(enough).unwrap_or(1),
    }
    .min(n_rows.max(1))
}

impl<'a> Tile<'a> {
    fn new(kv: &'a KvCache, head: usize, rows: usize, query: &Query, visible: [Range<usize>; MR]) -> Self {
        let first = visible.iter().map(|v| v.start).min().unwrap_or(0);
        let end = visible.iter().map(|v| v.end).max().unwrap_or(0);
        assert!(end <= kv.n_ctx, "a token sees more than the cache has room for");
        let finer = matches!(query.mask, Mask::Full { .. });
        let blocks = first / BLOCK..end.div_ceil(BLOCK);
        Tile { kv, head, rows, softcap: query.softcap, finer, visible, blocks }
    }

    /// Attends with `b.q`; leaves the rows in `b.out`.
    fn attend<P: DotPath>(&self, b: &mut Buffers) {
        b.scores.resize(MR * self.kv.n_ctx, 0.0);
        b.out.clear();
        b.out.resize(MR * self.kv.dim, 0.0);
        match self.kv.kv_type {
            KvType::F32 | KvType::F16 => self.scores_of_floats::<P::I>(b),
            KvType::Q8_0 => self.scores_of_codes::<P, coded::Bytes>(b),
            KvType::Q4_0 => self.scores_of_codes::<P, coded::Nibbles>(b),
        }
        let mut sums = [0f32; MR];
        for (r, sum) in sums.iter_mut().enumerate().take(self.rows) {
            *sum = self.weigh::<P::I>(r, &mut b.scores);
        }
        match self.kv.kv_type {
            KvType::F32 | KvType::F16 => self.sum_floats::<P::I>(b),
            KvType::Q8_0 => self.sum_codes::<P, coded::Bytes>(b),
            KvType::Q4_0 => self.sum_codes::<P, coded::Nibbles>(b),
        }
        for (r, sum) in sums.iter().enumerate().take(self.rows) {
            vecmath::scale::<P::I>(&mut b.out[r * self.kv.dim..][..self.kv.dim], 1.0 / sum);
        }
    }

    /// Makes a row's scores weights, 0 where it does not see; gives their sum.
    fn weigh<I: Isa>(&self, r: usize, scores: &mut [f32]) -> f32 {
        let seen = self.visible[r].clone();
        let row = &mut scores[r * self.kv.n_ctx..][..self.blocks.end * BLOCK];
        row[self.blocks.start * BLOCK..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        if self.softcap > 0.0 {
            vecmath::softcap::<I>(&mut row[seen.clone()], self.softcap);
        }
        match self.kv.kv_type {
            KvType::F32 | KvType::F16 => vecmath::exp_sum::<I>(&mut row[seen]),
            KvType::Q8_0 | KvType::Q4_0 => vecmath::coarse_exp_sum::<I>(&mut row[seen]),
        }
    }
}
