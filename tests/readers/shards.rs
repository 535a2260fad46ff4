//! Names of shards, and their index.

use bitpane::Code;
use bitpane::container::shards::{ShardIndex, siblings};

#[test]
fn names_of_shards() {
    let names = siblings("dir.a/m-00002-of-00003.gguf").unwrap().unwrap();
    assert_eq!(names[0], "dir.a/m-00001-of-00003.gguf");
    assert_eq!(names[2], "dir.a/m-00003-of-00003.gguf");
    assert_eq!(siblings("model-00001-of-00001.safetensors").unwrap().unwrap().len(), 1);
    for whole in ["m.gguf", "m-1-of-3.gguf", "m-00001-of-00003.bin", "m-0000a-of-00003.gguf", "", "gguf"] {
        assert_eq!(siblings(whole).unwrap(), None, "{whole}");
    }
    assert_eq!(siblings("m-00004-of-00003.gguf").unwrap_err().code, Code::ShardMismatch);
    assert_eq!(siblings("m-00000-of-00003.gguf").unwrap_err().code, Code::ShardMismatch);
    assert_eq!(siblings("m-00001-of-99999.gguf").unwrap_err().code, Code::LimitExceeded);
}

#[test]
fn limits_of_models_in_several_files() {
    assert_eq!(siblings("m-00001-of-04096.gguf").unwrap().unwrap().len(), 4096);
    assert_eq!(siblings("m-00001-of-04097.gguf").unwrap_err().code, Code::LimitExceeded);
    let index = |n_tensors: usize, n_files: usize| {
        let entry = |i| format!(r#""{i}":"{}""#, i % n_files);
        let entries = (0..n_tensors).map(entry).collect::<Vec<_>>().join(",");
        let parsed = ShardIndex::parse(format!(r#"{{"weight_map":{{{entries}}}}}"#).as_bytes());
        parsed.map(|index| index.files().len()).map_err(|e| e.code)
    };
    assert_eq!(index(65_536, 3), Ok(3));
    assert_eq!(index(65_537, 3), Err(Code::LimitExceeded));
    assert_eq!(index(5000, 4096), Ok(4096));
    assert_eq!(index(5000, 4097), Err(Code::LimitExceeded));
    let blank = vec![b' '; 100_000_001];
    let code = |json: &[u8]| ShardIndex::parse(json).unwrap_err().code;
    assert_eq!((code(&blank), code(&blank[1..])), (Code::LimitExceeded, Code::BadHeader));
}

fn code(json: &str) -> Code {
    ShardIndex::parse(json.as_bytes()).unwrap_err().code
}

/// Row S12 of the fault catalogue.
#[test]
fn s12_an_index_stays_in_its_folder() {
    let of = |file: &str| format!(r#"{{"metadata":{{}},"weight_map":{{"a":{}}}}}"#, serde_json::json!(file));
    for file in
        ["../x", "/x", "a/b", "a\\b", "https://evil/x", "..", ".", "", "x%2f..%2fy", "a\u{0}", "x?y", "x#y"]
    {
        assert_eq!(code(&of(file)), Code::BadShardPath, "{file:?}");
    }
    let index = ShardIndex::parse(of("model-00001-of-00002.safetensors").as_bytes()).unwrap();
    assert_eq!(index.files(), ["model-00001-of-00002.safetensors"]);
}

#[test]
fn what_is_no_index_is_refused() {
    for json in ["", "[]", "{}", r#"{"weight_map":3}"#, r#"{"weight_map":{"a":1}}"#, r#"{"weight_map":{}}"#] {
        assert_eq!(code(json), Code::BadHeader, "{json}");
    }
    assert_eq!(code(r#"{"weight_map":{"a":"x","a":"y"}}"#), Code::Duplicate);
    let error = ShardIndex::parse(br#"{"weight_map":3}"#).unwrap_err();
    assert!(error.message.contains("an object from tensor names to file names"), "{error}");
}
