//! Headers of several files as those of one model.

use bitpane::container::joining::{Joined, Shards};
use bitpane::container::shards::ShardIndex;
use bitpane::container::stream::Sink;
use bitpane::container::{ContainerKind, Header, Metadata, TensorInfo, Value};
use bitpane::quant::DType;
use bitpane::{Code, Result};

fn header(kind: ContainerKind, numbers: &[(&str, u64)], names: &[&str]) -> Header {
    let mut metadata = Metadata::default();
    metadata.push("general.architecture".into(), Value::Str(b"llama".to_vec()));
    numbers.iter().for_each(|(key, n)| metadata.push((*key).into(), Value::U64(*n)));
    let tensor = |(i, name): (usize, &&str)| TensorInfo {
        name: name.to_string(),
        dtype: DType::F32,
        shape: vec![4],
        offset: 100 + 16 * i as u64,
        n_bytes: 16,
    };
    let tensors: Vec<_> = names.iter().enumerate().map(tensor).collect();
    Header { kind, metadata, data_offset: 100, end_offset: 100 + 16 * tensors.len() as u64, tensors }
}

fn gguf(no: u64, count: u64, n_tensors: u64, names: &[&str]) -> Header {
    let numbers = [("split.no", no), ("split.count", count), ("split.tensors.count", n_tensors)];
    header(ContainerKind::Gguf, &numbers, names)
}

fn safetensors(names: &[&str]) -> Header {
    header(ContainerKind::Safetensors, &[], names)
}

fn three() -> Vec<Header> {
    vec![gguf(0, 3, 4, &["a", "b"]), gguf(1, 3, 4, &["c"]), gguf(2, 3, 4, &["d"])]
}

fn refused(headers: Vec<Header>) -> (Code, Option<String>) {
    let error = Joined::of(headers, None).map(|_| ()).expect_err("refused");
    (error.code, error.key)
}

fn mismatch(key: &str) -> (Code, Option<String>) {
    (Code::ShardMismatch, Some(key.into()))
}

#[test]
fn files_are_joined_in_order() {
    let joined = Joined::of(three(), None).unwrap();
    assert_eq!(joined.n_files(), 3);
    let names: Vec<_> = joined.header.tensors.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    assert_eq!([0, 1, 2, 3].map(|tensor| joined.file_of(tensor)), [0, 0, 1, 2]);
    let keys: Vec<_> = joined.header.metadata.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["general.architecture"]);
    assert_eq!(refused(vec![]).0, Code::ShardMismatch);
}

#[test]
fn counts_of_files_and_tensors_agree() {
    for alone in [header(ContainerKind::Gguf, &[], &["a"]), gguf(0, 0, 1, &["a"]), gguf(0, 1, 1, &["a"])] {
        assert_eq!(Joined::of(vec![alone], None).unwrap().n_files(), 1);
    }
    assert_eq!(refused(vec![gguf(0, 3, 1, &["a"])]), mismatch("split.count"));
    assert_eq!(refused(three()[..2].to_vec()), mismatch("split.count"));
    let plain = |name: &str| header(ContainerKind::Gguf, &[], &[name]);
    assert_eq!(refused(vec![plain("a"), plain("b")]), mismatch("split.count"));
    for (headers, words) in [
        (vec![gguf(0, 3, 1, &["a"])], "give all of them"),
        (vec![plain("a"), plain("b")], "a model in one file, given as one of 2"),
        (three()[..2].to_vec(), "one of 3 shards, given as one of 2"),
    ] {
        let error = Joined::of(headers, None).map(|_| ()).expect_err("refused");
        assert!(error.message.contains(words), "{error}");
    }
    let [a, b, c] = three().try_into().unwrap();
    assert_eq!(refused(vec![b.clone(), a.clone(), c.clone()]), mismatch("split.no"));
    assert_eq!(refused(vec![a.clone(), c.clone(), b.clone()]), mismatch("split.no"));
    let unnumbered = header(ContainerKind::Gguf, &[("split.count", 2)], &["a"]);
    assert_eq!(refused(vec![unnumbered.clone(), unnumbered]), mismatch("split.no"));
    // The first says how many tensors there are, the others the same.
    assert_eq!(refused(vec![a.clone(), gguf(1, 3, 5, &["c"]), c.clone()]), mismatch("split.tensors.count"));
    for n in [3, 5] {
        let two = vec![gguf(0, 2, n, &["a", "b"]), gguf(1, 2, n, &["c", "d"])];
        assert_eq!(refused(two), mismatch("split.tensors.count"), "{n}");
    }
}

#[test]
fn files_are_of_one_model() {
    let [a, b, c] = three().try_into().unwrap();
    let twice = vec![a.clone(), gguf(1, 3, 4, &["b"]), c.clone()];
    assert_eq!(refused(twice).0, Code::Duplicate);
    let mut other = b.clone();
    other.metadata = Metadata::default();
    for (key, n) in [("split.no", 1), ("split.count", 3), ("split.tensors.count", 4)] {
        other.metadata.push(key.into(), Value::U64(n));
    }
    assert!(Joined::of(vec![a.clone(), other.clone(), c.clone()], None).is_ok(), "none is no other");
    other.metadata.push("general.architecture".into(), Value::Str(b"gpt2".to_vec()));
    assert_eq!(refused(vec![a, other, c]), mismatch("general.architecture"));
    let mixed = vec![gguf(0, 2, 2, &["a"]), safetensors(&["b"])];
    assert_eq!(refused(mixed), (Code::ShardMismatch, None));
}

fn index() -> ShardIndex {
    ShardIndex::parse(br#"{"weight_map":{"a":"1.safetensors","c":"2.safetensors","b":"1.safetensors"}}"#)
        .unwrap()
}

#[test]
fn files_hold_what_the_index_says() {
    let (first, second) = (safetensors(&["b", "a"]), safetensors(&["c", "more"]));
    let joined = Joined::of(vec![first.clone(), second.clone()], Some(index())).unwrap();
    assert_eq!(joined.header.tensors.len(), 4);
    let refused = |headers: Vec<Header>| {
        let error = Joined::of(headers, Some(index())).map(|_| ()).expect_err("refused");
        (error.code, error.tensor, error.key)
    };
    let missing = |name: &str| (Code::MissingTensor, Some(name.into()), None);
    assert_eq!(refused(vec![second.clone(), first.clone()]), missing("a"));
    assert_eq!(refused(vec![safetensors(&["a"]), second]), missing("b"));
    assert_eq!(refused(vec![first.clone(), safetensors(&["more"])]), missing("c"));
    assert_eq!(refused(vec![first]), (Code::ShardMismatch, None, Some("source".into())));
}

#[test]
fn the_last_file_is_known_as_such() {
    let mut shards = Shards::default();
    assert!(shards.is_alone() && !shards.is_last());
    shards.take(&safetensors(&["a"]), None).unwrap();
    assert!(shards.is_last());
    let mut shards = Shards::of_index(index());
    assert!(!shards.is_alone());
    let first = safetensors(&["a", "b"]);
    shards.take(&first, None).unwrap();
    assert!(!shards.is_last());
    shards.take(&safetensors(&["c"]), Some(&first)).unwrap();
    assert!(shards.is_last());
}

#[derive(Default)]
struct Heard(Vec<String>);

impl Sink for Heard {
    fn header(&mut self, _: &Header) -> Result<()> {
        unreachable!("parts keep their headers to themselves")
    }
    fn tensor_bytes(&mut self, idx: usize, bytes: &[u8]) -> Result<()> {
        self.0.push(format!("{idx}: {bytes:?}"));
        Ok(())
    }
    fn tensor_end(&mut self, idx: usize) -> Result<()> {
        self.0.push(format!("{idx} ends"));
        Ok(())
    }
}

#[test]
fn parts_hand_on_their_tensors_under_the_joined_numbers() {
    let joined = Joined::of(three(), None).unwrap();
    let mut heard = Heard::default();
    for (i, header) in three().iter().enumerate() {
        let mut part = joined.part(i, &mut heard);
        part.header(header).unwrap();
        for idx in 0..header.tensors.len() {
            part.tensor_bytes(idx, &[i as u8]).unwrap();
            part.tensor_end(idx).unwrap();
        }
    }
    assert_eq!(heard.0, ["0: [0]", "0 ends", "1: [0]", "1 ends", "2: [1]", "2 ends", "3: [2]", "3 ends"]);
    let refused = |i: usize, header: &Header| {
        let mut heard = Heard::default();
        joined.part(i, &mut heard).header(header).expect_err("refused").code
    };
    let [first, second, _] = three().try_into().unwrap();
    for (i, header) in [(0, &second), (1, &first), (3, &first), (9, &second)] {
        assert_eq!(refused(i, header), Code::ShardMismatch);
    }
    type Change = fn(&mut TensorInfo);
    let changes: [Change; 4] =
        [|t| t.name.push('x'), |t| t.dtype = DType::F16, |t| t.offset += 16, |t| t.n_bytes -= 1];
    for change in changes {
        let mut header = first.clone();
        change(&mut header.tensors[1]);
        assert_eq!(refused(0, &header), Code::ShardMismatch);
    }
}
