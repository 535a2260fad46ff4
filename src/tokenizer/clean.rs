//! Spaces that decoding takes out before punctuation and English contractions: word-piece vocabularies,
//! and byte-level ones converted with that switch on, put a space there that no writer did.

/// The text without those spaces, as llama.cpp cleans it: three passes, each over the result of the last.
pub(super) fn clean_spaces(text: &[u8]) -> Vec<u8> {
    contractions(&lone_apostrophes(&punctuation(text)))
}

/// " ?", " !", " ." and " ," lose their space.
fn punctuation(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (i, &byte) in text.iter().enumerate() {
        if matches!(byte, b'?' | b'!' | b'.' | b',') && text[..i].ends_with(b" ") {
            out.pop();
        }
        out.push(byte);
    }
    out
}

/// An apostrophe between two spaces loses both.
fn lone_apostrophes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut i = 0;
    // A space that was taken out does not count for the next apostrophe.
    let mut after_space = false;
    while i < text.len() {
        if after_space && text[i..].starts_with(b"' ") {
            out.pop();
            out.push(b'\'');
            after_space = false;
            i += 2;
            continue;
        }
        out.push(text[i]);
        after_space = text[i] == b' ';
        i += 1;
    }
    out
}

/// " 's", " 'm", " 're" and " 've" lose their space.
fn contractions(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for (i, &byte) in text.iter().enumerate() {
        let contraction = [&b"'s"[..], b"'m", b"'re", b"'ve"].iter().any(|c| text[i..].starts_with(c));
        if contraction && text[..i].ends_with(b" ") {
            out.pop();
        }
        out.push(byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::clean_spaces;

    #[test]
    fn only_the_listed_spaces_go() {
        for (text, expected) in [
            ("", ""),
            (" ", " "),
            ("Hello , world ! Is it ? Yes .", "Hello, world! Is it? Yes."),
            ("a ; b : c", "a ; b : c"),
            ("  ..", " .."),
            (". .", ".."),
            ("rock ' n ' roll", "rock'n'roll"),
            ("a ' ' b", "a'' b"),
            ("it 's I 'm we 're you 've", "it's I'm we're you've"),
            ("they 'll he 'd don 't", "they 'll he 'd don 't"),
            ("x '", "x '"),
        ] {
            assert_eq!(String::from_utf8(clean_spaces(text.as_bytes())).unwrap(), expected, "{text:?}");
        }
    }
}
