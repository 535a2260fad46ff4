//! How byte-level BPE cuts text into words before it merges: one table row for each pre-tokenizer.
//!
//! The published definitions are regular expressions. They are few and simple, so each is a small
//! matcher by hand: no regex engine in the download and no pattern that backtracks without end.
//! A rule tells what it matches at the start of a text. Rules apply in turn, each to the pieces that the
//! ones before it left, and what a rule does not match stays together as a piece.

use super::unicode::{Class, class, is_letter, is_newline, is_number, is_other, is_punctuation, is_space};
use std::borrow::Cow;

/// A way to cut text into words.
pub(super) struct Splitter(Cow<'static, [Rule]>);

/// A named way to cut text, and what llama.cpp ties to that name.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    rules: &'static [Rule],
    /// Whether decoding removes the space before punctuation.
    pub clean_spaces: bool,
    /// Whether a word that is a token is taken whole, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether BOS is added where the metadata does not say.
    pub add_bos: bool,
}

/// One pattern of a regular expression. `L N M P S` are the major general categories, `\s` is white space.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?L+| ?N+| ?[^\sLN]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?L+|N{1,digits}| ?[^\sLN]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
    /// `contractions` keeps the first alternative, `marks` puts M beside L.
    Cl100k { digits: usize, contractions: bool, marks: bool },
    /// As `Cl100k`, but a word ends before a capital: `[^\r\nLN]?U*V+` or `[^\r\nLN]?U+V*` where U is L
    /// without a-z and V is L without A-Z, then with `contractions` one of them; `[\r\n/]*` after symbols.
    O200k { digits: usize, contractions: bool },
    /// `[!-/:-@\[-`{-~][A-Za-z]+|[^\r\nLPS]?[LM]+| ?[PS]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    DeepSeek3,
    /// ` ?[^(\s|.,!?…。，、।۔،)]+`
    Bloom,
    /// `N{1,n}`
    Numbers(usize),
    /// `[0-9][0-9][0-9]`
    ThreeDigits,
    /// `[\r\n]`
    Newline,
    /// `\s?L+`
    SpaceLetters,
    /// `\s?P+`
    SpacePunctuation,
    /// One or more of P and these.
    Punctuation(&'static str),
    /// One or more characters of these ranges.
    Ranges(&'static [(char, char)]),
    /// `[^\n]+|\n+`
    Lines,
    /// `'s|'t|'re|'ve|'m|'ll|'d|L+|N|[^\sLN]+`, where white space is no word
    Clip,
}

use Rule::*;

pub(super) const LLAMA3: Rule = Cl100k { digits: 3, contractions: true, marks: false };
pub(super) const QWEN2: Rule = Cl100k { digits: 1, contractions: true, marks: false };
/// Chinese and whatever else the ranges of DeepSeek's first tokenizers span.
const ASIAN: Rule = Ranges(&[('\u{4e00}', '\u{9fa5}'), ('\u{800}', '\u{4e00}'), ('\u{ac00}', '\u{d7ff}')]);
pub(super) const CHINESE_JAPANESE: Rule = Ranges(&[('\u{4e00}', '\u{9fa5}'), ('\u{3040}', '\u{30ff}')]);

const fn row(names: &'static [&'static str], rules: &'static [Rule]) -> PreTokenizer {
    PreTokenizer { names, rules, clean_spaces: true, ignore_merges: false, add_bos: false }
}

impl PreTokenizer {
    const fn keep_spaces(mut self) -> Self {
        self.clean_spaces = false;
        self
    }

    const fn ignore_merges(mut self) -> Self {
        self.ignore_merges = true;
        self
    }

    const fn add_bos(mut self) -> Self {
        self.add_bos = true;
        self
    }
}

#[rustfmt::skip]
const PRE_TOKENIZERS: &[PreTokenizer] = &[
    row(&["default"], &[Punctuation("$+<=>^~|"), Gpt2, Numbers(usize::MAX), ThreeDigits]),
    row(&["gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code",
        "roberta-bpe", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "mpt", "olmo", "jais"], &[Gpt2]),
    row(&["trillion", "granite-docling"], &[Gpt2]).keep_spaces(),
    row(&["starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"], &[Numbers(1), Gpt2]),
    row(&["command-r", "smollm"], &[Numbers(1), Gpt2]).keep_spaces(),
    row(&["falcon"], &[Punctuation("$+<=>^~|`"), Gpt2, ThreeDigits]),
    row(&["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        &[LLAMA3]).ignore_merges().add_bos(),
    row(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    row(&["stablelm2", "megrez"], &[QWEN2]),
    row(&["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "hunyuan", "solar-open", "grok-2"], &[QWEN2]).keep_spaces(),
    row(&["qwen35"], &[Cl100k { digits: 1, contractions: true, marks: true }]).keep_spaces(),
    row(&["ufakzeka"], &[Cl100k { digits: 1, contractions: false, marks: false }]).keep_spaces(),
    row(&["minicpm5"], &[Numbers(3), Cl100k { digits: usize::MAX, contractions: true, marks: false }]).ignore_merges(),
    row(&["laguna"], &[Lines, QWEN2]).keep_spaces(),
    row(&["tekken"], &[O200k { digits: 1, contractions: false }]).keep_spaces().ignore_merges().add_bos(),
    row(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[O200k { digits: 3, contractions: true }]).keep_spaces(),
    row(&["deepseek-coder"], &[Newline, SpaceLetters, SpacePunctuation, ASIAN, Numbers(1)]).keep_spaces(),
    row(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], &[Numbers(3), CHINESE_JAPANESE, DeepSeek3]).keep_spaces(),
    row(&["bloom", "gpt3-finnish"], &[Bloom]),
    row(&["poro-chat"], &[Bloom]).keep_spaces(),
    row(&["viking"], &[Bloom, Numbers(1)]).keep_spaces(),
];

/// The pre-tokenizer called `name`.
pub(super) fn find(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name))
}

/// All names, for the error that lists them.
pub(super) fn names() -> String {
    let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied().collect();
    names.join(", ")
}

impl PreTokenizer {
    /// What cuts the text.
    pub fn splitter(&self) -> Splitter {
        Splitter(Cow::Borrowed(self.rules))
    }
}

impl Splitter {
    /// Cuts by these rules in turn.
    pub fn new(rules: Vec<Rule>) -> Splitter {
        Splitter(Cow::Owned(rules))
    }

    /// The words of `text` in order.
    pub fn split<'a>(&self, text: &'a str) -> impl Iterator<Item = &'a str> {
        let mut ends = vec![text.len()];
        for rule in self.0.iter() {
            let mut finer = Vec::with_capacity(ends.len());
            let mut start = 0;
            for end in ends {
                rule.cut(text, start, end, &mut finer);
                start = end;
            }
            ends = finer;
        }
        let mut start = 0;
        ends.into_iter().map(move |end| &text[std::mem::replace(&mut start, end)..end])
    }
}

impl Rule {
    /// Appends the ends of the pieces of `text[start..end]`.
    fn cut(&self, text: &str, start: usize, end: usize, ends: &mut Vec<usize>) {
        let mut pos = start;
        let mut unmatched_since = start;
        while pos < end {
            let rest = &text[pos..end];
            let n = self.matched(rest);
            if n == 0 {
                pos += rest.chars().next().map_or(1, char::len_utf8);
                continue;
            }
            if unmatched_since < pos {
                ends.push(pos);
            }
            pos += n;
            ends.push(pos);
            unmatched_since = pos;
        }
        if unmatched_since < end {
            ends.push(end);
        }
    }

    /// How many bytes the rule matches at the start of `text`, which is not empty. To stay linear it looks
    /// no further than a fixed distance beyond what it matches, or matches most of what it looked at.
    fn matched(&self, text: &str) -> usize {
        match *self {
            Gpt2 => gpt2(text),
            Cl100k { digits, contractions, marks } => cl100k(text, digits, contractions, marks),
            O200k { digits, contractions } => o200k(text, digits, contractions),
            DeepSeek3 => deepseek3(text),
            Bloom => after_space(text, |c| !is_space(c) && !"(|.,!?…。，、।۔،)".contains(c)),
            Numbers(n) => run_up_to(text, n, is_number),
            ThreeDigits => {
                text.as_bytes().get(..3).filter(|b| b.iter().all(u8::is_ascii_digit)).map_or(0, <[u8]>::len)
            }
            Newline => run_up_to(text, 1, is_newline),
            SpaceLetters => after_any_space(text, is_letter),
            SpacePunctuation => after_any_space(text, is_punctuation),
            Punctuation(more) => run(text, |c| is_punctuation(c) || more.contains(c)),
            Ranges(ranges) => run(text, |c| ranges.iter().any(|&(low, high)| (low..=high).contains(&c))),
            Lines => run(text, |c| c != '\n').max(run(text, |c| c == '\n')),
            Clip => clip(text),
        }
    }
}

/// Bytes of the leading characters that satisfy `wanted`.
fn run(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    text.find(|c| !wanted(c)).unwrap_or(text.len())
}

/// As `run`, of at most `n` characters.
fn run_up_to(text: &str, n: usize, wanted: impl Fn(char) -> bool) -> usize {
    text.chars().take(n).take_while(|&c| wanted(c)).map(char::len_utf8).sum()
}

/// A run that may have one U+0020 before it; 0 if there is no run.
fn after_space(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    let rest = text.strip_prefix(' ').unwrap_or(text);
    match run(rest, wanted) {
        0 => 0,
        n => text.len() - rest.len() + n,
    }
}

/// A run that may have one white space of any kind before it; 0 if there is no run.
fn after_any_space(text: &str, wanted: impl Fn(char) -> bool) -> usize {
    let rest = text.strip_prefix(is_space).unwrap_or(text);
    match run(rest, wanted) {
        0 => 0,
        n => text.len() - rest.len() + n,
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`
fn contraction(text: &str, ignore_case: bool) -> usize {
    let bytes = text.as_bytes();
    let letter = |i: usize| bytes.get(i).map(|b| if ignore_case { b.to_ascii_lowercase() } else { *b });
    match (letter(0), letter(1), letter(2)) {
        (Some(b'\''), Some(b's' | b't' | b'm' | b'd'), _) => 2,
        (Some(b'\''), Some(b'r' | b'v'), Some(b'e')) | (Some(b'\''), Some(b'l'), Some(b'l')) => 3,
        _ => 0,
    }
}

/// `\s+(?!\S)|\s+`: all of the white space at the end of a text, else all but the last character of it.
fn white_space(text: &str) -> usize {
    let n = run(text, is_space);
    let last = text[..n].chars().next_back().map_or(0, char::len_utf8);
    if n == text.len() || n == last { n } else { n - last }
}

/// `\s*[\r\n]+`
fn through_last_newline(text: &str) -> usize {
    text[..run(text, is_space)].rfind(is_newline).map_or(0, |i| i + 1)
}

fn first_of(lens: impl IntoIterator<Item = fn(&str) -> usize>, text: &str) -> usize {
    lens.into_iter().map(|len| len(text)).find(|&n| n > 0).unwrap_or(0)
}

fn gpt2(text: &str) -> usize {
    let rules: [fn(&str) -> usize; 5] = [
        |t| contraction(t, false),
        |t| after_space(t, is_letter),
        |t| after_space(t, is_number),
        |t| after_space(t, is_other),
        white_space,
    ];
    first_of(rules, text)
}

fn clip(text: &str) -> usize {
    let rules: [fn(&str) -> usize; 4] = [
        |t| contraction(t, false),
        |t| run(t, is_letter),
        |t| run_up_to(t, 1, is_number),
        |t| run(t, is_other),
    ];
    first_of(rules, text)
}

/// `[^\r\nLN]?` before letters: its length, and the rest of the text.
fn lead(text: &str) -> (usize, &str) {
    let is_lead = |c| !is_newline(c) && !matches!(class(c), Class::Letter | Class::Number);
    let rest = text.strip_prefix(is_lead).unwrap_or(text);
    (text.len() - rest.len(), rest)
}

/// ` ?[^\sLN]+` and what follows it of `tail`.
fn symbols(text: &str, tail: impl Fn(char) -> bool) -> usize {
    match after_space(text, is_other) {
        0 => 0,
        n => n + run(&text[n..], tail),
    }
}

fn cl100k(text: &str, digits: usize, contractions: bool, marks: bool) -> usize {
    let n = if contractions { contraction(text, true) } else { 0 };
    if n > 0 {
        return n;
    }
    let in_word = |c| matches!(class(c), Class::Letter) || marks && class(c) == Class::Mark;
    // A mark can be the lead or the first of the word: the pattern tries the lead first.
    let (lead_len, rest) = lead(text);
    for (lead_len, rest) in [(lead_len, rest), (0, text)] {
        let n = run(rest, in_word);
        if n > 0 {
            return lead_len + n;
        }
    }
    let n = run_up_to(text, digits, is_number);
    if n > 0 {
        return n;
    }
    let symbol = |c| is_other(c) && !(marks && class(c) == Class::Mark);
    let n = after_space(text, symbol);
    if n > 0 {
        return n + run(&text[n..], is_newline);
    }
    first_of([through_last_newline as fn(&str) -> usize, white_space], text)
}

fn o200k(text: &str, digits: usize, contractions: bool) -> usize {
    let (lead_len, rest) = lead(text);
    let n = cased_word(rest);
    if n > 0 {
        let n = lead_len + n;
        return n + if contractions { contraction(&text[n..], true) } else { 0 };
    }
    let n = run_up_to(text, digits, is_number);
    if n > 0 {
        return n;
    }
    match symbols(text, |c| is_newline(c) || c == '/') {
        0 => first_of([through_last_newline as fn(&str) -> usize, white_space], text),
        n => n,
    }
}

/// `U*V+|U+V*`, U letters without a-z, V letters without A-Z.
fn cased_word(text: &str) -> usize {
    let is_upper = |c: char| !c.is_ascii_lowercase() && is_letter(c);
    let is_lower = |c: char| !c.is_ascii_uppercase() && is_letter(c);
    let n_upper = run(text, is_upper);
    let n_lower = run(&text[n_upper..], is_lower);
    if n_lower > 0 {
        return n_upper + n_lower;
    }
    // U* must give back characters until V+ has one: the last that is in both.
    let in_both = text[..n_upper].char_indices().rev().find(|&(_, c)| is_lower(c));
    in_both.map_or(n_upper, |(i, c)| i + c.len_utf8())
}

fn deepseek3(text: &str) -> usize {
    let rest = text.strip_prefix(|c: char| c.is_ascii_punctuation()).unwrap_or(text);
    let n = run(rest, |c| c.is_ascii_alphabetic());
    if n > 0 && rest.len() < text.len() {
        return 1 + n;
    }
    let in_word = |c| matches!(class(c), Class::Letter | Class::Mark);
    let is_symbol = |c| matches!(class(c), Class::Punctuation | Class::Symbol);
    let is_lead = |c| !is_newline(c) && !is_symbol(c) && !is_letter(c);
    let rest = text.strip_prefix(is_lead).unwrap_or(text);
    for rest in [rest, text] {
        let n = run(rest, in_word);
        if n > 0 {
            return text.len() - rest.len() + n;
        }
    }
    match after_space(text, is_symbol) {
        0 => first_of([through_last_newline as fn(&str) -> usize, white_space], text),
        n => n + run(&text[n..], is_newline),
    }
}

#[cfg(test)]
mod tests {
    use super::find;

    fn words<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        find(name).unwrap().splitter().split(text).collect()
    }

    #[test]
    fn each_pattern_cuts_as_its_regular_expression_does() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("gpt-2", "I'm 12a  b\n\n c ", &["I", "'m", " 12", "a", " ", " b", "\n\n", " c", " "]),
            ("gpt-2", "x'S!?  ", &["x", "'", "S", "!?", "  "]),
            ("gpt-2", "'", &["'"]),
            ("smollm", "a123 4", &["a", "1", "2", "3", " ", "4"]),
            (
                "llama-bpe",
                "I'M 12345a  b\n\n c \n",
                &["I", "'M", " ", "123", "45", "a", " ", " b", "\n\n", " c", " \n"],
            ),
            ("llama-bpe", "!word !!\n\nx\t\ty", &["!word", " !!\n\n", "x", "\t", "\ty"]),
            ("qwen2", "12 (ab)", &["1", "2", " (", "ab", ")"]),
            ("qwen35", "क्ष e\u{301}x", &["क्ष", " e\u{301}x"]),
            ("ufakzeka", "Ankara'da", &["Ankara", "'da"]),
            ("falcon", "a+b, 12345", &["a", "+", "b", ",", " ", "123", "45"]),
            ("default", "a~b 12", &["a", "~", "b", " ", "12"]),
            ("deepseek-coder", "ab 12中文!\n", &["ab", " ", "1", "2", "中文", "!", "\n"]),
            (
                "deepseek-v3",
                "x .foo 1234かな+=\n e\u{301}",
                &["x", " .", "foo", " ", "123", "4", "かな", "+=\n", " e\u{301}"],
            ),
            (
                "gpt-4o",
                "HelloWorld ABc'S éa ÉÉA x/\n",
                &["Hello", "World", " ABc'S", " éa", " ÉÉ", "A", " x", "/\n"],
            ),
            ("tekken", "aB's 12", &["a", "B", "'s", " ", "1", "2"]),
            ("bloom", "a b.c  d", &["a", " b", ".", "c", " ", " d"]),
            ("laguna", "a \n\n b", &["a", " ", "\n\n", " b"]),
        ];
        for (name, text, expected) in cases {
            assert_eq!(words(name, text), *expected, "{name} {text:?}");
        }
    }

    #[test]
    fn words_are_never_empty_and_make_up_the_text() {
        let text = "A \u{a0}b\r\n'll 1½ ⅷ\u{301}\u{378}\0 中文！가 👨‍👩‍👧…  \t\n ";
        for row in super::PRE_TOKENIZERS {
            for (start, _) in text.char_indices() {
                let words: Vec<&str> = row.splitter().split(&text[start..]).collect();
                assert_eq!(words.concat(), text[start..]);
                assert!(words.iter().all(|word| !word.is_empty()));
            }
            assert_eq!(row.splitter().split("").collect::<String>(), "");
        }
    }
}
