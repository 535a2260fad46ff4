//! Metadata of every kind, and what their getters take.

use bitpane::Code;
use bitpane::container::{Array, Metadata, StrArray, Value};

fn strings() -> StrArray {
    ["one", "", "three"].into_iter().collect()
}

/// An array of each kind, its length, and its last element as an integer.
fn arrays() -> [(Array, usize, Option<i64>); 10] {
    [
        (Array::U8(vec![1, 255]), 2, Some(255)),
        (Array::I8(vec![-1, 2, -3]), 3, Some(-3)),
        (Array::U16(vec![65_535]), 1, Some(65_535)),
        (Array::I16(vec![1, 2, 3, -32_768]), 4, Some(-32_768)),
        (Array::U64(vec![7; 5]), 5, Some(7)),
        (Array::I64(vec![i64::MIN]), 1, Some(i64::MIN)),
        (Array::F32(vec![1.0; 6]), 6, None),
        (Array::F64(vec![1.0; 7]), 7, None),
        (Array::Bool(vec![true; 8]), 8, None),
        (Array::Str(strings()), 3, None),
    ]
}

#[test]
fn arrays_of_every_kind() {
    for (array, len, last) in arrays() {
        assert_eq!((array.len(), array.is_empty()), (len, false), "{array:?}");
        assert_eq!(array.i64(len - 1), last, "{array:?}");
        assert_eq!(array.i64(len), None, "{array:?}");
    }
    assert_eq!(Array::U64(vec![u64::MAX]).i64(0), None);
    assert!(Array::F64(vec![]).is_empty());
}

#[test]
fn strings_back_to_back() {
    let strings = strings();
    assert_eq!((strings.len(), strings.is_empty(), StrArray::default().is_empty()), (3, false, true));
    assert_eq!([0, 1, 2, 3].map(|i| strings.get(i)), [Some(&b"one"[..]), Some(b""), Some(b"three"), None]);
    assert_eq!(strings.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
}

#[test]
fn getters_take_what_fits() {
    let mut meta = Metadata::default();
    assert!(meta.is_empty());
    let (name, bytes) = (Value::Str(b"n".to_vec()), Value::Str(b"\xff".to_vec()));
    let values = [
        ("u", Value::U64(5)),
        ("i", Value::I64(6)),
        ("zero", Value::I64(0)),
        ("negative", Value::I64(-1)),
        ("f", Value::F32(1.5)),
        ("d", Value::F64(2.5)),
        ("b", Value::Bool(true)),
        ("s", name),
        ("bytes", bytes),
        ("a", Value::Array(Array::U8(vec![1]))),
    ];
    values.iter().for_each(|(key, value)| meta.push((*key).into(), value.clone()));
    assert_eq!((meta.len(), meta.is_empty()), (10, false));
    let code = |key| move |e: bitpane::Error| (e.code, e.key.as_deref() == Some(key));
    let wrong = Err((Code::BadValue, true));
    let u64s = ["u", "i", "zero", "negative", "f", "x"].map(|key| meta.u64(key).map_err(code(key)));
    assert_eq!(u64s, [Ok(Some(5)), Ok(Some(6)), Ok(Some(0)), wrong, wrong, Ok(None)]);
    let f32s = ["u", "negative", "f", "d", "b", "x"].map(|key| meta.f32(key).map_err(code(key)));
    assert_eq!(
        f32s,
        [Ok(Some(5.0)), Ok(Some(-1.0)), Ok(Some(1.5)), Ok(Some(2.5)), Err((Code::BadValue, true)), Ok(None)]
    );
    let bools = ["b", "u", "x"].map(|key| meta.bool(key).map_err(code(key)));
    assert_eq!(bools, [Ok(Some(true)), Err((Code::BadValue, true)), Ok(None)]);
    let texts = ["s", "bytes", "u", "x"].map(|key| meta.str(key).map_err(code(key)));
    let wrong = Err((Code::BadValue, true));
    assert_eq!(texts, [Ok(Some("n")), wrong, wrong, Ok(None)]);
    let arrays = ["a", "s", "x"].map(|key| meta.array(key).map(|a| a.map(Array::len)).map_err(code(key)));
    assert_eq!(arrays, [Ok(Some(1)), Err((Code::BadValue, true)), Ok(None)]);
    meta.retain(|key| key.len() == 1);
    let keys: Vec<_> = meta.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["u", "i", "f", "d", "b", "s", "a"]);
}
