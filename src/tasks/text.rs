//! A language model with its tokenizer and its context.

use super::ModelInfo;
use super::chat::{ChatFormat, LastChat};
use super::generate::PROMPT_CHUNK;
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::grammar::TokenTrie;
use crate::kernels::attention::KvType;
use crate::layers::Mode;
use crate::models::config::Reader;
use crate::models::{Context, ContextParams, LanguageModel, Pooling};
use crate::tokenizer::Tokenizer;
use std::sync::Arc;

/// A loaded language model. One context: calls follow one another.
pub struct TextModel {
    model: Box<dyn LanguageModel>,
    tokenizer: Tokenizer,
    context: Box<dyn Context>,
    /// The tokens in the context.
    held: Vec<u32>,
    chat_format: ChatFormat,
    pub(super) last_chat: Option<LastChat>,
    logits: Vec<f32>,
    /// How the file says that vectors become one.
    pooling: Pooling,
    kv_type: KvType,
    mode: Mode,
    info: ModelInfo,
    /// Makes guesses: [`TextModel::set_draft`].
    pub(super) draft: Option<Box<TextModel>>,
    /// Made when a grammar first asks for it.
    token_trie: Option<Arc<TokenTrie>>,
}

impl TextModel {
    pub(super) fn new(
        model: Box<dyn LanguageModel>,
        metadata: &Metadata,
        n_ctx: usize,
        kv_type: KvType,
        mode: Mode,
        mut info: ModelInfo,
    ) -> Result<Self> {
        let tokenizer = Tokenizer::from_gguf(metadata)?;
        let pooling = Pooling::read(&Reader::new(metadata, &info.architecture), Pooling::Last)?;
        let config = model.config();
        if tokenizer.n_vocab() > config.n_vocab {
            let what =
                format!("{} tokens, but the embedding has {} rows", tokenizer.n_vocab(), config.n_vocab);
            return Err(Error::new(Code::TokenizerInvalid, what).key("tokenizer.ggml.tokens"));
        }
        let chat_format = ChatFormat::from_gguf(metadata)?;
        info.kind = "text";
        info.chat_template = Some(chat_format.origin());
        info.context_length = n_ctx;
        info.n_output = config.n_vocab;
        let context = model.new_context(&ContextParams { n_ctx, kv_type })?;
        info.kv_type = kv_type.name();
        info.kv_bytes = context.n_bytes() as u64;
        Ok(TextModel {
            model,
            tokenizer,
            context,
            held: Vec::new(),
            chat_format,
            last_chat: None,
            logits: Vec::new(),
            pooling,
            kv_type,
            mode,
            info,
            draft: None,
            token_trie: None,
        })
    }

    /// Facts about the model; [`ModelInfo::backend`] is what computes at this moment.
    pub fn info(&self) -> ModelInfo {
        self.info.with_backend(self.mode)
    }

    /// Tokens that the context holds.
    pub(super) fn n_ctx(&self) -> usize {
        self.info.context_length
    }

    /// Tokens that it has logits for.
    pub(super) fn n_output(&self) -> usize {
        self.info.n_output
    }

    /// The tokens in the context.
    pub(super) fn held(&self) -> &[u32] {
        &self.held
    }

    /// Its chat templates.
    pub fn chat_format(&self) -> &ChatFormat {
        &self.chat_format
    }

    /// Uses other chat templates from now on.
    pub fn set_chat_format(&mut self, format: ChatFormat) {
        self.info.chat_template = Some("given");
        self.chat_format = format;
    }

    /// The tokens as a tree of bytes.
    pub(super) fn token_trie(&mut self) -> Arc<TokenTrie> {
        let tokenizer = &self.tokenizer;
        Arc::clone(self.token_trie.get_or_insert_with(|| Arc::new(TokenTrie::new(tokenizer))))
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Token ids of a text.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a text beyond the tokenizer's limit.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, add_special, parse_special)
    }

    /// Text of token ids; bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for an id outside the vocabulary.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.tokenizer.decode(ids, false, true)?).into_owned())
    }

    /// Logits of the last `last` of `tokens` (a whole context of their own), one row each.
    ///
    /// # Errors
    /// [`Code::BadArgument`], [`Code::ContextOverflow`].
    pub fn logits(&mut self, tokens: &[u32], last: usize) -> Result<Vec<Vec<f32>>> {
        self.logits_in_batches(tokens, last, PROMPT_CHUNK)
    }

    /// As [`Self::logits`], with at most `n_batch` tokens passing through the model together. The
    /// logits are the same up to the rounding of sums in another order.
    ///
    /// # Errors
    /// As [`Self::logits`].
    pub fn logits_in_batches(
        &mut self,
        tokens: &[u32],
        last: usize,
        n_batch: usize,
    ) -> Result<Vec<Vec<f32>>> {
        if n_batch == 0 {
            return Err(Error::new(Code::BadArgument, "must be at least 1").key("n_batch"));
        }
        self.check_context(tokens)?;
        if last == 0 || last > tokens.len() {
            let rule = format!("{last} is not in 1 ..= {}", tokens.len());
            return Err(Error::new(Code::BadArgument, rule).key("last"));
        }
        let mut rows = Vec::with_capacity(last);
        self.each_logits_by(n_batch, tokens, tokens.len() - last, |_, row| rows.push(row.to_vec()));
        Ok(rows)
    }

    /// Runs `tokens` in an empty context; `take` gets (index, logits) of each from `first` on.
    pub(super) fn each_logits(&mut self, tokens: &[u32], first: usize, take: impl FnMut(usize, &[f32])) {
        self.each_logits_by(PROMPT_CHUNK, tokens, first, take);
    }

    fn each_logits_by(
        &mut self,
        n_batch: usize,
        tokens: &[u32],
        first: usize,
        mut take: impl FnMut(usize, &[f32]),
    ) {
        self.forget();
        for (c, chunk) in tokens.chunks(n_batch).enumerate() {
            let end = c * n_batch + chunk.len();
            let n_out = end.saturating_sub(first).min(chunk.len());
            self.append(chunk, n_out);
            for (r, row) in self.logits.chunks_exact(self.info.n_output).enumerate().take(n_out) {
                take(end - n_out + r, row);
            }
        }
    }

    /// Appends tokens, which fit and are valid, and keeps the logits of the last `n_out`.
    pub(super) fn append(&mut self, tokens: &[u32], n_out: usize) {
        self.model.forward(self.context.as_mut(), tokens, n_out, self.mode, &mut self.logits);
        self.held.extend_from_slice(tokens);
    }

    /// Row `i` of the logits of the last [`Self::append`], over the vocabulary; the sampler may overwrite
    /// them. Outputs beyond the vocabulary are padding, which stands for no token.
    pub(super) fn row_logits(&mut self, i: usize) -> &mut [f32] {
        &mut self.logits[i * self.info.n_output..][..self.tokenizer.n_vocab()]
    }

    /// Whether the context can forget its last tokens alone.
    pub(super) fn can_go_back(&self) -> bool {
        self.context.can_go_back()
    }

    /// Forgets what the context holds beyond `n` tokens, and what a prompt left that was not processed to its end.
    pub(super) fn go_back(&mut self, n: usize) {
        self.held.truncate(self.context.truncate(n));
    }

    /// Does a part of what it takes to append more of a prompt of which the context holds `fed` tokens; how many it
    /// holds then.
    pub(super) fn append_prompt(&mut self, prompt: &[u32], fed: usize) -> usize {
        // The last token by itself where the state before it is worth keeping: another text may begin so.
        let stop =
            if self.can_go_back() || prompt.len() - fed == 1 { prompt.len() } else { prompt.len() - 1 };
        let end = (fed + PROMPT_CHUNK).min(stop);
        let (tokens, n_out) = (&prompt[fed..end], usize::from(end == prompt.len()));
        if !self.model.forward_part(self.context.as_mut(), tokens, n_out, self.mode, &mut self.logits) {
            return fed;
        }
        self.held.extend_from_slice(tokens);
        if end + 1 == prompt.len() {
            self.context.mark();
        }
        end
    }

    /// Forgets the `n` tokens from `from` on and keeps what follows.
    pub(super) fn forget_range(&mut self, from: usize, n: usize) {
        if self.model.shift(self.context.as_mut(), from, n) {
            self.held.drain(from..from + n);
            return;
        }
        // What follows is computed anew, at its new place.
        let rest = self.held.split_off(from + n);
        self.held.truncate(self.context.truncate(from));
        for chunk in rest.chunks(PROMPT_CHUNK) {
            self.append(chunk, 0);
        }
    }

    pub(super) fn context(&self) -> &dyn Context {
        self.context.as_ref()
    }

    pub(super) fn context_params(&self) -> ContextParams {
        ContextParams { n_ctx: self.n_ctx(), kv_type: self.kv_type }
    }

    pub(super) fn n_ctx_unstretched(&self) -> usize {
        self.model.n_ctx_unstretched()
    }

    /// What token 0 leaves in a new context, and its logits.
    pub(super) fn probe(&mut self, params: &ContextParams) -> Result<(Vec<u8>, Vec<f32>)> {
        let mut context = self.model.new_context(params)?;
        let mut logits = Vec::new();
        self.model.forward(context.as_mut(), &[0], 1, self.mode, &mut logits);
        Ok((context.save(), logits))
    }

    /// Has the context hold these tokens, of which it once wrote `bytes`; whether they fit.
    pub(super) fn set_context(&mut self, tokens: Vec<u32>, bytes: &[u8]) -> bool {
        let fits = self.context.restore(tokens.len(), bytes);
        if fits {
            self.held = tokens;
        }
        fits
    }

    /// Appends tokens, which fit and are valid, and gives their vectors.
    pub(super) fn hidden(&mut self, tokens: &[u32]) -> &[f32] {
        self.held.extend_from_slice(tokens);
        self.model.hidden(self.context.as_mut(), tokens, self.mode)
    }

    /// How the file says that vectors become one; that of the last token where it says nothing.
    pub(super) fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Cuts the context down to what it shares with `prompt`, leaving at least the prompt's
    /// last token to be processed; gives the number of tokens kept.
    pub(super) fn keep_prefix(&mut self, prompt: &[u32]) -> usize {
        let same = self.held.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let keep = self.context.truncate(same.min(prompt.len() - 1));
        self.held.truncate(keep);
        keep
    }

    /// Empties the context.
    pub fn forget(&mut self) {
        self.held.clear();
        self.context.truncate(0);
    }

    pub(super) fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let bad = |rule: String| Err(Error::new(Code::BadArgument, rule).key("tokens"));
        if tokens.is_empty() {
            return bad("no tokens".into());
        }
        match tokens.iter().find(|&&t| t as usize >= self.info.n_output) {
            Some(t) => bad(format!("token {t} is not below {}", self.info.n_output)),
            None => Ok(()),
        }
    }

    /// That `tokens` make a context: valid, at least one, and not too many.
    pub(super) fn check_context(&self, tokens: &[u32]) -> Result<()> {
        self.check_tokens(tokens)?;
        let (n, n_ctx) = (tokens.len(), self.info.context_length);
        if n > n_ctx {
            let what = format!("{n} tokens do not fit a context of {n_ctx}");
            return Err(Error::new(Code::ContextOverflow, what).key("tokens"));
        }
        Ok(())
    }
}
