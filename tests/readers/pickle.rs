//! Pickles by hand: every operation that is supported, and the budget.

use bitpane::Code;
use bitpane::container::pickle::{MAX_BYTES, Object, Pickle, Value, read};

/// A value in Python's words.
fn shown(pickle: &Pickle, value: Value) -> String {
    let list = |items: &[Value]| items.iter().map(|v| shown(pickle, *v)).collect::<Vec<_>>().join(", ");
    match pickle.object(value) {
        Some(Object::Text(text)) => format!("{text:?}"),
        Some(Object::Tuple(items)) => format!("({})", list(items)),
        Some(Object::List(items)) => format!("[{}]", list(items)),
        Some(Object::Dict(entries)) => {
            let entry = |(k, v): &(Value, Value)| format!("{}: {}", shown(pickle, *k), shown(pickle, *v));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Some(other) => format!("{other:?}"),
        None => match value {
            Value::Int(n) => n.to_string(),
            Value::Float(x) => format!("{x:?}"),
            other => format!("{other:?}"),
        },
    }
}

fn root(bytes: &[u8]) -> String {
    let pickle = read(bytes).unwrap_or_else(|e| panic!("{bytes:x?}: {e}"));
    assert_eq!(pickle.n_bytes, bytes.len());
    shown(&pickle, pickle.root)
}

fn code(bytes: &[u8]) -> Code {
    read(bytes).map(|p| shown(&p, p.root)).expect_err("refused").code
}

#[test]
fn every_operation() {
    let storage = b"(X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\0kNK\x09tQ";
    let tensor = |arguments: &[u8]| {
        [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], arguments, b"tR."].concat()
    };
    let cases: &[(&[u8], &str)] = &[
        (b"N.", "None"),
        (b"\x88.", "Bool(true)"),
        (b"\x89.", "Bool(false)"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0N.", "None"),
        (b"K\xff.", "255"),
        (b"M\x01\x02.", "513"),
        (b"J\xfe\xff\xff\xff.", "-2"),
        (b"G\x3f\xf8\0\0\0\0\0\0.", "1.5"),
        (b"F-2.25\n.", "-2.25"),
        (b"I00\n.", "Bool(false)"),
        (b"I01\n.", "Bool(true)"),
        (b"I-7\n.", "-7"),
        (b"L123456789012L\n.", "123456789012"),
        (b"\x8a\0.", "0"),
        (b"\x8a\x02\xff\x7f.", "32767"),
        (b"\x8a\x02\0\x80.", "-32768"),
        (b"\x8a\x01\x7f.", "127"),
        (b"\x8a\x0a\x01\0\0\0\0\0\0\0\x05\0.", "1"),
        (b"X\x02\0\0\0ab.", "\"ab\""),
        (b"T\x01\0\0\0a.", "\"a\""),
        (b"B\x01\0\0\0a.", "\"a\""),
        (b"\x8c\x02ab.", "\"ab\""),
        (b"U\x01a.", "\"a\""),
        (b"C\0.", "\"\""),
        (b"\x8d\x01\0\0\0\0\0\0\0a.", "\"a\""),
        (b"\x8e\x01\0\0\0\0\0\0\0a.", "\"a\""),
        (b"\x96\x01\0\0\0\0\0\0\0a.", "\"a\""),
        (b"Vab c\n.", "\"ab c\""),
        (b"S'ab'\n.", "\"ab\""),
        (b"K\x01N0.", "1"),
        (b"K\x01(NN1.", "1"),
        (b"K\x012\x86.", "(1, 1)"),
        (b"K\x01q\x07K\x02q\x08h\x07\x86.", "(2, 1)"),
        (b"K\x01r\0\x01\0\0K\x02j\0\x01\0\0\x86.", "(2, 1)"),
        (b"K\x01p12\nK\x02g12\n\x86.", "(2, 1)"),
        (b"K\x01\x94K\x02\x94h\0h\x01\x87.", "(2, 1, 2)"),
        (b").", "()"),
        (b"(K\x01K\x02t.", "(1, 2)"),
        (b"K\x01\x85.", "(1)"),
        (b"K\x01K\x02K\x03\x87.", "(1, 2, 3)"),
        (b"].", "[]"),
        (b"\x8f(K\x01K\x02\x90.", "[1, 2]"),
        (b"(K\x01K\x02l.", "[1, 2]"),
        (b"}.", "{}"),
        (b"(K\x01K\x02d.", "{1: 2}"),
        (b"]K\x01aK\x02a.", "[1, 2]"),
        (b"](K\x01K\x02e.", "[1, 2]"),
        (b"}K\x01K\x02s.", "{1: 2}"),
        (b"}(K\x01K\x02K\x03K\x04u.", "{1: 2, 3: 4}"),
        (b"}(u.", "{}"),
        (b"ccollections\nOrderedDict\n.", "Global(OrderedDict)"),
        (b"\x8c\x05torch\x8c\x04Size\x93.", "Global(Size)"),
        (b"ccollections\nOrderedDict\n)R.", "{}"),
        (b"ccollections\nOrderedDict\n)\x81}b.", "{}"),
        (b"ccollections\nOrderedDict\n]K\x01K\x02\x86a\x85R.", "{1: 2}"),
        (b"ctorch\nSize\nK\x05K\x06\x86\x85R.", "(5, 6)"),
        (b"ctorch._utils\n_rebuild_parameter\nK\x05\x88N\x87R.", "5"),
    ];
    for (bytes, wanted) in cases {
        assert_eq!(root(bytes), *wanted, "{:?}", bytes.escape_ascii().to_string());
    }
    assert_eq!(root(&[&storage[..], b"."].concat()), "Storage { element: F16, key: \"k\", len: 9 }");
    let eight =
        [b"K\x03(".to_vec(), b"K\x01".repeat(8), b"t(".to_vec(), b"K\x02".repeat(8), b"t".to_vec()].concat();
    assert_eq!(
        root(&tensor(&eight)),
        "Tensor(View { storage: 3, offset: 3, shape: [1, 1, 1, 1, 1, 1, 1, 1], strides: [2, 2, 2, 2, 2, 2, 2, 2] })"
    );
    let nine =
        [b"K\x03(".to_vec(), b"K\x01".repeat(9), b"t(".to_vec(), b"K\x02".repeat(9), b"t".to_vec()].concat();
    assert_eq!(code(&tensor(&nine)), Code::BadValue);
    assert_eq!(code(&tensor(b"K\x03K\x01\x85K\x01K\x01\x86")), Code::BadValue);
}

#[test]
fn operations_on_what_they_do_not_fit() {
    let view = b"(X\x07\0\0\0storagectorch\nHalfStorage\nX\x01\0\0\0kNK\x09K\x01tQ.";
    let other_kind = b"(X\x07\0\0\0storingsctorch\nHalfStorage\nX\x01\0\0\0kNK\x09tQ.";
    for bytes in [
        &b"0."[..],
        b"(N0(0.", // below the mark
        b"2.",
        b"q\0.",
        b"N(0.",
        b"NN(0.",
        b"}Na.",
        b"}(NNe.",
        b"h\0.",
        b"N\x86.",
        b"(NNNd.",
        b"}K\x01s.",
        b"}NNa.",
        b"]NNs.",
        b"](NNu.",
        b")Na.",
        b"Px\n.",
        b"NQ.",
        b"K\x05\x85Q.",
        view,
        other_kind,
        b"F1.x\n.",
        b"Ix\n.",
        b"g x\n.",
        b"ccollections\nOrderedDict\n]N\x85a\x85R.",
        b"ctorch\nSize\n)R.",
        b"NN\x93.",
        b"]]\x93.",
        b"NNb.",
        b"]Nb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\0))tR.",
    ] {
        assert_eq!(code(bytes), Code::BadValue, "{:?}", bytes.escape_ascii().to_string());
    }
    for bytes in [&b""[..], b"N", b"K", b"M\0", b"X\x02\0\0\0a", b"Vab", b"\x8a\x02\0", b"\x95\0\0\0\0\0\0\0"]
    {
        assert_eq!(code(bytes), Code::Truncated, "{:?}", bytes.escape_ascii().to_string());
    }
}

/// Bytes that are as often asked for as they can be are twice those of the pickle, and not one more.
#[test]
fn what_is_copied_is_bounded() {
    let exact = |bytes: Vec<u8>, spent: usize| {
        let mut bytes = bytes;
        assert!(2 * bytes.len() < spent, "{} bytes", bytes.len());
        bytes.resize(spent / 2, 0); // what follows the end counts as well
        assert_eq!(read(&bytes).err().map(|e| e.code), None);
        bytes.pop();
        assert_eq!(read(&bytes).err().map(|e| e.code), Some(Code::LimitExceeded));
    };
    let names = b"\x8c\x0ctorch._utilsq\0\x8c\x12_rebuild_parameterq\x01";
    exact([&names[..], &b"h\0h\x01\x930".repeat(10), b"N."].concat(), 10 * (12 + 18));
    let arguments = [&b"ctorch._utils\n_rebuild_parameter\nq\0("[..], &b"N".repeat(50), b"tq\x01"].concat();
    exact([&arguments[..], &b"h\0h\x01R0".repeat(10), b"N."].concat(), 10 * 50);
    let pairs = [&b"ccollections\nOrderedDict\nq\0("[..], &b"NN\x86".repeat(40), b"t\x85q\x01"].concat();
    exact([&pairs[..], &b"h\0h\x01R0".repeat(21), b"N."].concat(), 21 * 41 + 1);
}

#[test]
fn a_pickle_has_a_longest_length() {
    let text = |len: usize| {
        let mut bytes = [&b"X"[..], &(len as u32).to_le_bytes()].concat();
        bytes.resize(5 + len, b'a');
        bytes.push(b'.');
        bytes
    };
    let mut longest = text(MAX_BYTES - 6);
    assert_eq!(read(&longest).unwrap().n_bytes, MAX_BYTES);
    longest.push(0);
    assert_eq!(read(&longest).unwrap().n_bytes, MAX_BYTES, "what follows is another matter");
    assert_eq!(code(&text(MAX_BYTES - 5)), Code::LimitExceeded);
    assert_eq!(code(&text(MAX_BYTES - 5)[..MAX_BYTES]), Code::Truncated);
    assert_eq!(code(&text(MAX_BYTES - 6)[..MAX_BYTES - 1]), Code::Truncated);
}
