fn main() {
    std::process::exit(bitpane::cli::run())
}
