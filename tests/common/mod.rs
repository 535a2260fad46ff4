//! Reference data beside the checkout: read in place, never copied.

use serde_json::Value;
use std::path::{Path, PathBuf};

#[allow(dead_code)] // not every test file reads them
/// A file or folder under `../shared`, or `None` (said aloud) where that is absent.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: ../shared/{name} is absent");
    None
}

/// A parsed JSON file.
#[allow(dead_code)] // not every test file reads JSON
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Numbers of any nesting, flattened.
#[allow(dead_code)] // as above
pub fn numbers(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Number(n) => vec![n.as_f64().unwrap() as f32],
        other => panic!("not a number: {other}"),
    }
}
