//! The character classes that pre-tokenizers and normalizers ask for.
//!
//! Both tables are facts of the Unicode Character Database, packed: crates with the same tables add 46 KB
//! to the compressed .wasm, these 6 KB. The test below holds them to those crates for every character;
//! `BITPANE_WRITE_UNICODE=1 cargo test --lib unicode` makes them anew.

use std::sync::OnceLock;

/// Major general category of a character, with controls (`Cc Cf Co Cs`) and unassigned (`Cn`) apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Mark,
    Number,
    Punctuation,
    Symbol,
    Separator,
    Control,
    Unassigned,
}

/// The class of a character.
pub(super) fn class(c: char) -> Class {
    // Most text is ASCII, and the table of the others takes a binary search.
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        ' ' => Class::Separator,
        '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' => Class::Symbol,
        '!'..='~' => Class::Punctuation,
        '\0'..='\x7f' => Class::Control,
        _ => class_beyond_ascii(c),
    }
}

/// Runs of one class over all code points: number of code points * 8 + class, as varints.
static CLASSES: &[u8] = include_bytes!("unicode/classes.bin");

/// Characters with a canonical decomposition, Hangul apart, ascending: distance from the last one, then
/// distance of its base from the last base with the sign in the lowest bit, as varints.
static BASES: &[u8] = include_bytes!("unicode/bases.bin");

fn class_beyond_ascii(c: char) -> Class {
    static RUNS: OnceLock<Vec<(u32, Class)>> = OnceLock::new();
    let runs = RUNS.get_or_init(|| {
        let mut end = 0;
        let run = |code: u32| {
            end += code >> 3;
            (end, CLASS_ORDER[code as usize & 7])
        };
        varints(CLASSES).map(run).collect()
    });
    let run = runs.partition_point(|&(end, _)| end <= u32::from(c));
    runs.get(run).map_or(Class::Unassigned, |&(_, class)| class)
}

/// The numbers of the classes in the table.
const CLASS_ORDER: [Class; 8] = [
    Class::Letter,
    Class::Mark,
    Class::Number,
    Class::Punctuation,
    Class::Symbol,
    Class::Separator,
    Class::Control,
    Class::Unassigned,
];

/// Little-endian groups of 7 bits; the highest bit says that more follow.
fn varints(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let mut bytes = bytes.iter();
    std::iter::from_fn(move || {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = *bytes.next()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    })
}

pub(super) fn is_letter(c: char) -> bool {
    class(c) == Class::Letter
}

pub(super) fn is_number(c: char) -> bool {
    class(c) == Class::Number
}

pub(super) fn is_punctuation(c: char) -> bool {
    class(c) == Class::Punctuation
}

/// `\s` of a Unicode regular expression.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace()
}

/// Neither white space nor letter nor number.
pub(super) fn is_other(c: char) -> bool {
    !is_space(c) && !matches!(class(c), Class::Letter | Class::Number)
}

pub(super) fn is_newline(c: char) -> bool {
    c == '\n' || c == '\r'
}

/// The first character of the canonical decomposition: the base of an accented letter, the leading
/// consonant of a Hangul syllable.
pub(super) fn base(c: char) -> char {
    let code = u32::from(c);
    match code {
        0..0x80 => return c,
        // 588 syllables begin with each of the leading consonants from U+1100 on.
        0xac00..=0xd7a3 => return char::from_u32(0x1100 + (code - 0xac00) / 588).unwrap_or(c),
        _ => (),
    }
    static PAIRS: OnceLock<Vec<(u32, u32)>> = OnceLock::new();
    let pairs = PAIRS.get_or_init(|| {
        let mut numbers = varints(BASES);
        let (mut from, mut to) = (0, 0u32);
        let pair = || {
            from += numbers.next()?;
            let step = numbers.next()?;
            to = to.wrapping_add(step >> 1 ^ (step & 1).wrapping_neg());
            Some((from, to))
        };
        std::iter::from_fn(pair).collect()
    });
    match pairs.binary_search_by_key(&code, |&(from, _)| from) {
        Ok(i) => char::from_u32(pairs[i].1).unwrap_or(c),
        Err(_) => c,
    }
}

/// What follows the leading consonant in the decomposition of a Hangul syllable: a vowel, and a trailing
/// consonant if there is one. Nothing for other characters.
pub(super) fn syllable_rest(c: char) -> impl Iterator<Item = char> {
    let index = match u32::from(c) {
        code @ 0xac00..=0xd7a3 => Some(code - 0xac00),
        _ => None,
    };
    let vowel = index.map(|i| 0x1161 + i % 588 / 28);
    let trailing = index.map(|i| i % 28).filter(|&t| t > 0).map(|t| 0x11a7 + t);
    vowel.into_iter().chain(trailing).filter_map(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_normalization::char::decompose_canonical;
    use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

    fn reference_class(code: u32) -> Class {
        let Some(c) = char::from_u32(code) else { return Class::Control };
        match c.general_category_group() {
            GeneralCategoryGroup::Letter => Class::Letter,
            GeneralCategoryGroup::Mark => Class::Mark,
            GeneralCategoryGroup::Number => Class::Number,
            GeneralCategoryGroup::Punctuation => Class::Punctuation,
            GeneralCategoryGroup::Symbol => Class::Symbol,
            GeneralCategoryGroup::Separator => Class::Separator,
            GeneralCategoryGroup::Other => {
                let unassigned = c.general_category() == unicode_properties::GeneralCategory::Unassigned;
                if unassigned { Class::Unassigned } else { Class::Control }
            }
        }
    }

    fn reference_base(c: char) -> char {
        let mut first = None;
        decompose_canonical(c, |part| {
            first.get_or_insert(part);
        });
        first.unwrap()
    }

    fn push_varint(bytes: &mut Vec<u8>, mut value: u32) {
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
    }

    fn packed_classes() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut start = 0;
        for end in 1..=0x11_0000 {
            let class = reference_class(start);
            if end == 0x11_0000 || reference_class(end) != class {
                let number = CLASS_ORDER.iter().position(|&c| c == class).unwrap() as u32;
                push_varint(&mut bytes, (end - start) << 3 | number);
                start = end;
            }
        }
        bytes
    }

    fn packed_bases() -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut last, mut last_base) = (0, 0);
        for c in ('\u{80}'..=char::MAX).filter(|c| !('\u{ac00}'..='\u{d7a3}').contains(c)) {
            let base = reference_base(c);
            if base != c {
                push_varint(&mut bytes, u32::from(c) - last);
                let step = base as i32 - last_base;
                push_varint(&mut bytes, (step << 1 ^ step >> 31) as u32);
                (last, last_base) = (u32::from(c), base as i32);
            }
        }
        bytes
    }

    #[test]
    fn packed_tables_hold_the_unicode_data() {
        if std::env::var_os("BITPANE_WRITE_UNICODE").is_some() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tokenizer/unicode");
            std::fs::write(format!("{folder}/classes.bin"), packed_classes()).unwrap();
            std::fs::write(format!("{folder}/bases.bin"), packed_bases()).unwrap();
            return;
        }
        assert!(packed_classes() == CLASSES && packed_bases() == BASES, "the tables are of another version");
        for c in '\0'..=char::MAX {
            assert_eq!(class(c), reference_class(u32::from(c)), "{c:?}");
            assert_eq!(base(c), reference_base(c), "{c:?}");
        }
        for c in '\u{ac00}'..='\u{d7a3}' {
            let mut parts = Vec::new();
            decompose_canonical(c, |part| parts.push(part));
            assert_eq!(syllable_rest(c).collect::<Vec<_>>(), parts[1..], "{c:?}");
        }
    }
}
