//! `tokenizer.json`, the format of Hugging Face's tokenizers: byte-level BPE, WordPiece and Unigram.
//!
//! Source: <https://huggingface.co/docs/tokenizers>. Where the two differ, special tokens are found as
//! llama.cpp finds them. What is not supported is an error that names the part, never a guess; one part is
//! passed over as in llama.cpp: an NFC normalizer (text from keyboards and pages is composed already).

use super::bpe::{Bpe, Merges};
use super::normalize::{self, NORMALIZER};
use super::pretokenize::{CHINESE_JAPANESE, LLAMA3, QWEN2, Rule, Splitter};
use super::special::{Specials, mark_known_texts};
use super::spm::SPACE;
use super::unigram::{Spaces, Unigram};
use super::vocab::{Vocab, attr, invalid};
use super::wordpiece::{Normalizer, WordPiece};
use super::{Model, Tokenizer};
use crate::container::StrArray;
use crate::error::{Code, Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: ModelPart,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct ModelPart {
    r#type: Option<String>,
    vocab: Entries,
    #[serde(default)]
    merges: Vec<MergePart>,
    unk_token: Option<String>,
    unk_id: Option<u32>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
}

/// Older files write a merge as one string.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergePart {
    Text(String),
    Pair(String, String),
}

/// The texts of a vocabulary with their ids, in file order; and scores, where it has them.
struct Entries(Vec<(String, u32)>, Vec<f32>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of texts and ids, or a list of texts and scores")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Entries, A::Error> {
                let (mut entries, mut scores) = (Vec::new(), Vec::new());
                while let Some((text, score)) = list.next_element::<(String, f64)>()? {
                    entries.push((text, entries.len() as u32));
                    scores.push(score as f32);
                }
                Ok(Entries(entries, scores))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries, Vec::new()))
            }
        }
        deserializer.deserialize_any(Map)
    }
}

const VOCAB: &str = "model.vocab";
const ADDED: &str = "added_tokens";
const MERGES: &str = "model.merges";
const PRE: &str = "pre_tokenizer";
const POST: &str = "post_processor";
const TYPE: &str = "model.type";

/// What WordPiece files put before a piece that continues a word.
const CONTINUES: &str = "##";

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// BOS and EOS are those that its template adds; a file that adds none says nothing of them. Tokens
    /// that end a generation are known by their text.
    ///
    /// # Errors
    /// `TokenizerInvalid` or `UnsupportedPreTokenizer`, naming the part of the file.
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer> {
        let file: File = serde_json::from_slice(bytes)
            .map_err(|e| invalid("tokenizer.json", format!("not a tokenizer: {e}")).source(e))?;
        // Files from before the field are BPE.
        match file.model.r#type.as_deref().unwrap_or("BPE") {
            "BPE" => read_bpe(file),
            "WordPiece" => read_wordpiece(file),
            "Unigram" => read_unigram(file),
            other => {
                Err(invalid(TYPE, format!("{other:?} is not supported; BPE, WordPiece and Unigram are")))
            }
        }
    }

    /// Reads the `vocab.txt` of a BERT model: one token a line, `[UNK]`, `[CLS]` and `[SEP]` among them.
    /// `lowercase` is whether the model is "uncased", which takes accents off too.
    ///
    /// # Errors
    /// `TokenizerInvalid`.
    pub fn from_vocab_txt(text: &str, lowercase: bool) -> Result<Tokenizer> {
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let special = |line: &str| matches!(line, "[PAD]" | "[UNK]" | "[CLS]" | "[SEP]" | "[MASK]");
        let mut texts = StrArray::default();
        let mut attrs = Vec::new();
        for line in lines {
            texts.push(word_piece(line, special(line)).as_bytes());
            attrs.push(if special(line) { attr::CONTROL } else { attr::NORMAL });
        }
        let n_tokens = texts.len();
        let vocab = Vocab::new(texts, vec![0.0; n_tokens], attrs)?;
        let id = |text: &str| vocab.id(text.as_bytes());
        let (unk, frame) = (id("[UNK]"), (id("[CLS]"), id("[SEP]")));
        let normalizer = Normalizer::of_bert(lowercase);
        let model = WordPiece::new(&vocab, unk, normalizer, Some(100));
        finish(vocab, Model::WordPiece(model), unk, frame)
    }
}

fn read_bpe(file: File) -> Result<Tokenizer> {
    let model = &file.model;
    let given = |affix: &Option<String>| affix.clone().filter(|a| !a.is_empty());
    if model.byte_fallback || given(&model.continuing_subword_prefix).is_some() {
        return Err(invalid(TYPE, "BPE is supported over bytes only, without prefixes"));
    }
    let suffix = given(&model.end_of_word_suffix);
    let normalizer = normalize::Normalizer::read(file.normalizer.as_ref())?;
    if normalizer.charsmap.is_some() {
        return Err(invalid(NORMALIZER, "\"Precompiled\" is not supported with BPE"));
    }
    let mut rules = Vec::new();
    let mut byte_level = false;
    push_rules(file.pre_tokenizer.as_ref(), &mut rules, &mut byte_level)?;
    if !byte_level {
        return Err(invalid(PRE, "BPE is supported over bytes only"));
    }
    let vocab = read_vocab(&file, |text, _| text.to_owned())?;
    let mut merges = Merges::new(model.merges.len(), MERGES);
    for merge in &model.merges {
        match merge {
            MergePart::Text(text) => merges.add_text(&vocab, text.as_bytes())?,
            MergePart::Pair(left, right) => merges.add(&vocab, left.as_bytes(), right.as_bytes())?,
        }
    }
    let unk = model.unk_token.as_ref().and_then(|text| vocab.id(text.as_bytes()));
    let frame = read_frame(file.post_processor.as_ref(), &vocab)?;
    let mut bpe = Bpe::new(&vocab, merges, Splitter::new(rules), model.ignore_merges);
    if let Some(suffix) = suffix {
        bpe = bpe.with_suffix(&vocab, &suffix);
    }
    let mut tokenizer = finish(vocab, Model::Bpe(Box::new(bpe)), unk, frame)?;
    tokenizer.normalizer = normalizer.steps;
    Ok(tokenizer)
}

fn read_unigram(file: File) -> Result<Tokenizer> {
    let model = &file.model;
    if model.byte_fallback {
        return Err(invalid(TYPE, "Unigram is supported without byte_fallback only"));
    }
    if model.vocab.1.len() != model.vocab.0.len() {
        return Err(invalid(VOCAB, "Unigram needs a score for each token"));
    }
    let normalizer = normalize::Normalizer::read(file.normalizer.as_ref())?;
    let prefix = reads_words(file.pre_tokenizer.as_ref())?;
    let unk = model.unk_id.filter(|&id| (id as usize) < model.vocab.0.len());
    let vocab = read_vocab(&file, |text, _| text.to_owned())?;
    let frame = read_frame(file.post_processor.as_ref(), &vocab)?;
    let spaces = Spaces { prefix, suffix: false, merge: false };
    let unigram = Unigram::with_table(&vocab, unk, normalizer.charsmap.as_deref(), spaces)?;
    let mut tokenizer = finish(vocab, Model::Unigram(unigram), unk, frame)?;
    tokenizer.normalizer = normalizer.steps;
    tokenizer.add_space_prefix = prefix;
    Ok(tokenizer)
}

/// Whether a pre-tokenizer made of `Metaspace` (and `WhitespaceSplit`, after which it changes nothing) puts a space
/// before the text.
fn reads_words(part: Option<&Value>) -> Result<bool> {
    let Some(part) = part.filter(|part| !part.is_null()) else { return Ok(false) };
    let parts = match kind_of(Some(part)) {
        Some("Sequence") => part.get("pretokenizers").and_then(Value::as_array).cloned().unwrap_or_default(),
        _ => vec![part.clone()],
    };
    let mut prefix = false;
    for part in &parts {
        match kind_of(Some(part)) {
            Some("WhitespaceSplit") => {}
            Some("Metaspace") if part.get("replacement").and_then(Value::as_str) == Some(SPACE) => {
                let scheme = part.get("prepend_scheme").and_then(Value::as_str);
                let flag = part.get("add_prefix_space").and_then(Value::as_bool);
                prefix = scheme.map_or(flag.unwrap_or(true), |scheme| scheme != "never");
            }
            _ => return Err(unsupported(format!("Unigram with the pre-tokenizer {part}"))),
        }
    }
    Ok(prefix)
}

fn read_wordpiece(file: File) -> Result<Tokenizer> {
    let model = &file.model;
    if model.continuing_subword_prefix.as_deref().is_some_and(|prefix| prefix != CONTINUES) {
        return Err(invalid(TYPE, format!("WordPiece is supported with the prefix {CONTINUES:?} only")));
    }
    let normalizer = match (kind_of(file.normalizer.as_ref()), &file.normalizer) {
        (Some("BertNormalizer"), Some(options)) => {
            let option = |name: &str| options.get(name).and_then(Value::as_bool);
            if option("clean_text") == Some(false) || option("handle_chinese_chars") == Some(false) {
                return Err(invalid(NORMALIZER, "BertNormalizer is supported with all its steps only"));
            }
            let lowercase = option("lowercase").unwrap_or(true);
            Normalizer {
                strip_accents: option("strip_accents").unwrap_or(lowercase),
                ..Normalizer::of_bert(lowercase)
            }
        }
        (other, _) => return Err(invalid(NORMALIZER, format!("{other:?} is not supported with WordPiece"))),
    };
    if kind_of(file.pre_tokenizer.as_ref()) != Some("BertPreTokenizer") {
        return Err(unsupported("WordPiece is supported with BertPreTokenizer only"));
    }
    let vocab = read_vocab(&file, word_piece)?;
    let unk_text = model.unk_token.as_deref().unwrap_or("[UNK]");
    let unk = vocab.id(unk_text.as_bytes()).or_else(|| vocab.id(word_piece(unk_text, false).as_bytes()));
    let frame = read_frame(file.post_processor.as_ref(), &vocab)?;
    let max_chars = model.max_input_chars_per_word.unwrap_or(100);
    let wordpiece = WordPiece::new(&vocab, unk, normalizer, Some(max_chars));
    finish(vocab, Model::WordPiece(wordpiece), unk, frame)
}

fn finish(mut vocab: Vocab, model: Model, unk: Option<u32>, frame: Frame) -> Result<Tokenizer> {
    let (first, last) = frame;
    let framed = matches!(model, Model::WordPiece(_));
    let eos = last.filter(|_| !framed);
    let specials = Specials {
        bos: first,
        eos,
        unk,
        sep: last.filter(|_| framed),
        add_bos: first.is_some(),
        add_eos: eos.is_some(),
        add_sep: framed && last.is_some(),
        sep_between: false,
        end_of_generation: mark_known_texts(eos.into_iter().collect(), &mut vocab),
    };
    // Only word pieces have a space before the first word that no text had.
    Ok(Tokenizer::new(vocab, specials, model, framed, framed))
}

/// How a piece is written in our vocabulary: the start of a word is marked instead of what continues it.
fn word_piece(text: &str, special: bool) -> String {
    match text.strip_prefix(CONTINUES) {
        _ if special => text.to_owned(),
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => format!("{SPACE}{text}"),
    }
}

/// The vocabulary with the added tokens; `rewrite` turns a text (and whether it is an added one) into ours.
fn read_vocab(file: &File, rewrite: impl Fn(&str, bool) -> String) -> Result<Vocab> {
    let entries = &file.model.vocab.0;
    let ids = entries.iter().map(|e| e.1).chain(file.added_tokens.iter().map(|t| t.id));
    let n_tokens = ids.max().map_or(0, |id| id as usize + 1);
    if n_tokens > 2 * (entries.len() + file.added_tokens.len()) + 1024 {
        return Err(invalid(VOCAB, format!("the ids reach {n_tokens}, far beyond the number of tokens")));
    }
    let mut texts = vec![String::new(); n_tokens];
    // Ids without a token stand for no text.
    let mut attrs = vec![0; n_tokens];
    for (text, id) in entries {
        let (slot, bits) = (&mut texts[*id as usize], &mut attrs[*id as usize]);
        if *bits != 0 {
            return Err(invalid(VOCAB, format!("{text:?} is not the only token {id}")));
        }
        (*slot, *bits) = (rewrite(text, false), attr::NORMAL);
    }
    for token in &file.added_tokens {
        let (slot, bits) = (&mut texts[token.id as usize], &mut attrs[token.id as usize]);
        if token.single_word {
            return Err(invalid(
                ADDED,
                format!("{:?} asks for single words, which is not supported", token.content),
            ));
        }
        if *bits != 0 && *slot != rewrite(&token.content, false) {
            return Err(invalid(ADDED, format!("{:?} is not the only token {}", token.content, token.id)));
        }
        *slot = rewrite(&token.content, true);
        *bits = if token.special { attr::CONTROL } else { attr::USER_DEFINED };
        *bits |= if token.lstrip { attr::LSTRIP } else { 0 } | if token.rstrip { attr::RSTRIP } else { 0 };
    }
    let mut array = StrArray::default();
    texts.iter().for_each(|text| array.push(text.as_bytes()));
    let mut scores = file.model.vocab.1.clone();
    scores.resize(n_tokens, 0.0);
    Vocab::new(array, scores, attrs).map_err(|error| error.key(VOCAB))
}

/// The `type` of a part.
fn kind_of(part: Option<&Value>) -> Option<&str> {
    part?.get("type")?.as_str()
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Code::UnsupportedPreTokenizer, message).key(PRE)
}

/// The regular expressions that `Split` parts of supported models hold.
#[rustfmt::skip]
const PATTERNS: &[(&str, Rule)] = &[
    (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", Rule::Gpt2),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", LLAMA3),
    (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", QWEN2),
    (r"\p{N}{1,3}", Rule::Numbers(3)),
    (r"\p{N}", Rule::Numbers(1)),
    (r"[一-龥぀-ゟ゠-ヿ]+", CHINESE_JAPANESE),
    (CLIP_PATTERN, Rule::Clip),
    (r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##, Rule::DeepSeek3),
];

/// Of CLIP, which leaves out what it does not match.
const CLIP_PATTERN: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Appends the rules of a pre-tokenizer; sets `byte_level` where it is one.
fn push_rules(part: Option<&Value>, rules: &mut Vec<Rule>, byte_level: &mut bool) -> Result<()> {
    let Some(part) = part.filter(|part| !part.is_null()) else { return Ok(()) };
    let flag = |name: &str, default: bool| part.get(name).and_then(Value::as_bool).unwrap_or(default);
    match kind_of(Some(part)) {
        Some("Sequence") => {
            let parts = part.get("pretokenizers").and_then(Value::as_array);
            for part in parts.ok_or_else(|| unsupported("a sequence without parts"))? {
                // One level is all that occurs, and recursion without end is what a hostile file wants.
                if kind_of(Some(part)) == Some("Sequence") {
                    return Err(unsupported("a sequence within a sequence"));
                }
                push_rules(Some(part), rules, byte_level)?;
            }
        }
        Some("ByteLevel") if flag("add_prefix_space", true) => {
            return Err(unsupported("ByteLevel with add_prefix_space"));
        }
        Some("ByteLevel") => {
            *byte_level = true;
            rules.extend(flag("use_regex", true).then_some(Rule::Gpt2));
        }
        Some("Digits") => {
            rules.push(Rule::Numbers(if flag("individual_digits", false) { 1 } else { usize::MAX }))
        }
        Some("Split") => {
            let pattern = part.get("pattern").and_then(|p| p.get("Regex")).and_then(Value::as_str);
            let rule = PATTERNS.iter().find(|(known, _)| Some(*known) == pattern);
            let behavior = part.get("behavior").and_then(Value::as_str);
            let wanted = if pattern == Some(CLIP_PATTERN) { ("Removed", true) } else { ("Isolated", false) };
            match rule {
                Some((_, rule)) if (behavior, flag("invert", false)) == (Some(wanted.0), wanted.1) => {
                    rules.push(*rule);
                }
                _ => {
                    return Err(unsupported(format!(
                        "a split by {}",
                        part.get("pattern").unwrap_or(&Value::Null)
                    )));
                }
            }
        }
        other => return Err(unsupported(format!("the pre-tokenizer {other:?}"))),
    }
    Ok(())
}

/// The tokens put before and after a text.
type Frame = (Option<u32>, Option<u32>);

fn read_frame(part: Option<&Value>, vocab: &Vocab) -> Result<Frame> {
    let fault = |what: &str| invalid(POST, what.to_owned());
    let Some(part) = part.filter(|part| !part.is_null()) else { return Ok((None, None)) };
    let token = |text: Option<&str>| match text.and_then(|text| vocab.id(text.as_bytes())) {
        Some(id) => Ok(Some(id)),
        None => Err(fault("adds a token that is not in the vocabulary")),
    };
    match kind_of(Some(part)) {
        Some("ByteLevel") => Ok((None, None)),
        Some("BertProcessing" | "RobertaProcessing") => {
            let text = |name: &str| part.get(name).and_then(|pair| pair.get(0)).and_then(Value::as_str);
            Ok((token(text("cls"))?, token(text("sep"))?))
        }
        Some("TemplateProcessing") => {
            let items =
                part.get("single").and_then(Value::as_array).ok_or_else(|| fault("has no template"))?;
            let special = |item: &Value| {
                item.get("SpecialToken").map(|t| t.get("id").and_then(Value::as_str).map(str::to_owned))
            };
            let specials: Vec<_> = items.iter().map(special).collect();
            match &specials[..] {
                [None] => Ok((None, None)),
                [Some(first), None] => Ok((token(first.as_deref())?, None)),
                [None, Some(last)] => Ok((None, token(last.as_deref())?)),
                [Some(first), None, Some(last)] => Ok((token(first.as_deref())?, token(last.as_deref())?)),
                _ => Err(fault("has a template other than at most one token before the text and one after")),
            }
        }
        Some("Sequence") => {
            let parts =
                part.get("processors").and_then(Value::as_array).ok_or_else(|| fault("has no parts"))?;
            let mut frame = (None, None);
            for part in parts {
                match kind_of(Some(part)) {
                    Some("ByteLevel") => (),
                    Some("TemplateProcessing") => frame = read_frame(Some(part), vocab)?,
                    _ => return Err(fault("has a part that is not supported")),
                }
            }
            Ok(frame)
        }
        _ => Err(fault("is not supported")),
    }
}
