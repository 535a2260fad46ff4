//! The tokenizer of the RWKV "World" models (`tokenizer.ggml.model` = "rwkv"): at every place the longest
//! token that fits, byte by byte. Tokens are any bytes, and the vocabulary writes them with escapes.

use super::trie::Trie;
use super::vocab::{TOKENS, Vocab, invalid};
use crate::error::Result;

/// Encoder of one vocabulary.
pub(super) struct Rwkv {
    trie: Trie,
    unk: Option<u32>,
}

impl Rwkv {
    /// Reads all tokens; bytes that begin none of them become `unk` one by one.
    pub fn new(vocab: &Vocab, unk: Option<u32>) -> Result<Rwkv> {
        let mut trie = Trie::new();
        for id in 0..vocab.len() as u32 {
            let Some(bytes) = unescape(vocab.text(id)) else {
                return Err(invalid(TOKENS, format!("token {id} ends within an escape")));
            };
            if !bytes.is_empty() {
                trie.insert(&bytes, id);
            }
        }
        Ok(Rwkv { trie, unk })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let len = match self.trie.longest(rest) {
                Some((id, len)) => {
                    out.push(id);
                    len
                }
                None => {
                    out.extend(self.unk);
                    1
                }
            };
            rest = &rest[len..];
        }
    }
}

/// The bytes that token `id` stands for.
pub(super) fn piece(vocab: &Vocab, id: u32) -> Vec<u8> {
    unescape(vocab.text(id)).unwrap_or_default()
}

/// Resolves `\t \n \r \xHH`; a backslash before anything else stands for that. `None` if the text ends
/// within an escape or digits are missing.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next()? {
            b't' => b'\t',
            b'n' => b'\n',
            b'r' => b'\r',
            b'x' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escapes() {
        for (text, expected) in [
            (&b"ab"[..], Some(&b"ab"[..])),
            (b"\\t\\n\\r\\\\\\'", Some(b"\t\n\r\\'")),
            (b"\\xff\\x0A!", Some(b"\xff\n!")),
            (b"\\", None),
            (b"\\x1", None),
            (b"\\xzz", None),
        ] {
            assert_eq!(unescape(text).as_deref(), expected);
        }
    }
}
