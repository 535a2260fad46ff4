//! The directory of a zip file whose entries are stored as they are, as PyTorch writes checkpoints.
//!
//! Own code: all it takes is the directory, and entries are read in place. Source: PKWARE's APPNOTE 6.3.9,
//! sections 4.3.7 to 4.3.16 and 4.5.3 (zip64).

use crate::error::{Code, Error, Result};
use std::io::{Read, Seek, SeekFrom};

/// Most entries, and most bytes of the directory.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_DIRECTORY: u64 = 64 << 20;
/// Bytes of the record at the end, of the one before it that leads to the record of 64 bits, and of the longest
/// comment after it.
const END_BYTES: u64 = 22;
const LOCATOR_BYTES: u64 = 20;
const MAX_COMMENT: u64 = 65_535;

/// A file within the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Bytes of it.
    pub n_bytes: u64,
    /// Whether the bytes are as they are, neither compressed nor encrypted.
    pub is_stored: bool,
    header_at: u64,
}

/// Whether a file begins as a zip file does.
pub fn is_zip(prefix: &[u8]) -> bool {
    prefix.starts_with(b"PK\x03\x04")
}

fn bad(rule: &str, at: u64) -> Error {
    Error::new(Code::BadOffset, rule).at(at)
}

fn io(error: std::io::Error) -> Error {
    Error::new(Code::Io, format!("cannot read: {error}")).source(error)
}

/// `n` bytes at `at`.
pub(super) fn read_at(file: &mut (impl Read + Seek), at: u64, n: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at)).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(n).read_to_end(&mut bytes).map_err(io)?;
    if (bytes.len() as u64) < n {
        return Err(Error::new(Code::Truncated, "the file ends in the midst").at(at + bytes.len() as u64));
    }
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]).into())
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// The directory of a file of `len` bytes.
///
/// # Errors
/// [`Code::Truncated`], [`Code::BadOffset`], [`Code::LimitExceeded`], [`Code::Io`].
pub fn directory(file: &mut (impl Read + Seek), len: u64) -> Result<Vec<Entry>> {
    let tail_at = len.saturating_sub(LOCATOR_BYTES + END_BYTES + MAX_COMMENT);
    let tail = read_at(file, tail_at, len - tail_at)?;
    let first = tail.len().saturating_sub((END_BYTES + MAX_COMMENT) as usize);
    let end = (first..tail.len().saturating_sub(END_BYTES as usize - 1)).rev();
    let end = end.into_iter().find(|&i| tail[i..].starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(|| Error::new(Code::Truncated, "the zip file has no directory").at(len))?;
    let (mut n, mut size, mut at) =
        (u16_at(&tail, end + 10), u32_at(&tail, end + 12), u32_at(&tail, end + 16));
    if end >= 20 && tail[end - 20..].starts_with(b"PK\x06\x07") {
        let wide = read_at(file, u64_at(&tail, end - 12), 56)?;
        if !wide.starts_with(b"PK\x06\x06") {
            return Err(bad("the zip64 record is not where it should be", tail_at + end as u64));
        }
        (n, size, at) = (u64_at(&wide, 32), u64_at(&wide, 40), u64_at(&wide, 48));
    }
    if n > MAX_ENTRIES || size > MAX_DIRECTORY {
        return Err(Error::new(Code::LimitExceeded, format!("{n} entries in {size} bytes")).at(at));
    }
    if at.checked_add(size).is_none_or(|end| end > len) {
        return Err(bad("the directory lies outside of the file", at));
    }
    let bytes = read_at(file, at, size)?;
    entries(&bytes, n, at, len)
}

fn entries(bytes: &[u8], n: u64, first_at: u64, len: u64) -> Result<Vec<Entry>> {
    const FIXED: usize = 46;
    let mut found = Vec::new();
    let mut rest = bytes;
    for _ in 0..n {
        let at = first_at + (bytes.len() - rest.len()) as u64;
        if rest.len() < FIXED || !rest.starts_with(b"PK\x01\x02") {
            return Err(bad("an entry of the directory is malformed", at));
        }
        let lens = [28, 30, 32].map(|field| u16_at(rest, field) as usize);
        let end = FIXED + lens.iter().sum::<usize>();
        let Some(variable) = rest.get(FIXED..end) else {
            return Err(bad("an entry of the directory is cut off", at));
        };
        let (name, extra) = (&variable[..lens[0]], &variable[lens[0]..lens[0] + lens[1]]);
        let packed = u32_at(rest, 20);
        let (mut n_bytes, mut header_at) = (u32_at(rest, 24), u32_at(rest, 42));
        wide(extra, &mut n_bytes, packed == u64::from(u32::MAX), &mut header_at);
        let is_stored = u16_at(rest, 10) == 0 && u16_at(rest, 8) & 1 == 0;
        if header_at.checked_add(n_bytes).is_none_or(|end| is_stored && end > len) {
            return Err(bad("an entry lies outside of the file", at));
        }
        let name = String::from_utf8_lossy(name).into_owned();
        found.push(Entry { name, n_bytes, is_stored, header_at });
        rest = &rest[end..];
    }
    super::check_unique(found.iter().map(|e| e.name.as_str()), |name| {
        Error::new(Code::Duplicate, format!("the zip file has {name:?} twice"))
    })?;
    Ok(found)
}

/// Takes what does not fit into 32 bits from the extra field.
fn wide(mut extra: &[u8], n_bytes: &mut u64, packed_is_wide: bool, header_at: &mut u64) {
    const ALL: u64 = u32::MAX as u64;
    while extra.len() >= 4 {
        let (id, len) = (u16_at(extra, 0), u16_at(extra, 2) as usize);
        let Some(field) = extra.get(4..4 + len) else { return };
        if id == 1 {
            let mut at = 0;
            let mut next = || {
                at += 8;
                u64_at(field, at - 8)
            };
            if *n_bytes == ALL {
                *n_bytes = next();
            }
            if packed_is_wide {
                next();
            }
            if *header_at == ALL {
                *header_at = next();
            }
            return;
        }
        extra = &extra[4 + len..];
    }
}

/// Where an entry's bytes begin.
///
/// # Errors
/// [`Code::UnsupportedVersion`] for a compressed entry, [`Code::BadOffset`] for one outside of the file.
pub fn data_offset(file: &mut (impl Read + Seek), entry: &Entry, len: u64) -> Result<u64> {
    if !entry.is_stored {
        let rule = format!("{:?} is compressed, which checkpoints are not", entry.name);
        return Err(Error::new(Code::UnsupportedVersion, rule).at(entry.header_at));
    }
    let header = read_at(file, entry.header_at, 30)?;
    if !is_zip(&header) {
        return Err(bad("an entry is not where the directory says", entry.header_at));
    }
    let at = entry.header_at + 30 + u16_at(&header, 26) + u16_at(&header, 28);
    match at.checked_add(entry.n_bytes) {
        Some(end) if end <= len => Ok(at),
        _ => Err(bad("an entry lies outside of the file", entry.header_at)),
    }
}
