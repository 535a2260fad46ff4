//! Group G of the fault catalogue: GGUF files. Written byte by byte, without the library's
//! own writer, which refuses to write such files.

use bitpane::Code;

use super::{Case, bad, good};

/// Metadata value types.
pub const U8: u32 = 0;
pub const U16: u32 = 2;
pub const U32: u32 = 4;
pub const I32: u32 = 5;
pub const BOOL: u32 = 7;
pub const STRING: u32 = 8;
const ARRAY: u32 = 9;
pub const U64: u32 = 10;

/// Tensor types.
pub const F32: u32 = 0;
pub const Q8_0: u32 = 8;
const Q4_K: u32 = 12;
const IQ1_S: u32 = 19;
pub const I8: u32 = 24;

/// A string with its length.
pub fn string(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes(), s].concat()
}

/// A metadata entry.
pub fn kv(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [&string(key.as_bytes()), &value_type.to_le_bytes()[..], value].concat()
}

/// A metadata entry that is an array with this declared length.
pub fn kv_array(key: &str, element: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    kv(key, ARRAY, &[&element.to_le_bytes(), &len.to_le_bytes()[..], elements].concat())
}

/// A tensor's entry; dimensions innermost first, as in the file.
pub fn tensor(name: &str, dims: &[u64], tensor_type: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name.as_bytes());
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(tensor_type.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

/// The first 24 bytes.
pub fn head(version: u32, n_tensors: u64, n_entries: u64) -> Vec<u8> {
    [b"GGUF", &version.to_le_bytes(), &n_tensors.to_le_bytes()[..], &n_entries.to_le_bytes()].concat()
}

/// A file of these entries and tensors with `n_data` bytes of data after the padding.
pub fn file(entries: &[Vec<u8>], tensors: &[Vec<u8>], n_data: usize) -> Vec<u8> {
    let mut out = head(3, tensors.len() as u64, entries.len() as u64);
    entries.iter().chain(tensors).for_each(|part| out.extend(part));
    out.resize(out.len().next_multiple_of(32) + n_data, 0x55);
    out
}

/// A file of one F32 tensor `t` and these entries.
fn with_entries(entries: &[Vec<u8>]) -> Vec<u8> {
    file(entries, &[tensor("t", &[4], F32, 0)], 16)
}

/// A file that ends right after this metadata entry, of one declared.
fn cut_after(entry: Vec<u8>) -> Vec<u8> {
    [head(3, 0, 1), entry].concat()
}

/// A small valid file with every kind of metadata value and several tensors.
pub fn tiny() -> Vec<u8> {
    let entries = [
        kv("general.architecture", STRING, &string(b"llama")),
        kv("general.alignment", U32, &32u32.to_le_bytes()),
        kv("u8", U8, &[7]),
        kv("i8", 1, &[0xff]),
        kv("u16", 2, &[1, 2]),
        kv("i16", 3, &[1, 0x82]),
        kv("i32", I32, &[1, 2, 3, 4]),
        kv("f32", 6, &1.5f32.to_le_bytes()),
        kv("bool", BOOL, &[1]),
        kv("u64", U64, &[1; 8]),
        kv("i64", 11, &[2; 8]),
        kv("f64", 12, &0.1f64.to_le_bytes()),
        kv_array("strings", STRING, 3, &[string(b"<s>"), string(b""), string(b"\xff\xfe")].concat()),
        kv_array("i32s", I32, 2, &[9; 8]),
        kv_array("bools", BOOL, 3, &[0, 1, 1]),
        kv_array("none", 6, 0, &[]),
    ];
    let tensors = [
        tensor("a", &[4, 2], F32, 0),
        tensor("empty", &[0, 3], F32, 32),
        tensor("b", &[32, 2, 1, 1], Q8_0, 32),
    ];
    file(&entries, &tensors, 32 + 68)
}

/// A valid file of 20 KiB whose header takes a bit less than 4 KiB.
pub fn medium() -> Vec<u8> {
    let tokens: Vec<u8> = (0..120).flat_map(|i| string(format!("token {i}").as_bytes())).collect();
    let entries = [
        kv("general.architecture", STRING, &string(b"llama")),
        kv_array("tokenizer.ggml.tokens", STRING, 120, &tokens),
        kv_array("tokenizer.ggml.token_type", I32, 120, &[1; 480]),
    ];
    let tensors: Vec<Vec<u8>> =
        (0..16).map(|i| tensor(&format!("blk.{i}.weight"), &[64, 4], F32, i * 1024)).collect();
    let mut file = file(&entries, &tensors, 16 * 1024);
    file.resize(20 << 10, 0);
    file
}

/// Every case of group G that the container decides.
pub fn cases() -> Vec<Case> {
    [
        prefixes(),
        magic_and_version(),
        counts_and_lengths(),
        keys(),
        value_types(),
        values(),
        alignment(),
        tensor_names(),
        shapes(),
        tensor_types(),
        offsets(),
        ends(),
        metadata_for_the_loader(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn prefixes() -> Vec<Case> {
    let whole = with_entries(&[]);
    let mut cases: Vec<Case> = (0..24)
        .map(|n| bad("G01", format!("the first {n} bytes"), whole[..n].to_vec(), Code::Truncated))
        .collect();
    cases.push(good("G01", "no metadata and no tensor", head(3, 0, 0)));
    cases.push(good("G01", "no metadata and no tensor, version 2", head(2, 0, 0)));
    cases.push(bad(
        "G01",
        "no metadata and no tensor, 23 bytes",
        head(3, 0, 0)[..23].to_vec(),
        Code::Truncated,
    ));
    cases
}

fn magic_and_version() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        (&b"FUGG\0\0\0\x03"[..], "byte-swapped"),
        (b"lmgg\x01\0\0\0", "GGML"),
        (b"ggml\x01\0\0\0", "GGML"),
        (b"fmgg\x01\0\0\0", "GGMF"),
        (b"tjgg\x03\0\0\0", "GGJT"),
        (b"ggjt\x03\0\0\0", "GGJT"),
        (b"<!DOCTYPE html><html><head><title>404</title>", "HTML"),
        (b"<html>", "HTML"),
        (b"\r\n\r\n<HTML><BODY>log in</BODY></HTML>", "HTML"),
        (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "HTML or XML"),
        (b"{\"error\": \"Repository not found\"}", "JSON"),
        (b"[1, 2, 3, 4, 5, 6]", "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"PK\x03\x04\x14\0\0\0\x08\0", "zip"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "gzip"),
        (b"\x93NUMPY\x01\0v\0", "NumPy"),
        (b"\x80\x02}q\0(X\x0a\0\0\0", "pickle"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", "89, 50, 4e, 47"),
        (b"GGUf\x03\0\0\0\xff\xff", "47, 47, 55, 66"),
        (b"404: Not Found", "404: Not"),
    ]
    .into_iter()
    .map(|(start, says)| bad("G02", format!("begins {start:?}"), start.to_vec(), Code::BadMagic).says(says))
    .collect();
    for version in [0, 1, 4, 255, u32::MAX] {
        let mut bytes = head(version, 0, 0);
        bytes.resize(64, 0);
        cases.push(bad("G03", format!("version {version}"), bytes, Code::UnsupportedVersion).says("version"));
    }
    for version in [2u32, 3] {
        let bytes = [b"GGUF", &version.to_be_bytes()[..], &[0; 56]].concat();
        let case = bad("G03", format!("big-endian version {version}"), bytes, Code::UnsupportedVersion);
        cases.push(case.says("big-endian"));
    }
    cases
}

fn counts_and_lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for n in [u64::MAX, 1 << 63, 1 << 32, 1_000_000_000, 65_537] {
        for (what, mut bytes) in [("tensors", head(3, n, 0)), ("metadata entries", head(3, 0, n))] {
            bytes.resize(64, 0);
            cases.push(
                bad("G04", format!("{n} {what} in 64 bytes"), bytes, Code::LimitExceeded).says("limit"),
            );
        }
    }
    // Within the limits: no more than a file that ends too early.
    for mut bytes in [head(3, 65_536, 0), head(3, 0, 65_536)] {
        bytes.truncate(24);
        cases.push(bad("G04", "65536 items declared, none there", bytes, Code::Truncated));
    }
    for n in [u64::MAX, 0xffff_ffff_ffff, 1 << 32, 65_537] {
        let bytes = [head(3, 0, 1), n.to_le_bytes().to_vec(), vec![b'k'; 64]].concat();
        cases.push(bad("G05", format!("key of {n} bytes"), bytes, Code::LimitExceeded).says("limit"));
        let bytes = [kv("k", STRING, &(n << 16 | n).to_le_bytes()), vec![b'v'; 64]].concat();
        cases.push(bad(
            "G05",
            format!("string of {n} and more bytes"),
            cut_after(bytes),
            Code::LimitExceeded,
        ));
    }
    let bytes = [head(3, 0, 1), 65u64.to_le_bytes().to_vec(), vec![b'k'; 64]].concat();
    cases.push(bad("G05", "key one byte longer than the rest", bytes, Code::Truncated));
    let bytes = [kv("k", STRING, &65u64.to_le_bytes()), vec![b'v'; 64]].concat();
    cases.push(bad("G05", "string one byte longer than the rest", cut_after(bytes), Code::Truncated));
    for (element, what, n) in [
        (U8, "u8", 1 << 63),
        (U64, "u64", 1 << 61),
        (U64, "u64", (1 << 61) + 1),
        (STRING, "strings", 1 << 60),
        (STRING, "strings", (1 << 26) + 1),
        (STRING, "strings", 1 << 26),
        (U64, "u64", 1 << 26),
    ] {
        let bytes = cut_after(kv_array("k", element, n, &[0; 64]));
        cases.push(bad("G09", format!("array of {n} {what}"), bytes, Code::LimitExceeded).says("\"k\""));
    }
    // Which of length and file is wrong cannot be told: the file ends before what its header declares.
    let bytes = cut_after(kv_array("k", U8, 65, &[0; 64]));
    cases.push(bad("G09", "array one byte longer than the rest", bytes, Code::Truncated));
    let bytes = cut_after(kv_array("k", STRING, 9, &[0; 64]));
    cases.push(bad("G09", "one string more than the rest", bytes, Code::Truncated));
    cases
}

fn keys() -> Vec<Case> {
    let value = 1u32.to_le_bytes();
    let raw_key = |key: &[u8]| [string(key), U32.to_le_bytes().to_vec(), value.to_vec()].concat();
    let same =
        |second_type, second: &[u8]| with_entries(&[kv("k", U32, &value), kv("k", second_type, second)]);
    let far = [kv("k", U32, &value), kv("other", U32, &value), kv("k", U32, &value)];
    let alone = [head(3, 0, 1), string(b""), vec![0, 0, 0, 0, 0]].concat();
    vec![
        bad("G06", "empty key, file of 37 bytes", alone, Code::BadKey),
        bad("G06", "empty key among others", with_entries(&[kv("a", U8, &[1]), raw_key(b"")]), Code::BadKey),
        bad("G06", "key is not UTF-8", with_entries(&[raw_key(b"\xff\xfe")]), Code::BadKey),
        good("G06", "key with NUL", with_entries(&[raw_key(b"a\0b")])),
        good("G06", "key of 64 KiB", with_entries(&[raw_key(&vec![b'k'; 65_536])])),
        bad("G07", "same key twice", same(U32, &value), Code::Duplicate).says("\"k\""),
        bad("G07", "same key with another type", same(STRING, &string(b"v")), Code::Duplicate).says("\"k\""),
        bad("G07", "same key, not adjacent", with_entries(&far), Code::Duplicate).says("\"k\""),
        bad(
            "G07",
            "same key twice, no tensors",
            file(&[kv("k", U8, &[1]), kv("k", U8, &[1])], &[], 0),
            Code::Duplicate,
        ),
    ]
}

fn value_types() -> Vec<Case> {
    let mut cases = Vec::new();
    for id in [13, 14, 255, 1 << 31, u32::MAX] {
        let bytes = with_entries(&[kv("k", id, &[0; 16])]);
        cases.push(bad("G08", format!("value type {id}"), bytes, Code::BadType).says("\"k\""));
        let bytes = with_entries(&[kv_array("k", id, 1, &[0; 16])]);
        cases.push(bad("G08", format!("element type {id}"), bytes, Code::BadType).says("\"k\""));
    }
    let inner = [U8.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), vec![0]].concat();
    let bytes = with_entries(&[kv_array("k", ARRAY, 1, &inner)]);
    cases.push(bad("G10", "array in an array", bytes, Code::BadType).says("\"k\""));
    let link = [ARRAY.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat();
    let chain = link.repeat(100_000);
    cases.push(bad(
        "G10",
        "arrays nested 100000 deep",
        with_entries(&[kv("k", ARRAY, &chain)]),
        Code::BadType,
    ));
    cases
}

fn values() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, s) in [
        ("not UTF-8", &b"\xff\xfe\x80"[..]),
        ("with NUL", b"a\0b"),
        ("with a lone surrogate", b"\xed\xa0\x80"),
        ("empty", b""),
        ("overlong", b"\xc0\xaf"),
    ] {
        cases.push(good("G11", format!("string {what}"), with_entries(&[kv("k", STRING, &string(s))])));
        let bytes = with_entries(&[kv_array("k", STRING, 2, &string(s).repeat(2))]);
        cases.push(good("G11", format!("strings {what}"), bytes));
    }
    for b in [2, 3, 128, 255] {
        let bytes = with_entries(&[kv("k", BOOL, &[b])]);
        cases.push(bad("G12", format!("bool {b}"), bytes, Code::BadValue).says("\"k\""));
        let bytes = with_entries(&[kv_array("k", BOOL, 3, &[0, 1, b])]);
        cases.push(bad("G12", format!("bool {b} in an array"), bytes, Code::BadValue).says("\"k\""));
    }
    cases
}

fn alignment() -> Vec<Case> {
    const KEY: &str = "general.alignment";
    let mut cases = Vec::new();
    for n in [0u32, 3, 13, 33, 1 << 21, 1 << 31, u32::MAX] {
        let bytes = with_entries(&[kv(KEY, U32, &n.to_le_bytes())]);
        cases.push(bad("G13", format!("alignment {n}"), bytes, Code::BadAlignment).says(KEY));
        let bytes = file(&[kv(KEY, U32, &n.to_le_bytes())], &[], 0);
        cases.push(bad("G13", format!("alignment {n}, no tensors"), bytes, Code::BadAlignment).says(KEY));
    }
    for (value_type, value) in [
        (I32, &[32, 0, 0, 0][..]),
        (U64, &[32, 0, 0, 0, 0, 0, 0, 0]),
        (U8, &[32]),
        (BOOL, &[1]),
        (6, &[0; 4]),
    ] {
        let bytes = with_entries(&[kv(KEY, value_type, value)]);
        cases.push(
            bad("G13", format!("alignment of value type {value_type}"), bytes, Code::BadAlignment).says(KEY),
        );
    }
    let bytes = with_entries(&[kv(KEY, STRING, &string(b"32"))]);
    cases.push(bad("G13", "alignment is a string", bytes, Code::BadAlignment).says(KEY));
    let bytes = with_entries(&[kv_array(KEY, U32, 1, &[32, 0, 0, 0])]);
    cases.push(bad("G13", "alignment is an array", bytes, Code::BadAlignment).says(KEY));
    let bytes = file(&[kv(KEY, U32, &(1u32 << 20).to_le_bytes())], &[], 0);
    cases.push(good("G13", "alignment 1 MiB, no tensors", bytes));
    for n in [1u32, 2, 8, 32] {
        cases.push(good("G13", format!("alignment {n}"), with_entries(&[kv(KEY, U32, &n.to_le_bytes())])));
    }
    cases
}

fn tensor_names() -> Vec<Case> {
    let one = |name: &str| file(&[], &[tensor(name, &[4], F32, 0)], 16);
    let raw = |name: &[u8]| file(&[], &[[string(name), tensor("", &[4], F32, 0)[8..].to_vec()].concat()], 16);
    let two = |second: &str| file(&[], &[tensor("t", &[4], F32, 0), tensor(second, &[4], F32, 32)], 48);
    let huge = |n: u64| [head(3, 1, 0), n.to_le_bytes().to_vec(), vec![b't'; 64]].concat();
    vec![
        good("G14", "name of 63 bytes", one(&"n".repeat(63))),
        bad("G14", "name of 64 bytes", one(&"n".repeat(64)), Code::BadName),
        bad("G14", "empty name", one(""), Code::BadName),
        bad("G14", "name with NUL", one("a\0b"), Code::BadName),
        bad("G14", "name is not UTF-8", raw(b"\xff\xfe"), Code::BadName),
        bad("G14", "name of 2^40 bytes", huge(1 << 40), Code::BadName),
        bad("G14", "name of 2^64-1 bytes", huge(u64::MAX), Code::BadName),
        bad("G14", "same name twice", two("t"), Code::Duplicate).says("\"t\""),
        good("G14", "two names", two("u")),
    ]
}

fn shapes() -> Vec<Case> {
    let one = |dims: &[u64], tensor_type| file(&[], &[tensor("t", dims, tensor_type, 0)], 1024);
    let n_dims = |n: u32| {
        let entry = [string(b"t"), n.to_le_bytes().to_vec(), vec![1; 128]].concat();
        file(&[], &[entry], 0)
    };
    let mut cases = vec![
        good("G15", "no dimension: one element", file(&[], &[tensor("t", &[], F32, 0)], 4)),
        bad("G15", "no dimension, type of 32 per block", one(&[], Q8_0), Code::BadShape).says("\"t\""),
        good("G15", "four dimensions", one(&[2, 2, 2, 2], F32)),
        good("G17", "zero columns", one(&[0, 4], F32)),
        good("G17", "zero rows", one(&[4, 0], F32)),
        good("G17", "zero columns of a block type", one(&[0, 4], Q4_K)),
        good("G17", "only empty tensors, file ends with the header", {
            let mut bytes = file(&[], &[tensor("t", &[0], F32, 0), tensor("u", &[0, 2], F32, 0)], 0);
            bytes.truncate(24 + 33 + 41);
            bytes
        }),
        bad("G16", "zero does not hide an overflow", one(&[0, u64::MAX], F32), Code::Overflow).says("\"t\""),
        bad("G16", "zero last does not hide it", one(&[1 << 31, 1 << 31, 1 << 31, 0], F32), Code::Overflow),
    ];
    for n in [5, 9, 255, 1 << 31, u32::MAX] {
        cases.push(bad("G15", format!("{n} dimensions"), n_dims(n), Code::BadShape).says("\"t\""));
    }
    for dims in [
        &[u64::MAX][..],
        &[1 << 63],
        &[1 << 32],
        &[1 << 62, 1 << 62, 1 << 62, 1 << 62],
        &[1 << 32, 1 << 32],
        &[1 << 31, 1 << 31, 1 << 31],
        &[1 << 31, 1 << 32],
        &[(1 << 42) + 1, 4],
        &[0xffff_ffff, 0xffff_ffff, 2, 2],
        &[0xffff_ffff, 0xffff_ffff, 1],
        &[1 << 31, 1 << 31, 1],
    ] {
        cases.push(bad("G16", format!("dimensions {dims:?}"), one(dims, F32), Code::Overflow).says("\"t\""));
    }
    for (dims, tensor_type) in [
        (&[255u64, 4][..], Q4_K),
        (&[33, 4], Q8_0),
        (&[16, 2], Q8_0),
        (&[31], Q8_0),
        (&[1, 32], Q8_0),
        (&[128, 2], Q4_K),
    ] {
        let what = format!("dimensions {dims:?} of type {tensor_type}");
        cases.push(bad("G19", what, one(dims, tensor_type), Code::BadShape).says("\"t\""));
    }
    cases
}

fn tensor_types() -> Vec<Case> {
    let one = |tensor_type| file(&[], &[tensor("t", &[256], tensor_type, 0)], 2048);
    let removed = [4, 5, 31, 32, 33, 36, 37, 38];
    let unknown = [1000, 1 << 31, u32::MAX, 0x5354_0000];
    let mut cases: Vec<Case> = removed
        .into_iter()
        .chain(unknown)
        .map(|id| bad("G18", format!("tensor type {id}"), one(id), Code::BadType).says("\"t\""))
        .collect();
    // Whether a type can be computed with is not the container's business.
    cases.push(good("G18", "IQ1_S", one(IQ1_S)));
    cases
}

fn offsets() -> Vec<Case> {
    let one = |offset| file(&[], &[tensor("t", &[4], F32, offset)], 4096);
    let two = |a, b| file(&[], &[tensor("t", &[4], F32, a), tensor("u", &[4], F32, b)], 4096);
    let mut cases = Vec::new();
    for offset in [u64::MAX, 1 << 63, 1, 4, 32, 1 << 20, 1 << 40] {
        cases.push(bad("G20", format!("offset {offset}"), one(offset), Code::BadOffset).says("\"t\""));
    }
    for (what, a, b) in [
        ("two tensors on one range", 0, 0),
        ("overlap", 0, 16),
        ("a hole", 0, 64),
        ("out of order", 32, 0),
        ("misaligned", 0, 33),
    ] {
        cases.push(bad("G20", what, two(a, b), Code::BadOffset));
    }
    cases.push(good("G20", "in order", two(0, 32)));
    let mut short = file(&[], &[tensor("t", &[4], F32, 0)], 16);
    short.pop();
    cases.push(bad("G20", "offset + size = file + 1", short, Code::Truncated));
    // 448 * 32377 * 524287 * 1212847 = 2^63 - 64: two such tensors wrap to a small sum.
    let large = [448, 32_377, 524_287, 1_212_847];
    let bytes = file(&[], &[tensor("t", &large, I8, 0), tensor("u", &large, I8, (1 << 63) - 64)], 64);
    cases.push(bad("G21", "sum of bytes wraps", bytes, Code::Overflow).says("\"u\""));
    let bytes = file(&[], &[tensor("t", &large, I8, 0)], 64);
    cases.push(bad("G21", "one tensor of 2^63-64 bytes", bytes, Code::Truncated).says("needed"));
    let wide = kv("general.alignment", U32, &64u32.to_le_bytes());
    let tensors = [tensor("t", &[4], F32, 0), tensor("u", &[4], F32, 32)];
    cases.push(bad(
        "G24",
        "offsets for alignment 32, declared 64",
        file(&[wide], &tensors, 96),
        Code::BadOffset,
    ));
    let narrow = kv("general.alignment", U32, &8u32.to_le_bytes());
    cases.push(bad(
        "G24",
        "offsets for alignment 32, declared 8",
        file(&[narrow], &tensors, 96),
        Code::BadOffset,
    ));
    cases
}

fn ends() -> Vec<Case> {
    let whole = tiny();
    let mut cases = Vec::new();
    for (what, n) in [
        ("the magic", 3),
        ("the counts", 20),
        ("a key", 40),
        ("the padding", whole.len() - 101),
        ("the data", whole.len() - 1),
        ("the first tensor", whole.len() - 90),
    ] {
        cases.push(bad("G22", format!("cut in {what}"), whole[..n].to_vec(), Code::Truncated).says("needed"));
    }
    for (what, tail) in
        [("1 byte", vec![0xaa]), ("1 MB", vec![0xaa; 1 << 20]), ("a zip", b"PK\x03\x04zip".to_vec())]
    {
        cases.push(good("G23", format!("{what} after the data"), [whole.clone(), tail].concat()));
    }
    cases.push(good("G30", "the small valid file", whole));
    cases.push(good("G30", "the valid file of 20 KiB", medium()));
    cases
}

/// Rows that the model layer decides: the container has to hand them over intact.
fn metadata_for_the_loader() -> Vec<Case> {
    let long = vec![b'a'; 65_536];
    let arch = "general.architecture";
    vec![
        good("G25", "split.count is a string", with_entries(&[kv("split.count", STRING, &string(b"3"))])),
        good("G26", "no architecture", with_entries(&[])),
        good("G26", "architecture of 64 KiB", with_entries(&[kv(arch, STRING, &string(&long))])),
        good("G26", "architecture is a number", with_entries(&[kv(arch, U32, &[1, 0, 0, 0])])),
        good("G27", "block_count -1", with_entries(&[kv("llama.block_count", I32, &[0xff; 4])])),
    ]
}
