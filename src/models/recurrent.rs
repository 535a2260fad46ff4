//! The context of models whose layers keep a state of fixed size, alone or beside attention.

use super::{Context, ContextParams};
use crate::error::{Code, Error, Result};
use crate::kernels::attention::KvCache;
use std::any::Any;

/// States and caches, one entry per layer. A state cannot go back: only a context that is kept
/// whole can be continued.
pub struct RecurrentContext {
    /// State per layer; empty where the layer attends.
    pub states: Vec<Vec<f32>>,
    /// Keys and values per layer; `None` where it keeps a state.
    pub kv: Vec<Option<KvCache>>,
    /// Tokens held.
    pub n_tokens: usize,
    n_ctx: usize,
}

/// What one layer remembers.
#[derive(Clone, Copy)]
pub enum LayerMemory {
    /// A state of so many floats.
    State(usize),
    /// Keys and values of (n_head_kv, head_dim).
    Kv(usize, usize),
}

impl RecurrentContext {
    /// An empty context.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn new(params: &ContextParams, layers: impl Iterator<Item = LayerMemory>) -> Result<Self> {
        let mut context =
            RecurrentContext { states: Vec::new(), kv: Vec::new(), n_tokens: 0, n_ctx: params.n_ctx };
        for layer in layers {
            let (state, kv) = match layer {
                LayerMemory::State(len) => (zeros(len)?, None),
                LayerMemory::Kv(n_head_kv, head_dim) => {
                    (Vec::new(), Some(KvCache::new(n_head_kv, head_dim, params.n_ctx)?))
                }
            };
            context.states.push(state);
            context.kv.push(kv);
        }
        Ok(context)
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

fn zeros(len: usize) -> Result<Vec<f32>> {
    let mut state = Vec::new();
    state.try_reserve_exact(len).map_err(|e| {
        Error::new(Code::OutOfMemory, format!("a state of {len} floats could not be allocated")).source(e)
    })?;
    state.resize(len, 0.0);
    Ok(state)
}

impl Context for RecurrentContext {
    fn n_tokens(&self) -> usize {
        self.n_tokens
    }
    fn n_ctx(&self) -> usize {
        self.n_ctx
    }
    fn truncate(&mut self, n: usize) -> usize {
        if n < self.n_tokens {
            self.states.iter_mut().for_each(|s| s.fill(0.0));
            self.n_tokens = 0;
        }
        self.n_tokens
    }
    fn n_bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|s| s.len() * size_of::<f32>()).sum();
        states + self.kv.iter().flatten().map(KvCache::n_bytes).sum::<usize>()
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
