//! `/v1/completions` and `/v1/embeddings`.

use super::answers::{Head, Host, Stopped, Usage, finish_reason, of_choice, stream, whole, write};
use super::fields::{Fields, bad};
use super::http::{Events, refuse};
use crate::error::{Code, Error, Result};
use crate::tasks::{EmbedOptions, GenerateOptions, StepLogprobs, TextModel};
use serde_json::{Map, Value, json};
use tiny_http::Request;

/// Most texts in one request.
const MAX_INPUTS: usize = 2048;
/// OpenAI's default.
const MAX_TOKENS: usize = 16;

struct Plan {
    prompts: Vec<Prompt>,
    options: GenerateOptions,
    n: usize,
    /// Whether the prompt comes back before the answer.
    echo: bool,
    is_stream: bool,
    with_usage: bool,
}

struct Prompt {
    text: String,
    tokens: Vec<u32>,
}

/// The texts or lists of token ids in a field.
enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

fn inputs(fields: &Fields, key: &str) -> Result<Vec<Input>> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(Input::Text(text.clone())),
        value => match serde_json::from_value(value.clone()) {
            Ok(tokens) => Ok(Input::Tokens(tokens)),
            Err(_) => Err(bad(key, format!("{key} must be a text, a list of token ids, or a list of these"))),
        },
    };
    let inputs: Vec<Input> = match fields.value(key) {
        None => return Err(bad(key, format!("{key} is missing"))),
        Some(Value::Array(items)) if !items.first().is_some_and(Value::is_number) => {
            items.iter().map(one).collect::<Result<_>>()?
        }
        Some(value) => vec![one(value)?],
    };
    match inputs.len() {
        1..=MAX_INPUTS => Ok(inputs),
        n => Err(bad(key, format!("{n} texts; 1 to {MAX_INPUTS} are allowed"))),
    }
}

pub(super) fn answer(host: &mut Host, request: Request, fields: &Fields) {
    let head = host.head("cmpl");
    let planned = host.text().and_then(|model| plan(model, fields));
    match (host.text(), planned) {
        (Ok(model), Ok(plan)) if plan.is_stream => {
            stream(request, |events| chunks(model, &plan, &head, events));
        }
        (Ok(model), Ok(plan)) => whole(request, || completion(model, &plan, &head)),
        (Err(error), _) | (_, Err(error)) => refuse(request, &error.into()),
    }
}

fn plan(model: &TextModel, fields: &Fields) -> Result<Plan> {
    if fields.value("suffix").is_some() {
        return Err(bad("suffix", "suffix is not supported"));
    }
    let mut options = fields.options(MAX_TOKENS)?;
    options.logprobs = fields.get("logprobs")?;
    options.validate()?;
    options.read_grammar()?;
    let prompt = |input| {
        let (text, tokens) = match input {
            Input::Text(text) => (text.clone(), model.tokenize(&text, true, false)?),
            Input::Tokens(tokens) => {
                (model.detokenize(&tokens).map_err(|error| error.key("prompt"))?, tokens)
            }
        };
        if tokens.len() >= model.info().context_length && !options.context_shift {
            let what = format!("{} tokens leave no room in the context", tokens.len());
            return Err(Error::new(Code::ContextOverflow, what).key("prompt"));
        }
        Ok(Prompt { text, tokens })
    };
    let prompts = inputs(fields, "prompt")?.into_iter().map(prompt).collect::<Result<Vec<_>>>()?;
    let stream_options = fields.value("stream_options").and_then(|options| options.get("include_usage"));
    Ok(Plan {
        prompts,
        n: fields.n()?,
        echo: fields.get("echo")?.unwrap_or(false),
        is_stream: fields.get("stream")?.unwrap_or(false),
        with_usage: stream_options == Some(&Value::Bool(true)),
        options,
    })
}

/// Writes all answers; `take` gets each one's index and pieces, and at its end why it ended.
fn each(
    model: &mut TextModel,
    plan: &Plan,
    mut take: impl FnMut(usize, &str, Option<StepLogprobs>, Option<&str>) -> std::result::Result<(), Stopped>,
) -> std::result::Result<Usage, Stopped> {
    let mut all = Usage::default();
    for (p, prompt) in plan.prompts.iter().enumerate() {
        let mut usage = Usage::default();
        for choice in 0..plan.n {
            let index = p * plan.n + choice;
            if plan.echo {
                take(index, &prompt.text, None, None)?;
            }
            let options = of_choice(&plan.options, choice);
            let reason = write(model, &prompt.tokens, options, &mut usage, |text, logprobs| {
                take(index, text, logprobs, None)
            })?;
            take(index, "", None, Some(finish_reason(reason)))?;
        }
        all.add(&usage);
    }
    Ok(all)
}

fn completion(model: &mut TextModel, plan: &Plan, head: &Head) -> Result<Value> {
    let mut choices = Vec::new();
    let (mut text, mut logprobs) = (String::new(), Vec::new());
    let usage = each(model, plan, |index, piece, of_piece, ended| {
        text.push_str(piece);
        logprobs.extend(of_piece);
        if let Some(reason) = ended {
            let logprobs = plan.options.logprobs.map(|_| legacy_logprobs(&std::mem::take(&mut logprobs)));
            let text = std::mem::take(&mut text);
            choices
                .push(json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": reason }));
        }
        Ok(())
    });
    let mut document = head.document("text_completion", &choices.into());
    match usage {
        Ok(usage) => document["usage"] = usage.document(),
        Err(Stopped::Error(error)) => return Err(error),
        Err(Stopped::ClientGone) => {}
    }
    Ok(document)
}

fn chunks(
    model: &mut TextModel,
    plan: &Plan,
    head: &Head,
    events: &mut Events,
) -> std::result::Result<(), Stopped> {
    const OBJECT: &str = "text_completion";
    let usage = each(model, plan, |index, text, logprobs, ended| {
        if text.is_empty() && logprobs.is_none() && ended.is_none() {
            return Ok(());
        }
        let logprobs = logprobs.map(|step| legacy_logprobs(&[step]));
        let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": ended });
        Ok(events.send(&head.document(OBJECT, &json!([choice])))?)
    })?;
    if plan.with_usage {
        let mut last = head.document(OBJECT, &json!([]));
        last["usage"] = usage.document();
        events.send(&last)?;
    }
    Ok(())
}

/// The shape that log-probabilities have here, older than that of conversations.
fn legacy_logprobs(steps: &[StepLogprobs]) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let top = |step: &StepLogprobs| {
        let entries = step.top.iter().map(|scored| (text(&scored.bytes), json!(scored.logprob)));
        Value::Object(entries.collect::<Map<_, _>>())
    };
    json!({
        "tokens": steps.iter().map(|step| text(&step.chosen.bytes)).collect::<Vec<_>>(),
        "token_logprobs": steps.iter().map(|step| step.chosen.logprob).collect::<Vec<_>>(),
        "top_logprobs": steps.iter().map(top).collect::<Vec<_>>(),
    })
}

pub(super) fn embed(host: &mut Host, request: Request, fields: &Fields) {
    let model = host.describe()["id"].clone();
    whole(request, || {
        if fields.value("dimensions").is_some() {
            return Err(bad("dimensions", "dimensions is not supported"));
        }
        let format: String = fields.get("encoding_format")?.unwrap_or_else(|| "float".into());
        if format != "float" && format != "base64" {
            return Err(bad("encoding_format", "encoding_format must be \"float\" or \"base64\""));
        }
        let mut n_tokens = 0;
        let mut data = Vec::new();
        for (index, input) in inputs(fields, "input")?.into_iter().enumerate() {
            let tokens = match input {
                Input::Text(text) => host.model.tokenize(&text)?,
                Input::Tokens(tokens) => tokens,
            };
            n_tokens += tokens.len();
            let vector = host.model.embed_tokens(&tokens, &EmbedOptions::default())?;
            let embedding = if format == "base64" { base64(&vector).into() } else { json!(vector) };
            data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
        }
        let usage = json!({ "prompt_tokens": n_tokens, "total_tokens": n_tokens });
        Ok(json!({ "object": "list", "data": data, "model": model, "usage": usage }))
    });
}

/// Little-endian f32 in base64 (RFC 4648): what OpenAI's Python client asks for.
fn base64(vector: &[f32]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| bits << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize] as char;
            out.push(if i <= three.len() { letter } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_the_rfc() {
        // 1.0 is 00 00 80 3f, -2.5 is 00 00 20 c0.
        assert_eq!(super::base64(&[1.0]), "AACAPw==");
        assert_eq!(super::base64(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(super::base64(&[1.0, -2.5, 0.0]), "AACAPwAAIMAAAAAA");
    }
}
