//! Modules use what stands before them in the order in which data flows, never what stands after.
#![cfg(not(target_arch = "wasm32"))]

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first. Modules of one layer may use each other.
const LAYERS: [&[&str]; 12] = [
    &["error"],
    &["quant"],
    &["container"],
    &["repack"],
    &["kernels"],
    &["layers"],
    &["models"],
    &["tokenizer", "image", "template"],
    &["grammar"],
    &["quantizer"],
    &["tasks"],
    &["web", "cli", "bin"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The crate's modules that a piece of code names: `crate::a::..`, and `a`, `b` of `crate::{a, b::..}`.
fn used_modules(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for root in ["crate::", "bitpane::"] {
        for tail in code.split(root).skip(1) {
            match tail.strip_prefix('{') {
                Some(group) => names.extend(group_members(group)),
                None => names.extend(first_word(tail)),
            }
        }
    }
    names
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// The first word of each member of a brace group, at its outermost level.
fn group_members(group: &str) -> Vec<String> {
    let mut names: Vec<String> = first_word(group).into_iter().collect();
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.extend(first_word(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The code without comments and without the unit tests at its foot, which may use anything.
fn product_code(source: &str) -> String {
    let body = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    body.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_module_uses_one_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut faults = Vec::new();
    let mut n_checked = 0;
    for file in files {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" || module == "core" {
            continue;
        }
        let Some(own) = layer(module) else {
            faults.push(format!("{}: module {module:?} has no place in LAYERS", relative.display()));
            continue;
        };
        for name in used_modules(&product_code(&fs::read_to_string(&file).unwrap())) {
            n_checked += 1;
            if layer(&name).is_some_and(|other| other > own) {
                faults.push(format!("{}: {module} uses {name}, which stands above it", relative.display()));
            }
        }
    }
    assert!(n_checked > 0, "no use of a module was found: the check looks at nothing");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn uses_are_recognized() {
    let code = "use crate::quant::{DType, f16};\nuse crate::{error::Error, models::{a, b}, tasks};\nbitpane::web::x();";
    let mut names = used_modules(code);
    names.sort();
    assert_eq!(names, ["error", "models", "quant", "tasks", "web"]);
    let with_test = "use crate::error::E; // crate::web\n#[cfg(test)]\nmod tests { use crate::web; }";
    assert_eq!(used_modules(&product_code(with_test)), ["error"]);
}
