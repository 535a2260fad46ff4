//! Files whose headers have many megabytes: what the limits are for.

use bitpane::Code;

use super::gguf::{self, BOOL, F32, I32, STRING, U8, U64, kv, kv_array, string, tensor};
use super::safetensors::{self, many};
use super::{Case, bad, good};

/// Makes one case. The files are large, so that only one should be there at a time.
pub type Build = fn() -> Case;

/// Every large case.
pub fn builders() -> Vec<Build> {
    [SAFETENSORS, GGUF].concat()
}

/// Valid files with headers of about two megabytes, each of another make.
pub fn two_megabytes() -> Vec<(&'static str, Vec<u8>)> {
    let of = |entries: &[Vec<u8>]| gguf::file(entries, &[], 0);
    let small: Vec<_> = (0..50_000u32).map(|i| kv(&format!("key of the number {i:08}"), U8, &[1])).collect();
    vec![
        ("many strings", of(&[kv_array("k", STRING, 200_000, &string(b"xy").repeat(200_000))])),
        ("one string", of(&[kv("k", STRING, &string(&vec![b'x'; 2_000_000]))])),
        ("one array", of(&[kv_array("k", I32, 500_000, &vec![1; 2_000_000])])),
        ("many entries", of(&small)),
        ("safetensors", safetensors::file(many(40_000, |i| i.to_string()), 0)),
    ]
}

const SAFETENSORS: &[Build] = &[
    || good("S10", "65536 tensors", safetensors::file(many(65_536, |i| i.to_string()), 0)),
    || {
        bad(
            "S10",
            "65537 tensors",
            safetensors::file(many(65_537, |i| i.to_string()), 0),
            Code::LimitExceeded,
        )
    },
    || {
        let header = many(1_000_000, |i| format!("{i:039}"));
        assert!((89_999_999..100_000_000).contains(&header.len()));
        bad("S10", "1000000 tensors in 90 MB", safetensors::file(header, 0), Code::LimitExceeded)
    },
    || good("S10", "65536 metadata entries", pairs(65_536)),
    || bad("S10", "65537 metadata entries", pairs(65_537), Code::LimitExceeded),
    || bad("S10", "90 MB of spaces", safetensors::file(vec![b' '; 90_000_000], 0), Code::BadHeader),
    || bad("S11", "name of 50 MB", long_name("k", 50 << 20), Code::BadName),
    || bad("S11", "name of 20 MB of escapes", long_name("\\n", 20 << 20), Code::BadName),
    || {
        let json = format!(r#"{{"__metadata__":{{"{}":""}}}}"#, "k".repeat(20 << 20));
        bad("S11", "metadata key of 20 MB", safetensors::file(json, 0), Code::BadKey)
    },
];

fn pairs(n: usize) -> Vec<u8> {
    let pairs: Vec<String> = (0..n).map(|i| format!(r#""{i}":"""#)).collect();
    safetensors::file(format!(r#"{{"__metadata__":{{{}}}}}"#, pairs.join(",")), 0)
}

fn long_name(unit: &str, n: usize) -> Vec<u8> {
    safetensors::file(format!(r#"{{"{}":{{}}}}"#, unit.repeat(n)), 0)
}

/// Each ends in a fault, so that everything before it has been kept when the file is refused.
const GGUF: &[Build] = &[
    || then_bad("u8 array of 30 MB", kv_array("k", U8, 30_000_000, &vec![1; 30_000_000])),
    || then_bad("i8 array of 30 MB", kv_array("k", 1, 30_000_000, &vec![1; 30_000_000])),
    || then_bad("u16 array of 30 MB", kv_array("k", 2, 15_000_000, &vec![1; 30_000_000])),
    || then_bad("i32 array of 40 MB", kv_array("k", I32, 10_000_000, &vec![1; 40_000_000])),
    || then_bad("u64 array of 40 MB", kv_array("k", U64, 5_000_000, &vec![1; 40_000_000])),
    || then_bad("bool array of 30 MB", kv_array("k", BOOL, 30_000_000, &vec![1; 30_000_000])),
    || then_bad("4 million empty strings", kv_array("k", STRING, 4_000_000, &vec![0; 32_000_000])),
    || {
        then_bad("250000 strings of 100 bytes", {
            kv_array("k", STRING, 250_000, &string(&[b'x'; 100]).repeat(250_000))
        })
    },
    || then_bad("string of 60 MB", kv("k", STRING, &string(&vec![b'x'; 60_000_000]))),
    || {
        let bytes = gguf::file(&[kv("k", STRING, &string(&vec![b'x'; (64 << 20) + 1]))], &[], 0);
        bad("G05", "string of more than 64 MiB", bytes, Code::LimitExceeded)
    },
    || {
        let entry = |i: u32| kv(&i.to_string(), STRING, &string(&vec![b'x'; 60_000_000]));
        bad("G05", "two strings of 60 MB", gguf::file(&[entry(0), entry(1)], &[], 0), Code::LimitExceeded)
    },
    || {
        let entries: Vec<_> = (0..65_536).map(|i| kv(&i.to_string(), U8, &[1])).collect();
        good("G04", "65536 metadata entries", gguf::file(&entries, &[], 0))
    },
    || {
        let entry = |i| kv_array(&format!("{:x}", i / 2), STRING, 1, &string(b""));
        let entries: Vec<_> = (0..65_536).map(entry).collect();
        bad("G07", "32768 keys twice", gguf::file(&entries, &[], 0), Code::Duplicate)
    },
    || {
        let tensors: Vec<_> = (0..65_536).map(|i| tensor(&i.to_string(), &[0], F32, 0)).collect();
        good("G04", "65536 tensors", gguf::file(&[], &tensors, 0))
    },
    || {
        let tensors: Vec<_> = (0..65_536).map(|i| tensor(&(i / 2).to_string(), &[0], F32, 0)).collect();
        bad("G14", "32768 names twice", gguf::file(&[], &tensors, 0), Code::Duplicate)
    },
];

fn then_bad(what: &str, entry: Vec<u8>) -> Case {
    bad(
        "G12",
        format!("{what}, then bool 2"),
        gguf::file(&[entry, kv("b", BOOL, &[2])], &[], 0),
        Code::BadValue,
    )
}
