//! A file as it arrives: the header first, then each tensor's bytes in file order.

use super::gguf::Parser;
use super::reader::truncated;
use super::safetensors::{self, trailing};
use super::{ContainerKind, Header, sniff};
use crate::error::{Code, Error, Result};

/// Header bytes taken from a push at a time: bounds how much tensor data is buffered with them.
const HEADER_STEP: usize = 64 << 10;

/// Receives a model file's content in file order.
pub trait Sink {
    /// The whole header, once, before any tensor.
    fn header(&mut self, header: &Header) -> Result<()>;
    /// The next bytes of tensor `idx` of the header's list, of any length above zero.
    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()>;
    /// Tensor `idx` is complete. Called once for every tensor, in order, also for empty ones.
    fn tensor_end(&mut self, idx: usize) -> Result<()>;
}

/// Splits a file that arrives in chunks of any size. Keeps the header's bytes until the
/// header is complete, and none after.
pub struct Stream {
    file_len: Option<u64>,
    received: u64,
    state: State,
}

enum State {
    Header(HeaderState),
    Data(DataState),
    /// An earlier call failed.
    Failed,
}

impl Stream {
    /// A stream at byte 0. `file_len` is the length of the whole file, where it is known for
    /// certain (a `Content-Length` may count compressed bytes); it lets a short file fail early.
    pub fn new(file_len: Option<u64>) -> Self {
        Stream { file_len, received: 0, state: State::Header(HeaderState::default()) }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The least length of the whole file, as its header says; 0 until that is complete.
    pub fn end_offset(&self) -> u64 {
        match &self.state {
            State::Data(data) => data.end_offset,
            _ => 0,
        }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// What is wrong with the file, or what the sink returned. The stream is then of no use:
    /// later calls give [`Code::BadArgument`].
    pub fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        let file_len = self.file_len.map(|len| len.max(self.received));
        let mut state = std::mem::replace(&mut self.state, State::Failed);
        let mut rest = bytes;
        if let State::Header(header_state) = &mut state {
            match header_state.push(&mut rest, file_len)? {
                None => {
                    self.state = state;
                    return Ok(());
                }
                Some(header) => {
                    sink.header(&header)?;
                    let buffered = std::mem::take(&mut header_state.buffer);
                    let mut data = DataState::new(&header, header_state.base);
                    drop(header);
                    data.push(&buffered, sink)?;
                    state = State::Data(data);
                }
            }
        }
        match &mut state {
            State::Data(data) => data.push(rest, sink)?,
            _ => return Err(failed_before()),
        }
        self.state = state;
        Ok(())
    }

    /// Declares that no byte follows.
    ///
    /// # Errors
    /// [`Code::Truncated`] where the file declares more bytes than came, and the sink's errors.
    pub fn finish(&mut self, sink: &mut dyn Sink) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Header(state) => {
                let needed = state.needed().max(self.received.saturating_add(1));
                Err(truncated(needed, self.received))
            }
            State::Data(mut data) => data.finish(sink),
            State::Failed => Err(failed_before()),
        }
    }
}

fn failed_before() -> Error {
    Error::new(Code::BadArgument, "this stream has ended or failed before")
}

/// Until the header is complete.
#[derive(Default)]
struct HeaderState {
    /// Bytes not yet consumed by a parser; the first is at offset `base`.
    buffer: Vec<u8>,
    base: u64,
    kind: Option<ContainerKind>,
    gguf: Parser,
    safetensors_needed: u64,
}

impl HeaderState {
    /// Takes bytes from the front of `rest` until the header is complete or `rest` is empty.
    fn push(&mut self, rest: &mut &[u8], file_len: Option<u64>) -> Result<Option<Header>> {
        while !rest.is_empty() {
            let have = self.base.saturating_add(self.buffer.len() as u64);
            let missing = usize::try_from(self.needed().saturating_sub(have)).unwrap_or(usize::MAX);
            let (taken, left) = rest.split_at(rest.len().min(missing.max(HEADER_STEP)));
            self.buffer.extend_from_slice(taken);
            *rest = left;
            if taken.len() >= missing
                && let Some(header) = self.advance(file_len)?
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Least number of bytes from the start of the file with which parsing gets further.
    fn needed(&self) -> u64 {
        match self.kind {
            None => 0,
            Some(ContainerKind::Gguf) => self.gguf.needed(),
            Some(ContainerKind::Safetensors) => self.safetensors_needed,
        }
    }

    fn advance(&mut self, file_len: Option<u64>) -> Result<Option<Header>> {
        if self.kind.is_none() {
            self.kind = sniff(&self.buffer)?;
        }
        match self.kind {
            None => Ok(None),
            Some(ContainerKind::Gguf) => {
                let header = self.gguf.advance(&self.buffer, file_len)?;
                let consumed = self.gguf.pos() - self.base;
                self.buffer.drain(..consumed as usize);
                self.base = self.gguf.pos();
                Ok(header)
            }
            Some(ContainerKind::Safetensors) => {
                self.safetensors_needed = safetensors::needed(&self.buffer, file_len)?;
                safetensors::parse(&self.buffer, file_len)
            }
        }
    }
}

/// After the header.
struct DataState {
    /// Begin and end of each tensor, from the start of the file.
    ranges: Vec<(u64, u64)>,
    /// The first tensor that is not complete.
    idx: usize,
    /// Offset of the next byte.
    pos: u64,
    end_offset: u64,
    allows_trailing: bool,
}

impl DataState {
    fn new(header: &Header, pos: u64) -> Self {
        DataState {
            ranges: header.tensors.iter().map(|t| (t.offset, t.offset.saturating_add(t.n_bytes))).collect(),
            idx: 0,
            pos,
            end_offset: header.end_offset,
            // ggml pads the end of a file and ignores what follows; safetensors forbids it.
            allows_trailing: header.kind == ContainerKind::Gguf,
        }
    }

    fn push(&mut self, mut bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        if !self.allows_trailing && (bytes.len() as u64) > self.end_offset.saturating_sub(self.pos) {
            return Err(trailing(self.end_offset));
        }
        while let Some(&(begin, end)) = self.ranges.get(self.idx) {
            if begin == end || self.pos >= end {
                sink.tensor_end(self.idx)?;
                self.idx += 1;
                continue;
            }
            if bytes.is_empty() {
                return Ok(());
            }
            let is_data = self.pos >= begin;
            let until = if is_data { end } else { begin };
            let n = usize::try_from(until - self.pos).map_or(bytes.len(), |n| n.min(bytes.len()));
            let (part, rest) = bytes.split_at(n);
            if is_data {
                sink.tensor_bytes(self.idx, part)?;
            }
            self.pos += n as u64;
            bytes = rest;
        }
        self.pos = self.pos.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn finish(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.push(&[], sink)?;
        match self.pos < self.end_offset {
            true => Err(truncated(self.end_offset, self.pos)),
            false => Ok(()),
        }
    }
}
