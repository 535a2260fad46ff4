//! What a model remembers of the tokens so far.

use crate::error::{Code, Error, Result};
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
    /// Whether [`Self::truncate`] can forget some tokens and keep the rest.
    fn can_go_back(&self) -> bool;
    /// Bytes that it takes.
    fn n_bytes(&self) -> usize;
    /// For the model that made it.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// The context of models whose memory is keys and values, and states that go from token to token.
pub struct KvContext {
    /// One cache per layer that attends.
    pub kv: Vec<KvCache>,
    /// One per layer that carries a state.
    pub states: Vec<Vec<f32>>,
    /// Tokens held.
    pub n_tokens: usize,
    /// Tokens there is room for.
    pub n_ctx: usize,
}

impl KvContext {
    /// An empty context; `shapes` are (n_head_kv, head_dim) per layer.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn new(params: &ContextParams, shapes: impl Iterator<Item = (usize, usize)>) -> Result<Self> {
        let kv = shapes.map(|(n_head_kv, head_dim)| KvCache::new(n_head_kv, head_dim, params.n_ctx));
        let kv = kv.collect::<Result<_>>()?;
        Ok(KvContext { kv, states: Vec::new(), n_tokens: 0, n_ctx: params.n_ctx })
    }

    /// With states of these lengths, all zero.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn with_states(mut self, lengths: impl Iterator<Item = usize>) -> Result<Self> {
        for len in lengths {
            let mut state = Vec::new();
            state.try_reserve_exact(len).map_err(|e| {
                Error::new(Code::OutOfMemory, format!("a state of {len} numbers could not be allocated"))
                    .source(e)
            })?;
            state.resize(len, 0.0);
            self.states.push(state);
        }
        Ok(self)
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
        self.n_ctx
    }
    fn truncate(&mut self, n: usize) -> usize {
        if n < self.n_tokens {
            // A state holds no past to go back to.
            self.n_tokens = if self.states.is_empty() { n } else { 0 };
            self.states.iter_mut().for_each(|state| state.fill(0.0));
        }
        self.n_tokens
    }
    fn can_go_back(&self) -> bool {
        self.states.is_empty()
    }
    fn n_bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|s| size_of_val(s.as_slice())).sum();
        self.kv.iter().map(KvCache::n_bytes).sum::<usize>() + states
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
