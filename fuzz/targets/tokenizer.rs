//! Tokenizers, from `tokenizer.json` or from the metadata of a GGUF file: refused, or what they encode comes back. What is
//! encoded is the end of the input.
#![no_main]

use bitpane::container;
use bitpane::tokenizer::Tokenizer;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let read = match data.first() {
        Some(b'{') => {
            // The text may follow the document.
            let document = data.split(|&byte| byte == 0).next().unwrap_or(data);
            Tokenizer::from_json(document)
        }
        _ => match container::parse(data, None) {
            Ok(Some(header)) => Tokenizer::from_gguf(&header.metadata),
            _ => return,
        },
    };
    let Ok(tokenizer) = read else { return };
    let text = String::from_utf8_lossy(&data[data.len().saturating_sub(300)..]);
    for flags in 0..4 {
        bitpane_fuzz::tokenizer::check(&tokenizer, &text, flags & 1 == 1, flags & 2 == 2);
    }
});
