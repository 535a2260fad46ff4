//! What a stream has to deliver. The targets of `fuzz/` have it from here, too.

use bitpane::Result;
use bitpane::container::Header;
use bitpane::container::stream::{Sink, Stream};

/// Counts what a stream delivers and checks it against the header.
#[derive(Default)]
pub struct Tally {
    sizes: Vec<u64>,
    ended: usize,
    bytes: u64,
}

impl Sink for Tally {
    fn header(&mut self, header: &Header) -> Result<()> {
        self.sizes = header.tensors.iter().map(|t| t.n_bytes).collect();
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        assert_eq!(idx, self.ended);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        assert_eq!((idx, self.bytes), (self.ended, self.sizes[idx]));
        self.ended += 1;
        self.bytes = 0;
        Ok(())
    }
}

/// Streams `file` in chunks of `chunk` bytes.
pub fn stream(file: &[u8], file_len: Option<u64>, chunk: usize) -> Result<()> {
    let mut sink = Tally::default();
    let mut stream = Stream::new(file_len);
    for piece in file.chunks(chunk) {
        stream.push(piece, &mut sink)?;
    }
    stream.finish(&mut sink)?;
    assert_eq!(sink.ended, sink.sizes.len(), "every tensor ends");
    Ok(())
}
