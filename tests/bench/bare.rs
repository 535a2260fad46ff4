//! What the bare .wasm of benchmarks share.

/// Numbers from -1 to 1.
pub fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    /// Milliseconds, from the page.
    safe fn now() -> f64;
}

/// Chooses the paths, as a page does at start.
#[unsafe(no_mangle)]
pub extern "C" fn select() {
    bitpane_core::kernels::select_paths(&|| now());
}
