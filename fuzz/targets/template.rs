//! Chat templates: whatever they say, they end with a text or an error, soon.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bitpane_fuzz::template::check(&String::from_utf8_lossy(data), 1_700_000_000);
});
