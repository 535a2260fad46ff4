//! How much memory a model will take, known from its header: before the weights are downloaded.

use super::loader::LoadOptions;
use crate::container::{Header, Metadata};
use crate::error::{Code, Error, Result};
use crate::kernels::attention::{KvCache, KvType};
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
    /// What the context holds of each token, and how many tokens it is for.
    pub kv: KvNeeds,
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
        let kv = KvNeeds::of(&header.metadata, architecture, options);
        let kv = if remembers { kv } else { KvNeeds::default() };
        Needs { weights, kv, n_ctx, work: BASE + tables + F32 * (BATCH * width + 2 * n_vocab) }
    }

    fn context(&self) -> u64 {
        self.kv.bytes(self.n_ctx)
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
        let fits = |&n_ctx: &u64| self.kv.bytes(n_ctx) <= left;
        let lengths = (1..=self.n_ctx / 64).rev().map(|n| 64 * n);
        if let Some(n_ctx) = lengths.chain([self.n_ctx.min(64)]).find(fits).filter(|_| self.context() > 0) {
            options.push(format!("contextLength {n_ctx}"));
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

/// What keys and values take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KvNeeds {
    /// Key heads of all layers.
    heads: u64,
    /// Numbers per head.
    head_dim: usize,
    /// The type asked for.
    given: Option<KvType>,
    /// Whether exactness is asked for.
    exact: bool,
}

impl KvNeeds {
    /// Those of a file with this metadata. An unknown type counts as none: it is an error elsewhere.
    pub fn of(metadata: &Metadata, architecture: &str, options: &LoadOptions) -> Self {
        let given = options.kv_type.as_deref().and_then(|name| KvType::from_name(name).ok());
        let reader = Reader::new(metadata, architecture);
        let count = |name: &str| reader.count(name).ok().flatten().map(|n| n as u64);
        let Ok(n_layer) = reader.n_layer() else { return KvNeeds::default() };
        let n_head = count("attention.head_count").unwrap_or(0);
        // An array where layers differ: those without attention have none.
        let heads: u64 = match reader.per_layer("attention.head_count_kv", n_layer) {
            Ok(heads) => heads.iter().map(|&n| n as u64).sum(),
            Err(_) => n_head * n_layer as u64,
        };
        let key = count("attention.key_length").or_else(|| count("embedding_length")?.checked_div(n_head));
        KvNeeds { heads, head_dim: key.unwrap_or(0) as usize, given, exact: options.reference }
    }

    /// The type in a context of so many tokens: by default exact where that costs little memory.
    pub fn kv_type(&self, n_ctx: u64) -> KvType {
        const LITTLE: u64 = 16 << 20;
        let small = self.bytes_as(KvType::F32, n_ctx) <= LITTLE;
        self.given.unwrap_or(if small || self.exact { KvType::F32 } else { KvType::Q8_0 })
    }

    fn bytes(&self, n_ctx: u64) -> u64 {
        self.bytes_as(self.kv_type(n_ctx), n_ctx)
    }

    fn bytes_as(&self, kv_type: KvType, n_ctx: u64) -> u64 {
        let per_token = self.heads.saturating_mul(kv_type.token_bytes(self.head_dim) as u64);
        per_token.saturating_mul(KvCache::room_for(usize::try_from(n_ctx).unwrap_or(usize::MAX)) as u64)
    }
}

/// Bytes in words.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
