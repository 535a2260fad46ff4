//! The arrangements of norms, attention, feed-forward layer and residuals that decoders use.

use crate::kernels::attention::KvCache;
use crate::layers::{Attention, Mlp, Moe, Norm, Workspace};

/// What a layer remembers of earlier tokens.
pub struct Memory<'a> {
    /// Keys and values, for layers with [`Block::attention`].
    pub kv: Option<&'a mut KvCache>,
    /// [`Block::state_len`] numbers, zero at first.
    pub state: &'a mut [f32],
}

/// One layer of a decoder: updates the residual stream `w.x` of a batch.
pub trait Block {
    /// Its attention, if it has one: that remembers keys and values.
    fn attention(&self) -> Option<&Attention> {
        None
    }

    /// (n_head_kv, head_dim) of the keys and values that it remembers, if any.
    fn kv_shape(&self) -> Option<(usize, usize)> {
        self.attention().map(|attention| (attention.heads.n_head_kv, attention.heads.head_dim))
    }

    /// Length of the state that it carries from token to token; 0 for none.
    fn state_len(&self) -> usize {
        0
    }

    /// Passes the batch through the layer, or through a first part of it where [`Self::forward_rest`] is another.
    fn forward(&self, w: &mut Workspace, memory: Memory);

    /// What is left of the layer then. In between a caller may stop.
    fn forward_rest(&self, _w: &mut Workspace) {}
}

/// A layer `w.out = F(w.act)` without memory: a feed-forward layer, or a mixture of several.
pub trait FeedForward {
    /// Computes `w.out` from `w.act`.
    fn forward(&self, w: &mut Workspace);
}

impl FeedForward for Mlp {
    fn forward(&self, w: &mut Workspace) {
        Mlp::forward(self, w);
    }
}

impl FeedForward for Moe {
    fn forward(&self, w: &mut Workspace) {
        Moe::forward(self, w);
    }
}

/// The attention of a block, with its cache.
pub(super) fn attend(attention: &Attention, w: &mut Workspace, memory: Memory) {
    let Some(kv) = memory.kv else {
        unreachable!("a block with attention declares its cache");
    };
    attention.forward(w, kv);
}

/// `x += s A(norm(x))`, then `x += s F(norm(x))`: LLaMA and most others.
pub struct PreNorm {
    /// Before the attention.
    pub attn_norm: Norm,
    /// A.
    pub attention: Attention,
    /// Before the feed-forward layer.
    pub ffn_norm: Norm,
    /// F.
    pub ffn: Box<dyn FeedForward>,
    /// s.
    pub residual_scale: f32,
}

impl Block for PreNorm {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        w.input_norm(&self.attn_norm);
        attend(&self.attention, w, memory);
        w.scale_out(self.residual_scale);
        w.add_out();
    }

    fn forward_rest(&self, w: &mut Workspace) {
        w.input_norm(&self.ffn_norm);
        self.ffn.forward(w);
        w.scale_out(self.residual_scale);
        w.add_out();
    }
}

/// `x += norm(A(norm(x)))`, then `x += norm(F(norm(x)))`: Gemma 2 and 3.
pub struct Sandwich {
    /// Before the attention.
    pub attn_norm: Norm,
    /// A.
    pub attention: Attention,
    /// After the attention.
    pub attn_post_norm: Norm,
    /// Before the feed-forward layer.
    pub ffn_norm: Norm,
    /// F.
    pub ffn: Box<dyn FeedForward>,
    /// After the feed-forward layer.
    pub ffn_post_norm: Norm,
}

impl Block for Sandwich {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        w.input_norm(&self.attn_norm);
        attend(&self.attention, w, memory);
        w.norm_out(&self.attn_post_norm);
        w.add_out();
    }

    fn forward_rest(&self, w: &mut Workspace) {
        w.input_norm(&self.ffn_norm);
        self.ffn.forward(w);
        w.norm_out(&self.ffn_post_norm);
        w.add_out();
    }
}

/// `x += norm(A(x))`, then `x += norm(F(x))`: OLMo 2, EXAONE 4.
pub struct PostNorm {
    /// A.
    pub attention: Attention,
    /// After the attention.
    pub attn_post_norm: Norm,
    /// F.
    pub ffn: Box<dyn FeedForward>,
    /// After the feed-forward layer.
    pub ffn_post_norm: Norm,
}

impl Block for PostNorm {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        w.input_plain();
        attend(&self.attention, w, memory);
        w.norm_out(&self.attn_post_norm);
        w.add_out();
    }

    fn forward_rest(&self, w: &mut Workspace) {
        w.input_plain();
        self.ffn.forward(w);
        w.norm_out(&self.ffn_post_norm);
        w.add_out();
    }
}

/// `x += A(norm(x)) + F(norm(x))`, with one norm or two: GPT-NeoX, Phi 2, StableLM 2 12B.
pub struct Parallel {
    /// Before the attention.
    pub attn_norm: Norm,
    /// A.
    pub attention: Attention,
    /// Before the feed-forward layer, where it has a norm of its own.
    pub ffn_norm: Option<Norm>,
    /// F.
    pub ffn: Box<dyn FeedForward>,
}

impl Block for Parallel {
    fn attention(&self) -> Option<&Attention> {
        Some(&self.attention)
    }

    fn forward(&self, w: &mut Workspace, memory: Memory) {
        w.input_norm(&self.attn_norm);
        attend(&self.attention, w, memory);
        w.keep_out();
    }

    fn forward_rest(&self, w: &mut Workspace) {
        // The attention has overwritten its input.
        w.input_norm(self.ffn_norm.as_ref().unwrap_or(&self.attn_norm));
        self.ffn.forward(w);
        w.add_side();
        w.add_out();
    }
}
