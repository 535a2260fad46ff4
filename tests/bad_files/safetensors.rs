//! Group S of the fault catalogue: safetensors files.

use bitpane::Code;

use super::{Case, bad, good};

/// A file with this declared header length.
fn raw(length: u64, header: &[u8], n_data: usize) -> Vec<u8> {
    let mut file = length.to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + n_data, 0x55);
    file
}

/// A file of this header and `n_data` bytes of data.
pub fn file(header: impl AsRef<[u8]>, n_data: usize) -> Vec<u8> {
    let header = header.as_ref();
    raw(header.len() as u64, header, n_data)
}

/// A file whose only tensor, `t`, has these fields.
fn one(dtype: &str, shape: &str, data_offsets: &str, n_data: usize) -> Vec<u8> {
    let json = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{data_offsets}}}}}"#);
    file(json, n_data)
}

/// A header of `n` tensors without elements, with `names` for their names.
pub fn many(n: usize, name: impl Fn(usize) -> String) -> String {
    let entries: Vec<String> = (0..n)
        .map(|i| format!(r#""{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, name(i)))
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// A small valid file.
pub fn tiny() -> Vec<u8> {
    let json = r#"{"__metadata__":{"format":"pt","note":"\u00e9\n"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[3,19]},"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"empty":{"dtype":"BF16","shape":[0,7],"data_offsets":[3,3]}}  "#;
    file(json, 19)
}

/// Every case of group S that the container decides, the largest excepted.
pub fn cases() -> Vec<Case> {
    [lengths(), json(), metadata(), duplicates(), offsets(), shapes(), dtypes(), depth_and_names(), ends()]
        .into_iter()
        .flatten()
        .collect()
}

fn lengths() -> Vec<Case> {
    let mut cases: Vec<Case> = (1..9)
        .map(|n| bad("S01", format!("the first {n} bytes"), tiny()[..n].to_vec(), Code::Truncated))
        .collect();
    for length in [0, 1 << 63, u64::MAX, 100_000_001, 1 << 32] {
        let bytes = raw(length, b"{}", 64);
        cases.push(bad("S01", format!("header length {length}"), bytes, Code::LimitExceeded));
    }
    for length in [3, 100, 100_000_000] {
        let bytes = raw(length, b"{}", 0);
        cases.push(bad("S01", format!("header length {length}, file ends"), bytes, Code::Truncated));
    }
    cases.push(bad("S01", "header length 1", raw(1, b"{", 0), Code::BadHeader));
    cases.push(good("S01", "no tensors", file("{}", 0)));
    cases
}

fn json() -> Vec<Case> {
    let mut cases = vec![
        bad("S02", "not UTF-8", file(b"{\"\xff\xfe\":{}}", 0), Code::BadHeader),
        bad("S02", "a byte order mark", file("\u{feff}{}", 0), Code::BadHeader),
        bad("S02", "trailing comma", file(r#"{"__metadata__":{},}"#, 0), Code::BadHeader),
        bad("S02", "NaN", one("F32", "[NaN]", "[0,4]", 4), Code::BadHeader),
        bad("S02", "text after the object", file("{} {}", 0), Code::BadHeader),
        bad("S02", "NUL after the object", file(b"{}\0\0", 0), Code::BadHeader),
        bad("S02", "a comment", file("{/* */}", 0), Code::BadHeader),
        bad("S02", "single quotes", file("{'t':{}}", 0), Code::BadHeader),
        bad("S02", "a lone surrogate", file(r#"{"\ud800":{}}"#, 0), Code::BadHeader),
        bad("S02", "cut JSON", file(r#"{"t":{"dtype":"F32""#, 0), Code::BadHeader),
        bad(
            "S02",
            "unknown field",
            file(r#"{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}"#, 0),
            Code::BadHeader,
        ),
        bad(
            "S02",
            "field twice",
            file(r#"{"t":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#, 0),
            Code::BadHeader,
        ),
        bad("S02", "no dtype", file(r#"{"t":{"shape":[0],"data_offsets":[0,0]}}"#, 0), Code::BadHeader)
            .says("dtype"),
        bad("S02", "no shape", file(r#"{"t":{"dtype":"U8","data_offsets":[0,0]}}"#, 0), Code::BadHeader)
            .says("shape"),
        bad("S02", "no data_offsets", file(r#"{"t":{"dtype":"U8","shape":[0]}}"#, 0), Code::BadHeader)
            .says("data_offsets"),
    ];
    for text in ["[]", "[[]]", "null", "true", "1", "\"text\"", "  ", "x"] {
        cases.push(bad("S02", format!("header {text}"), file(text, 0), Code::BadHeader));
    }
    for text in ["null", "1", "[]", "\"F32\"", "true"] {
        let bytes = file(format!(r#"{{"t":{text}}}"#), 0);
        cases.push(bad("S02", format!("tensor {text}"), bytes, Code::BadHeader));
    }
    let t = r#"{"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
    for (what, header) in [
        ("trailing spaces", format!("{t}    ")),
        ("trailing tabs and newlines", format!("{t}\t\r\n\n")),
        ("leading white space", format!(" \t\r\n{t}")),
        ("white space inside", t.replace(':', " :\n ")),
    ] {
        cases.push(good("S03", what, file(header, 2)));
    }
    cases
}

fn metadata() -> Vec<Case> {
    let mut cases: Vec<Case> =
        ["1", "null", "[]", "\"x\"", r#"{"a":1}"#, r#"{"a":{}}"#, r#"{"a":null}"#, r#"{"a":["b"]}"#]
            .into_iter()
            .map(|text| {
                bad(
                    "S05",
                    format!("metadata {text}"),
                    file(format!(r#"{{"__metadata__":{text}}}"#), 0),
                    Code::BadHeader,
                )
            })
            .collect();
    let as_tensor = r#"{"__metadata__":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    cases.push(bad("S05", "__metadata__ is a tensor", file(as_tensor, 0), Code::BadHeader));
    let key = |n: usize| file(format!(r#"{{"__metadata__":{{"{}":""}}}}"#, "k".repeat(n)), 0);
    cases.push(good("S05", "metadata key of 64 KiB", key(65_536)));
    cases.push(bad("S05", "metadata key of 64 KiB and one byte", key(65_537), Code::BadKey));
    cases.push(good("S05", "empty metadata", file(r#"{"__metadata__":{}}"#, 0)));
    cases
}

fn duplicates() -> Vec<Case> {
    let t = r#""t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    vec![
        bad("S04", "tensor twice", file(format!("{{{t},{t}}}"), 0), Code::Duplicate).says("\"t\""),
        bad(
            "S04",
            "tensor twice, once escaped",
            file(format!("{{{t},{}}}", t.replacen('t', "\\u0074", 1)), 0),
            Code::Duplicate,
        ),
        bad("S04", "metadata twice", file(r#"{"__metadata__":{},"__metadata__":{}}"#, 0), Code::Duplicate)
            .says("__metadata__"),
        bad("S04", "metadata key twice", file(r#"{"__metadata__":{"a":"1","a":"2"}}"#, 0), Code::Duplicate)
            .says("\"a\""),
    ]
}

fn offsets() -> Vec<Case> {
    let mut cases = Vec::new();
    for range in
        ["[4,0]", "[-4,0]", "[0,-4]", "[0.0,4.0]", "[0,4.5]", "[0,1e30]", "[0,1,4]", "[0]", "[]", "[1,5]"]
    {
        let bytes = one("F32", "[1]", range, 8);
        cases.push(bad("S06", format!("data_offsets {range}"), bytes, Code::BadOffset).says("\"t\""));
    }
    for range in ["null", "4", "\"0,4\"", "{}", "[\"0\",\"4\"]", "[null,4]", "[[0,4]]"] {
        let bytes = one("F32", "[1]", range, 4);
        cases.push(bad("S06", format!("data_offsets {range}"), bytes, Code::BadHeader));
    }
    let two = |a: &str, b: &str, n_data| {
        let json = format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":{a}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        );
        file(json, n_data)
    };
    let attack: Vec<String> =
        (0..10).map(|i| format!(r#""{i}":{{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#)).collect();
    cases.extend([
        bad("S06", "one range for two", two("[0,4]", "[0,4]", 4), Code::BadOffset).says("\"b\""),
        bad("S06", "one range for ten", file(format!("{{{}}}", attack.join(",")), 16), Code::BadOffset),
        bad("S06", "overlap", two("[0,4]", "[3,7]", 7), Code::BadOffset).says("overlap"),
        bad("S06", "hole", two("[0,4]", "[5,9]", 9), Code::BadOffset).says("hole"),
        bad("S06", "does not begin at 0", two("[4,8]", "[8,12]", 12), Code::BadOffset).says("hole"),
        good("S06", "file order is not header order", two("[4,8]", "[0,4]", 8)),
    ]);
    cases
}

fn shapes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (dtype, shape, range) in [
        ("F32", "[1]", "[0,8]"),
        ("F32", "[2,2]", "[0,12]"),
        ("F16", "[3]", "[0,5]"),
        ("U8", "[]", "[0,0]"),
        ("F4", "[3]", "[0,2]"),
        ("F4", "[3]", "[0,1]"),
    ] {
        let what = format!("{dtype} {shape} in {range}");
        cases.push(bad("S07", what, one(dtype, shape, range, 8), Code::BadShape).says("\"t\""));
    }
    for shape in ["[-1]", "[1.5]", "[1e30]", "[1,1,1,1,1,1,1,1,1]"] {
        cases.push(
            bad("S07", format!("shape {shape}"), one("F32", shape, "[0,4]", 4), Code::BadShape).says("\"t\""),
        );
    }
    for shape in [
        "[18446744073709551615]",
        "[4294967296]",
        "[4294967295,4294967295]",
        "[2147483648,2147483648,4]",
        "[4611686018427387904,4]",
        "[0,18446744073709551615]",
        "[2147483648,2147483648]",
    ] {
        cases.push(
            bad("S07", format!("shape {shape}"), one("F64", shape, "[0,4]", 4), Code::Overflow).says("\"t\""),
        );
    }
    let large =
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775807,9223372036854775808]}}"#;
    cases.push(bad("S07", "offsets above 2^63", file(large, 1), Code::BadOffset));
    cases.extend([
        good("S08", "a dimension of 0", one("F32", "[0]", "[0,0]", 0)),
        good("S08", "zero among others", one("F32", "[3,0,5]", "[0,0]", 0)),
        good("S08", "no dimension: one element", one("F32", "[]", "[0,4]", 4)),
        good("S08", "eight dimensions", one("U8", "[1,1,1,1,1,1,1,2]", "[0,2]", 2)),
        good("S14", "odd offset", file(
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F16","shape":[3],"data_offsets":[1,7]}}"#,
            7,
        )),
    ]);
    cases
}

fn dtypes() -> Vec<Case> {
    let mut cases: Vec<Case> = ["", "f32", "F128", "Q4_0", "F32 ", "\\u0000"]
        .into_iter()
        .map(|dtype| {
            let bytes = one(dtype, "[1]", "[0,4]", 4);
            bad("S09", format!("dtype {dtype:?}"), bytes, Code::UnsupportedDtype).says("\"t\"")
        })
        .collect();
    let long = "F\u{fe}".repeat(12_000);
    cases.push(bad("S09", "a dtype of 36 KB", one(&long, "[1]", "[0,4]", 4), Code::UnsupportedDtype));
    cases.push(bad(
        "S09",
        "a field of 36 KB",
        file(format!(r#"{{"t":{{"{long}":1}}}}"#), 0),
        Code::BadHeader,
    ));
    // Known to the format but no weights: other tensors of the file may still be used.
    for (dtype, n) in
        [("F8_E4M3", 4), ("I64", 32), ("BOOL", 4), ("F4", 2), ("U8", 4), ("F6_E2M3", 3), ("C64", 32)]
    {
        cases.push(good("S09", format!("dtype {dtype}"), one(dtype, "[4]", &format!("[0,{n}]"), n)));
    }
    cases.push(bad(
        "S09",
        "dtype is a number",
        file(r#"{"t":{"dtype":1,"shape":[1],"data_offsets":[0,4]}}"#, 4),
        Code::BadHeader,
    ));
    cases
}

fn depth_and_names() -> Vec<Case> {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let lists = deep("[", "]");
    let maps = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    vec![
        bad("S11", "tensor nested 100000 deep", file(format!(r#"{{"t":{lists}}}"#), 0), Code::BadHeader),
        bad("S11", "shape nested 100000 deep", one("F32", &lists, "[0,4]", 4), Code::BadHeader),
        bad("S11", "maps nested 100000 deep", file(&maps, 0), Code::BadHeader),
        bad(
            "S11",
            "metadata nested 100000 deep",
            file(format!(r#"{{"__metadata__":{maps}}}"#), 0),
            Code::BadHeader,
        ),
        bad(
            "S11",
            "100000 open brackets",
            file(format!(r#"{{"t":{}"#, "[".repeat(100_000)), 0),
            Code::BadHeader,
        ),
        bad("S11", "NUL in a name", file(many(1, |_| "a\\u0000b".into()), 0), Code::BadName),
        bad("S11", "empty name", file(many(1, |_| String::new()), 0), Code::BadName),
        good("S11", "name of 64 KiB", file(many(1, |_| "n".repeat(65_536)), 0)),
        bad("S11", "name of 64 KiB and one byte", file(many(1, |_| "n".repeat(65_537)), 0), Code::BadName),
    ]
}

fn ends() -> Vec<Case> {
    let whole = tiny();
    let mut cases = vec![good("S06", "the small valid file", whole.clone())];
    for n in [1, 2, 18, 19, 20, 60] {
        let bytes = whole[..whole.len() - n].to_vec();
        cases.push(bad("S06", format!("{n} bytes missing"), bytes, Code::Truncated).says("needed"));
    }
    for (what, tail) in
        [("1 byte", vec![0]), ("a zip", b"PK\x03\x04zip".to_vec()), ("100 kB", vec![1; 100_000])]
    {
        cases.push(bad(
            "S06",
            format!("{what} after the data"),
            [whole.clone(), tail].concat(),
            Code::TrailingData,
        ));
    }
    cases
}
