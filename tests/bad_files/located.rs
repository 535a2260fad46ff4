//! Where the faults are: errors tell the byte at which reading failed.

use super::gguf::{BOOL, F32, Q8_0, STRING, U8, file, head, kv, kv_array, tensor};

/// Small faults, and the byte that each error must name.
pub fn gguf() -> Vec<(&'static str, Vec<u8>, u64)> {
    let one = |name: &str, dims: &[u64], tensor_type, offset| {
        file(&[], &[tensor(name, dims, tensor_type, offset)], 64)
    };
    let entry = |entry| [head(3, 0, 1), entry, vec![0; 64]].concat();
    vec![
        ("version", [head(9, 0, 0), vec![0; 64]].concat(), 4),
        ("tensor count", head(3, u64::MAX, 0), 8),
        ("entry count", head(3, 0, u64::MAX), 16),
        ("key", entry(kv("", U8, &[1])), 24),
        ("key length", entry(u64::MAX.to_le_bytes().to_vec()), 24),
        ("value type", entry(kv("k", 13, &[1])), 33),
        ("string length", entry(kv("k", STRING, &[0xff; 8])), 37),
        ("element type", entry(kv_array("k", 13, 1, &[])), 37),
        ("array length", entry(kv_array("k", U8, u64::MAX, &[])), 41),
        ("bool", entry(kv("k", BOOL, &[2])), 37),
        ("third bool", entry(kv_array("k", BOOL, 3, &[0, 1, 2])), 51),
        ("name", one("", &[1], F32, 0), 24),
        ("dimension count", one("t", &[1; 5], F32, 0), 33),
        ("dimension", one("t", &[u64::MAX], F32, 0), 37),
        ("row", one("t", &[31], Q8_0, 0), 37),
        ("tensor type", one("t", &[1], 4, 0), 45),
        ("offset", one("t", &[1], F32, 32), 49),
    ]
}
