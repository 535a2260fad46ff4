//! Conversations as prompts: the model's own chat template, or ChatML where the file has none.

mod marks;
mod request;

pub use request::ChatRequest;

use super::TextModel;
use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::template::{self, Clock, Value};
use crate::tokenizer::Tokenizer;
use marks::Marks;

const TEMPLATE: &str = "tokenizer.chat_template";
/// Names of further templates, each under [`TEMPLATE`] with a dot and its name.
const TEMPLATES: &str = "tokenizer.chat_templates";

/// For models whose files have no template: the format that most models know.
const CHATML: &str = "\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The chat templates of a model.
#[derive(Clone, Debug, Default)]
pub struct ChatFormat {
    template: Option<String>,
    /// Those for a purpose, such as "tool_use".
    named: Vec<(String, String)>,
}

/// A conversation as the model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatPrompt {
    /// The text, special tokens written out.
    pub text: String,
    /// What in the text comes from messages and only looks like a special token: ranges of bytes.
    plain: Vec<(usize, usize)>,
}

impl ChatFormat {
    /// Reads `tokenizer.chat_template` and the named templates of a GGUF file.
    ///
    /// # Errors
    /// [`Code::BadType`] where one of them is no text.
    pub fn from_gguf(meta: &Metadata) -> Result<ChatFormat> {
        let template = meta.str(TEMPLATE)?.map(str::to_string);
        let mut named = Vec::new();
        if let Some(Array::Str(names)) = meta.array(TEMPLATES)? {
            for name in names.iter().take(64) {
                let name = String::from_utf8_lossy(name).into_owned();
                if let Some(text) = meta.str(&format!("{TEMPLATE}.{name}"))? {
                    named.push((name, text.to_string()));
                }
            }
        }
        // Files that do not list their names still have this one.
        if named.iter().all(|(name, _)| name != "tool_use")
            && let Some(text) = meta.str(&format!("{TEMPLATE}.tool_use"))?
        {
            named.push(("tool_use".into(), text.to_string()));
        }
        Ok(ChatFormat { template, named })
    }

    /// A format with the given template.
    pub fn from_template(template: impl Into<String>) -> ChatFormat {
        ChatFormat { template: Some(template.into()), named: Vec::new() }
    }

    /// Where the template comes from, for people.
    pub fn origin(&self) -> &'static str {
        if self.template.is_some() || !self.named.is_empty() { "model" } else { "chatml (the file has none)" }
    }

    /// The template for a conversation with or without tools, as transformers chooses it.
    fn source(&self, has_tools: bool) -> &str {
        let named =
            |wanted: &str| self.named.iter().find(|(name, _)| name == wanted).map(|(_, text)| &**text);
        let for_tools = if has_tools { named("tool_use") } else { None };
        for_tools.or(self.template.as_deref()).or(named("default")).unwrap_or(CHATML)
    }

    /// Renders a conversation.
    ///
    /// What comes from messages, tools and documents never becomes a special token, whatever it says.
    ///
    /// # Errors
    /// [`Code::TemplateError`] and [`Code::TemplateBudget`] as [`template::render`] has them.
    pub fn render(&self, tokenizer: &Tokenizer, request: &ChatRequest, clock: Clock) -> Result<ChatPrompt> {
        let source = self.source(request.has_tools());
        let first = self.render_with(source, tokenizer, request, true, clock);
        // Some templates want the arguments of calls as objects, others as text, and fail on the other.
        match first {
            Err(error) if error.code == Code::TemplateError && request.has_calls() => {
                self.render_with(source, tokenizer, request, false, clock).map_err(|_| error)
            }
            other => other,
        }
    }

    fn render_with(
        &self,
        source: &str,
        tokenizer: &Tokenizer,
        request: &ChatRequest,
        arguments_as_objects: bool,
        clock: Clock,
    ) -> Result<ChatPrompt> {
        let mut vars = request.vars(arguments_as_objects, source.contains("developer"))?;
        let marks = Marks::choose(source, vars.iter().map(|(_, value)| value))?;
        for (_, value) in &mut vars {
            *value = marks.guard(tokenizer, value)?;
        }
        let token =
            |id: Option<u32>| id.and_then(|id| tokenizer.token_bytes(id)).map(String::from_utf8_lossy);
        let special =
            [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.eos()), ("unk_token", tokenizer.unk())];
        for (name, id) in special {
            if let Some(text) = token(id) {
                vars.push((name.into(), Value::text(&text)));
            }
        }
        Ok(marks.lift(&template::render(source, vars, clock)?))
    }
}

impl ChatPrompt {
    /// The token ids: BOS first where the model wants one and the template has not written it.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for a text beyond the tokenizer's limit.
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let ids = tokenizer.encode_mixed(&self.text, &self.plain, false)?;
        match tokenizer.bos() {
            Some(bos) if tokenizer.add_bos() && ids.first() != Some(&bos) => Ok([&[bos], &ids[..]].concat()),
            _ => Ok(ids),
        }
    }

    /// What follows the first `n_bytes` bytes, as the continuation of a text that is encoded already.
    fn encode_from(&self, n_bytes: usize, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let inside = |&(start, end): &(usize, usize)| {
            (end > n_bytes).then(|| (start.saturating_sub(n_bytes), end - n_bytes))
        };
        let plain: Vec<_> = self.plain.iter().filter_map(inside).collect();
        tokenizer.encode_mixed(&self.text[n_bytes..], &plain, true)
    }
}

/// The last conversation that a model was asked to continue.
pub(super) struct LastChat {
    prompt: ChatPrompt,
    ids: Vec<u32>,
}

impl TextModel {
    /// A conversation as text.
    ///
    /// # Errors
    /// As [`ChatFormat::render`].
    pub fn chat_text(&self, request: &ChatRequest, clock: Clock) -> Result<ChatPrompt> {
        self.chat_format().render(self.tokenizer(), request, clock)
    }

    /// The token ids of a conversation that the model is to continue.
    ///
    /// An answer that the model gave itself keeps the ids that it chose, which need not be those of its text:
    /// so the next turn has nothing to process but what is new.
    ///
    /// # Errors
    /// As [`ChatFormat::render`]; [`Code::BadArgument`] for a text beyond the tokenizer's limit.
    pub fn chat_tokens(&mut self, request: &ChatRequest, clock: Clock) -> Result<Vec<u32>> {
        let prompt = self.chat_text(request, clock)?;
        let ids = match self.continued(&prompt) {
            Some((n_bytes, mut ids)) => {
                ids.extend(prompt.encode_from(n_bytes, self.tokenizer())?);
                ids
            }
            None => prompt.encode(self.tokenizer())?,
        };
        if ids.is_empty() {
            return Err(
                Error::new(Code::TemplateError, "the template gives an empty prompt").key("chat_template")
            );
        }
        self.last_chat = Some(LastChat { prompt, ids: ids.clone() });
        Ok(ids)
    }

    /// The ids in the context that stand for the beginning of `prompt`, where these are the last
    /// conversation and what the model wrote then, and how many bytes of `prompt` they are.
    fn continued(&self, prompt: &ChatPrompt) -> Option<(usize, Vec<u32>)> {
        let last = self.last_chat.as_ref()?;
        let answer = self.held().strip_prefix(&last.ids[..])?;
        let n_asked = last.prompt.text.len();
        let rest = prompt.text.strip_prefix(&*last.prompt.text)?;
        let is_before = |&&(start, _): &&(usize, usize)| start < n_asked;
        if !prompt.plain.iter().take_while(is_before).eq(&last.prompt.plain) {
            return None;
        }
        let mut n_bytes = 0;
        let mut n_ids = 0;
        for &id in answer {
            let piece = self.tokenizer().token_bytes(id)?;
            if self.tokenizer().is_control(id) || !rest.as_bytes()[n_bytes..].starts_with(piece) {
                break;
            }
            n_bytes += piece.len();
            n_ids += 1;
        }
        // All of the answer, or nothing: it could have ended within a character or a word.
        if n_ids < answer.len() || n_ids == 0 || !rest.is_char_boundary(n_bytes) {
            return None;
        }
        Some((n_asked + n_bytes, self.held()[..last.ids.len() + n_ids].to_vec()))
    }
}
