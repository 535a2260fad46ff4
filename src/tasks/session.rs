//! A context as bytes: a long prompt or a conversation is processed once and continued later, elsewhere.
//!
//! All numbers are little-endian: the magic, the version (u32), a fingerprint of the model (u64), the number of
//! tokens (u32), the length of the caller's note (u32), the tokens' ids (u32 each), the note, the context's own
//! bytes, and a checksum (u64) of all before it.

use super::TextModel;
use crate::error::{Code, Error, Result};

const MAGIC: &[u8; 8] = b"bitpaneS";
const VERSION: u32 = 1;
/// Magic, version, fingerprint, number of tokens, length of the note.
const HEAD_LEN: usize = 8 + 4 + 8 + 4 + 4;

/// FNV-1a with 64 bits: finds damage, not intent.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn wrong(code: Code, message: impl Into<String>) -> Error {
    Error::new(code, message).key("session")
}

/// Takes `n` bytes from the front.
fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk().ok_or_else(|| wrong(Code::Truncated, "it ends early"))?;
    *bytes = rest;
    Ok(head)
}

impl TextModel {
    /// The context as bytes, for [`Self::restore_session`], with a note that comes back then.
    ///
    /// # Errors
    /// [`Code::OutOfMemory`].
    pub fn save_session(&mut self, note: &[u8]) -> Result<Vec<u8>> {
        self.go_back(self.held().len());
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend(self.fingerprint()?.to_le_bytes());
        out.extend((self.held().len() as u32).to_le_bytes());
        out.extend((note.len() as u32).to_le_bytes());
        out.extend(self.held().iter().flat_map(|id| id.to_le_bytes()));
        out.extend(note);
        out.extend(self.context().save());
        out.extend(hash(&out).to_le_bytes());
        Ok(out)
    }

    /// Takes up a context that [`Self::save_session`] wrote with the same model, loaded in the same way; gives the
    /// number of its tokens and the note. A prompt that begins with them goes on from there.
    ///
    /// # Errors
    /// [`Code::BadMagic`], [`Code::UnsupportedVersion`], [`Code::Truncated`], [`Code::IntegrityError`],
    /// [`Code::BadArgument`] for another model's, [`Code::ContextOverflow`]. The context is then as it was.
    pub fn restore_session(&mut self, bytes: &[u8]) -> Result<(usize, Vec<u8>)> {
        let mut rest = bytes;
        if take::<8>(&mut rest).ok() != Some(MAGIC) {
            return Err(wrong(Code::BadMagic, "the bytes are no saved session"));
        }
        let version = u32::from_le_bytes(*take(&mut rest)?);
        if version != VERSION {
            return Err(wrong(
                Code::UnsupportedVersion,
                format!("version {version}; {VERSION} is supported"),
            ));
        }
        let fingerprint = u64::from_le_bytes(*take(&mut rest)?);
        let n_tokens = u32::from_le_bytes(*take(&mut rest)?) as usize;
        let note_len = u32::from_le_bytes(*take(&mut rest)?);
        let context_at = HEAD_LEN as u64 + 4 * n_tokens as u64 + u64::from(note_len);
        if context_at + 8 > bytes.len() as u64 {
            return Err(wrong(Code::Truncated, "it ends early"));
        }
        let (body, sum) = bytes.split_at(bytes.len() - 8);
        if hash(body).to_le_bytes() != sum {
            return Err(wrong(
                Code::IntegrityError,
                "the checksum does not fit: bytes are damaged or missing",
            ));
        }
        if fingerprint != self.fingerprint()? {
            let rule = "it was saved with another model, or with one that was loaded in another way";
            return Err(wrong(Code::BadArgument, rule));
        }
        if n_tokens > self.n_ctx() {
            let rule = format!("{n_tokens} tokens do not fit a context of {}", self.n_ctx());
            return Err(wrong(Code::ContextOverflow, rule));
        }
        let (ids, context) = body[HEAD_LEN..].split_at(4 * n_tokens);
        let (note, context) = context.split_at(note_len as usize);
        let ids: Vec<u32> = ids.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
        if !ids.is_empty() {
            self.check_tokens(&ids).map_err(|error| error.key("session"))?;
        }
        if !self.set_context(ids, context) {
            return Err(wrong(Code::IntegrityError, "its length does not fit the number of its tokens"));
        }
        Ok((n_tokens, note.to_vec()))
    }

    /// A number that differs where another model computes, or the same one in another way: made from what one token
    /// leaves in a context.
    fn fingerprint(&mut self) -> Result<u64> {
        let stretched = self.n_ctx() > self.n_ctx_unstretched();
        let mut params = self.context_params();
        params.n_ctx = 1;
        let (memory, logits) = self.probe(&params)?;
        let logits = logits.iter().flat_map(|x| x.to_le_bytes());
        Ok(hash(&memory.into_iter().chain(logits).chain([u8::from(stretched)]).collect::<Vec<_>>()))
    }
}
