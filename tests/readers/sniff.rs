//! Which container a file is.

use bitpane::Code;
use bitpane::container::{ContainerKind, sniff};

const LFS: &[u8] = b"version https://git-lfs";

#[test]
fn says_what_it_looks_like() {
    for (bytes, word) in [
        (&b"<!DOCTYPE html><html>"[..], "HTML"),
        (b"\n  <html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"PK\x03\x04\x14\0\0\0\x08", "zip"),
        (b"{\"error\":1}", "JSON"),
        (b"lmgg\x01\0\0\0", "GGML"),
        (b"tjgg\x03\0\0\0", "GGJT"),
        (b"FUGG\0\0\0\x03", "byte-swapped"),
        (b"404: Not Found", "404"),
        (b"\x1c\0\0\0TFL3\x14", "TensorFlow Lite"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0", "89, 50"),
    ] {
        let e = sniff(bytes).expect_err(word);
        assert_eq!(e.code, Code::BadMagic);
        assert!(e.message.contains(word), "{word}: {e}");
    }
}

#[test]
fn waits_for_enough_bytes() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\n";
    for n in 0..LFS.len() {
        assert!(matches!(sniff(&lfs[..n]), Ok(None)), "{n}");
    }
    for n in 0..4 {
        assert!(matches!(sniff(&b"GGUF"[..n]), Ok(None)));
    }
    assert_eq!(sniff(b"GGUF").unwrap(), Some(ContainerKind::Gguf));
    assert!(sniff(&[16, 0, 0, 0, 0, 0, 0, 0]).unwrap().is_none());
    assert_eq!(sniff(b"\x10\0\0\0\0\0\0\0{").unwrap(), Some(ContainerKind::Safetensors));
}

/// The longest header that there can be, and one that cannot.
#[test]
fn a_length_is_taken_for_one_as_long_as_it_is_possible() {
    let begin = |len: u64| [&len.to_le_bytes()[..], b" "].concat();
    assert_eq!(sniff(&begin(100_000_000)).unwrap(), Some(ContainerKind::Safetensors));
    assert_eq!(sniff(&begin(100_000_001)).unwrap_err().code, Code::BadMagic);
}

#[test]
fn text_is_shown_as_text_and_bytes_as_bytes() {
    let message = |bytes: &[u8]| sniff(bytes).unwrap_err().message;
    assert!(message(b"Not found\n\tnowhere").contains("text: \"Not found"));
    assert!(message(b"Not found\x01").contains("the bytes [4e, 6f"));
}
