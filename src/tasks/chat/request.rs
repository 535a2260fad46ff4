//! What a caller asks for: messages, tools and switches, checked before a template sees them.

use crate::error::{Code, Error, Result};
use crate::template::{Value, failed};

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];

/// A conversation that the model is to continue, as the API of OpenAI has it.
pub struct ChatRequest {
    messages: Vec<Value>,
    tools: Option<Value>,
    /// What else a template may use: `documents`, `enable_thinking` and so on.
    others: Vec<(String, Value)>,
}

fn bad(key: impl Into<String>, message: impl Into<String>) -> Error {
    Error::new(Code::BadArgument, message).key(key)
}

impl ChatRequest {
    /// Reads a JSON object: `messages`, and maybe `tools`, `documents`, `add_generation_prompt`,
    /// `enable_thinking`, and `chat_template_kwargs` with whatever else the template knows. An array
    /// is taken as the messages alone.
    ///
    /// # Errors
    /// [`Code::BadArgument`] naming what is missing, unknown or of a wrong kind.
    pub fn from_json(json: &str) -> Result<ChatRequest> {
        let value: Value = Value::from_json(json)
            .map_err(|error| bad("messages", format!("cannot be read: {error}")).source(error))?;
        let mut entries = match value {
            Value::List(_) => vec![("messages".to_string(), value)],
            Value::Dict(dict) => {
                let named = |(key, value): &(Value, Value)| {
                    (key.as_str().unwrap_or_default().to_string(), value.clone())
                };
                dict.entries.iter().map(named).collect()
            }
            _ => return Err(bad("messages", "a list of messages is needed")),
        };
        entries.retain(|(_, value)| !matches!(value, Value::None));
        let mut request = ChatRequest { messages: Vec::new(), tools: None, others: Vec::new() };
        for (key, value) in entries {
            match key.as_str() {
                "messages" => request.messages = messages(&value)?,
                "tools" => request.tools = tools(value)?,
                "documents" if matches!(value, Value::List(_)) => request.others.push((key, value)),
                "add_generation_prompt" | "enable_thinking" if matches!(value, Value::Bool(_)) => {
                    request.others.push((key, value));
                }
                "chat_template_kwargs" => request.add_others(&value)?,
                "documents" | "add_generation_prompt" | "enable_thinking" => {
                    return Err(bad(key, format!("{} is not allowed here", value.type_name())));
                }
                _ => return Err(bad(key, "is no option of a conversation")),
            }
        }
        if request.messages.is_empty() {
            return Err(bad("messages", "there is no message"));
        }
        Ok(request)
    }

    fn add_others(&mut self, value: &Value) -> Result<()> {
        let Value::Dict(dict) = value else { return Err(bad("chat_template_kwargs", "an object is needed")) };
        for (key, value) in &dict.entries {
            let key = key.as_str().unwrap_or_default();
            if ["messages", "tools", "bos_token", "eos_token", "unk_token"].contains(&key) {
                return Err(bad("chat_template_kwargs", format!("{key:?} cannot be set here")));
            }
            self.others.push((key.to_string(), value.clone()));
        }
        Ok(())
    }

    pub(super) fn has_tools(&self) -> bool {
        self.tools.is_some()
    }

    /// Whether a message holds calls of tools.
    pub(super) fn has_calls(&self) -> bool {
        self.messages.iter().any(|message| message.get("tool_calls").is_some())
    }

    /// The variables of a template.
    pub(super) fn vars(
        &self,
        arguments_as_objects: bool,
        knows_developer: bool,
    ) -> Result<Vec<(String, Value)>> {
        let prepared = |message: &Value| prepared(message, arguments_as_objects, knows_developer);
        let messages = self.messages.iter().map(prepared).collect::<Result<_>>()?;
        let mut vars = vec![("messages".to_string(), Value::list(messages).map_err(failed)?)];
        vars.extend(self.tools.clone().map(|tools| ("tools".into(), tools)));
        if self.others.iter().all(|(name, _)| name != "add_generation_prompt") {
            vars.push(("add_generation_prompt".into(), Value::Bool(true)));
        }
        vars.extend(self.others.iter().cloned());
        Ok(vars)
    }
}

fn messages(value: &Value) -> Result<Vec<Value>> {
    let Value::List(list) = value else { return Err(bad("messages", "a list of messages is needed")) };
    if list.items.len() > MAX_MESSAGES {
        let message = format!("{} messages, {MAX_MESSAGES} are allowed", list.items.len());
        return Err(bad("messages", message));
    }
    list.items.iter().enumerate().try_for_each(|(i, message)| check(i, message))?;
    Ok(list.items.clone())
}

fn check(i: usize, message: &Value) -> Result<()> {
    let key = format!("messages[{i}]");
    if !matches!(message, Value::Dict(_)) {
        return Err(bad(key, "a message is an object"));
    }
    let role = match message.get("role") {
        Some(role) => role.as_str().ok_or_else(|| bad(format!("{key}.role"), "a role is a text"))?,
        None => return Err(bad(format!("{key}.role"), "a message needs a role")),
    };
    if !ROLES.contains(&role) {
        return Err(bad(format!("{key}.role"), format!("{role:?} is none of {}", ROLES.join(", "))));
    }
    let calls = message.get("tool_calls").filter(|calls| !matches!(calls, Value::None));
    if let Some(calls) = calls {
        check_calls(&key, calls)?;
    }
    let needs_content = role != "assistant" || calls.is_none();
    match message.get("content") {
        Some(Value::Str(_)) => Ok(()),
        None | Some(Value::None) if !needs_content => Ok(()),
        Some(Value::List(parts)) => parts.items.iter().try_for_each(|part| {
            let is_text = part.get("type").and_then(Value::as_str) == Some("text");
            match part.get("text") {
                Some(Value::Str(_)) if is_text => Ok(()),
                _ => Err(bad(format!("{key}.content"), "only parts of the type \"text\" are supported")),
            }
        }),
        _ => Err(bad(format!("{key}.content"), "a text or a list of text parts is needed")),
    }
}

fn check_calls(key: &str, calls: &Value) -> Result<()> {
    let Value::List(list) = calls else { return Err(bad(format!("{key}.tool_calls"), "a list is needed")) };
    for call in &list.items {
        let function = call.get("function").unwrap_or(call);
        if function.get("name").and_then(Value::as_str).is_none() {
            return Err(bad(format!("{key}.tool_calls"), "a call needs the name of a function"));
        }
        if !matches!(function.get("arguments"), Some(Value::Str(_) | Value::Dict(_))) {
            return Err(bad(format!("{key}.tool_calls"), "a call needs arguments: a text or an object"));
        }
    }
    Ok(())
}

/// `None` for a list without any, as transformers takes it.
fn tools(value: Value) -> Result<Option<Value>> {
    let Value::List(list) = &value else { return Err(bad("tools", "a list of tools is needed")) };
    for tool in &list.items {
        let named = tool.get("function").unwrap_or(tool).get("name").and_then(Value::as_str);
        if named.is_none() {
            return Err(bad("tools", "a tool needs the name of its function"));
        }
    }
    Ok((!list.items.is_empty()).then_some(value))
}

/// A message as templates expect it: its content one text, the arguments of calls objects where they can be,
/// the role "developer" only for templates that know it.
fn prepared(message: &Value, arguments_as_objects: bool, knows_developer: bool) -> Result<Value> {
    let Value::Dict(dict) = message else { return Ok(message.clone()) };
    let entries = dict.entries.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            (Some("role"), Value::Str(role)) if &**role == "developer" && !knows_developer => {
                Value::text("system")
            }
            (Some("content"), Value::List(parts)) => {
                let texts = parts.items.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
                Value::from(texts.collect::<Vec<_>>().join("\n"))
            }
            (Some("tool_calls"), Value::List(calls)) => {
                let call = |call: &Value| with_arguments(call, arguments_as_objects);
                Value::list(calls.items.iter().map(call).collect::<Result<_>>()?).map_err(failed)?
            }
            _ => value.clone(),
        };
        Ok((key.clone(), value))
    });
    Value::dict(entries.collect::<Result<_>>()?).map_err(failed)
}

/// A call, or the function in it, with its arguments as an object or as text.
fn with_arguments(call: &Value, as_object: bool) -> Result<Value> {
    let Value::Dict(dict) = call else { return Ok(call.clone()) };
    let entries = dict.entries.iter().map(|(key, value)| {
        let value = match (key.as_str(), value) {
            (Some("function"), function) => with_arguments(function, as_object)?,
            (Some("arguments"), Value::Str(text)) if as_object => match Value::from_json(text) {
                Ok(object @ Value::Dict(_)) => object,
                _ => value.clone(),
            },
            (Some("arguments"), Value::Dict(_)) if !as_object => {
                Value::from(value.to_json().map_err(failed)?)
            }
            _ => value.clone(),
        };
        Ok((key.clone(), value))
    });
    Value::dict(entries.collect::<Result<_>>()?).map_err(failed)
}
