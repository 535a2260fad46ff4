//! A file that arrives from its first byte on: what is done with its tensors is made when its header is there.

use crate::container::Header;
use crate::container::stream::{Sink, Stream};
use crate::error::{Code, Error, Result};

/// Makes a sink from a header.
type Make<S> = Box<dyn FnOnce(&Header) -> Result<S>>;

/// A stream and the sink that is made when it can be.
pub struct Arriving<S> {
    stream: Stream,
    inner: Inner<S>,
}

struct Inner<S> {
    make: Option<Make<S>>,
    made: Option<S>,
    n_tensors: usize,
}

impl<S: Sink> Arriving<S> {
    /// At byte 0; `file_len` is given where it is certain.
    pub fn new(file_len: Option<u64>, make: Make<S>) -> Self {
        Arriving {
            stream: Stream::new(file_len),
            inner: Inner { make: Some(make), made: None, n_tensors: 0 },
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is wrong with the file, and what the sink returned.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.push(bytes, &mut self.inner)
    }

    /// The sink, once the header is complete, and the number of tensors.
    pub fn sink(&mut self) -> Option<(&mut S, usize)> {
        let n = self.inner.n_tensors;
        self.inner.made.as_mut().map(|sink| (sink, n))
    }

    /// The sink after the last byte.
    ///
    /// # Errors
    /// [`Code::Truncated`].
    pub fn finish(mut self) -> Result<S> {
        self.stream.finish(&mut self.inner)?;
        self.inner.made.ok_or_else(|| Error::new(Code::Truncated, "the file ends before its header"))
    }
}

impl<S: Sink> Sink for Inner<S> {
    fn header(&mut self, header: &Header) -> Result<()> {
        if let Some(make) = self.make.take() {
            self.made = Some(make(header)?);
            self.n_tensors = header.tensors.len();
        }
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        self.made.as_mut().map_or(Ok(()), |sink| sink.tensor_bytes(idx, bytes))
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        self.made.as_mut().map_or(Ok(()), |sink| sink.tensor_end(idx))
    }
}
