//! safetensors files and their indices: refused or read, within their own size, the same in whatever portions.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    match data.first() {
        Some(b'{') => drop(bitpane::container::shards::ShardIndex::parse(data)),
        _ => bitpane_fuzz::container(data),
    }
});
