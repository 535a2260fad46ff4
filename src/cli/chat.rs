//! `bitpane chat`: a conversation with a language model.

use super::sampling::SamplerArgs;
use super::session::SessionArgs;
use super::{Failure, Outcome, open, output, output::Output};
use crate::error::{Code, Error};
use crate::tasks::{ChatFormat, ChatRequest, GenerateOptions, Reason, Step, TextModel};
use crate::template::{Clock, MAX_SOURCE_BYTES};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Most bytes of one line from stdin.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Talk with a language model
#[derive(clap::Args)]
pub(super) struct Args {
    /// A language model: a GGUF file
    model: PathBuf,
    /// Say this and print the answer (may be given several times: one turn each). Without it every line of
    /// stdin is a turn
    #[arg(long, value_name = "TEXT")]
    message: Vec<String>,
    /// Instructions that stand before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Use the template in this file instead of the model's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// For models that can think before they answer: whether they do
    #[arg(long, value_name = "BOOL")]
    enable_thinking: Option<bool>,
    /// Write at most this many tokens in an answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,
    /// End an answer before this text (may be given several times)
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    #[command(flatten)]
    session: SessionArgs,
    #[command(flatten)]
    sampler: SamplerArgs,
    #[command(flatten)]
    load: open::LoadArgs,
}

/// The template in a file.
pub(super) fn format(path: &Path) -> crate::Result<ChatFormat> {
    Ok(ChatFormat::from_template(open::read_text(path, MAX_SOURCE_BYTES as u64)?))
}

/// The time in UTC: the standard library knows no time zones.
pub(super) fn now() -> Clock {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Clock::from_seconds(since.as_secs() as i64)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Turn {
    text: String,
    tokens: Vec<u32>,
    reason: &'static str,
    prompt_tokens: usize,
    cached_tokens: usize,
    forgotten_tokens: usize,
    prompt_ms: f64,
    decode_tokens: usize,
    decode_ms: f64,
}

struct Session<'a> {
    model: Box<TextModel>,
    args: &'a Args,
    options: GenerateOptions,
    system: Option<String>,
    messages: Vec<Value>,
    turns: Vec<Turn>,
}

/// Whether an answer is under way, which Ctrl-C then ends; else it ends the program.
static ANSWERING: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let mut options = GenerateOptions {
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        sampler: args.sampler.params(),
        ..GenerateOptions::default()
    };
    args.session.apply(&mut options);
    options.validate().map_err(Failure::Usage)?;
    let given = args.template.as_deref().map(format).transpose()?;
    let mut model = open::text_model(&args.model, &args.load, args.session.context_length)?;
    let note = args.session.restore(&mut model)?;
    if let Some(format) = given {
        model.set_chat_format(format);
    }
    // What a session of `generate` holds is no conversation.
    let told: Value = serde_json::from_slice(&note).unwrap_or_default();
    let messages = told["messages"].as_array().cloned().unwrap_or_default();
    let system = args.system.clone().or_else(|| told["system"].as_str().map(String::from));
    let mut session = Session { model, args, options, system, messages, turns: Vec::new() };
    if args.message.is_empty() {
        session.take_lines(out)?;
    } else {
        for message in &args.message {
            session.turn(message, out)?;
        }
    }
    let note = json!({ "system": session.system, "messages": session.messages }).to_string();
    args.session.save(&mut session.model, note.as_bytes())?;
    if out.json {
        out.document(&json!({
            "text": session.turns.last().map(|turn| &turn.text),
            "messages": session.with_system(),
            "turns": session.turns,
            "chatTemplate": session.model.info().chat_template,
        }))?;
    }
    Ok(())
}

impl Session<'_> {
    /// Takes a turn for every line; lines that begin with a slash are commands.
    fn take_lines(&mut self, out: &mut Output) -> Outcome {
        let is_person = io::stdin().is_terminal();
        if is_person {
            end_answers_on_interrupt();
            output::note(
                "/reset starts anew, /system TEXT sets instructions, /exit ends; Ctrl-C stops an answer",
            );
        }
        while let Some(line) = read_line(is_person)? {
            let line = line.trim();
            let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match command {
                "" => {}
                "/exit" | "/quit" => break,
                "/reset" => self.messages.clear(),
                "/system" => {
                    self.system = (!rest.trim().is_empty()).then(|| rest.trim().to_string());
                    self.messages.clear();
                }
                _ if command.starts_with('/') => {
                    output::note(format!("{command} is no command: /reset, /system TEXT and /exit are"));
                }
                _ => match self.turn(line, out) {
                    // A person may say something else; where nobody looks, it is a failure.
                    Err(Failure::Input(error)) if is_person => output::report(&error),
                    other => other?,
                },
            }
        }
        Ok(())
    }

    fn with_system(&self) -> Vec<Value> {
        let system = self.system.iter().map(|text| json!({ "role": "system", "content": text }));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Says something and shows the answer. A turn that fails leaves no trace.
    fn turn(&mut self, message: &str, out: &mut Output) -> Outcome {
        let n_before = self.messages.len();
        self.messages.push(json!({ "role": "user", "content": message }));
        ANSWERING.store(true, Ordering::SeqCst);
        let turn = self.answer(out);
        ANSWERING.store(false, Ordering::SeqCst);
        match turn {
            Ok(turn) => {
                self.messages.push(json!({ "role": "assistant", "content": turn.text }));
                self.turns.push(turn);
                Ok(())
            }
            Err(failure) => {
                self.messages.truncate(n_before);
                Err(failure)
            }
        }
    }

    fn answer(&mut self, out: &mut Output) -> Result<Turn, Failure> {
        let request = json!({ "messages": self.with_system(), "enable_thinking": self.args.enable_thinking });
        let request = ChatRequest::from_json(&request.to_string())?;
        let begin = Instant::now();
        let mut prompt_end = begin;
        let prompt = self.model.chat_tokens(&request, now())?;
        let mut generation = self.model.start(prompt, self.options.clone())?;
        let mut text = String::new();
        INTERRUPTED.store(false, Ordering::SeqCst);
        let reason = loop {
            if INTERRUPTED.load(Ordering::SeqCst) {
                break "abort";
            }
            let (piece, end) = match self.model.step(&mut generation)? {
                Step::Prefill { .. } => {
                    prompt_end = Instant::now();
                    continue;
                }
                Step::Piece { text, .. } => (text, None),
                Step::Done { text, reason } => (text, Some(reason)),
            };
            if !out.json {
                out.piece(&piece)?;
            }
            text.push_str(&piece);
            match end {
                Some(Reason::Stop) => break "stop",
                Some(Reason::Length) => break "length",
                Some(Reason::Context) => break "context",
                None => {}
            }
        };
        if !out.json {
            out.piece("\n")?;
        }
        Ok(Turn {
            text,
            tokens: generation.tokens().to_vec(),
            reason,
            prompt_tokens: generation.n_prompt(),
            cached_tokens: generation.n_cached(),
            forgotten_tokens: generation.n_forgotten(),
            prompt_ms: (prompt_end - begin).as_secs_f64() * 1e3,
            decode_tokens: generation.tokens().len(),
            decode_ms: prompt_end.elapsed().as_secs_f64() * 1e3,
        })
    }
}

/// A line of stdin without its end; `None` after the last one.
fn read_line(is_person: bool) -> Result<Option<String>, Error> {
    if is_person {
        let _ = write!(io::stderr(), "{} ", output::styled(">", "1;36"));
        let _ = io::stderr().flush();
    }
    let cannot = |error: io::Error| Error::new(Code::Io, format!("cannot read stdin: {error}")).source(error);
    let mut bytes = Vec::new();
    let n = io::stdin().lock().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(cannot)?;
    if n as u64 > MAX_LINE_BYTES {
        return Err(Error::new(
            Code::LimitExceeded,
            format!("a line of stdin is longer than {MAX_LINE_BYTES} bytes"),
        ));
    }
    if n == 0 {
        return Ok(None);
    }
    let text =
        String::from_utf8(bytes).map_err(|_| Error::new(Code::BadArgument, "stdin is not UTF-8 text"))?;
    Ok(Some(text))
}

/// From now on Ctrl-C ends the answer under way; where there is none, it ends the program.
fn end_answers_on_interrupt() {
    let handler = || {
        if ANSWERING.load(Ordering::SeqCst) {
            INTERRUPTED.store(true, Ordering::SeqCst);
        } else {
            let _ = writeln!(io::stderr());
            std::process::exit(0);
        }
    };
    // Where it cannot be set, Ctrl-C does what it always did.
    let _ = ctrlc::set_handler(handler);
}
