//! `/v1/chat/completions`.

use super::answers::{Head, Host, Stopped, Usage, finish_reason, of_choice, stream, whole, write};
use super::calls::{self, Call, CallFilter};
use super::fields::{Fields, bad};
use super::http::{Events, refuse};
use crate::cli::chat::now;
use crate::error::{Code, Error, Result};
use crate::tasks::{ChatRequest, GenerateOptions, Scored, StepLogprobs, TextModel};
use serde_json::{Value, json};
use tiny_http::Request;

/// A request that has been understood.
struct Plan {
    prompt: Vec<u32>,
    options: GenerateOptions,
    /// Names of the tools on offer.
    tools: Vec<String>,
    n: usize,
    is_stream: bool,
    with_usage: bool,
}

pub(super) fn answer(host: &mut Host, request: Request, fields: &Fields) {
    let head = host.head("chatcmpl");
    let planned = host.text().and_then(|model| plan(model, fields));
    match (host.text(), planned) {
        (Ok(model), Ok(plan)) if plan.is_stream => {
            stream(request, |events| chunks(model, &plan, &head, events));
        }
        (Ok(model), Ok(plan)) => whole(request, || completion(model, &plan, &head)),
        (Err(error), _) | (_, Err(error)) => refuse(request, &error.into()),
    }
}

fn plan(model: &mut TextModel, fields: &Fields) -> Result<Plan> {
    let tools: Vec<Value> = match fields.value("tool_choice").and_then(Value::as_str) {
        Some("none") => Vec::new(),
        _ => fields.get("tools")?.unwrap_or_default(),
    };
    let mut conversation = json!({ "messages": fields.value("messages") });
    for key in ["documents", "enable_thinking", "chat_template_kwargs"] {
        conversation[key] = fields.value(key).cloned().unwrap_or_default();
    }
    if !tools.is_empty() {
        conversation["tools"] = tools.clone().into();
    }
    let mut options = fields.options(model.info().context_length)?;
    options.json_schema = wanted_schema(fields, &tools)?;
    options.logprobs = match fields.get("logprobs")?.unwrap_or(false) {
        true => Some(fields.get("top_logprobs")?.unwrap_or(0)),
        false => None,
    };
    options.validate()?;
    options.read_grammar()?;
    let stream_options = fields.value("stream_options").and_then(|options| options.get("include_usage"));
    let request = ChatRequest::from_json(&conversation.to_string())?;
    let prompt = model.chat_tokens(&request, now())?;
    if prompt.len() >= model.info().context_length && !options.context_shift {
        let what = format!("{} tokens leave no room in the context", prompt.len());
        return Err(Error::new(Code::ContextOverflow, what).key("messages"));
    }
    Ok(Plan {
        prompt,
        options,
        tools: tools.iter().filter_map(calls::name_of).map(String::from).collect(),
        n: fields.n()?,
        is_stream: fields.get("stream")?.unwrap_or(false),
        with_usage: stream_options == Some(&Value::Bool(true)),
    })
}

/// What the answer has to keep to: a call that has to be made, or the format of the response.
fn wanted_schema(fields: &Fields, tools: &[Value]) -> Result<Option<String>> {
    const CHOICES: &str =
        "\"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\"}}";
    match fields.value("tool_choice") {
        None => {}
        Some(Value::String(choice)) => match choice.as_str() {
            "auto" | "none" => {}
            "required" => return calls::schema(tools, None).map(Some),
            _ => return Err(bad("tool_choice", format!("tool_choice must be {CHOICES}"))),
        },
        Some(choice) => match calls::name_of(choice) {
            Some(name) => return calls::schema(tools, Some(name)).map(Some),
            None => return Err(bad("tool_choice", format!("tool_choice must be {CHOICES}"))),
        },
    }
    let Some(format) = fields.value("response_format") else { return Ok(None) };
    let schema = match format.get("type").and_then(Value::as_str) {
        Some("text") => return Ok(None),
        Some("json_object") => json!({ "type": "object" }),
        Some("json_schema") => format.pointer("/json_schema/schema").cloned().unwrap_or_default(),
        _ => Value::Null,
    };
    if !schema.is_object() {
        let rule =
            "response_format must be of type \"text\", \"json_object\", or \"json_schema\" with a schema";
        return Err(bad("response_format", rule));
    }
    Ok(Some(schema.to_string()))
}

/// A part of an answer.
enum Part {
    Content(String),
    Calls(Vec<Call>),
}

/// Writes one answer; gives why it ended. `take` gets its parts, with the log-probabilities of their tokens.
fn parts(
    model: &mut TextModel,
    plan: &Plan,
    index: usize,
    usage: &mut Usage,
    mut take: impl FnMut(Part, Vec<Value>) -> std::result::Result<(), Stopped>,
) -> std::result::Result<&'static str, Stopped> {
    let mut filter = (!plan.tools.is_empty()).then(|| CallFilter::new(plan.tools.clone()));
    let mut logprobs = Vec::new();
    let reason = write(model, &plan.prompt, of_choice(&plan.options, index), usage, |text, of_token| {
        logprobs.extend(of_token.map(|of_token| token_logprobs(&of_token)));
        let free = filter.as_mut().map_or_else(|| text.to_string(), |filter| filter.push(text));
        match free.is_empty() {
            true => Ok(()),
            false => take(Part::Content(free), std::mem::take(&mut logprobs)),
        }
    })?;
    let (rest, calls) = filter.map(CallFilter::finish).unwrap_or_default();
    if !rest.is_empty() {
        take(Part::Content(rest), std::mem::take(&mut logprobs))?;
    }
    if calls.is_empty() {
        return Ok(finish_reason(reason));
    }
    take(Part::Calls(calls), logprobs)?;
    Ok("tool_calls")
}

fn completion(model: &mut TextModel, plan: &Plan, head: &Head) -> Result<Value> {
    let mut usage = Usage::default();
    let mut choices = Vec::new();
    for index in 0..plan.n {
        let (mut content, mut calls, mut logprobs) = (String::new(), Vec::new(), Vec::new());
        let ended = parts(model, plan, index, &mut usage, |part, of_part| {
            logprobs.extend(of_part);
            match part {
                Part::Content(text) => content.push_str(&text),
                Part::Calls(found) => calls = found,
            }
            Ok(())
        });
        let reason = match ended {
            Ok(reason) => reason,
            Err(Stopped::Error(error)) => return Err(error),
            Err(Stopped::ClientGone) => break,
        };
        let mut message = json!({ "role": "assistant", "content": content });
        if !calls.is_empty() {
            message["tool_calls"] = call_documents(&calls, head, index).into();
            if content.is_empty() {
                message["content"] = Value::Null;
            }
        }
        let logprobs = plan.options.logprobs.map(|_| json!({ "content": logprobs }));
        choices.push(
            json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": reason }),
        );
    }
    let mut document = head.document("chat.completion", &choices.into());
    document["usage"] = usage.document();
    Ok(document)
}

fn chunks(
    model: &mut TextModel,
    plan: &Plan,
    head: &Head,
    events: &mut Events,
) -> std::result::Result<(), Stopped> {
    const OBJECT: &str = "chat.completion.chunk";
    let mut usage = Usage::default();
    for index in 0..plan.n {
        let chunk = |delta: Value, logprobs: Vec<Value>, reason: Option<&str>| {
            let logprobs = (!logprobs.is_empty()).then(|| json!({ "content": logprobs }));
            let choice =
                json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason });
            head.document(OBJECT, &json!([choice]))
        };
        events.send(&chunk(json!({ "role": "assistant", "content": "" }), vec![], None))?;
        let reason = parts(model, plan, index, &mut usage, |part, logprobs| {
            let delta = match part {
                Part::Content(text) => json!({ "content": text }),
                Part::Calls(calls) => {
                    let mut calls = call_documents(&calls, head, index);
                    calls.iter_mut().enumerate().for_each(|(at, call)| call["index"] = at.into());
                    json!({ "tool_calls": calls })
                }
            };
            Ok(events.send(&chunk(delta, logprobs, None))?)
        })?;
        events.send(&chunk(json!({}), vec![], Some(reason)))?;
    }
    if plan.with_usage {
        let mut last = head.document(OBJECT, &json!([]));
        last["usage"] = usage.document();
        events.send(&last)?;
    }
    Ok(())
}

/// Calls in OpenAI's shape. Some templates want ids of nine letters and digits.
fn call_documents(calls: &[Call], head: &Head, index: usize) -> Vec<Value> {
    let unique = head.unique();
    let document = |(at, call): (usize, &Call)| {
        let id =
            format!("{:09x}", (unique.wrapping_mul(4096) + index as u64 * 64 + at as u64) & 0xf_ffff_ffff);
        json!({ "id": id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
    };
    calls.iter().enumerate().map(document).collect()
}

fn token_logprobs(step: &StepLogprobs) -> Value {
    let mut chosen = scored(&step.chosen);
    chosen["top_logprobs"] = step.top.iter().map(scored).collect();
    chosen
}

pub(super) fn scored(scored: &Scored) -> Value {
    let token = String::from_utf8_lossy(&scored.bytes);
    json!({ "token": token, "logprob": scored.logprob, "bytes": scored.bytes })
}
