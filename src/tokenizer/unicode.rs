//! The character classes that pre-tokenizers and normalizers ask for.

use unicode_normalization::char::decompose_canonical;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

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

fn class_beyond_ascii(c: char) -> Class {
    use GeneralCategory as G;
    match c.general_category() {
        G::UppercaseLetter | G::LowercaseLetter | G::TitlecaseLetter | G::ModifierLetter | G::OtherLetter => {
            Class::Letter
        }
        G::NonspacingMark | G::SpacingMark | G::EnclosingMark => Class::Mark,
        G::DecimalNumber | G::LetterNumber | G::OtherNumber => Class::Number,
        G::ConnectorPunctuation
        | G::DashPunctuation
        | G::OpenPunctuation
        | G::ClosePunctuation
        | G::InitialPunctuation
        | G::FinalPunctuation
        | G::OtherPunctuation => Class::Punctuation,
        G::MathSymbol | G::CurrencySymbol | G::ModifierSymbol | G::OtherSymbol => Class::Symbol,
        G::SpaceSeparator | G::LineSeparator | G::ParagraphSeparator => Class::Separator,
        G::Control | G::Format | G::Surrogate | G::PrivateUse => Class::Control,
        G::Unassigned => Class::Unassigned,
    }
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

/// The first character of the canonical decomposition: the base of an accented letter.
pub(super) fn base(c: char) -> char {
    let mut first = None;
    if c.is_ascii() {
        return c;
    }
    decompose_canonical(c, |part| {
        first.get_or_insert(part);
    });
    first.unwrap_or(c)
}
