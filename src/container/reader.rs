//! A bounded little-endian cursor over the bytes of a header that have arrived so far: the
//! only place that reads integers from bytes.

use super::limits;
use crate::error::{Code, Error, Result};

/// Result of reading one item.
pub type Read<T> = std::result::Result<T, Stop>;

/// Why reading stopped.
#[derive(Debug)]
pub enum Stop {
    /// The bytes end here; more may follow. `needed` is the least length of the file so far
    /// with which reading on makes sense.
    Short {
        /// Bytes from the start of the file.
        needed: u64,
    },
    /// The input is malformed.
    Bad(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Bad(error)
    }
}

impl Stop {
    /// Names the metadata key at fault, unless the error names one already.
    pub fn key(self, key: &str) -> Self {
        match self {
            Stop::Bad(e) if e.key.is_none() => Stop::Bad(e.key(key)),
            other => other,
        }
    }

    /// Names the tensor at fault, unless the error names one already.
    pub fn tensor(self, name: &str) -> Self {
        match self {
            Stop::Bad(e) if e.tensor.is_none() => Stop::Bad(e.tensor(name)),
            other => other,
        }
    }
}

/// The error for a file that ends too early; `got` is where it ends.
pub fn truncated(needed: u64, got: u64) -> Error {
    Error::new(Code::Truncated, format!("the file ends after {got} bytes, at least {needed} are needed"))
        .at(got)
}

/// Cursor over bytes that begin at some offset of a file.
pub struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
    base: u64,
    file_len: Option<u64>,
}

impl<'a> Reader<'a> {
    /// A cursor over `bytes`, which begin at byte `base` of a file of `file_len` bytes, if known.
    pub fn new(bytes: &'a [u8], base: u64, file_len: Option<u64>) -> Self {
        Reader { bytes, pos: 0, base, file_len }
    }

    /// The cursor's byte offset from the start of the file.
    pub fn offset(&self) -> u64 {
        self.base.saturating_add(self.pos as u64)
    }

    /// Refuses `count` items of at least `item_bytes` each where the file (or the header
    /// limit) cannot hold them; allocates and consumes nothing.
    pub fn claim(&self, count: u64, item_bytes: u64) -> Result<()> {
        let needed = self.offset().saturating_add(count.saturating_mul(item_bytes));
        if needed > limits::HEADER_BYTES {
            let limit = limits::HEADER_BYTES;
            let message = format!("the header would need {needed} bytes, the limit is {limit}");
            return Err(Error::new(Code::LimitExceeded, message).at(self.offset()));
        }
        match self.file_len {
            Some(len) if needed > len => Err(truncated(needed, len)),
            _ => Ok(()),
        }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: u64) -> Read<&'a [u8]> {
        self.claim(n, 1)?;
        let rest = &self.bytes[self.pos..];
        match usize::try_from(n).ok().and_then(|n| rest.get(..n)) {
            Some(taken) => {
                self.pos += taken.len();
                Ok(taken)
            }
            None => Err(Stop::Short { needed: self.offset().saturating_add(n) }),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64)?);
        Ok(out)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// The next u32.
    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next u64.
    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A u64 length and that many bytes. `code` is the verdict on a length above `limit`.
    pub fn string(&mut self, limit: u64, code: Code) -> Read<&'a [u8]> {
        let at = self.offset();
        let len = self.u64()?;
        if len > limit {
            return Err(Error::new(code, format!("length {len} is above the limit {limit}")).at(at).into());
        }
        self.take(len)
    }
}
