//! What decoders have in common: embedding, a stack of layers, output product.

use super::{Block, Context, ContextParams, KvContext, LanguageModel, Memory, TextConfig};
use crate::error::Result;
use crate::kernels::matmul;
use crate::kernels::vecmath;
use crate::layers::{Attention, Batch, I, Linear, Mode, Norm, Rope, Workspace, observe};
use crate::repack::PackedWeights;

/// A decoder: `logits = W_out norm(layers(embedding(tokens)))`.
pub struct Decoder {
    pub(super) config: TextConfig,
    pub(super) token_embd: PackedWeights,
    /// Multiplies the embedding.
    pub(super) embedding_scale: f32,
    /// `[n_ctx_train, n_embd]`, added to the embedding.
    pub(super) position_embd: Option<Vec<f32>>,
    /// Follows the embedding.
    pub(super) embd_norm: Option<Norm>,
    pub(super) layers: Vec<Box<dyn Block>>,
    pub(super) output_norm: Norm,
    pub(super) output: Output,
    /// Multiplies the logits.
    pub(super) logit_scale: f32,
    /// Logits l become `softcap * tanh(l / softcap)`; 0 for none.
    pub(super) logit_softcap: f32,
    pub(super) work: Workspace,
}

/// The matrix that makes logits.
pub(super) enum Output {
    /// The embedding, with the output's own bias where there is one.
    Tied(Option<Vec<f32>>),
    /// `[n_vocab, n_embd]`.
    Own(Linear),
}

impl Decoder {
    /// The tokens' embeddings as the residual stream.
    fn embed(&mut self, tokens: &[u32]) {
        let n_embd = self.config.n_embd;
        for (x, &token) in self.work.x.chunks_exact_mut(n_embd).zip(tokens) {
            self.token_embd.row(token as usize, x);
        }
        if self.embedding_scale != 1.0 {
            self.work.x.iter_mut().for_each(|x| *x *= self.embedding_scale);
        }
        if let Some(positions) = &self.position_embd {
            vecmath::add::<I>(&mut self.work.x, &positions[self.work.first_pos * n_embd..]);
        }
        if let Some(norm) = &self.embd_norm {
            self.work.norm_x(norm);
        }
    }

    /// Passes `tokens` through the next part of a layer; whether that was the last.
    fn advance(&mut self, context: &mut dyn Context, tokens: &[u32], mode: Mode) -> bool {
        let KvContext { kv, states, n_parts, n_tokens, n_ctx, .. } = KvContext::of(context);
        if *n_parts == 0 {
            let batch = Batch { m: tokens.len(), first_pos: *n_tokens, n_ctx: *n_ctx, mode };
            self.work.begin(batch, self.config.n_embd);
            self.embed(tokens);
        }
        let (before, layers) = self.layers.split_at(*n_parts / 2);
        if let Some(layer) = layers.first() {
            if *n_parts % 2 == 0 {
                let kv_idx = before.iter().filter(|layer| layer.kv_shape().is_some()).count();
                let kv = layer.kv_shape().and_then(|_| kv.get_mut(kv_idx));
                let state_idx = before.iter().filter(|layer| layer.state_len() > 0).count();
                let state = if layer.state_len() > 0 { states.get_mut(state_idx) } else { None };
                layer.forward(&mut self.work, Memory { kv, state: state.map_or(&mut [], |s| s) });
            } else {
                layer.forward_rest(&mut self.work);
            }
            *n_parts += 1;
        }
        if *n_parts < 2 * self.layers.len() {
            return false;
        }
        *n_parts = 0;
        *n_tokens += self.work.m;
        true
    }

    /// Logits of the last `n_out` tokens: only these rows pass through the largest matrix.
    fn output(&mut self, n_out: usize, logits: &mut Vec<f32>) {
        let TextConfig { n_embd, n_vocab, .. } = self.config;
        logits.resize(n_out * n_vocab, 0.0);
        if n_out == 0 {
            return;
        }
        let Workspace { x, act, m, mode, .. } = &mut self.work;
        self.output_norm.forward(&x[(*m - n_out) * n_embd..], act.fill(n_out, n_embd, mode.is_integer()));
        match &self.output {
            Output::Own(output) => output.forward(act, logits),
            Output::Tied(bias) => {
                observe::seen("token_embd.weight", act);
                matmul(act, &self.token_embd, logits);
                if let Some(bias) = bias {
                    logits.chunks_exact_mut(n_vocab).for_each(|row| vecmath::add::<I>(row, bias));
                }
            }
        }
        if self.logit_scale != 1.0 {
            logits.iter_mut().for_each(|l| *l *= self.logit_scale);
        }
        if self.logit_softcap > 0.0 {
            vecmath::softcap::<I>(logits, self.logit_softcap);
        }
    }
}

impl LanguageModel for Decoder {
    fn config(&self) -> &TextConfig {
        &self.config
    }

    fn n_ctx_unstretched(&self) -> usize {
        self.work.ropes.iter().map(Rope::n_ctx_short).min().unwrap_or(usize::MAX)
    }

    fn new_context(&self, params: &ContextParams) -> Result<Box<dyn Context>> {
        let shapes = self.layers.iter().filter_map(|layer| layer.kv_shape());
        let states = self.layers.iter().map(|layer| layer.state_len()).filter(|&len| len > 0);
        Ok(Box::new(KvContext::new(params, shapes)?.with_states(states)?))
    }

    fn shift(&mut self, context: &mut dyn Context, from: usize, n: usize) -> bool {
        let attentions = || self.layers.iter().filter_map(|layer| layer.attention());
        // Learned positions are part of what the keys were made from.
        if self.position_embd.is_some() || !attentions().all(Attention::can_shift) {
            return false;
        }
        let context = KvContext::of(context);
        context.forget_mark();
        let KvContext { kv, n_tokens, n_ctx, .. } = context;
        self.work.ropes.iter_mut().for_each(|rope| rope.prepare_back(n, *n_ctx));
        for (attention, kv) in attentions().zip(kv) {
            attention.shift(&self.work.ropes, kv, from + n..*n_tokens, n);
        }
        *n_tokens -= n;
        true
    }

    fn hidden(&mut self, context: &mut dyn Context, tokens: &[u32], mode: Mode) -> &[f32] {
        while !self.advance(context, tokens, mode) {}
        self.work.norm_x(&self.output_norm);
        &self.work.x
    }

    fn forward_part(
        &mut self,
        context: &mut dyn Context,
        tokens: &[u32],
        n_out: usize,
        mode: Mode,
        logits: &mut Vec<f32>,
    ) -> bool {
        let is_last = self.advance(context, tokens, mode);
        if is_last {
            self.output(n_out, logits);
        }
        is_last
    }
}
