//! The cursor from which headers are read.

use bitpane::container::limits::HEADER_BYTES;
use bitpane::container::reader::{Read, Reader, Stop, truncated};
use bitpane::{Code, Error};

fn code<T>(read: Read<T>) -> (Code, Option<u64>) {
    match read {
        Err(Stop::Bad(e)) => (e.code, e.offset),
        Err(Stop::Short { needed }) => panic!("short of {needed}"),
        Ok(_) => panic!("read"),
    }
}

fn needed<T>(read: Read<T>) -> u64 {
    match read {
        Err(Stop::Short { needed }) => needed,
        Err(Stop::Bad(e)) => panic!("{e}"),
        Ok(_) => panic!("read"),
    }
}

#[test]
fn numbers_are_little_endian_and_move_the_cursor() {
    let bytes: Vec<u8> = (1..=15).collect();
    let mut reader = Reader::new(&bytes, 100, None);
    assert_eq!((reader.offset(), reader.u8().unwrap(), reader.offset()), (100, 1, 101));
    assert_eq!((reader.u32().unwrap(), reader.offset()), (0x0504_0302, 105));
    assert_eq!((reader.u64().unwrap(), reader.offset()), (0x0d0c_0b0a_0908_0706, 113));
    assert_eq!(needed(reader.u32()), 117);
    assert_eq!(reader.offset(), 113, "what is not there moves nothing");
    assert_eq!((reader.take(2).unwrap(), needed(reader.take(1))), (&[14u8, 15][..], 116));
    assert_eq!(reader.take(0).unwrap(), [0u8; 0]);
}

#[test]
fn what_is_claimed_lies_in_the_file_and_below_the_limit() {
    let claim = |base: u64, file_len: Option<u64>, count: u64, size: u64| {
        Reader::new(&[], base, file_len).claim(count, size).err().map(|e| (e.code, e.offset))
    };
    for base in [0, 7] {
        let most = HEADER_BYTES - base;
        assert_eq!(claim(base, None, most, 1), None);
        assert_eq!(claim(base, None, most + 1, 1), Some((Code::LimitExceeded, Some(base))));
        assert_eq!(claim(base, None, most / 8 + 1, 8), Some((Code::LimitExceeded, Some(base))));
        assert_eq!(claim(base, Some(base + 24), 3, 8), None);
        assert_eq!(claim(base, Some(base + 23), 3, 8), Some((Code::Truncated, Some(base + 23))));
    }
    for (count, size) in [(u64::MAX, 1), (u64::MAX, 8), (1 << 62, 4), (1 << 63, 2)] {
        assert_eq!(claim(9, None, count, size), Some((Code::LimitExceeded, Some(9))));
    }
    assert_eq!(code(Reader::new(&[0; 8], 0, Some(3)).u32()), (Code::Truncated, Some(3)));
}

#[test]
fn strings_have_a_longest_length() {
    let bytes = [&3u64.to_le_bytes()[..], b"abcd"].concat();
    assert_eq!(Reader::new(&bytes, 0, None).string(3, Code::BadName).unwrap(), b"abc");
    assert_eq!(code(Reader::new(&bytes, 40, None).string(2, Code::BadName)), (Code::BadName, Some(40)));
    assert_eq!(needed(Reader::new(&bytes[..9], 40, None).string(3, Code::BadName)), 51);
}

#[test]
fn the_first_offender_keeps_its_name() {
    let bad = || Stop::Bad(Error::new(Code::BadValue, "x"));
    let names = |stop: Stop| match stop {
        Stop::Bad(e) => (e.key, e.tensor),
        Stop::Short { .. } => panic!("short"),
    };
    assert_eq!(names(bad().key("a").key("b")).0.as_deref(), Some("a"));
    assert_eq!(names(bad().tensor("a").tensor("b")).1.as_deref(), Some("a"));
    assert!(matches!(Stop::Short { needed: 3 }.key("a").tensor("b"), Stop::Short { needed: 3 }));
    let e = truncated(8, 5);
    assert_eq!((e.code, e.offset), (Code::Truncated, Some(5)));
}
