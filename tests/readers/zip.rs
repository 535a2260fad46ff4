//! Zip files as PyTorch writes them, and others.

use bitpane::container::torch;
use bitpane::{Code, Error};
use std::io::Cursor;

/// How a zip file is written.
#[derive(Clone, Default)]
struct Form {
    /// Sizes and places in 64 bits.
    is_wide: bool,
    /// What the extra field holds before those.
    extra: Vec<u8>,
    /// Whether the packed size is in 64 bits, too.
    packed_is_wide: bool,
    method: u16,
    flags: u16,
    comment: usize,
}

fn bytes16(n: usize) -> [u8; 2] {
    (n as u16).to_le_bytes()
}

fn bytes32(n: usize) -> [u8; 4] {
    (n as u32).to_le_bytes()
}

fn bytes64(n: usize) -> [u8; 8] {
    (n as u64).to_le_bytes()
}

impl Form {
    fn write(&self, entries: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in entries {
            let at = file.len();
            file.extend(
                [b"PK\x03\x04\x14\0", &bytes16(self.flags.into())[..], &bytes16(self.method.into())].concat(),
            );
            file.extend([&[0; 8][..], &bytes32(data.len()), &bytes32(data.len())].concat());
            file.extend([&bytes16(name.len())[..], &bytes16(3), name.as_bytes(), b"???", data].concat());
            directory.extend(self.entry(name, data.len(), at));
        }
        let (n, size, at) = (entries.len(), directory.len(), file.len());
        file.extend(directory);
        if self.is_wide {
            let record = file.len();
            file.extend(
                [b"PK\x06\x06", &[0; 20][..], &bytes64(n), &bytes64(n), &bytes64(size), &bytes64(at)]
                    .concat(),
            );
            file.extend([b"PK\x06\x07\0\0\0\0", &bytes64(record)[..], &[0; 4]].concat());
            let all = [0xff; 12];
            file.extend([b"PK\x05\x06\0\0\0\0", &all[..], &bytes16(self.comment)].concat());
        } else {
            let places = [&bytes16(n)[..], &bytes16(n), &bytes32(size), &bytes32(at)].concat();
            file.extend([b"PK\x05\x06\0\0\0\0", &places[..], &bytes16(self.comment)].concat());
        }
        file.resize(file.len() + self.comment, b' ');
        file
    }

    /// An entry of the directory.
    fn entry(&self, name: &str, len: usize, at: usize) -> Vec<u8> {
        const ALL: usize = u32::MAX as usize;
        let mut extra = self.extra.clone();
        let (mut size, mut packed, mut place) = (len, len, at);
        if self.is_wide {
            let packed_len = if self.packed_is_wide { bytes64(len).to_vec() } else { Vec::new() };
            let numbers = [&bytes64(len)[..], &packed_len, &bytes64(at)].concat();
            extra.extend([&bytes16(1)[..], &bytes16(numbers.len()), &numbers].concat());
            (size, place) = (ALL, ALL);
            packed = if self.packed_is_wide { ALL } else { len };
        }
        let fixed =
            [b"PK\x01\x02\x14\0\x14\0", &bytes16(self.flags.into())[..], &bytes16(self.method.into())]
                .concat();
        let sizes = [&[0; 8][..], &bytes32(packed), &bytes32(size)].concat();
        let lens = [bytes16(name.len()), bytes16(extra.len()), bytes16(2)].concat();
        [&fixed, &sizes, &lens, &[0; 8][..], &bytes32(place), name.as_bytes(), &extra, b"!!"].concat()
    }
}

/// A zip file of stored entries.
pub fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    Form::default().write(entries)
}

/// A checkpoint of one tensor "w" of six numbers.
fn checkpoint(form: &Form) -> Vec<u8> {
    form.write(&[("a/data.pkl", &super::torch::good_pickle()), ("a/data/0", &numbers())])
}

fn numbers() -> Vec<u8> {
    (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn read(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let tensors = torch::read(&mut Cursor::new(bytes), bytes.len() as u64)?;
    assert_eq!(tensors.len(), 1);
    tensors[0].read(&mut Cursor::new(bytes))
}

fn code(bytes: &[u8]) -> Code {
    read(bytes).expect_err("refused").code
}

#[test]
fn every_form_of_a_directory_is_read() {
    let other = [&bytes16(0x5455)[..], &bytes16(5), b"12345"].concat();
    let empty = [bytes16(7), bytes16(0)].concat();
    for is_wide in [false, true] {
        for packed_is_wide in [false, true] {
            for extra in [Vec::new(), other.clone(), [other.clone(), empty.clone()].concat()] {
                for comment in [0, 1, 65_535] {
                    let form =
                        Form { is_wide, packed_is_wide, extra: extra.clone(), comment, ..Form::default() };
                    assert_eq!(read(&checkpoint(&form)).unwrap(), &numbers()[4..12], "{comment}");
                }
            }
        }
    }
    let long = Form { comment: 65_536, ..Form::default() };
    assert_eq!(code(&checkpoint(&long)), Code::Truncated, "no comment is so long");
}

#[test]
fn compressed_and_encrypted_entries_are_refused_where_they_are_needed() {
    for (method, flags, is_read) in [(8, 0, false), (0, 1, false), (0, 0x800, true), (0, 0x801, false)] {
        let found = read(&checkpoint(&Form { method, flags, ..Form::default() }));
        let wanted = if is_read { None } else { Some(Code::UnsupportedVersion) };
        assert_eq!(found.err().map(|e| e.code), wanted, "{method} {flags}");
    }
}

/// The place of `what` in `bytes`.
fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|w| w == what).unwrap()
}

fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn the_directory_lies_within_the_file_and_the_limits() {
    let file = checkpoint(&Form::default());
    let (end, directory) = (find(&file, b"PK\x05\x06"), find(&file, b"PK\x01\x02"));
    let size = end - directory;
    // One byte further than the file, and just as far as it.
    assert_eq!(code(&patched(&file, end + 12, &bytes32(file.len() - directory + 1))), Code::BadOffset);
    assert!(read(&patched(&file, end + 12, &bytes32(file.len() - directory))).is_ok());
    assert_eq!(code(&patched(&file, end + 12, &bytes32((64 << 20) + 1))), Code::LimitExceeded);
    assert_eq!(code(&patched(&file, end + 12, &bytes32(64 << 20))), Code::BadOffset);
    assert_eq!(code(&patched(&file, end + 16, &bytes32(directory + 1))), Code::BadOffset);
    // An entry cut off, at its fixed part and behind it; one entry too many.
    for cut in [1, 2, 3, 60] {
        assert_eq!(code(&patched(&file, end + 12, &bytes32(size - cut))), Code::BadOffset, "{cut}");
    }
    assert_eq!(code(&patched(&file, end + 10, &bytes16(3))), Code::BadOffset);
    let wide = checkpoint(&Form { is_wide: true, ..Form::default() });
    let record = find(&wide, b"PK\x06\x06");
    assert_eq!(code(&patched(&wide, record + 32, &bytes64(65_537))), Code::LimitExceeded);
    assert_eq!(code(&patched(&wide, record + 32, &bytes64(65_536))), Code::BadOffset);
    assert_eq!(code(&patched(&wide, record + 48, &bytes64(usize::MAX))), Code::BadOffset);
    let elsewhere = read(&patched(&wide, record, b"PK\x06\x05")).unwrap_err();
    let end = find(&wide, b"PK\x05\x06") as u64;
    assert_eq!((elsewhere.code, elsewhere.offset), (Code::BadOffset, Some(end)));
    let short = read(&patched(&wide, record + 56 + 8, &bytes64(wide.len() - 55))).unwrap_err();
    assert_eq!((short.code, short.offset), (Code::Truncated, Some(wide.len() as u64)));
    let place = u64::from_le_bytes(wide[record + 48..record + 56].try_into().unwrap()) as usize;
    assert_eq!(code(&patched(&wide, record + 48, &bytes64(place + (1 << 32)))), Code::BadOffset);
    assert_eq!(code(&patched(&wide, record + 56 + 8, &bytes64(usize::MAX))), Code::Truncated);
}

#[test]
fn entries_lie_within_the_file() {
    let file = checkpoint(&Form::default());
    // The second entry of the directory, whose bytes are the numbers, and its own header.
    let entry = file.len() - 22 - 2 - 8 - 46;
    let header = find(&file, b"a/data/0") - 30;
    assert_eq!(&file[entry..entry + 4], b"PK\x01\x02");
    let sized = |n: usize| patched(&file, entry + 24, &bytes32(n));
    assert_eq!(code(&sized(file.len() - header + 1)), Code::BadOffset);
    let data = header + 30 + 8 + 3;
    assert_eq!(code(&sized(file.len() - data + 1)), Code::BadOffset);
    assert_eq!(read(&sized(file.len() - data)).unwrap(), &numbers()[4..12]);
    assert_eq!(code(&sized(11)), Code::BadShape, "two numbers and three quarters");
    assert_eq!(read(&sized(12)).unwrap(), &numbers()[4..12]);
    assert_eq!(code(&patched(&file, entry + 42, &bytes32(header + 1))), Code::BadOffset);
    // The header's own lengths of the name and the extra field decide where the bytes are.
    assert_eq!(read(&patched(&file, header + 26, &bytes16(4))).unwrap().len(), 8);
    assert_ne!(read(&patched(&file, header + 28, &bytes16(7))).unwrap(), &numbers()[4..12]);
    assert_eq!(code(&patched(&file, header + 28, &bytes16(65_535))), Code::BadOffset);
    let wide = Form { is_wide: true, ..Form::default() };
    let far = [(usize::MAX, Code::BadOffset), (usize::MAX - 24, Code::BadOffset)];
    let file = checkpoint(&wide);
    let place = file.len() - 22 - 20 - 56 - 2 - 8;
    for (at, wanted) in far {
        assert_eq!(code(&patched(&file, place, &bytes64(at))), wanted, "{at}");
    }
}

#[test]
fn entries_of_the_directory_begin_as_such_and_end_anywhere() {
    let file = checkpoint(&Form::default());
    let first = find(&file, b"PK\x01\x02");
    let second = first + 46 + 10 + 2;
    for at in [first, second] {
        let error = read(&patched(&file, at + 1, b"Q")).unwrap_err();
        assert_eq!((error.code, error.offset), (Code::BadOffset, Some(at as u64)));
    }
    // The last entry has neither a name nor anything else.
    let bare = zipped(&[("", b"")]);
    let (end, entry) = (find(&bare, b"PK\x05\x06"), find(&bare, b"PK\x01\x02"));
    let bare = patched(&patched(&bare, entry + 32, &bytes16(0)), end + 12, &bytes32(46));
    assert_eq!(code(&bare), Code::BadMagic, "read, and no checkpoint");
    // One that nobody asks for ends where the file does, or a byte later.
    let pickle = super::torch::good_pickle();
    let other = zipped(&[("a/data.pkl", &pickle), ("a/data/0", &numbers()), ("x", b"")]);
    let (header, entry) = (find(&other, b"x???") - 30, other.len() - 22 - 2 - 1 - 46);
    let sized = |n: usize| patched(&other, entry + 24, &bytes32(n));
    assert!(read(&sized(other.len() - header)).is_ok());
    assert_eq!(code(&sized(other.len() - header + 1)), Code::BadOffset);
}

#[test]
fn names_occur_once() {
    let twice = zipped(&[("a", b"1"), ("b", b"2"), ("a", b"3")]);
    assert_eq!(code(&twice), Code::Duplicate);
}
