//! GGUF files: refused or read, within their own size, the same in whatever portions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"GGUF") {
        bitpane_fuzz::container(data);
    }
});
