//! The one error type and the one list of error codes, shared with the npm package.
//!
//! A single struct rather than an enum per layer: every layer reports the same few facts
//! (which rule broke, which key, tensor or byte offset broke it), and the JavaScript side
//! needs exactly these fields.

use std::fmt;

/// Result of everything that can fail on input.
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What rule an input broke. The names are stable: callers match on them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in declaration order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The stable string that users see and that TypeScript's union holds.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => stringify!($name),)* }
            }
        }
    };
}

codes! {
    /// The file ends before what its header declares.
    Truncated,
    /// The first bytes are of no supported container.
    BadMagic,
    /// The container's version (or byte order) is not supported.
    UnsupportedVersion,
    /// A declared count or length is beyond the limits or beyond the bytes there are.
    LimitExceeded,
    /// A metadata key is empty or too long.
    BadKey,
    /// A key or a tensor name occurs twice.
    Duplicate,
    /// A type id is unknown, removed, or not allowed here.
    BadType,
    /// A value is outside its domain.
    BadValue,
    /// `general.alignment` is not a power of two within the limits.
    BadAlignment,
    /// A tensor name is empty or too long.
    BadName,
    /// A shape is impossible, or does not fit the tensor's type or bytes.
    BadShape,
    /// A size computation does not fit its integer.
    Overflow,
    /// The tensor type is known but cannot be used here.
    UnsupportedQuant,
    /// Tensor data overlaps, leaves a hole, is misaligned or lies outside the file.
    BadOffset,
    /// Bytes follow the end of the declared data.
    TrailingData,
    /// The shards of a split model do not belong together.
    ShardMismatch,
    /// The model's architecture is missing or unknown.
    UnsupportedArch,
    /// A hyperparameter is missing or impossible.
    BadConfig,
    /// A tensor that the architecture needs is not in the file.
    MissingTensor,
    /// A tensor's shape is not the one that the architecture needs.
    ShapeMismatch,
    /// A safetensors header is malformed.
    BadHeader,
    /// A safetensors dtype is unknown or cannot be used as a weight.
    UnsupportedDtype,
    /// A shard index points outside its own folder.
    BadShardPath,
    /// A weight is NaN or infinite where a number is needed.
    NonFiniteWeight,
    /// Tokenizer data is missing or inconsistent.
    TokenizerInvalid,
    /// The pre-tokenizer named by the model is not supported.
    UnsupportedPreTokenizer,
    /// A chat template is malformed.
    TemplateError,
    /// A chat template used more steps, memory or output than allowed.
    TemplateBudget,
    /// A grammar is malformed, or a JSON Schema asks for what no grammar is made for.
    GrammarError,
    /// A grammar needs more memory or steps than allowed.
    GrammarBudget,
    /// An argument or option is outside its domain.
    BadArgument,
    /// An image cannot be decoded or is too large.
    ImageDecodeError,
    /// The server answered with an error status.
    HttpStatus,
    /// The request failed before an answer came.
    NetworkError,
    /// No byte arrived for too long.
    Stalled,
    /// The bytes do not have the expected hash or length.
    IntegrityError,
    /// WebAssembly, SIMD or a worker is not available here.
    RuntimeUnavailable,
    /// JavaScript and WebAssembly come from different versions.
    VersionMismatch,
    /// Memory cannot be had, or would not suffice.
    OutOfMemory,
    /// The engine trapped; it must be loaded anew.
    InstancePoisoned,
    /// The worker died or could not start.
    WorkerCrashed,
    /// The model has been disposed.
    Disposed,
    /// Another operation is in the way.
    Busy,
    /// Tokens do not fit the context.
    ContextOverflow,
    /// A computation gave NaN or infinity.
    NumericFault,
    /// An importance matrix does not fit the model.
    ImatrixMismatch,
    /// No plan fits the byte budget.
    BudgetInfeasible,
    /// Reading or writing a file failed.
    Io,
}

/// An error: the broken rule, a sentence, and the offender where one is known.
#[derive(Debug)]
pub struct Error {
    /// The broken rule.
    pub code: Code,
    /// One sentence for people: lower case, no full stop.
    pub message: String,
    /// The metadata key, option or argument at fault.
    pub key: Option<String>,
    /// The tensor at fault.
    pub tensor: Option<String>,
    /// The byte offset from the start of the file at which the fault was found.
    pub offset: Option<u64>,
    /// For [`Code::OutOfMemory`], where they are known: the bytes needed and the bytes there are. Boxed, since every
    /// result has room for an error.
    pub memory: Option<Box<(u64, u64)>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Most bytes of a message: what a file calls its things can be as long as the file.
const MESSAGE_BYTES: usize = 2048;
/// Most bytes of the name of an offender.
const NAME_BYTES: usize = 512;

/// `text` without its middle where it has more than `limit` bytes: what went wrong stands at either end.
fn shortened(mut text: String, limit: usize) -> String {
    const CUT: &str = " […] ";
    if text.len() > limit {
        let kept = limit - CUT.len();
        let head = text.floor_char_boundary(kept / 2);
        let tail = text.ceil_char_boundary(text.len() - kept / 2);
        text.replace_range(head..tail, CUT);
    }
    text
}

impl Error {
    /// An error with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error {
            code,
            message: shortened(message.into(), MESSAGE_BYTES),
            key: None,
            tensor: None,
            offset: None,
            memory: None,
            source: None,
        }
    }

    /// Names the metadata key, option or argument at fault.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(shortened(key.into(), NAME_BYTES));
        self
    }

    /// Names the tensor at fault.
    pub fn tensor(mut self, name: impl Into<String>) -> Self {
        self.tensor = Some(shortened(name.into(), NAME_BYTES));
        self
    }

    /// States the byte offset (from the start of the file) of the fault.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// States the bytes needed and the bytes available.
    pub fn memory(mut self, needed: u64, available: u64) -> Self {
        self.memory = Some(Box::new((needed, available)));
        self
    }

    /// Keeps the underlying error.
    pub fn source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if let Some(key) = &self.key {
            write!(f, " (key {key:?})")?;
        }
        if let Some(tensor) = &self.tensor {
            write!(f, " (tensor {tensor:?})")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " (byte {offset})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_offender_does_not_make_a_long_error() {
        let long = "ä\u{fe}".repeat(30_000);
        let error = Error::new(Code::BadType, format!("unknown type {long:?}, expected one of two"))
            .key(&long)
            .tensor(&long);
        assert!(error.message.len() <= MESSAGE_BYTES && error.message.len() > MESSAGE_BYTES - 8);
        assert!(error.message.starts_with("unknown type \"ä") && error.message.contains(" […] "));
        assert!(error.message.ends_with("expected one of two"));
        for name in [&error.key, &error.tensor] {
            assert!(name.as_ref().is_some_and(|name| name.len() <= NAME_BYTES));
        }
        // Quoted, a byte of a name becomes at most ten.
        assert!(error.to_string().len() < MESSAGE_BYTES + 20 * NAME_BYTES);
        let exact = "x".repeat(MESSAGE_BYTES);
        assert_eq!(Error::new(Code::BadType, exact.clone()).message, exact);
    }
}
