//! A generated vocabulary in SentencePiece's manner.
//!
//! Three special tokens, 256 byte tokens, then words built from syllables of a consonant and
//! a vowel ("ba", "bada", "badafu"), each also with the leading space mark. Every longer piece
//! is two shorter ones joined, so that merging finds it, and a text of one-syllable words such
//! as "ba di fu" gives one token per word: benchmarks count on that.

const SPACE: &str = "\u{2581}";
const CONSONANTS: &str = "bcdfghjklmnpqrstvwxz";
const VOWELS: &str = "aeiou";

/// Token types of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// One token: text, score (higher merges first), type.
pub struct Token {
    pub text: String,
    pub score: f32,
    pub kind: i32,
}

/// Ids of the special tokens.
pub const UNK: u32 = 0;
pub const BOS: u32 = 1;
pub const EOS: u32 = 2;

/// The tokens before this id are special or single bytes.
pub const FIRST_WORD: usize = 3 + 256;

/// A vocabulary of `n_vocab` tokens.
pub fn generate(n_vocab: usize) -> Vec<Token> {
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
    let fixed = special.into_iter().map(|(text, kind)| (text.to_owned(), kind));
    let bytes = (0..=255u8).map(|b| (format!("<0x{b:02X}>"), BYTE));
    let words = words().map(|text| (text, NORMAL));
    let tokens = fixed.chain(bytes).chain(words).take(n_vocab);
    tokens.enumerate().map(|(i, (text, kind))| Token { text, score: -(i as f32), kind }).collect()
}

/// The space mark, the letters, then words of one, two and three syllables, shortest first.
fn words() -> impl Iterator<Item = String> {
    let letters = CONSONANTS.chars().chain(VOWELS.chars()).map(String::from);
    let syllables: Vec<String> =
        CONSONANTS.chars().flat_map(|c| VOWELS.chars().map(move |v| format!("{c}{v}"))).collect();
    let two: Vec<String> = join(&syllables, &syllables).collect();
    let three: Vec<String> = join(&two, &syllables).collect();
    std::iter::once(SPACE.to_owned())
        .chain(letters)
        .chain([syllables, two, three].into_iter().flat_map(with_space))
}

/// Every `a` followed by every `b`.
fn join<'a>(a: &'a [String], b: &'a [String]) -> impl Iterator<Item = String> + 'a {
    a.iter().flat_map(|a| b.iter().map(move |b| format!("{a}{b}")))
}

/// All words without, then all with the leading space mark.
fn with_space(words: Vec<String>) -> impl Iterator<Item = String> {
    let spaced: Vec<String> = words.iter().map(|w| format!("{SPACE}{w}")).collect();
    words.into_iter().chain(spaced)
}
