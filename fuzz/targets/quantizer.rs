//! Numbers in every type that can be written, and files rewritten.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bitpane_fuzz::quantizer(data));
