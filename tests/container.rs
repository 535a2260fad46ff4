//! Containers on well-formed files: reading, streaming, writing, and the real files at hand.

use bitpane::container::gguf_write::GgufWriter;
use bitpane::container::stream::{Sink, Stream};
use bitpane::container::{Array, ContainerKind, Header, Value, gguf, safetensors};
use bitpane::quant::DType;
use bitpane::{Code, Error, Result};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// Keeps everything a stream delivers and checks the order of calls.
#[derive(Default)]
struct Collect {
    header: Option<Header>,
    tensors: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Sink for Collect {
    fn header(&mut self, header: &Header) -> Result<()> {
        assert!(self.header.replace(header.clone()).is_none(), "one header");
        Ok(())
    }

    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        assert_eq!(idx, self.tensors.len(), "tensors come in order");
        assert!(!bytes.is_empty());
        self.open.extend_from_slice(bytes);
        Ok(())
    }

    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        assert_eq!(idx, self.tensors.len(), "tensors end in order");
        self.tensors.push(std::mem::take(&mut self.open));
        Ok(())
    }
}

/// Streams `file` in chunks whose lengths `chunk` gives.
fn stream(file: &[u8], file_len: Option<u64>, mut chunk: impl FnMut() -> usize) -> Result<Collect> {
    let mut sink = Collect::default();
    let mut stream = Stream::new(file_len);
    let mut rest = file;
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(chunk().clamp(1, rest.len()));
        stream.push(piece, &mut sink)?;
        rest = left;
    }
    stream.finish(&mut sink)?;
    assert!(sink.open.is_empty());
    Ok(sink)
}

fn sample() -> (GgufWriter, Vec<Vec<u8>>) {
    let mut writer = GgufWriter::new();
    writer
        .str("general.architecture", "llama")
        .uint("llama.block_count", 2)
        .uint("big", 1 << 40)
        .put("negative", Value::I64(-7))
        .put("very negative", Value::I64(i64::MIN))
        .f32("eps", 1e-5)
        .put("double", Value::F64(0.1))
        .bool("flag", true)
        .strs("tokens", [&b"<s>"[..], b"", b"\xff\xfe", "\u{2581}a".as_bytes()])
        .strs("no tokens", [""; 0])
        .ints("types", [3, -1, 6])
        .f32s("scores", [0.0, -1.5])
        .put("bytes", Value::Array(Array::U8(vec![1, 2, 3])))
        .put("bools", Value::Array(Array::Bool(vec![true, false])))
        .put("u64s", Value::Array(Array::U64(vec![1 << 33, 0])));
    let mut data = Vec::new();
    for (i, (name, dtype, shape)) in [
        ("a.weight", DType::F32, &[3usize, 5][..]),
        ("empty", DType::F32, &[4, 0]),
        ("b.weight", DType::Q4_0, &[2, 64]),
        ("scalar", DType::F16, &[]),
        ("last", DType::Q8_0, &[2, 1, 3, 32]),
    ]
    .into_iter()
    .enumerate()
    {
        writer.tensor(name, dtype, shape).unwrap();
        let n = dtype.bytes_for(shape.iter().product::<usize>() as u64).unwrap();
        data.push((0..n).map(|j| (j as u8).wrapping_mul(7).wrapping_add(i as u8)).collect());
    }
    (writer, data)
}

fn sample_bytes() -> (Vec<u8>, Vec<Vec<u8>>) {
    let (writer, data) = sample();
    let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    (writer.to_bytes(&slices).unwrap(), data)
}

#[test]
fn gguf_round_trip() {
    let (file, data) = sample_bytes();
    let header = gguf::parse(&file, Some(file.len() as u64)).unwrap().unwrap();
    let meta = &header.metadata;
    assert_eq!(meta.len(), 15);
    assert_eq!(meta.str("general.architecture").unwrap(), Some("llama"));
    assert_eq!(meta.u64("big").unwrap(), Some(1 << 40));
    assert_eq!(meta.get("negative"), Some(&Value::I64(-7)));
    assert_eq!(meta.get("very negative"), Some(&Value::I64(i64::MIN)));
    assert_eq!(meta.f32("eps").unwrap(), Some(1e-5));
    assert_eq!(meta.get("double"), Some(&Value::F64(0.1)));
    assert_eq!(meta.bool("flag").unwrap(), Some(true));
    let Some(Array::Str(tokens)) = meta.array("tokens").unwrap() else { panic!("strings") };
    let tokens: Vec<&[u8]> = tokens.iter().collect();
    assert_eq!(tokens, [&b"<s>"[..], b"", b"\xff\xfe", "\u{2581}a".as_bytes()]);
    assert!(meta.array("no tokens").unwrap().unwrap().is_empty());
    assert_eq!(meta.array("types").unwrap(), Some(&Array::I64(vec![3, -1, 6])));
    assert_eq!(meta.array("scores").unwrap(), Some(&Array::F32(vec![0.0, -1.5])));
    assert_eq!(meta.array("bytes").unwrap(), Some(&Array::U8(vec![1, 2, 3])));
    assert_eq!(meta.array("bytes").unwrap().unwrap().i64(2), Some(3));
    assert_eq!(meta.array("bools").unwrap(), Some(&Array::Bool(vec![true, false])));
    assert_eq!(meta.array("u64s").unwrap(), Some(&Array::U64(vec![1 << 33, 0])));
    assert_eq!(header.kind, ContainerKind::Gguf);
    assert_eq!(header.tensors[2].shape, [2, 64]);
    assert_eq!(header.tensors[3].shape, [0usize; 0]);
    assert_eq!(header.tensors[4].shape, [2, 1, 3, 32]);
    for (tensor, data) in header.tensors.iter().zip(&data) {
        assert_eq!(tensor.offset % 32, 0);
        let begin = tensor.offset as usize;
        assert_eq!(&file[begin..begin + tensor.n_bytes as usize], data, "{}", tensor.name);
    }
    assert_eq!(header.data_offset, header.tensors[0].offset);
}

#[test]
fn gguf_bytes_are_as_the_specification_says() {
    let mut writer = GgufWriter::new();
    writer.uint("k", 5).tensor("t", DType::F32, &[1, 2]).unwrap();
    let file = writer.to_bytes(&[&[1, 2, 3, 4, 5, 6, 7, 8]]).unwrap();
    let mut expected = b"GGUF\x03\0\0\0".to_vec();
    expected.extend(1u64.to_le_bytes());
    expected.extend(1u64.to_le_bytes());
    expected.extend(b"\x01\0\0\0\0\0\0\0k\x04\0\0\0\x05\0\0\0");
    // Dimensions innermost first: 2 then 1.
    expected.extend(b"\x01\0\0\0\0\0\0\0t\x02\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
    expected.extend(b"\0\0\0\0\0\0\0\0\0\0\0\0");
    expected.resize(96, 0);
    expected.extend(b"\x01\x02\x03\x04\x05\x06\x07\x08");
    expected.resize(128, 0);
    assert_eq!(file, expected);
}

#[test]
fn gguf_data_may_come_in_pieces() {
    let (writer, data) = sample();
    let mut out = writer.begin(Vec::new()).unwrap();
    for bytes in &data {
        // An empty call between tensors must not skip one.
        out.write(&[]).unwrap();
        bytes.chunks(7).for_each(|piece| out.write(piece).unwrap());
    }
    assert_eq!(out.finish().unwrap(), sample_bytes().0);
}

#[test]
fn writer_refuses_what_the_parser_would() {
    let code = |r: Result<Vec<u8>>| r.map(|_| ()).unwrap_err().code;
    let twice = |w: &mut GgufWriter| w.tensor("t", DType::F32, &[1]).map(|_| ());
    let mut writer = GgufWriter::new();
    twice(&mut writer).unwrap();
    assert_eq!(code(writer.to_bytes(&[])), Code::BadArgument, "data missing");
    assert_eq!(code(writer.to_bytes(&[&[0; 5]])), Code::BadArgument, "data too long");
    twice(&mut writer).unwrap();
    assert_eq!(code(writer.to_bytes(&[&[0; 4], &[0; 4]])), Code::Duplicate);
    assert_eq!(code(GgufWriter::new().uint("a", 1).uint("a", 1).to_bytes(&[])), Code::Duplicate);
    assert_eq!(code(GgufWriter::new().uint("", 1).to_bytes(&[])), Code::BadKey);
    assert_eq!(code(GgufWriter::new().uint("general.alignment", 3).to_bytes(&[])), Code::BadAlignment);
    let tensor = |name: &str, dtype, shape: &[usize]| match GgufWriter::new().tensor(name, dtype, shape) {
        Ok(_) => panic!("accepted"),
        Err(e) => (e.code, e.tensor),
    };
    assert_eq!(tensor(&"n".repeat(64), DType::F32, &[1]).0, Code::BadName);
    assert_eq!(tensor("t", DType::Q8_0, &[2, 33]), (Code::BadShape, Some("t".into())));
    assert_eq!(tensor("t", DType(4), &[1]).0, Code::BadType);
    assert_eq!(tensor("t", DType::F32, &[1; 5]).0, Code::BadShape);
}

#[test]
fn alignment_is_obeyed() {
    for alignment in [1u64, 8, 4096] {
        let mut writer = GgufWriter::new();
        writer.uint("general.alignment", alignment);
        writer.tensor("a", DType::F32, &[3]).unwrap().tensor("b", DType::F32, &[1]).unwrap();
        let file = writer.to_bytes(&[&[1; 12], &[2; 4]]).unwrap();
        let sink = stream(&file, None, || 5).unwrap();
        assert_eq!(sink.tensors, [vec![1; 12], vec![2; 4]]);
        assert!(sink.header.unwrap().tensors.iter().all(|t| t.offset % alignment == 0));
    }
}

#[test]
fn stream_gives_the_same_for_every_chunking() {
    let (file, data) = sample_bytes();
    let len = Some(file.len() as u64);
    let mut x = 1u64;
    for n in [1, 2, 3, 7, 24, 31, 100, 1000, usize::MAX] {
        for file_len in [None, len] {
            let sink = stream(&file, file_len, || n).unwrap();
            assert_eq!(sink.tensors, data, "chunks of {n}");
            assert_eq!(sink.header.unwrap().tensors.len(), data.len());
        }
        let random = || {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) as usize % 97
        };
        assert_eq!(stream(&file, None, random).unwrap().tensors, data);
    }
}

#[test]
fn stream_tells_a_short_file() {
    let (file, _) = sample_bytes();
    let whole = gguf::parse(&file, None).unwrap().unwrap().end_offset as usize;
    for n in 0..whole {
        let e = stream(&file[..n], None, || 13).map(|_| ()).unwrap_err();
        assert_eq!((e.code, e.offset), (Code::Truncated, Some(n as u64)), "{n}: {e}");
    }
    for n in whole..=file.len() {
        stream(&file[..n], Some(n as u64), || 13).unwrap();
    }
}

#[test]
fn stream_passes_on_the_sinks_error_and_stays_failed() {
    struct Refuse;
    impl Sink for Refuse {
        fn header(&mut self, _: &Header) -> Result<()> {
            Ok(())
        }
        fn tensor_bytes(&mut self, _: usize, _: &[u8]) -> Result<()> {
            Err(Error::new(Code::OutOfMemory, "no"))
        }
        fn tensor_end(&mut self, _: usize) -> Result<()> {
            Ok(())
        }
    }
    let (file, _) = sample_bytes();
    let mut stream = Stream::new(None);
    assert_eq!(stream.push(&file, &mut Refuse).unwrap_err().code, Code::OutOfMemory);
    assert_eq!(stream.push(&file, &mut Refuse).unwrap_err().code, Code::BadArgument);
    assert_eq!(stream.finish(&mut Refuse).unwrap_err().code, Code::BadArgument);
}

/// A safetensors file of this JSON header and this much data.
fn safetensors_file(json: &str, n_data: usize) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend(json.bytes());
    file.extend((0..n_data).map(|i| i as u8));
    file
}

#[test]
fn safetensors_header() {
    let json = r#" {"b":{"dtype":"F32","shape":[2,2],"data_offsets":[1,17]}, "__metadata__":{"format":"pt"},
        "a\u0041":{"shape":[],"data_offsets":[0,1],"dtype":"U8"},
        "e":{"dtype":"BF16","shape":[0,7],"data_offsets":[1,1]}}   "#;
    let file = safetensors_file(json, 17);
    let header = safetensors::parse(&file, Some(file.len() as u64)).unwrap().unwrap();
    let names: Vec<&str> = header.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["aA", "e", "b"]);
    assert_eq!(header.metadata.str("format").unwrap(), Some("pt"));
    let b = header.tensor("b").unwrap();
    assert_eq!((b.dtype, &b.shape[..], b.n_bytes), (DType::F32, &[2, 2][..], 16));
    assert_eq!(b.offset, header.data_offset + 1);
    assert_eq!(safetensors::dtype_name(header.tensors[0].dtype), Some("U8"));
    assert_eq!(safetensors::check_weight(&header.tensors[0]).unwrap_err().code, Code::UnsupportedDtype);
    safetensors::check_weight(b).unwrap();
    for n in [1, 3, 50, usize::MAX] {
        let sink = stream(&file, None, || n).unwrap();
        assert_eq!(sink.tensors, [vec![0], vec![], (1..17).collect()]);
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod real_files {
    use super::*;
    use std::path::{Path, PathBuf};

    fn find(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                find(&path, found);
            } else if path.extension().is_some_and(|e| e == "gguf" || e == "safetensors") {
                found.push(path);
            }
        }
    }

    /// Tensors lie in order, inside the file, and with less than the alignment between them.
    fn check_tiling(header: &Header, file_len: u64) {
        let mut end = header.data_offset;
        for t in &header.tensors {
            let gap = t.offset.checked_sub(end).expect("overlap");
            assert!(gap < if header.kind == ContainerKind::Gguf { 32 } else { 1 }, "hole before {}", t.name);
            end = t.offset + t.n_bytes;
        }
        assert!(header.tensors.is_empty() || end == header.end_offset);
        assert!(header.end_offset <= file_len);
    }

    #[test]
    fn parse_and_tile() {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
        let mut paths = Vec::new();
        for folder in ["golden", "data"] {
            if !shared.join(folder).is_dir() {
                println!("skipped: ../shared/{folder} absent");
            }
            find(&shared.join(folder), &mut paths);
        }
        for path in &paths {
            let file = std::fs::read(path).unwrap();
            let header = bitpane::container::parse(&file, Some(file.len() as u64))
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                .expect("a whole header");
            check_tiling(&header, file.len() as u64);
            let sink = stream(&file, None, || 10_007).unwrap();
            assert_eq!(sink.header.unwrap().tensors, header.tensors);
            for (t, data) in header.tensors.iter().zip(&sink.tensors) {
                assert!(file[t.offset as usize..][..t.n_bytes as usize] == data[..], "{}", t.name);
            }
        }
        println!("{} files parsed", paths.len());
    }
}
