//! Groups G and S of the fault catalogue: every malformed file gets its verdict, however it
//! is read, and a flipped byte never costs more than a typed error.

mod bad_files;

use bad_files::{complaint, gguf, large, located, parse, safetensors, stream, verdicts};
use bitpane::container::{self, Header};
use bitpane::{Code, Result};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Most milliseconds that reading one small file may take.
const LIMIT_MS: f64 = 10.0;

fn now_ms() -> f64 {
    #[cfg(target_arch = "wasm32")]
    return js_sys::Date::now();
    #[cfg(not(target_arch = "wasm32"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed().as_secs_f64() * 1e3
    }
}

fn say(line: &str) {
    #[cfg(target_arch = "wasm32")]
    wasm_bindgen_test::console_log!("{line}");
    #[cfg(not(target_arch = "wasm32"))]
    println!("{line}");
}

fn check(cases: &[bad_files::Case]) {
    let mut complaints = Vec::new();
    for case in cases {
        for (way, verdict) in verdicts(&case.bytes) {
            if let Some(complaint) = complaint(case, &verdict) {
                complaints
                    .push(format!("{} {} ({way}): wanted {:?}, {complaint}", case.id, case.what, case.code));
            }
        }
    }
    assert!(complaints.is_empty(), "{} wrong verdicts\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_case_gets_its_verdict() {
    let cases = bad_files::all();
    check(&cases);
    let n_bad = cases.iter().filter(|c| c.code.is_some()).count();
    say(&format!("{} container cases: {n_bad} refused, {} accepted", cases.len(), cases.len() - n_bad));
}

/// Most milliseconds for the header of any size that the limits admit.
const LARGE_LIMIT_MS: f64 = 2000.0;

#[test]
fn headers_of_many_megabytes() {
    let builders = large::builders();
    for build in &builders {
        let case = build();
        check(std::slice::from_ref(&case));
        let best = (0..5).map(|_| ms_of(|| drop(parse(&case.bytes)))).find(|&ms| ms < LARGE_LIMIT_MS);
        assert!(best.is_some(), "{} {}: above {LARGE_LIMIT_MS} ms", case.id, case.what);
    }
    say(&format!("{} large container cases", builders.len()));
}

#[test]
fn errors_name_their_byte() {
    for (what, file, offset) in located::gguf() {
        let e = parse(&file).expect_err(what);
        assert_eq!(e.offset, Some(offset), "{what}: {e}");
    }
    for (what, json, offset) in [
        ("bad UTF-8", &b"{\"a\xff\":1}"[..], 8 + 3),
        ("bad token", b"{\"a\":x}", 8 + 5),
        ("bad token in line 3", b"{\n\"a\":\n  x}", 8 + 9),
        ("no object", b"[]", 8),
    ] {
        let e = parse(&safetensors::file(json, 0)).expect_err(what);
        assert_eq!((e.code, e.offset), (Code::BadHeader, Some(offset)), "{what}: {e}");
    }
}

/// Two entries of 13 bytes and a tensor of 24 need 74 bytes with the first 24.
#[test]
fn counts_that_a_file_cannot_hold_fail_at_its_first_bytes() {
    let head = gguf::head(3, 1, 2);
    let e = container::gguf::parse(&head, Some(73)).unwrap_err();
    assert_eq!((e.code, e.offset), (Code::Truncated, Some(73)));
    assert!(container::gguf::parse(&head, Some(74)).unwrap().is_none());
    assert!(container::gguf::parse(&head, None).unwrap().is_none());
}

/// A header read again from its start for every chunk would take minutes here.
#[test]
fn time_is_linear_in_the_header_however_it_arrives() {
    for (what, file) in large::two_megabytes() {
        assert!(file.len() > 1_900_000, "{what}: {}", file.len());
        for chunk in [1, 1000] {
            let best = (0..5).map(|_| ms_of(|| stream(&file, None, chunk).unwrap()));
            assert!(best.into_iter().any(|ms| ms < LARGE_LIMIT_MS), "{what} by {chunk}");
        }
    }
}

fn ms_of(f: impl FnOnce()) -> f64 {
    let start = now_ms();
    f();
    now_ms() - start
}

/// The rows that the container decides; the others need the model layer.
#[test]
fn the_table_covers_the_catalogue() {
    let cases = bad_files::all();
    let has = |id: &str| id == "S10" || cases.iter().any(|c| c.id == id);
    for n in (1..=27).chain([30]) {
        assert!(has(&format!("G{n:02}")), "G{n:02}");
    }
    for n in (1..=11).chain([14]) {
        assert!(has(&format!("S{n:02}")), "S{n:02}");
    }
}

/// With the bytes so far, and a length of the file that is known or not.
#[test]
fn too_few_bytes_are_no_verdict() {
    for len in [None, Some(100)] {
        for prefix in [&b""[..], b"GG", b"\x10\0\0\0\0\0\0\0"] {
            assert!(container::parse(prefix, len).unwrap().is_none(), "{prefix:?} of {len:?}");
        }
    }
    let early = container::safetensors::parse(&[0; 3], Some(8)).unwrap_err();
    assert_eq!((early.code, early.offset), (Code::Truncated, Some(8)), "a length and nothing to be long");
    let e = container::parse(b"GG", Some(2)).unwrap_err();
    assert_eq!((e.code, e.offset, e.message.contains("at least 3")), (Code::Truncated, Some(2), true), "{e}");
}

#[test]
fn every_dtype_of_safetensors_has_its_name() {
    let names =
        "F32 F16 BF16 F64 I8 I16 I32 I64 BOOL U8 U16 U32 U64 F8_E4M3 F8_E5M2 F8_E8M0 F6_E2M3 F6_E3M2 F4 C64";
    for name in names.split(' ') {
        // No elements: as many bytes whatever the type.
        let json = format!(r#"{{"t":{{"dtype":"{name}","shape":[0],"data_offsets":[0,0]}}}}"#);
        let header = header(&safetensors::file(json, 0));
        assert_eq!(container::safetensors::dtype_name(header.tensors[0].dtype), Some(name));
    }
}

#[test]
fn errors_say_what_was_expected() {
    for (json, words) in [
        (" []", "a map of tensors"),
        (r#"{"t":3}"#, "a map of dtype, shape and data_offsets"),
        (r#"{"t":{"dtype":3}}"#, "a string"),
        (r#"{"t":{"shape":3}}"#, "a list of whole numbers"),
        (r#"{"__metadata__":3}"#, "a map of strings"),
    ] {
        let e = parse(&safetensors::file(json, 0)).unwrap_err();
        assert!(e.message.contains(&format!("expected {words}")), "{json}: {e}");
    }
}

/// The largest that is accepted, and one more.
#[test]
fn limits_are_exact() {
    const DIM: u64 = u32::MAX as u64;
    let gguf = |dims: &[u64], kind: u32| {
        let file = gguf::file(&[], &[gguf::tensor("t", dims, kind, 0)], 0);
        container::gguf::parse(&file, None).map(|header| header.unwrap().end_offset).map_err(|e| e.code)
    };
    assert_eq!(gguf(&[DIM], gguf::I8), Ok(64 + DIM));
    assert_eq!(gguf(&[DIM + 1], gguf::I8), Err(Code::Overflow));
    // 2^63 - 1 elements, and bytes with the padding behind them.
    assert_eq!(gguf(&[DIM, 1 << 31], gguf::I8), Ok(96 + (DIM << 31)));
    assert_eq!(gguf(&[DIM, 1 << 31, 2], gguf::I8), Err(Code::Overflow));
    assert_eq!(gguf(&[DIM, 1 << 31, 0], gguf::I8), Ok(73));
    let safetensors = |shape: &str, n_bytes: u64| {
        let json = format!(r#"{{"t":{{"dtype":"I8","shape":[{shape}],"data_offsets":[0,{n_bytes}]}}}}"#);
        let parsed = container::safetensors::parse(&safetensors::file(json, 0), None);
        parsed.map(|header| header.unwrap().tensors[0].n_bytes).map_err(|e| e.code)
    };
    assert_eq!(safetensors("4294967295", DIM), Ok(DIM));
    assert_eq!(safetensors("4294967296", DIM + 1), Err(Code::Overflow));
    assert_eq!(safetensors("1,1,1,1,1,1,1,2", 2), Ok(2));
    assert_eq!(safetensors("1,1,1,1,1,1,1,1,2", 2), Err(Code::BadShape));
}

/// Every way to read `file` gives the same: the same code, or success.
fn agree(file: &[u8], chunk: usize) -> Option<Code> {
    let code = |r: Result<()>| r.err().map(|e| e.code);
    let whole = code(parse(file));
    let known = code(stream(file, Some(file.len() as u64), chunk));
    assert_eq!(whole, known, "parsed at once against streamed by {chunk}");
    let unknown = code(stream(file, None, chunk));
    // With the length unknown a fault beyond the end of a short file is found first.
    assert_eq!(whole.is_some(), unknown.is_some(), "length known against unknown");
    whole
}

#[test]
fn every_prefix() {
    for (name, file) in
        [("GGUF", gguf::tiny()), ("GGUF, 20 KiB", gguf::medium()), ("safetensors", safetensors::tiny())]
    {
        let end = container::parse(&file, None).unwrap().unwrap().end_offset as usize;
        for n in 0..=file.len() {
            let expected = (n < end).then_some(Code::Truncated);
            assert_eq!(agree(&file[..n], 61), expected, "{name}: {n} of {} bytes", file.len());
        }
        say(&format!("{name}: {} prefixes", file.len() + 1));
    }
}

/// Reads `file` with each of `values` at byte `at`. The whole batch must keep below the limit
/// of a single file; a batch that does not is measured again, as other programs take time too.
fn flip(file: &mut [u8], at: usize, values: impl Iterator<Item = u8> + Clone) -> [usize; 2] {
    let original = file[at];
    for attempt in 1.. {
        let mut outcomes = [0; 2];
        let start = now_ms();
        for value in values.clone() {
            file[at] = value;
            outcomes[agree(file, 1000).is_some() as usize] += 1;
        }
        file[at] = original;
        let ms = now_ms() - start;
        if ms < LIMIT_MS {
            return outcomes;
        }
        assert!(attempt < 10, "byte {at}: {ms} ms for one batch");
    }
    unreachable!()
}

fn say_flips(name: &str, [accepted, refused]: [usize; 2]) {
    say(&format!("{name}: {accepted} accepted, {refused} refused, 0 panics"));
}

fn add(sum: &mut [usize; 2], outcomes: [usize; 2]) {
    sum[0] += outcomes[0];
    sum[1] += outcomes[1];
}

#[test]
fn every_byte_value_in_small_files() {
    for (name, mut file) in [("GGUF", gguf::tiny()), ("safetensors", safetensors::tiny())] {
        let mut sum = [0; 2];
        for at in 0..file.len() {
            let original = file[at];
            // In batches of 17, so that the clock bounds small groups.
            for first in (0..=255u8).step_by(17) {
                let values = (first..=first.saturating_add(16)).filter(move |&v| v != original);
                add(&mut sum, flip(&mut file, at, values));
            }
        }
        say_flips(&format!("every other value of each of {} bytes of a small {name} file", file.len()), sum);
    }
}

#[test]
fn every_bit_in_the_first_4_kib() {
    let mut file = gguf::medium();
    let header = header(&file);
    assert!((3000..4096).contains(&header.data_offset), "the header takes most of 4 KiB");
    let mut sum = [0; 2];
    for at in 0..4096 {
        let original = file[at];
        add(&mut sum, flip(&mut file, at, (0..8).map(|bit| original ^ 1 << bit)));
    }
    assert_eq!(sum[0] + sum[1], 8 * 4096);
    say_flips("every bit of the first 4 KiB of a GGUF file of 20 KiB", sum);
}

fn header(file: &[u8]) -> Header {
    container::parse(file, Some(file.len() as u64)).unwrap().unwrap()
}

/// What the container hands on for the model layer to refuse: getters name the key.
#[test]
fn metadata_of_the_wrong_kind_names_its_key() {
    let header = header(&gguf::tiny());
    let meta = &header.metadata;
    for (key, error) in [
        ("f32", meta.u64("f32").map(|_| ()).unwrap_err()),
        ("i8", meta.u64("i8").map(|_| ()).unwrap_err()),
        ("general.architecture", meta.u64("general.architecture").map(|_| ()).unwrap_err()),
        ("bool", meta.f32("bool").map(|_| ()).unwrap_err()),
        ("u8", meta.str("u8").map(|_| ()).unwrap_err()),
        ("u8", meta.bool("u8").map(|_| ()).unwrap_err()),
        ("strings", meta.str("strings").map(|_| ()).unwrap_err()),
        ("u64", meta.array("u64").map(|_| ()).unwrap_err()),
    ] {
        assert_eq!((error.code, error.key.as_deref()), (Code::BadValue, Some(key)));
    }
    assert_eq!(meta.u64("absent").unwrap(), None);
}
