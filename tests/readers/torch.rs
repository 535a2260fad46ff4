//! PyTorch's checkpoints: the tensors that are found, and what is refused.

use super::zip::zipped;
use bitpane::container::pickle::{self, Element};
use bitpane::container::torch;
use bitpane::{Code, Error};
use std::io::Cursor;

/// Tests of `core` have its folder as their own.
fn fixture(name: &str) -> Vec<u8> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = if here.ends_with("core") { here.parent().unwrap() } else { here };
    std::fs::read(root.join(format!("tests/data/torch/{name}.pth"))).unwrap()
}

fn tensors(bytes: &[u8]) -> Result<Vec<torch::TorchTensor>, Error> {
    torch::read(&mut Cursor::new(bytes), bytes.len() as u64)
}

/// A pickle of six numbers of which the second and third are the tensor "w".
pub fn good_pickle() -> Vec<u8> {
    tensor_pickle(b"K\x01K\x01K\x02\x86K\x02K\x01\x86")
}

/// The values of `torch_goldens.py`: element i is i - 3.
fn number(i: usize) -> f32 {
    i as f32 - 3.0
}

fn values(tensor: &torch::TorchTensor, file: &[u8]) -> Vec<f32> {
    let bytes = tensor.read(&mut Cursor::new(file)).unwrap();
    let pairs = || bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b));
    match tensor.element {
        Element::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Element::F16 => pairs().map(|b| half::f16::from_bits(b).to_f32()).collect(),
        Element::Bf16 => pairs().map(|b| half::bf16::from_bits(b).to_f32()).collect(),
        Element::I8 => bytes.iter().map(|b| f32::from(*b as i8)).collect(),
        Element::I64 => bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f32).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn state_dicts_of_both_forms_are_read() {
    let plain = |shape: &[usize]| (0..shape.iter().product()).map(number).collect::<Vec<_>>();
    let transposed = (0..12).map(|i| number(i % 3 * 4 + i / 3)).collect();
    let slice = (0..6).map(|i| number((1 + i / 3) * 5 + i % 3 * 2)).collect();
    let expected: [(&str, &[usize], Element, Vec<f32>); 10] = [
        ("f32", &[2, 3], Element::F32, plain(&[6])),
        ("f16", &[5], Element::F16, plain(&[5])),
        ("bf16", &[4], Element::Bf16, plain(&[4])),
        ("i8", &[7], Element::I8, plain(&[7])),
        ("transposed", &[4, 3], Element::F32, transposed),
        ("slice", &[2, 3], Element::F32, slice),
        ("shared.a", &[2, 6], Element::F32, plain(&[12])),
        ("shared.b", &[6], Element::F32, (6..12).map(number).collect()),
        ("scalar", &[], Element::F32, vec![-3.0]),
        ("bn.num_batches_tracked", &[], Element::I64, vec![7.0]),
    ];
    for name in ["zip", "legacy"] {
        let file = fixture(name);
        let found = tensors(&file).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (tensor, (key, shape, element, numbers)) in found.iter().zip(&expected) {
            assert_eq!((tensor.name.as_str(), tensor.shape.as_slice()), (*key, *shape), "{name}");
            assert_eq!(tensor.element, *element, "{name} {key}");
            assert_eq!(values(tensor, &file), *numbers, "{name} {key}");
        }
    }
    let file = fixture("parameters");
    let names: Vec<_> = tensors(&file).unwrap().into_iter().map(|t| t.name).collect();
    assert_eq!(names, ["weight", "bias"]);
}

/// The checkpoint asks for `os.system` beside a state dict in good order.
#[test]
fn checkpoints_that_hide_code_are_refused_and_nothing_runs() {
    let error = tensors(&fixture("hostile")).unwrap_err();
    assert_eq!(error.code, Code::UnsupportedArch);
    assert_eq!(error.key.as_deref(), Some("posix.system"));
    assert!(!std::path::Path::new("/tmp/bitpane_was_here").exists(), "it ran");
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn storage(class: &str, len: u8) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n");
    [&b"("[..], &text("storage"), class.as_bytes(), &text("0"), &text("cpu"), &[b'K', len], b"tQ"].concat()
}

/// A pickle of a dict of one tensor, which is rebuilt with these arguments after the storage.
fn tensor_pickle(arguments: &[u8]) -> Vec<u8> {
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n";
    [
        &b"\x80\x02}("[..],
        &text("w"),
        rebuild,
        b"(",
        &storage("FloatStorage", 6),
        arguments,
        b"\x89ccollections\nOrderedDict\n)RtRu.",
    ]
    .concat()
}

fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    zipped(&[("a/data.pkl", pickle), ("a/data/0", &[0; 24])])
}

#[test]
fn pickles_by_hand() {
    // Offset 1, shape (1, 2), strides (2, 1).
    let good = good_pickle();
    let file = checkpoint(&good);
    let found = tensors(&file).unwrap();
    assert_eq!((found[0].name.as_str(), found[0].shape.as_slice()), ("w", &[1, 2][..]));
    assert_eq!(values(&found[0], &file), [0.0, 0.0]);

    let global = |module: &str, name: &str| format!("\x02c{module}\n{name}\n.").into_bytes()[1..].to_vec();
    let nested = [vec![b')'; 1], vec![0x85; 200_000], vec![b'.']].concat();
    let memo_bomb = [&b"("[..], &b"}r\xff\xff\xff\xffh\0"[..], b"."].concat();
    // A list of 200 pairs that a hundred dictionaries are made of.
    let calls = [
        &b"("[..],
        &b"NN\x86".repeat(200),
        b"l\x85q\0(",
        &b"ccollections\nOrderedDict\nh\0R".repeat(100),
        b"t.",
    ]
    .concat();
    let cases: Vec<(&str, Vec<u8>, Code)> = vec![
        ("os.system", global("os", "system"), Code::UnsupportedArch),
        ("builtins.eval", global("builtins", "eval"), Code::UnsupportedArch),
        (
            "eval by its names",
            [&text("builtins")[..], &text("eval"), b"\x93."].concat(),
            Code::UnsupportedArch,
        ),
        ("a class of numpy", global("numpy.core.multiarray", "scalar"), Code::UnsupportedArch),
        ("INST", b"(ios\nsystem\n.".to_vec(), Code::BadValue),
        ("an extension", b"\x82\x01.".to_vec(), Code::BadValue),
        ("a call of a text", [&text("x")[..], b")R."].concat(), Code::BadValue),
        ("attributes of a tuple", b"))b.".to_vec(), Code::BadValue),
        ("nothing", Vec::new(), Code::Truncated),
        ("the midst of a text", b"X\xff\xff\xff\x7fabc".to_vec(), Code::Truncated),
        ("a text of 2^63 bytes", [&b"\x8d"[..], &[0xff; 8], b"."].concat(), Code::Truncated),
        ("no end", b"}".to_vec(), Code::Truncated),
        ("an empty stack", b".".to_vec(), Code::BadValue),
        ("no mark", b"t.".to_vec(), Code::BadValue),
        ("below the mark", b"}(a.".to_vec(), Code::BadValue),
        ("a key alone", b"}(NNNu.".to_vec(), Code::BadValue),
        ("a number with letters", b"Ix\n.".to_vec(), Code::BadValue),
        ("the memo's last place", memo_bomb, Code::BadValue),
        ("much of little", calls, Code::LimitExceeded),
        ("no dict", b"K\x01.".to_vec(), Code::MissingTensor),
        ("a dict in itself", b"}q\0(X\x05\0\0\0modelh\0u.".to_vec(), Code::MissingTensor),
        ("nesting", nested, Code::MissingTensor),
        ("a negative dimension", tensor_pickle(b"K\0J\xff\xff\xff\xff\x85K\x01\x85"), Code::BadValue),
        ("a storage too short", tensor_pickle(b"K\x01K\x06\x85K\x01\x85"), Code::BadShape),
        ("strides that leave it", tensor_pickle(b"K\0K\x02\x85K\x06\x85"), Code::BadShape),
        ("elements that repeat", tensor_pickle(b"K\0J\0\0\0\x40\x85K\0\x85"), Code::BadShape),
        ("strides for no dimension", tensor_pickle(b"K\0)K\x01\x85"), Code::BadValue),
        ("an offset beyond", tensor_pickle(b"J\xff\xff\xff\x7f))"), Code::BadShape),
    ];
    for (name, pickle, code) in cases {
        let found = tensors(&checkpoint(&pickle)).map(|t| t.len()).map_err(|e| e.code);
        assert_eq!(found, Err(code), "{name}");
    }
    assert_eq!(tensors(&zipped(&[("a/data.pkl", &good)])).unwrap_err().code, Code::BadOffset, "no storage");
    let big = zipped(&[("a/data.pkl", &good), ("a/byteorder", b"big"), ("a/data/0", &[0; 24])]);
    assert_eq!(tensors(&big).unwrap_err().code, Code::UnsupportedVersion);
    assert_eq!(tensors(&zipped(&[("x", b"")])).unwrap_err().code, Code::BadMagic);
    assert_eq!(tensors(b"GGUF").unwrap_err().code, Code::BadMagic);
    assert!(pickle::read(b"N.").is_ok());
}

/// Every prefix, and every byte changed in several ways: an error or a result, and nothing else.
#[test]
fn damaged_checkpoints_are_errors() {
    for name in ["zip", "legacy"] {
        let whole = fixture(name);
        for len in 0..whole.len() {
            let _ = tensors(&whole[..len]);
        }
        for at in 0..whole.len() {
            for change in [1u8, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                for tensor in tensors(&bytes).unwrap_or_default() {
                    let _ = tensor.read(&mut Cursor::new(&bytes));
                }
            }
        }
    }
}

/// A checkpoint whose storage of `len` numbers has these bytes, and a tensor of it.
fn view(len: u8, data: &[u8], arguments: &[u8]) -> Result<Vec<f32>, Code> {
    let mut pickle = tensor_pickle(arguments);
    let at = pickle.windows(2).position(|w| w == [b'K', 6]).unwrap();
    pickle[at + 1] = len;
    let file = zipped(&[("a/data.pkl", &pickle), ("a/data/0", data)]);
    tensors(&file).map(|found| values(&found[0], &file)).map_err(|e| e.code)
}

#[test]
fn views_lie_within_their_storage() {
    let data: Vec<u8> = (0..6).flat_map(|i| number(i).to_le_bytes()).collect();
    let wanted = |numbers: &[usize]| Ok(numbers.iter().map(|&i| number(i)).collect());
    let of = |arguments: &[u8]| view(6, &data, arguments);
    assert_eq!(of(b"K\0K\x06\x85K\x01\x85"), wanted(&[0, 1, 2, 3, 4, 5]));
    assert_eq!(of(b"K\x01K\x06\x85K\x01\x85"), Err(Code::BadShape));
    assert_eq!(of(b"K\x05K\x01\x85K\x01\x85"), wanted(&[5]));
    assert_eq!(of(b"K\x06K\x01\x85K\x01\x85"), Err(Code::BadShape));
    assert_eq!(of(b"K\x05))"), wanted(&[5]), "a scalar");
    assert_eq!(of(b"K\xffK\0\x85K\x01\x85"), wanted(&[]), "nothing, from anywhere");
    assert_eq!(of(b"K\0K\x02K\x02\x86K\x04K\x01\x86"), wanted(&[0, 1, 4, 5]));
    assert_eq!(of(b"K\x01K\x02K\x02\x86K\x04K\x01\x86"), Err(Code::BadShape));
    assert_eq!(of(b"K\x01K\x02K\x02\x86K\x01K\x02\x86"), wanted(&[1, 3, 2, 4]));
    assert_eq!(of(b"K\x02K\x01K\x02\x86K\xffK\x01\x86"), wanted(&[2, 3]), "no step along a dimension of one");
    assert_eq!(of(b"K\x02K\x06\x85K\0\x85"), wanted(&[2; 6]));
    assert_eq!(of(b"K\0K\x02K\x02\x86K\x03K\x01\x86"), wanted(&[0, 1, 3, 4]));
    assert_eq!(of(b"K\0K\x02K\x02\x86K\0K\x01\x86"), wanted(&[0, 1, 0, 1]));
    assert_eq!(of(b"K\x02K\x07\x85K\0\x85"), Err(Code::BadShape));
    assert_eq!(of(b"K\0K\x03\x85J\xff\xff\xff\x7f\x85"), Err(Code::BadShape));
    // A stride of 2^63 - 1, twice and thrice.
    for dim in [b"\x03", b"\x04"] {
        let wide = [b"K\0K", &dim[..], b"\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"].concat();
        assert_eq!(of(&wide), Err(Code::BadShape));
    }
    // As many numbers as are declared, and as are there.
    assert_eq!(view(5, &data, b"K\0K\x06\x85K\x01\x85"), Err(Code::BadShape));
    assert_eq!(view(5, &data, b"K\0K\x05\x85K\x01\x85"), wanted(&[0, 1, 2, 3, 4]));
    assert_eq!(view(6, &data[..23], b"K\0K\x06\x85K\x01\x85"), Err(Code::BadShape));
    assert_eq!(view(6, &data[..23], b"K\0K\x05\x85K\x01\x85"), wanted(&[0, 1, 2, 3, 4]));
}

/// More than the longest pickle is not read, and told from one that is cut off.
#[test]
fn a_pickle_of_longest_length_is_read() {
    for (len, code) in
        [(pickle::MAX_BYTES - 6, Code::MissingTensor), (pickle::MAX_BYTES - 5, Code::LimitExceeded)]
    {
        let mut text = [&b"X"[..], &(len as u32).to_le_bytes()].concat();
        text.resize(5 + len, b'a');
        text.push(b'.');
        assert_eq!(tensors(&checkpoint(&text)).unwrap_err().code, code);
    }
}

#[test]
fn state_dicts_lie_within_dictionaries() {
    let of = |keys: &[&str]| {
        let open: Vec<u8> = keys.iter().flat_map(|key| [&b"}("[..], &text(key)].concat()).collect();
        let inner = good_pickle();
        let inner = &inner[2..inner.len() - 1];
        let pickle = [&open[..], inner, &b"u".repeat(keys.len()), b"."].concat();
        tensors(&checkpoint(&pickle)).map(|found| found.len()).map_err(|e| e.code)
    };
    assert_eq!(of(&[]), Ok(1));
    assert_eq!(of(&["model"]), Ok(1));
    assert_eq!(of(&["model", "state_dict", "net", "module"]), Ok(1));
    assert_eq!(of(&["model", "state_dict", "net", "module", "model"]), Err(Code::MissingTensor));
    assert_eq!(of(&["optimizer"]), Err(Code::MissingTensor));
}

/// The older form: pickles one after the other, then each storage's length and numbers.
fn legacy(keys: &[u8], storages: &[(u64, &[u8])]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let head = [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", &good_pickle(), keys].concat();
    let with = |mut file: Vec<u8>, (len, data): &(u64, &[u8])| {
        file.extend([&len.to_le_bytes()[..], data].concat());
        file
    };
    storages.iter().fold(head, with)
}

#[test]
fn storages_of_the_older_form_lie_within_the_file() {
    let data: Vec<u8> = (0..6).flat_map(|i| number(i).to_le_bytes()).collect();
    let keys = [&b"]("[..], &text("0"), b"e."].concat();
    let of = |file: &[u8]| tensors(file).map(|found| values(&found[0], file)).map_err(|e| e.code);
    assert_eq!(of(&legacy(&keys, &[(6, &data)])), Ok(vec![number(1), number(2)]));
    assert_eq!(of(&legacy(&keys, &[(2, &data)])), Err(Code::BadShape));
    for len in [7, 1 << 62, u64::MAX] {
        assert_eq!(of(&legacy(&keys, &[(len, &data)])), Err(Code::Truncated), "{len}");
    }
    assert_eq!(of(&legacy(&keys, &[(6, &data[..23])])), Err(Code::Truncated));
    assert_eq!(of(&legacy(&keys, &[])), Err(Code::Truncated));
    assert_eq!(of(&legacy(b"}.", &[(6, &data)])), Err(Code::BadHeader));
    let other = [&b"]("[..], &text("1"), b"e."].concat();
    assert_eq!(of(&legacy(&other, &[(6, &data)])), Err(Code::BadHeader));
    // The same storage twice: the second place is the one that counts.
    let twice = [&b"]("[..], &text("0"), &text("0"), b"e."].concat();
    let file = legacy(&twice, &[(2, &data[..8]), (6, &data)]);
    assert_eq!(of(&file), Ok(vec![number(1), number(2)]));
    assert!(torch::is_torch(&file) && torch::is_torch(b"PK\x03\x04") && !torch::is_torch(&file[1..]));
}
