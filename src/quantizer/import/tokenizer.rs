//! `tokenizer.json` and `tokenizer_config.json` under GGUF's keys.

use super::Files;
use super::hparams::Hparams;
use super::names::Arch;
use crate::container::{Array, Metadata, Value as Meta};
use crate::error::{Code, Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// GGUF's kinds of tokens.
mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    r#type: Option<String>,
    vocab: Map<String, Value>,
    #[serde(default)]
    merges: Vec<Merge>,
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

fn invalid(key: &str, rule: impl Into<String>) -> Error {
    Error::new(Code::TokenizerInvalid, rule).key(key)
}

/// Adds the tokenizer; a model without `tokenizer.json` is refused.
pub fn write(
    files: &Files,
    hparams: &Hparams,
    arch: &Arch,
    n_vocab: Option<usize>,
    metadata: &mut Metadata,
) -> Result<()> {
    let text = files.tokenizer.as_deref().ok_or_else(|| {
        invalid("tokenizer.json", "it is missing: a language model cannot be written without its tokenizer")
    })?;
    let file: File = serde_json::from_str(text)
        .map_err(|e| invalid("tokenizer.json", format!("not a tokenizer: {e}")).source(e))?;
    let config: Value = match files.tokenizer_config.as_deref().map(serde_json::from_str).transpose() {
        Ok(config) => config.unwrap_or(Value::Null),
        Err(e) => return Err(invalid("tokenizer_config.json", format!("not JSON: {e}")).source(e)),
    };
    let mut tokens = Tokens::read(&file, n_vocab)?;
    let put = |metadata: &mut Metadata, key: &str, value: Meta| {
        metadata.push(format!("tokenizer.ggml.{key}"), value)
    };
    let str = |s: &str| Meta::Str(s.into());
    match (file.model.r#type.as_deref().unwrap_or("BPE"), file.model.byte_fallback) {
        ("BPE", false) => {
            put(metadata, "model", str("gpt2"));
            put(metadata, "pre", str(pre_tokenizer(file.pre_tokenizer.as_ref(), arch)?));
            let merges = file.model.merges.iter().map(Merge::text);
            put(metadata, "merges", Meta::Array(Array::Str(merges.collect())));
        }
        ("BPE", true) => {
            put(metadata, "model", str("llama"));
            put(metadata, "pre", str("default"));
            tokens.score_by_merges(&file.model.merges);
            put(metadata, "scores", Meta::Array(Array::F32(tokens.scores.clone())));
        }
        ("WordPiece", _) => {
            put(metadata, "model", str("bert"));
            put(metadata, "pre", str(arch.gguf));
            tokens.mark_word_starts();
            put(metadata, "token_type_count", Meta::U64(hparams.count(&["type_vocab_size"])?.unwrap_or(2)));
        }
        (other, _) => {
            let rule = format!("{other:?} is not supported; BPE and WordPiece are");
            return Err(invalid("model.type", rule));
        }
    }
    put(metadata, "tokens", Meta::Array(Array::Str(tokens.texts.iter().collect())));
    put(metadata, "token_type", Meta::Array(Array::I64(tokens.kinds.clone())));
    special_tokens(&file, &config, hparams, &tokens, metadata);
    let template = files.chat_template.clone().or_else(|| chat_template(&config));
    if let Some(template) = template {
        metadata.push("tokenizer.chat_template".into(), Meta::Str(template.into_bytes()));
    }
    Ok(())
}

impl Merge {
    fn text(&self) -> String {
        match self {
            Merge::Text(text) => text.clone(),
            // A space within a token would look like the one between the two.
            Merge::Pair(a, b) => format!("{} {}", a.replace(' ', "\u{120}"), b.replace(' ', "\u{120}")),
        }
    }

    fn joined(&self) -> String {
        match self {
            Merge::Text(text) => text.replacen(' ', "", 1),
            Merge::Pair(a, b) => format!("{a}{b}"),
        }
    }
}

struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i64>,
    scores: Vec<f32>,
}

impl Tokens {
    fn read(file: &File, n_vocab: Option<usize>) -> Result<Self> {
        let mut entries: Vec<(&str, usize)> = Vec::with_capacity(file.model.vocab.len());
        for (text, id) in &file.model.vocab {
            let id = id.as_u64().ok_or_else(|| invalid("model.vocab", format!("{text:?} has no id")))?;
            entries.push((text, id as usize));
        }
        let ids = entries.iter().map(|e| e.1).chain(file.added_tokens.iter().map(|t| t.id));
        let n_tokens = ids.max().map_or(0, |id| id.saturating_add(1));
        let n = n_vocab.unwrap_or(n_tokens);
        if n_tokens > n || n > 2 * (entries.len() + file.added_tokens.len()) + 4096 {
            return Err(invalid("model.vocab", format!("{n_tokens} tokens do not fit a table of {n}")));
        }
        let mut out = Tokens {
            texts: (0..n).map(|i| format!("[PAD{i}]")).collect(),
            kinds: vec![kind::UNUSED; n],
            scores: vec![0.0; n],
        };
        for (text, id) in entries {
            out.texts[id] = text.into();
            let is_byte =
                file.model.byte_fallback && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            out.kinds[id] = match () {
                () if is_byte => kind::BYTE,
                () if file.model.unk_token.as_deref() == Some(text) => kind::UNKNOWN,
                () => kind::NORMAL,
            };
        }
        for token in &file.added_tokens {
            out.texts[token.id] = token.content.clone();
            if out.kinds[token.id] != kind::UNKNOWN {
                out.kinds[token.id] = if token.special { kind::CONTROL } else { kind::USER_DEFINED };
            }
        }
        Ok(out)
    }

    fn id(&self, text: &str) -> Option<usize> {
        self.texts.iter().position(|t| t == text)
    }

    /// SentencePiece merges by score what BPE merges by rank.
    fn score_by_merges(&mut self, merges: &[Merge]) {
        let ids: std::collections::HashMap<&str, usize> =
            self.texts.iter().enumerate().map(|(i, text)| (text.as_str(), i)).collect();
        let ranked: Vec<(usize, usize)> = merges
            .iter()
            .enumerate()
            .filter_map(|(rank, m)| Some((*ids.get(m.joined().as_str())?, rank)))
            .collect();
        // The first merge that makes a token counts.
        for (id, rank) in ranked.into_iter().rev() {
            self.scores[id] = -(rank as f32);
        }
    }

    /// Word pieces: the start of a word is marked instead of what continues it.
    fn mark_word_starts(&mut self) {
        for (text, kind) in self.texts.iter_mut().zip(&self.kinds) {
            if *kind != kind::NORMAL {
                continue;
            }
            *text = match text.strip_prefix("##") {
                Some(rest) if !rest.is_empty() => rest.into(),
                _ => format!("\u{2581}{text}"),
            };
        }
    }
}

/// GGUF's name of a way to split texts, by the regular expressions that it splits by.
fn pre_tokenizer(part: Option<&Value>, arch: &Arch) -> Result<&'static str> {
    let described = part.map(Value::to_string).unwrap_or_default();
    let has = |pattern: &str| described.contains(pattern);
    let digits = has("Digits");
    let found = match arch.gguf {
        "starcoder2" => Some("starcoder"),
        "smollm3" => Some("smaug-bpe"),
        _ if has(r"\\p{Lu}\\p{Lt}") => Some("gpt-4o"),
        _ if has(r"\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*") && arch.gguf == "llama" => Some("llama-bpe"),
        _ if has(r"\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*") => Some("dbrx"),
        _ if has(r"\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*") && arch.gguf == "stablelm" => Some("stablelm2"),
        _ if has(r"\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*") => Some("qwen2"),
        "granite" => Some("refact"),
        _ if digits && has("ByteLevel") => Some("smollm"),
        _ if has("ByteLevel") && !has("Split") => Some(if arch.gguf == "olmo2" { "dbrx" } else { "gpt-2" }),
        _ => None,
    };
    found.ok_or_else(|| {
        let shown: String = described.chars().take(200).collect();
        Error::new(Code::UnsupportedPreTokenizer, format!("no known way to split texts: {shown}"))
            .key("pre_tokenizer")
    })
}

/// BOS, EOS and their like, by text from `tokenizer_config.json`, else by id from `config.json`.
fn special_tokens(file: &File, config: &Value, hparams: &Hparams, tokens: &Tokens, metadata: &mut Metadata) {
    for (name, key) in [
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("unk", "unknown_token_id"),
        ("sep", "seperator_token_id"),
        ("pad", "padding_token_id"),
        ("cls", "cls_token_id"),
        ("mask", "mask_token_id"),
    ] {
        let given = config.get(format!("{name}_token"));
        let text = given.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
        let by_text = text.and_then(|text| tokens.id(text));
        let by_id = || {
            let id = hparams.get(&format!("{name}_token_id"))?;
            let id = id.as_u64().or_else(|| id.get(0)?.as_u64())? as usize;
            (id < tokens.texts.len()).then_some(id)
        };
        if let Some(id) = by_text.or_else(by_id) {
            metadata.push(format!("tokenizer.ggml.{key}"), Meta::U64(id as u64));
        }
    }
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    let begins = template_begins(file.post_processor.as_ref());
    if let Some(adds) = flag("add_bos_token").or(begins) {
        metadata.push("tokenizer.ggml.add_bos_token".into(), Meta::Bool(adds));
    }
    if let Some(adds) = flag("add_eos_token") {
        metadata.push("tokenizer.ggml.add_eos_token".into(), Meta::Bool(adds));
    }
}

/// Whether the template of a post-processor puts a token before a text; `None` where there is none.
fn template_begins(part: Option<&Value>) -> Option<bool> {
    let part = part?;
    match part.get("type")?.as_str()? {
        "TemplateProcessing" => Some(part.get("single")?.get(0)?.get("SpecialToken").is_some()),
        "Sequence" => part.get("processors")?.as_array()?.iter().find_map(|p| template_begins(Some(p))),
        _ => None,
    }
}

/// The template, or the one called "default" of several.
fn chat_template(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(named) => {
            let named = named.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"))?;
            named.get("template")?.as_str().map(String::from)
        }
        _ => None,
    }
}
