//! How much memory a model will take, known from its header: before the weights are downloaded.

use super::loader::LoadOptions;
use crate::container::{Header, Metadata};
use crate::error::{Code, Error, Result};
use crate::models::config::Reader;

/// Tokens that pass through a language model together, at most.
const BATCH: u64 = 128;
/// What the runtime takes beside weights, context and activations: code, tables, stacks, the
/// buffers that bytes arrive in.
const BASE: u64 = 12 << 20;
/// Bytes of a float.
const F32: u64 = 4;

/// Bytes that a model takes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    /// Weights in kernel order.
    pub weights: u64,
    /// Bytes of the context for each token, and how many tokens it is for.
    pub per_token: u64,
    pub n_ctx: u64,
    /// Activations, tokenizer and what else is needed.
    pub work: u64,
}

impl Needs {
    /// The needs of a file with this header, whose weights take so many bytes; `remembers` tells models
    /// that keep something of every token.
    pub fn of(
        header: &Header,
        architecture: &str,
        remembers: bool,
        weights: u64,
        options: &LoadOptions,
    ) -> Self {
        let reader = Reader::new(&header.metadata, architecture);
        let dim = |name: &str| reader.optional_dim(name).ok().flatten().unwrap_or(0) as u64;
        let n_ctx_train = dim("context_length");
        let n_ctx = options
            .context_length
            .map_or(n_ctx_train.min(super::loader::DEFAULT_CONTEXT as u64), |n| n as u64);
        let width = 8 * dim("embedding_length") + 3 * dim("feed_forward_length");
        let vocabulary = header.metadata.array("tokenizer.ggml.tokens").ok().flatten();
        let n_vocab = vocabulary.map_or(0, |tokens| tokens.len()) as u64;
        // Strings of the tokenizer are kept in tables beside the header's own.
        let tables = 3 * header.data_offset;
        let per_token = if remembers { bytes_per_token(&header.metadata, architecture) } else { 0 };
        Needs { weights, per_token, n_ctx, work: BASE + tables + F32 * (BATCH * width + 2 * n_vocab) }
    }

    fn context(&self) -> u64 {
        self.per_token.saturating_mul(self.n_ctx)
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.context()).saturating_add(self.work)
    }

    /// Compares with the bytes there are. `smaller` gives what the weights would take in fewer bits:
    /// the type's name and bytes.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`] with the numbers, and what would fit.
    pub fn check(&self, available: Option<u64>, smaller: &[(&str, u64)]) -> Result<()> {
        let needed = self.total();
        let Some(available) = available.filter(|&available| needed > available) else { return Ok(()) };
        let mut parts = format!("weights {}", size(self.weights));
        if self.context() > 0 {
            parts += &format!(", a context of {} tokens {}", self.n_ctx, size(self.context()));
        }
        let advice = match self.fitting(available, smaller) {
            options if options.is_empty() => {
                "no shorter context and no smaller type would make it fit".into()
            }
            options => format!("what would fit: {}", options.join(", or ")),
        };
        let what = format!(
            "the model needs {} ({parts}, the rest {}) and {} are available; {advice}",
            size(needed),
            size(self.work),
            size(available)
        );
        Err(Error::new(Code::OutOfMemory, what).memory(needed, available))
    }

    fn fitting(&self, available: u64, smaller: &[(&str, u64)]) -> Vec<String> {
        let mut options = Vec::new();
        let left = available.saturating_sub(self.weights).saturating_sub(self.work);
        if let Some(n_ctx) = left.checked_div(self.per_token).filter(|&n| n >= 64.min(self.n_ctx)) {
            options.push(format!("contextLength {}", n_ctx.min(self.n_ctx) / 64 * 64));
        }
        for &(name, weights) in smaller {
            let needs = Needs { weights, ..*self };
            if weights < self.weights && needs.total() <= available {
                options.push(format!("quantize \"{name}\" ({})", size(needs.total())));
            }
        }
        options
    }
}

/// Bytes of keys and values that a token takes in all layers, as `kernels::attention` keeps them.
fn bytes_per_token(metadata: &Metadata, architecture: &str) -> u64 {
    let reader = Reader::new(metadata, architecture);
    let count = |name: &str| reader.count(name).ok().flatten().map(|n| n as u64);
    let Ok(n_layer) = reader.n_layer() else { return 0 };
    let n_head = count("attention.head_count").unwrap_or(0);
    // An array where layers differ: those without attention have none.
    let heads: u64 = match reader.per_layer("attention.head_count_kv", n_layer) {
        Ok(heads) => heads.iter().map(|&n| n as u64).sum(),
        Err(_) => n_head * n_layer as u64,
    };
    let key = count("attention.key_length").or_else(|| count("embedding_length")?.checked_div(n_head));
    let value = count("attention.value_length").or(key);
    heads * (key.unwrap_or(0) + value.unwrap_or(0).next_multiple_of(8)) * F32
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
