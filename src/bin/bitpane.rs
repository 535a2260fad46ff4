//! The native command line; everything is in [`bitpane::cli`].

fn main() {
    std::process::exit(bitpane::cli::run())
}
