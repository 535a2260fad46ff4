//! What a model remembers of the tokens so far.

use crate::error::{Code, Error, Result};
use crate::kernels::attention::{KvCache, KvType};
use std::any::Any;

/// What a context has room for.
#[derive(Clone, Copy, Debug)]
pub struct ContextParams {
    /// Tokens.
    pub n_ctx: usize,
    /// How keys and values are held.
    pub kv_type: KvType,
}

/// A model's memory of the tokens so far.
pub trait Context: Any {
    /// Tokens held.
    fn n_tokens(&self) -> usize;
    /// Tokens there is room for.
    fn n_ctx(&self) -> usize;
    /// Forgets all but the first `n` tokens, and those under way, and gives how many are held now: `n`, or where the
    /// memory is a state that cannot go back, those at the mark if they are among them, or else 0.
    fn truncate(&mut self, n: usize) -> usize;
    /// Whether [`Self::truncate`] can go back to any token.
    fn can_go_back(&self) -> bool;
    /// Keeps the state as it is, to go back to.
    fn mark(&mut self);
    /// Bytes that it takes.
    fn n_bytes(&self) -> usize;
    /// What it holds as bytes, for [`Self::restore`].
    fn save(&self) -> Vec<u8>;
    /// Holds what [`Self::save`] wrote of `n_tokens` tokens. Whether the bytes have the length for that and there
    /// is room; if not, nothing changes.
    fn restore(&mut self, n_tokens: usize, bytes: &[u8]) -> bool;
    /// For the model that made it.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// The context of models whose memory is keys and values, and states that go from token to token.
pub struct KvContext {
    /// One cache per layer that attends.
    pub kv: Vec<KvCache>,
    /// One per layer that carries a state.
    pub states: Vec<Vec<f32>>,
    /// The states as they were after so many tokens.
    mark: Option<(usize, Vec<Vec<f32>>)>,
    /// Parts of layers, two of each, that the tokens under way have passed. Their keys and values stand beyond
    /// the tokens held; the states of these layers have taken them up.
    pub(super) n_parts: usize,
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
        let ContextParams { n_ctx, kv_type } = *params;
        let kv = shapes.map(|(n_head_kv, head_dim)| KvCache::new(kv_type, n_head_kv, head_dim, n_ctx));
        let kv = kv.collect::<Result<_>>()?;
        Ok(KvContext { kv, states: Vec::new(), mark: None, n_parts: 0, n_tokens: 0, n_ctx })
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

    /// For when tokens before the mark change.
    pub(super) fn forget_mark(&mut self) {
        self.mark = None;
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
        let is_between = std::mem::take(&mut self.n_parts) > 0 && !self.states.is_empty();
        if n >= self.n_tokens && !is_between {
            return self.n_tokens;
        }
        self.n_tokens = match &self.mark {
            _ if self.states.is_empty() => n,
            Some((marked, states)) if *marked <= n => {
                self.states.clone_from(states);
                *marked
            }
            // A state holds no past to go back to.
            _ => {
                self.mark = None;
                self.states.iter_mut().for_each(|state| state.fill(0.0));
                0
            }
        };
        self.n_tokens
    }
    fn can_go_back(&self) -> bool {
        self.states.is_empty()
    }
    fn mark(&mut self) {
        if !self.states.is_empty() {
            self.mark = Some((self.n_tokens, self.states.clone()));
        }
    }
    fn n_bytes(&self) -> usize {
        let states: usize = self.states.iter().map(|s| size_of_val(s.as_slice())).sum();
        self.kv.iter().map(KvCache::n_bytes).sum::<usize>() + states
    }
    fn save(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for state in &self.states {
            out.extend(state.iter().flat_map(|x| x.to_le_bytes()));
        }
        self.kv.iter().for_each(|kv| kv.save(self.n_tokens, &mut out));
        out
    }
    fn restore(&mut self, n_tokens: usize, bytes: &[u8]) -> bool {
        let state_len: usize = self.states.iter().map(|s| size_of_val(s.as_slice())).sum();
        let per_token: usize = self.kv.iter().map(KvCache::saved_len).sum();
        let wanted = per_token.checked_mul(n_tokens).and_then(|len| len.checked_add(state_len));
        if n_tokens > self.n_ctx || wanted != Some(bytes.len()) {
            return false;
        }
        let (states, mut rest) = bytes.split_at(state_len);
        let numbers = states.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        self.states.iter_mut().flatten().zip(numbers).for_each(|(x, number)| *x = number);
        for kv in &mut self.kv {
            let (own, others) = rest.split_at(kv.saved_len() * n_tokens);
            kv.restore(own);
            rest = others;
        }
        self.mark = None;
        self.n_parts = 0;
        self.n_tokens = n_tokens;
        true
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
