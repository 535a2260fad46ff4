//! What a model remembers of the tokens so far.

use crate::error::Result;
use crate::kernels::attention::KvCache;
use std::any::Any;

/// What a context has room for.
#[derive(Clone, Copy, Debug)]
pub struct ContextParams {
    /// Tokens.
    pub n_ctx: usize,
}

/// A model's memory of the tokens so far.
pub trait Context: Any {
    /// Tokens held.
    fn n_tokens(&self) -> usize;
    /// Tokens there is room for.
    fn n_ctx(&self) -> usize;
    /// Forgets all but the first `n` tokens and gives how many are held now: `n`, or 0 where the
    /// memory is a state that cannot go back.
    fn truncate(&mut self, n: usize) -> usize;
    /// Bytes that it takes.
    fn n_bytes(&self) -> usize;
    /// For the model that made it.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// The context of models whose memory is keys and values alone.
pub struct KvContext {
    /// One cache per layer that attends.
    pub kv: Vec<KvCache>,
    /// Tokens held.
    pub n_tokens: usize,
}

impl KvContext {
    /// An empty context; `shapes` are (n_head_kv, head_dim) per layer.
    ///
    /// # Errors
    /// [`crate::error::Code::OutOfMemory`].
    pub fn new(params: &ContextParams, shapes: impl Iterator<Item = (usize, usize)>) -> Result<Self> {
        let kv = shapes.map(|(n_head_kv, head_dim)| KvCache::new(n_head_kv, head_dim, params.n_ctx));
        Ok(KvContext { kv: kv.collect::<Result<_>>()?, n_tokens: 0 })
    }

    /// The context behind the trait object.
    ///
    /// # Panics
    /// Where another kind of model made it: a bug in the caller.
    pub fn of(context: &mut dyn Context) -> &mut Self {
        let Some(context) = context.as_any().downcast_mut() else {
            unreachable!("a context is only used with the model that made it");
        };
        context
    }
}

impl Context for KvContext {
    fn n_tokens(&self) -> usize {
        self.n_tokens
    }
    fn n_ctx(&self) -> usize {
        self.kv.first().map_or(0, KvCache::n_ctx)
    }
    fn truncate(&mut self, n: usize) -> usize {
        self.n_tokens = self.n_tokens.min(n);
        self.n_tokens
    }
    fn n_bytes(&self) -> usize {
        self.kv.iter().map(KvCache::n_bytes).sum()
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
