//! Scaled dot-product attention over a key-value cache in kernel layout.
//!
//! Keys lie eight tokens at a time, `[n_head_kv][n_ctx / 8][head_dim][8]`, so that a score
//! tile needs no transposition and no horizontal sum; values lie `[n_head_kv][n_ctx][head_dim]`.

use super::act::MR;
use super::float::{Operand, TILE_NR, tile};
use super::isa::Isa;
use super::vecmath;
use crate::error::{Code, Error, Result};
use std::ops::Range;

/// Keys and values of one layer.
pub struct KvCache {
    n_head_kv: usize,
    head_dim: usize,
    /// Tokens there is room for, a multiple of 8.
    n_ctx: usize,
    /// Head size of the values, padded to a multiple of 8.
    v_dim: usize,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl KvCache {
    /// Room for `n_ctx` tokens.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn new(n_head_kv: usize, head_dim: usize, n_ctx: usize) -> Result<Self> {
        let n_ctx = n_ctx.next_multiple_of(TILE_NR);
        let v_dim = head_dim.next_multiple_of(TILE_NR);
        let zeros = |width: usize| {
            let len = n_head_kv.checked_mul(width).and_then(|x| x.checked_mul(n_ctx));
            let mut v = Vec::new();
            match len.map(|len| (len, v.try_reserve_exact(len))) {
                Some((len, Ok(()))) => {
                    v.resize(len, 0f32);
                    Ok(v)
                }
                _ => {
                    let what = format!("a key-value cache of {n_ctx} tokens could not be allocated");
                    Err(Error::new(Code::OutOfMemory, what))
                }
            }
        };
        Ok(KvCache { n_head_kv, head_dim, n_ctx, v_dim, k: zeros(head_dim)?, v: zeros(v_dim)? })
    }

    /// Tokens there is room for.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        (self.k.len() + self.v.len()) * size_of::<f32>()
    }

    /// Stores one token's keys and values, `[n_head_kv, head_dim]` each.
    pub fn store(&mut self, pos: usize, k: &[f32], v: &[f32]) {
        let d = self.head_dim;
        assert!(pos < self.n_ctx && k.len() == self.n_head_kv * d && v.len() == k.len());
        for h in 0..self.n_head_kv {
            let block = &mut self.k[(h * self.n_ctx + pos / 8 * 8) * d..][..8 * d];
            for (i, &x) in k[h * d..][..d].iter().enumerate() {
                block[i * 8 + pos % 8] = x;
            }
            self.v[(h * self.n_ctx + pos) * self.v_dim..][..d].copy_from_slice(&v[h * d..][..d]);
        }
    }

    /// What [`Self::store`] took for that position, up to the cache's rounding.
    pub fn load(&self, pos: usize, k: &mut [f32], v: &mut [f32]) {
        let d = self.head_dim;
        assert!(pos < self.n_ctx && k.len() == self.n_head_kv * d && v.len() == k.len());
        for h in 0..self.n_head_kv {
            let block = &self.k[(h * self.n_ctx + pos / 8 * 8) * d..][..8 * d];
            for (i, x) in k[h * d..][..d].iter_mut().enumerate() {
                *x = block[i * 8 + pos % 8];
            }
            v[h * d..][..d].copy_from_slice(&self.v[(h * self.n_ctx + pos) * self.v_dim..][..d]);
        }
    }

    /// Key heads times head size: numbers that one token's keys have, and its values.
    pub fn n_embd(&self) -> usize {
        self.n_head_kv * self.head_dim
    }

    /// Bytes that [`Self::save`] writes for a token.
    pub fn saved_len(&self) -> usize {
        2 * self.n_embd() * size_of::<f32>()
    }

    /// Appends what is stored for the first `n` tokens, token after token, to `out`.
    pub fn save(&self, n: usize, out: &mut Vec<u8>) {
        let (mut k, mut v) = (vec![0.0; self.n_embd()], vec![0.0; self.n_embd()]);
        for pos in 0..n {
            self.load(pos, &mut k, &mut v);
            out.extend(k.iter().chain(&v).flat_map(|x| x.to_le_bytes()));
        }
    }

    /// Takes back what [`Self::save`] wrote for the first `n` tokens: `bytes` are that long.
    pub fn restore(&mut self, bytes: &[u8]) {
        let n_embd = self.n_embd();
        for (pos, token) in bytes.chunks_exact(self.saved_len()).enumerate() {
            let numbers: Vec<f32> =
                token.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
            self.store(pos, &numbers[..n_embd], &numbers[n_embd..]);
        }
    }

    fn keys(&self, head: usize, block: usize) -> &[f32] {
        &self.k[(head * self.n_ctx + block * 8) * self.head_dim..][..8 * self.head_dim]
    }

    fn values(&self, head: usize) -> &[f32] {
        &self.v[head * self.n_ctx * self.v_dim..][..self.n_ctx * self.v_dim]
    }
}

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
#[derive(Clone, Copy)]
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

/// Buffers of [`attention`], kept between calls.
#[derive(Default)]
pub struct Scratch {
    q: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

/// `out = softmax(q . k * scale + mask) . v` per head; `q` and `out` are
/// `[n_tokens, n_head, head_dim]`.
pub fn attention<I: Isa>(q: &[f32], query: &Query, kv: &KvCache, scratch: &mut Scratch, out: &mut [f32]) {
    let d = kv.head_dim;
    let group = query.n_head / kv.n_head_kv;
    let n_rows = q.len() / (query.n_head * d) * group;
    scratch.q.resize(MR * d, 0.0);
    scratch.scores.resize(MR * kv.n_ctx, 0.0);
    scratch.out.resize(MR * kv.v_dim, 0.0);
    for head in 0..kv.n_head_kv {
        // One row of the tile is one (token, query head) pair of this key head.
        let place = |row: usize| (row / group * query.n_head + head * group + row % group) * d;
        for first in (0..n_rows).step_by(MR) {
            let rows = (n_rows - first).min(MR);
            for r in 0..rows {
                let from = &q[place(first + r)..][..d];
                for (to, &x) in scratch.q[r * d..][..d].iter_mut().zip(from) {
                    *to = x * query.scale;
                }
            }
            let visible = |r: usize| query.visible((first + r) / group);
            head_rows::<I>(kv, head, rows, query.softcap, visible, scratch);
            for r in 0..rows {
                out[place(first + r)..][..d].copy_from_slice(&scratch.out[r * kv.v_dim..][..d]);
            }
        }
    }
}

fn head_rows<I: Isa>(
    kv: &KvCache,
    head: usize,
    rows: usize,
    softcap: f32,
    visible: impl Fn(usize) -> Range<usize>,
    scratch: &mut Scratch,
) {
    let (d, stride) = (kv.head_dim, kv.n_ctx);
    let first = (0..rows).map(|r| visible(r).start).min().unwrap_or(0) / TILE_NR * TILE_NR;
    let end = (0..rows).map(|r| visible(r).end).max().unwrap_or(0);
    let q = Operand { data: &scratch.q, stride: d };
    for block in first / TILE_NR..end.div_ceil(TILE_NR) {
        let keys = Operand { data: kv.keys(head, block), stride: 8 };
        tile::<I>(rows, d, q, keys, &mut scratch.scores[block * 8..], stride, false);
    }
    for r in 0..rows {
        let seen = visible(r);
        let row = &mut scratch.scores[r * stride..][..end];
        row[first..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        if softcap > 0.0 {
            vecmath::softcap::<I>(&mut row[seen.clone()], softcap);
        }
        vecmath::softmax::<I>(&mut row[seen]);
    }
    let scores = Operand { data: &scratch.scores[first..], stride };
    for column in (0..kv.v_dim).step_by(TILE_NR) {
        let values = Operand { data: &kv.values(head)[first * kv.v_dim + column..], stride: kv.v_dim };
        tile::<I>(rows, end - first, scores, values, &mut scratch.out[column..], kv.v_dim, false);
    }
}
