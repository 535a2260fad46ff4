//! Files that arrive from their first byte on: what is done with their tensors is made when all headers are there.

use crate::container::Header;
use crate::container::joining::Joined;
use crate::container::stream::{Sink, Stream};
use crate::error::{Code, Error, Result};

/// Makes a sink from a header.
type Make<S> = Box<dyn FnOnce(&Header) -> Result<S>>;

/// A stream and the sink that is made when it can be.
pub struct Arriving<S> {
    stream: Stream,
    inner: Inner<S>,
    /// Several files whose headers have been read before, and the one that is arriving.
    files: Option<(Joined, usize)>,
}

struct Inner<S> {
    make: Option<Make<S>>,
    made: Option<S>,
    n_tensors: usize,
}

impl<S: Sink> Arriving<S> {
    /// One file, at byte 0; `file_len` is given where it is certain.
    pub fn new(file_len: Option<u64>, make: Make<S>) -> Self {
        let inner = Inner { make: Some(make), made: None, n_tensors: 0 };
        Arriving { stream: Stream::new(file_len), inner, files: None }
    }

    /// The files of `joined`, each of which begins with a call of [`Self::next_file`].
    ///
    /// # Errors
    /// What `make` finds wrong.
    pub fn of_files(joined: Joined, make: Make<S>) -> Result<Self> {
        let mut arriving = Arriving::new(None, make);
        arriving.inner.header(&joined.header)?;
        arriving.files = Some((joined, 0));
        Ok(arriving)
    }

    /// Says that the next byte is the first of the next file; not needed where there is only one.
    ///
    /// # Errors
    /// [`Code::Truncated`] where the file before it is not complete, [`Code::BadArgument`] where it was the last.
    pub fn next_file(&mut self, file_len: Option<u64>) -> Result<()> {
        let Some((joined, next)) = &mut self.files else {
            return Err(Error::new(Code::BadArgument, "this takes one file only"));
        };
        if *next == joined.n_files() {
            return Err(Error::new(Code::BadArgument, "there are no more files"));
        }
        if *next > 0 {
            self.stream.finish(&mut joined.part(*next - 1, &mut self.inner))?;
        }
        *next += 1;
        self.stream = Stream::new(file_len);
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is wrong with the file, and what the sink returned.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        match &self.files {
            None => self.stream.push(bytes, &mut self.inner),
            Some((_, 0)) => Err(Error::new(Code::BadArgument, "no file has been begun")),
            Some((joined, next)) => self.stream.push(bytes, &mut joined.part(*next - 1, &mut self.inner)),
        }
    }

    /// The sink, once the header is complete, and the number of tensors.
    pub fn sink(&mut self) -> Option<(&mut S, usize)> {
        let n = self.inner.n_tensors;
        self.inner.made.as_mut().map(|sink| (sink, n))
    }

    /// The sink after the last byte.
    ///
    /// # Errors
    /// [`Code::Truncated`]; [`Code::ShardMismatch`] where files are missing.
    pub fn finish(mut self) -> Result<S> {
        match &self.files {
            None => self.stream.finish(&mut self.inner)?,
            Some((joined, next)) if *next < joined.n_files() => {
                return Err(Error::new(Code::ShardMismatch, "files of the model are missing").key("source"));
            }
            Some((joined, next)) => self.stream.finish(&mut joined.part(*next - 1, &mut self.inner))?,
        }
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
