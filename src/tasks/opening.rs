//! The first bytes of a file, until they tell how it is read: as it arrives, or as a whole.

use super::convert::{Extras, tflite_to_gguf};
use crate::container::stream::{Sink, Stream};
use crate::container::tflite::is_tflite;
use crate::error::{Code, Error, Result};

/// Bytes that tell a .tflite file.
const PREFIX: usize = 8;
/// Longest .tflite file, bytes.
const MAX_TFLITE: usize = 1 << 29;

/// A file's bytes on their way into the containers' reader. A .tflite file can only be read as a whole; it becomes
/// GGUF in memory.
pub(crate) struct Opening {
    stream: Stream,
    state: State,
    /// Whether what the stream reads is another file than the one that came.
    was_whole: bool,
}

enum State {
    /// Too few bytes so far.
    Unknown(Vec<u8>),
    /// Those of a .tflite file so far.
    Tflite(Vec<u8>),
    /// A container that is read as it arrives.
    Known,
}

impl Opening {
    /// Before the first byte of a file; `file_len` is its length where that is certain.
    pub(crate) fn new(file_len: Option<u64>) -> Self {
        Opening { stream: Stream::new(file_len), state: State::Unknown(Vec::new()), was_whole: false }
    }

    /// The same for what is read in place and so has to be a container.
    #[cfg(feature = "cli")]
    pub(crate) fn of_container(file_len: Option<u64>) -> Self {
        Opening { state: State::Known, ..Opening::new(file_len) }
    }

    /// Bytes taken.
    pub(super) fn received(&self) -> u64 {
        let held = match &self.state {
            State::Unknown(held) | State::Tflite(held) => held.len() as u64,
            State::Known => 0,
        };
        self.stream.received() + held
    }

    /// Whether the file is known to be one that is read as it arrives.
    pub(super) fn is_streamed(&self) -> bool {
        matches!(self.state, State::Known) && !self.was_whole
    }

    /// Whether it has been a .tflite file, as is known at its end.
    #[cfg(target_family = "wasm")]
    pub(crate) fn was_tflite(&self) -> bool {
        self.was_whole
    }

    /// As [`Stream::end_offset`].
    pub(super) fn end_offset(&self) -> u64 {
        self.stream.end_offset()
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<()> {
        match &mut self.state {
            State::Known => self.stream.push(bytes, sink),
            State::Unknown(held) => {
                held.extend_from_slice(bytes);
                if held.len() < PREFIX { Ok(()) } else { self.decide(sink) }
            }
            State::Tflite(held) if held.len() + bytes.len() > MAX_TFLITE => {
                let rule = format!("a .tflite file of more than {MAX_TFLITE} bytes");
                Err(Error::new(Code::LimitExceeded, rule))
            }
            State::Tflite(held) => {
                held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Says that no byte follows.
    ///
    /// # Errors
    /// [`Code::Truncated`], and what is wrong with a .tflite file.
    pub(crate) fn finish(&mut self, sink: &mut dyn Sink) -> Result<()> {
        self.decide(sink)?;
        if let State::Tflite(held) = std::mem::replace(&mut self.state, State::Known) {
            self.was_whole = true;
            let gguf = tflite_to_gguf(&held, &Extras::default())?;
            self.stream = Stream::new(Some(gguf.len() as u64));
            self.stream.push(&gguf, sink)?;
        }
        self.stream.finish(sink)
    }

    fn decide(&mut self, sink: &mut dyn Sink) -> Result<()> {
        match std::mem::replace(&mut self.state, State::Known) {
            State::Unknown(held) if is_tflite(&held) => self.state = State::Tflite(held),
            State::Unknown(held) if !held.is_empty() => self.stream.push(&held, sink)?,
            State::Unknown(_) => {}
            other => self.state = other,
        }
        Ok(())
    }
}
