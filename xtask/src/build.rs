//! Builds `pkg/` (the npm package) and the page.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::exact;
use crate::process;
use crate::workspace::Workspace;

/// The cargo profile of the .wasm that ships.
const PROFILE: &str = "wasm-release";
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Of the builds with 64-bit memories. Its standard library is made from source, as that of the others is.
const TARGET64: &str = "wasm64-unknown-unknown";
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// One compilation of the crate, for one set of instructions. Each makes two builds: for several threads, which
/// share a memory, and, by one bit that is set when it is loaded (www/lib/own-memory.ts), for one thread.
pub struct Variant {
    /// The name of its build for one thread in www/lib/features.ts, and of its file in `pkg/runtime/`.
    pub name: &'static str,
    /// With relaxed SIMD.
    relaxed: bool,
    /// With addresses of 64 bits.
    wide: bool,
}

/// Every .wasm in the package. Engines with 64-bit memories have relaxed SIMD, so that of those there is one.
const VARIANTS: [Variant; 3] = [
    Variant { name: "simd128", relaxed: false, wide: false },
    RELAXED,
    Variant { name: "relaxed64", relaxed: true, wide: true },
];

/// The one with relaxed SIMD.
pub const RELAXED: Variant = Variant { name: "relaxed", relaxed: true, wide: false };

/// The targets of all variants.
pub const TARGETS: [&str; 2] = [TARGET, TARGET64];

/// What several threads need. The memory is made by www/lib/threads.ts; of the linker's symbols wasm-bindgen makes
/// what starts a thread.
const THREAD_FLAGS: [&str; 8] = [
    "-Ctarget-feature=+atomics,+bulk-memory,+mutable-globals",
    "-Clink-arg=--shared-memory",
    "-Clink-arg=--import-memory",
    // The same for all builds, so that they share their JavaScript, and no more with what wasm-bindgen adds than
    // FIRST_PAGES in www/lib/threads.ts. What needs more does not link.
    "-Clink-arg=--initial-memory=1966080",
    "-Clink-arg=--export=__wasm_init_tls",
    "-Clink-arg=--export=__tls_size",
    "-Clink-arg=--export=__tls_align",
    "-Clink-arg=--export=__tls_base",
];

/// The standard library that rustup has is compiled for one thread, and for speed at any size.
const STD_ARGS: [&str; 2] = ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"];

impl Variant {
    /// Arguments that make cargo compile for its instructions, as the tests of kernels in browsers do.
    pub fn cargo_args(&self) -> Vec<String> {
        self.with_flags(self.relaxed_flag())
    }

    fn target(&self) -> &'static str {
        if self.wide { TARGET64 } else { TARGET }
    }

    /// The most memory that it can have: as much as its addresses reach, or as engines give to any.
    fn memory_flag(&self) -> &'static str {
        match self.wide {
            true => "-Clink-arg=--max-memory=17179869184",
            false => "-Clink-arg=--max-memory=4294967296",
        }
    }

    /// Cargo joins such lists, so that the flags of the configuration file stay in force.
    fn with_flags(&self, flags: impl Iterator<Item = &'static str>) -> Vec<String> {
        let flags: Vec<String> = flags.map(|flag| format!("{flag:?}")).collect();
        if flags.is_empty() {
            return Vec::new();
        }
        vec!["--config".into(), format!("target.{}.rustflags=[{}]", self.target(), flags.join(","))]
    }

    fn relaxed_flag(&self) -> impl Iterator<Item = &'static str> {
        self.relaxed.then_some("-Ctarget-feature=+relaxed-simd").into_iter()
    }
}

/// Builds all that the package and the page consist of, and prints the sizes.
pub fn everything(ws: &Workspace) -> Result<(), String> {
    for variant in &VARIANTS {
        let wasm = compile(ws, variant)?;
        let folder = ws.target().join("bind").join(variant.name);
        bind(ws, variant, &wasm, &folder)?;
        finish(&folder)?;
    }
    script(ws, "package and page", &["node", "www/build.mjs"])?;
    for variant in &VARIANTS {
        print_size(ws, variant)?;
    }
    Ok(())
}

/// Compiles the crate; returns the path of the .wasm.
fn compile(ws: &Workspace, variant: &Variant) -> Result<std::path::PathBuf, String> {
    // One folder for all of a target: cargo tells builds with different flags apart, and what runs at
    // compile time (half of the dependencies) is the same for each. `bind` takes the .wasm
    // before the next variant writes its own to the same place.
    let target = variant.target();
    let flags = variant.relaxed_flag().chain(THREAD_FLAGS).chain([variant.memory_flag()]);
    let mut command = ws.words(&["cargo", "build", "--lib", "--target", target, "--profile", PROFILE]);
    command.args(variant.with_flags(flags)).args(STD_ARGS);
    step(ws, &format!("compile {}", variant.name), &mut command)?;
    Ok(ws.target().join(target).join(PROFILE).join("bitpane.wasm"))
}

/// Makes the JavaScript and the types that go with a .wasm.
fn bind(ws: &Workspace, variant: &Variant, wasm: &Path, folder: &Path) -> Result<(), String> {
    let mut command = ws.words(&["wasm-bindgen", "--target", "web", "--out-name", "bitpane"]);
    command.args(["--remove-producers-section", "--omit-default-module-path"]);
    // Function names are a third of the file; a panic tells its text and place without them. Profilers want them.
    if std::env::var_os("BITPANE_NAMES").is_none() {
        command.arg("--remove-name-section");
    }
    command.arg("--out-dir").arg(folder).arg(wasm);
    step(ws, &format!("bind {}", variant.name), &mut command)
}

/// Makes of what wasm-bindgen left what ships: see [`exact`], and as gzip, which www/lib/builds.ts unpacks. Hosts
/// that compress nothing then serve a third of the bytes, and the package is smaller.
fn finish(folder: &Path) -> Result<(), String> {
    let file = folder.join("bitpane_bg.wasm");
    let failed = |error: String| format!("{}: {error}", file.display());
    let mut wasm = fs::read(&file).map_err(|error| failed(error.to_string()))?;
    let n = exact::restore(&mut wasm).map_err(failed)?;
    if n > 0 {
        fs::write(&file, &wasm).map_err(|error| failed(error.to_string()))?;
        println!("  exact    {}: {n} relaxed minima and maxima made plain", file.display());
    }
    let mut packed = Vec::new();
    zopfli::compress(effort(), zopfli::Format::Gzip, &wasm[..], &mut packed)
        .and_then(|()| fs::write(file.with_extension("wasm.gz"), packed))
        .map_err(|error| failed(error.to_string()))
}

/// One round finds nearly all: five take a third longer and give 0.2 % more.
fn effort() -> zopfli::Options {
    zopfli::Options { iteration_count: std::num::NonZeroU64::MIN, ..Default::default() }
}

/// Runs a command of the package.
fn script(ws: &Workspace, title: &str, words: &[&str]) -> Result<(), String> {
    step(ws, title, &mut ws.words(words))
}

fn step(ws: &Workspace, title: &str, command: &mut Command) -> Result<(), String> {
    let outcome = process::run(ws, title, command, LIMIT).into_result(title)?;
    println!("  built    {title} ({:.1} s)", outcome.elapsed.as_secs_f64());
    Ok(())
}

/// Prints what a user downloads, beside what it unpacks to.
fn print_size(ws: &Workspace, variant: &Variant) -> Result<(), String> {
    let size = |file: &Path| match fs::metadata(file) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    };
    let packed = ws.at("pkg/runtime").join(variant.name).with_extension("wasm.gz");
    let plain = ws.target().join("builds").join(variant.name).with_extension("wasm");
    println!("  size     {}: {} bytes, {} as gzip", variant.name, size(&plain)?, size(&packed)?);
    Ok(())
}
