//! Keys and values in float.

use super::cache::{BLOCK, FLOAT_GROUP, KvType};
use super::{Buffers, Tile};
use crate::kernels::float::{Operand, TILE_NR, tile};
use crate::kernels::isa::Isa;

impl Tile<'_> {
    /// `b.scores = q . k` for all blocks.
    pub(super) fn scores_of_floats<I: Isa>(&self, b: &mut Buffers) {
        let (d, stride, len) = (self.kv.head_dim, self.kv.n_ctx, FLOAT_GROUP * self.kv.dim);
        let q = Operand { data: &b.q, stride: d };
        let keys = self.kv.keys(self.head);
        for group in self.blocks.start * (BLOCK / FLOAT_GROUP)..self.blocks.end * (BLOCK / FLOAT_GROUP) {
            let data = self.floats::<I>(keys, group * len, len, &mut b.panel);
            let keys = Operand { data, stride: FLOAT_GROUP };
            tile::<I>(self.rows, d, q, keys, &mut b.scores[group * FLOAT_GROUP..], stride, false);
        }
    }

    /// `b.out = weights . v`, the weights being `b.scores`.
    pub(super) fn sum_floats<I: Isa>(&self, b: &mut Buffers) {
        let (dim, stride) = (self.kv.dim, self.kv.n_ctx);
        let values = self.kv.values(self.head);
        // What lies beyond the last token seen may be anything.
        let end = self.visible.iter().map(|v| v.end).max().unwrap_or(0);
        for block in self.blocks.clone() {
            let n = (end - block * BLOCK).min(BLOCK);
            let data = self.floats::<I>(values, block * BLOCK * dim, n * dim, &mut b.panel);
            let weights = Operand { data: &b.scores[block * BLOCK..], stride };
            for column in (0..dim).step_by(TILE_NR) {
                let values = Operand { data: &data[column..], stride: dim };
                tile::<I>(self.rows, n, weights, values, &mut b.out[column..], dim, true);
            }
        }
    }

    /// `len` numbers, a multiple of 4, from number `first` on.
    fn floats<'b, I: Isa>(
        &self,
        bytes: &'b [u8],
        first: usize,
        len: usize,
        panel: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        if self.kv.kv_type == KvType::F32 {
            let bytes = &bytes[4 * first..][..4 * len];
            assert!(bytes.as_ptr().cast::<f32>().is_aligned());
            // SAFETY: aligned, as asserted, and any bits are an f32.
            return unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), len) };
        }
        panel.resize(len, 0.0);
        for (from, to) in bytes[2 * first..][..2 * len].chunks_exact(8).zip(panel.chunks_exact_mut(4)) {
            // SAFETY: 8 bytes, 4 floats.
            unsafe { I::fstore(to.as_mut_ptr(), I::load_f16(from.as_ptr())) }
        }
        panel
    }
}
