//! What instructions the builds in `pkg/` consist of. A browser refuses a whole module for
//! one instruction that it lacks, so a single opcode of the other kind is a failure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use wasmparser::{MemoryType, Operator, Parser, Payload, TypeRef};

/// What a build must be made of.
struct Build {
    /// Its name in www/lib/features.ts.
    name: &'static str,
    /// The relaxed instructions that it is there for; all others are forbidden. The float ones
    /// (multiply-add, minimum, ...) would give other bits than the plain build.
    relaxed: &'static [&'static str],
    /// Whether it is for several threads.
    threads: bool,
    /// Whether its memory has 64-bit addresses.
    wide: bool,
}

/// The relaxed instructions that relaxed builds are there for.
const RELAXED: &[&str] =
    &["I16x8RelaxedDotI8x16I7x16S", "I32x4RelaxedDotI8x16I7x16AddS", "I8x16RelaxedSwizzle"];

/// Every build: two of each .wasm in the package.
const BUILDS: [Build; 6] = [
    Build { name: "simd128", relaxed: &[], threads: false, wide: false },
    Build { name: "relaxed", relaxed: RELAXED, threads: false, wide: false },
    Build { name: "relaxed64", relaxed: RELAXED, threads: false, wide: true },
    Build { name: "simd128-threads", relaxed: &[], threads: true, wide: false },
    Build { name: "relaxed-threads", relaxed: RELAXED, threads: true, wide: false },
    Build { name: "relaxed64-threads", relaxed: RELAXED, threads: true, wide: true },
];

/// What the pool cannot do without: handing out parts, sleeping, waking.
const POOL_ATOMICS: [&str; 3] = ["I64AtomicRmwCmpxchg", "MemoryAtomicWait32", "MemoryAtomicNotify"];

/// The product of the plain path, which every build has: finding it shows that the scan sees.
const PLAIN_DOT: &str = "I32x4DotI16x8S";

/// How often each instruction occurs in a module, and its memories: shared or not, with 64-bit addresses or not.
fn scan(wasm: &[u8]) -> (BTreeMap<String, usize>, Vec<(bool, bool)>) {
    let mut counts = BTreeMap::new();
    let mut found = Vec::new();
    let mut see = |memory: MemoryType| found.push((memory.shared, memory.memory64));
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.expect("a well-formed module") {
            Payload::CodeSectionEntry(body) => {
                for op in body.get_operators_reader().expect("a function body") {
                    *counts.entry(name(&op.expect("a known instruction"))).or_default() += 1;
                }
            }
            Payload::MemorySection(memories) => {
                memories.into_iter().for_each(|memory| see(memory.expect("a memory")));
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    if let TypeRef::Memory(memory) = import.expect("an import").ty {
                        see(memory);
                    }
                }
            }
            _ => {}
        }
    }
    (counts, found)
}

/// The instruction without its operands.
fn name(op: &Operator) -> String {
    let shown = format!("{op:?}");
    shown.split([' ', '(', '{']).next().unwrap_or_default().to_string()
}

#[test]
fn each_build_holds_what_it_claims_and_nothing_else() {
    for Build { name, relaxed, threads, wide } in BUILDS {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/builds").join(format!("{name}.wasm"));
        let wasm = fs::read(&file)
            .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", file.display()));
        let (counts, memories) = scan(&wasm);
        assert!(counts.get(PLAIN_DOT).is_some_and(|n| *n >= 20), "{name}: hardly any {PLAIN_DOT}");
        let found: Vec<&str> =
            counts.keys().map(String::as_str).filter(|op| op.contains("Relaxed")).collect();
        assert_eq!(found, relaxed, "{name}: the relaxed instructions");
        assert_eq!(memories, [(threads, wide)], "{name}: its memory: shared, with 64-bit addresses");
        let missing: Vec<_> = POOL_ATOMICS.iter().filter(|op| !counts.contains_key(**op)).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}");
    }
}

#[test]
fn each_file_of_the_package_makes_two_of_the_builds() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pkg/runtime");
    let mut files: Vec<String> = fs::read_dir(&runtime)
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", runtime.display()))
        .map(|entry| entry.expect("an entry of pkg/runtime").file_name().to_string_lossy().into_owned())
        .filter_map(|name| name.strip_suffix(".wasm.gz").map(str::to_string))
        .collect();
    files.sort();
    let alone = BUILDS.iter().filter(|build| !build.threads);
    let mut wanted: Vec<&str> = alone.map(|build| build.name).collect();
    wanted.sort();
    assert_eq!(files, wanted);
}

/// The scan finds a relaxed instruction where there is one: a hand-made module with one function.
#[test]
fn the_scan_sees_relaxed_instructions() {
    let body = [
        &[0][..],                                // no locals
        &[0x41, 0, 0xfd, 15, 0x41, 0, 0xfd, 15], // i32.const 0, i8x16.splat, twice
        &[0xfd, 0x80, 2, 0x0b],                  // i8x16.relaxed_swizzle, end
    ]
    .concat();
    let n = body.len() as u8;
    let wasm = [
        b"\0asm\x01\0\0\0",
        &[1, 5, 1, 0x60, 0, 1, 0x7b][..], // type: () -> v128
        &[3, 2, 1, 0],                    // one function of it
        &[10, n + 2, 1, n],               // code of one function
        &body,
    ]
    .concat();
    let (counts, _) = scan(&wasm);
    assert_eq!(counts.get("I8x16RelaxedSwizzle"), Some(&1));
}
