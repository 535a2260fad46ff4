//! The list of what the builds are made of, and under which terms: docs/licences.md.

use std::collections::BTreeMap;
use std::fs;

use crate::workspace::Workspace;

const FILE: &str = "docs/licences.md";
const HEAD: &str = "\
# Licences of what is built in

Every crate that is compiled into the .wasm files or into the command line, as `cargo tree` tells it;
`cargo xtask licences` writes this list, and the tests hold it to the lock file. The npm package contains no
JavaScript but its own. bitpane itself is MIT or Apache-2.0.

| crate | version | licence | in |
|---|---|---|---|
";

/// Terms that anyone may build on; an expression is fine where one of its alternatives is.
const FINE: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Writes the list anew.
pub fn write(ws: &Workspace) -> Result<(), String> {
    let text = list(ws)?;
    fs::write(ws.at(FILE), text).map_err(|error| format!("{FILE}: {error}"))
}

/// Fails where the list is not what the lock file makes of it, or a licence is none of the fine ones.
pub fn check(ws: &Workspace) -> Result<(), String> {
    let wanted = list(ws)?;
    let found = fs::read_to_string(ws.at(FILE)).map_err(|error| format!("{FILE}: {error}"))?;
    if wanted == found {
        Ok(())
    } else {
        Err(format!("{FILE} is out of date: `cargo xtask licences` writes it"))
    }
}

fn list(ws: &Workspace) -> Result<String, String> {
    let wasm = crates(ws, &["--target", "wasm32-unknown-unknown"])?;
    let native = crates(ws, &["--features", "cli"])?;
    let mut all: BTreeMap<(String, String), (String, Vec<&str>)> = BTreeMap::new();
    for (place, crates) in [("wasm", wasm), ("command line", native)] {
        for (name, version, licence) in crates {
            if !is_fine(&licence) {
                return Err(format!(
                    "{name} {version} is under {licence:?}, which is none of the licences allowed"
                ));
            }
            let places = &mut all.entry((name, version)).or_insert_with(|| (licence, Vec::new())).1;
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let mut text = HEAD.to_string();
    for ((name, version), (licence, places)) in all {
        text.push_str(&format!("| {name} | {version} | {licence} | {} |\n", places.join(", ")));
    }
    Ok(text)
}

/// Name, version and licence of the crates that are compiled in, without those of this repository.
fn crates(ws: &Workspace, args: &[&str]) -> Result<Vec<(String, String, String)>, String> {
    let mut words =
        vec!["cargo", "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}"];
    words.extend(args);
    let output = ws.capture(&words).ok_or("`cargo tree` fails")?;
    Ok(output.lines().filter_map(parse).collect())
}

/// One line of `cargo tree`: `name v1.2.3 (proc-macro)|licence`. None for a crate of this repository, which has a path.
fn parse(line: &str) -> Option<(String, String, String)> {
    let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
    if package.contains("(/") || package.contains(":\\") {
        return None;
    }
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    Some((name.to_string(), version.to_string(), licence.replace('/', " OR ")))
}

/// Whether an SPDX expression has an alternative whose every part is allowed.
fn is_fine(licence: &str) -> bool {
    let flat = licence.replace(['(', ')'], "");
    flat.split(" OR ").any(|choice| choice.split(" AND ").all(|part| FINE.contains(&part.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cargo_tree_prints() {
        let found = parse("serde v1.0.2|MIT/Apache-2.0").unwrap();
        assert_eq!(found, ("serde".into(), "1.0.2".into(), "MIT OR Apache-2.0".into()));
        assert_eq!(parse("syn v2.0.1 (proc-macro)|MIT (*)").unwrap().1, "2.0.1");
        assert_eq!(parse("bitpane v0.1.0 (/home/x/bitpane)|MIT"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn one_fine_alternative_will_do() {
        for fine in ["MIT", "MIT OR GPL-3.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "0BSD OR MIT"] {
            assert!(is_fine(fine), "{fine}");
        }
        for wrong in ["GPL-3.0", "", "MIT AND GPL-3.0", "LGPL-2.1 OR GPL-2.0"] {
            assert!(!is_fine(wrong), "{wrong}");
        }
    }
}
