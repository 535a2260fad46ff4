//! Text from ids that arrive one by one.

use super::Tokenizer;

/// Turns ids into text as they arrive, in whole characters: bytes of an unfinished one are kept back.
///
/// Control tokens give no text. The strings together are the concatenated pieces of all tokens (the text
/// continues a prompt, so a leading space stays) with every invalid byte sequence as one U+FFFD.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    pending: Vec<u8>,
}

impl StreamDecoder {
    /// A decoder with nothing kept back.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text that token `id` completes; empty for an id outside the vocabulary.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if !tokenizer.is_control(id) {
            self.pending.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
        }
        let mut text = String::new();
        let mut start = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            start += chunk.valid().len();
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            if start + invalid.len() == self.pending.len() && may_continue(invalid) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            start += invalid.len();
        }
        self.pending.drain(..start);
        text
    }

    /// The end of the text: U+FFFD if a character was left unfinished.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

/// Whether more bytes could make these a character.
fn may_continue(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(e) if e.error_len().is_none())
}
