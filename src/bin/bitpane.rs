//! The native command line; everything is in [`bitpane::cli`].

#[global_allocator]
static ALLOCATOR: bitpane::repack::CacheLines = bitpane::repack::CacheLines;

fn main() {
    std::process::exit(bitpane::cli::run())
}
