//! What a stream tells of itself, and where it draws its lines.

use bitpane::container::stream::{Sink, Stream};
use bitpane::container::{Header, gguf, gguf_write::GgufWriter};
use bitpane::quant::DType;
use bitpane::{Code, Error, Result};

/// Pieces as they come: (tensor, bytes), and `None` for an end.
#[derive(Default)]
struct Heard {
    n_headers: usize,
    pieces: Vec<(usize, Option<usize>)>,
}

impl Sink for Heard {
    fn header(&mut self, _: &Header) -> Result<()> {
        self.n_headers += 1;
        Ok(())
    }
    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        self.pieces.push((idx, Some(bytes.len())));
        Ok(())
    }
    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        self.pieces.push((idx, None));
        Ok(())
    }
}

/// Tensors of 12 and 20 bytes in 32 each.
fn gguf_file() -> Vec<u8> {
    let mut writer = GgufWriter::new();
    writer.tensor("a", DType::F32, &[3]).unwrap().tensor("b", DType::F32, &[5]).unwrap();
    writer.to_bytes(&[&[1; 12], &[2; 20]]).unwrap()
}

fn safetensors_file() -> Vec<u8> {
    let json = r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}"#;
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[7; 5]].concat()
}

fn failure(file: &[u8], file_len: Option<u64>) -> Error {
    let (mut stream, mut heard) = (Stream::new(file_len), Heard::default());
    stream.push(file, &mut heard).and_then(|()| stream.finish(&mut heard)).expect_err("refused")
}

#[test]
fn it_counts_what_came_and_knows_what_is_to_come() {
    let file = gguf_file();
    let header = gguf::parse(&file, None).unwrap().unwrap();
    let (data, end) = (header.data_offset as usize, header.end_offset);
    let (mut stream, mut heard) = (Stream::new(None), Heard::default());
    assert_eq!((stream.received(), stream.end_offset()), (0, 0));
    stream.push(&file[..20], &mut heard).unwrap();
    assert_eq!((stream.received(), stream.end_offset(), heard.n_headers), (20, 0, 0));
    stream.push(&file[20..data + 5], &mut heard).unwrap();
    assert_eq!((stream.received(), stream.end_offset(), heard.n_headers), (data as u64 + 5, end, 1));
    assert_eq!(heard.pieces, [(0, Some(5))]);
    for (n, pieces) in [(7, &[(0, Some(7)), (0, None)][..]), (20, &[]), (1, &[(1, Some(1))]), (0, &[])] {
        heard.pieces.clear();
        let from = stream.received() as usize;
        stream.push(&file[from..from + n], &mut heard).unwrap();
        assert_eq!(heard.pieces, pieces);
    }
    heard.pieces.clear();
    stream.push(&file[stream.received() as usize..], &mut heard).unwrap();
    assert_eq!(heard.pieces, [(1, Some(19)), (1, None)]);
    assert_eq!(stream.received(), file.len() as u64);
    // ggml ignores what follows.
    stream.push(&[0; 100], &mut heard).unwrap();
    stream.finish(&mut heard).unwrap();
    assert_eq!(heard.n_headers, 1);
}

#[test]
fn an_early_end_says_what_is_missing() {
    let told = |file: &[u8], at_least: usize| {
        let e = failure(file, None);
        assert_eq!((e.code, e.offset), (Code::Truncated, Some(file.len() as u64)));
        let words = format!("ends after {} bytes, at least {at_least} are needed", file.len());
        assert!(e.message.contains(&words), "{e}, not {words}");
    };
    let file = gguf_file();
    let end = gguf::parse(&file, None).unwrap().unwrap().end_offset as usize;
    told(&[], 1);
    told(&file[..3], 4);
    told(&file[..4], 8);
    told(&file[..10], 16);
    told(&file[..24], 32);
    told(&file[..end - 1], end);
    let file = safetensors_file();
    told(&file[..8], 9);
    told(&file[..9], file.len() - 5);
    told(&file[..20], file.len() - 5);
    told(&file[..file.len() - 5], file.len());
    told(&file[..file.len() - 1], file.len());
}

#[test]
fn nothing_follows_safetensors() {
    let file = safetensors_file();
    let end = file.len() as u64;
    for cut in [5, file.len() - 5, file.len() - 1, file.len()] {
        let (mut stream, mut heard) = (Stream::new(None), Heard::default());
        stream.push(&file[..cut], &mut heard).unwrap();
        stream.push(&file[cut..], &mut heard).unwrap();
        stream.push(&[], &mut heard).unwrap();
        let e = stream.push(&[0], &mut heard).unwrap_err();
        assert_eq!((e.code, e.offset), (Code::TrailingData, Some(end)));
    }
    let longer = [&file[..], &[0]].concat();
    assert_eq!(failure(&longer, None).code, Code::TrailingData);
    assert_eq!(failure(&longer, Some(end + 1)).code, Code::TrailingData);
    assert_eq!(failure(&file, Some(end + 1)).code, Code::TrailingData);
    assert_eq!(failure(&file, Some(end + 1)).offset, Some(end));
}

/// A length that is known to be too short fails at the header; one that is passed was wrong.
#[test]
fn a_known_length_is_held_to_the_header() {
    let file = gguf_file();
    let header = gguf::parse(&file, None).unwrap().unwrap();
    let data = header.data_offset as usize;
    let with = |file_len: u64| {
        let (mut stream, mut heard) = (Stream::new(Some(file_len)), Heard::default());
        stream.push(&file[..data], &mut heard)
    };
    assert!(with(header.end_offset).is_ok());
    let e = with(header.end_offset - 1).unwrap_err();
    assert_eq!(
        (e.code, e.offset, e.tensor.as_deref()),
        (Code::Truncated, Some(header.end_offset - 1), Some("b"))
    );
    let (mut stream, mut heard) = (Stream::new(Some(3)), Heard::default());
    stream.push(&file, &mut heard).unwrap();
    stream.finish(&mut heard).unwrap();
}
