//! `bitpane serve`: the model behind an address, in the shape of OpenAI's API.

mod answers;
mod calls;
mod chat;
mod completions;
mod fields;
mod http;

use super::{Failure, Outcome, open, output, output::Output};
use crate::error::{Code, Error};
use crate::tasks::Embedder;
use answers::Host;
use fields::Fields;
use http::Refusal;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tiny_http::{Method, Request, Server};

/// Answer requests in the shape of OpenAI's API: chat completions, completions, embeddings
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bitpane serve model.gguf &
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
       -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'")]
pub(super) struct Args {
    /// A language model or an encoder: a GGUF file
    model: PathBuf,
    /// The address to listen at; others than this machine reach 0.0.0.0, which the default keeps out
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The port to listen at; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Answer only requests with this key ("Authorization: Bearer KEY")
    #[arg(long, value_name = "KEY", env = "BITPANE_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Use the chat template in this file instead of the model's own
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Most tokens that prompt and answer may have together [default: the model's, at most 2048]
    #[arg(long, value_name = "N")]
    context_length: Option<usize>,
    #[command(flatten)]
    load: open::LoadArgs,
}

/// Requests that may wait for the model; more are told to come again.
const MAX_WAITING: usize = 32;
/// Connections whose requests are read at a time.
const MAX_READING: usize = 64;

/// What the model is asked for.
enum Task {
    Chat,
    Completion,
    Embedding,
}

/// A request whose body has come.
struct Job {
    request: Request,
    task: Task,
    fields: Fields,
}

/// What is known without the model.
struct Gate {
    jobs: SyncSender<Job>,
    api_key: Option<String>,
    is_loopback: bool,
    /// The answer to `/v1/models`.
    model: serde_json::Value,
    n_reading: AtomicUsize,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let cannot = |error: &dyn std::fmt::Display| {
        let message = format!("cannot listen at {}:{}: {error}", args.host, args.port);
        Failure::Input(Error::new(Code::Io, message))
    };
    let template = args.template.as_deref().map(super::chat::format).transpose()?;
    // Before the model, which takes longer: the address may be in use.
    let server = Server::http((args.host, args.port)).map_err(|error| cannot(&error))?;
    let mut model = open::embedder_with(&args.model, &args.load, args.context_length)?;
    if let (Embedder::Text(model), Some(format)) = (&mut model, template) {
        model.set_chat_format(format);
    }
    let mut host = Host::new(model, &args.model);
    let (jobs, waiting) = sync_channel(MAX_WAITING);
    let gate = Gate {
        jobs,
        api_key: args.api_key.clone(),
        is_loopback: args.host.is_loopback(),
        model: host.describe(),
        n_reading: AtomicUsize::new(0),
    };
    let port = server.server_addr().to_ip().map_or(args.port, |address| address.port());
    let address = match args.host {
        IpAddr::V4(ip) => format!("http://{ip}:{port}"),
        IpAddr::V6(ip) => format!("http://[{ip}]:{port}"),
    };
    let _ = ctrlc::set_handler(|| std::process::exit(0));
    if out.json {
        out.document(&json!({ "url": address, "port": port, "model": gate.model["id"] }))?;
    } else {
        output::note(format!("{} at {address}/v1; Ctrl-C ends it", host.name()));
    }
    out.flush()?;
    std::thread::spawn(move || listen(&server, &Arc::new(gate)));
    serve(&mut host, &waiting);
    Ok(())
}

/// Answers one request after another.
fn serve(host: &mut Host, waiting: &Receiver<Job>) {
    for Job { request, task, fields } in waiting {
        match task {
            Task::Chat => chat::answer(host, request, &fields),
            Task::Completion => completions::answer(host, request, &fields),
            Task::Embedding => completions::embed(host, request, &fields),
        }
    }
}

/// Reads requests, each in a thread of its own: a client may be slow.
fn listen(server: &Server, gate: &Arc<Gate>) {
    for request in server.incoming_requests() {
        if gate.n_reading.fetch_add(1, Ordering::SeqCst) >= MAX_READING {
            gate.n_reading.fetch_sub(1, Ordering::SeqCst);
            http::refuse(request, &busy());
            continue;
        }
        let gate = Arc::clone(gate);
        std::thread::spawn(move || {
            gate.receive(request);
            gate.n_reading.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn busy() -> Refusal {
    Refusal::new(503, Code::Busy, "too many requests wait already")
}

impl Gate {
    fn receive(&self, mut request: Request) {
        let job = match self.route(&mut request) {
            Ok(Some((task, fields))) => Job { request, task, fields },
            Ok(None) => return self.tell(request),
            Err(refusal) => return http::refuse(request, &refusal),
        };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = self.jobs.try_send(job) {
            http::refuse(job.request, &busy());
        }
    }

    /// What is asked for; `None` for what [`Self::tell`] answers.
    fn route(&self, request: &mut Request) -> Result<Option<(Task, Fields)>, Refusal> {
        self.check_host(request)?;
        let path = path(request);
        let is_get = *request.method() == Method::Get;
        if path == "/health" && is_get {
            return Ok(None);
        }
        self.check_key(request)?;
        let task = match path.as_str() {
            "/v1/models" if is_get => return Ok(None),
            _ if path.starts_with("/v1/models/") && is_get => return Ok(None),
            "/v1/chat/completions" => Task::Chat,
            "/v1/completions" => Task::Completion,
            "/v1/embeddings" => Task::Embedding,
            "/health" | "/v1/models" => return Err(Refusal::new(405, Code::BadArgument, "GET is wanted")),
            _ => return Err(Refusal::new(404, Code::BadArgument, format!("there is nothing at {path:?}"))),
        };
        if *request.method() != Method::Post {
            return Err(Refusal::new(405, Code::BadArgument, "POST is wanted"));
        }
        Ok(Some((task, Fields::read(&http::body(request)?)?)))
    }

    /// Answers what needs no model.
    fn tell(&self, request: Request) {
        let path = path(&request);
        match path.strip_prefix("/v1/models/") {
            Some(id) if self.model["id"] == *id => http::answer(request, 200, &self.model),
            Some(id) => {
                let refusal = Refusal::new(404, Code::BadArgument, format!("there is no model {id:?}"));
                http::refuse(request, &refusal);
            }
            None if path == "/health" => http::answer(request, 200, &json!({ "status": "ok" })),
            None => http::answer(request, 200, &json!({ "object": "list", "data": [self.model] })),
        }
    }

    /// That a page has not had its own name lead here: a browser then sends that name.
    fn check_host(&self, request: &Request) -> Result<(), Refusal> {
        let host = http::header_of(request, "Host").unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, port)| match port.parse::<u16>() {
            Ok(_) => name,
            Err(_) => host,
        });
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let is_local = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if self.is_loopback && !host.is_empty() && !is_local {
            return Err(Refusal::new(403, Code::BadArgument, format!("{host:?} is not this machine")));
        }
        Ok(())
    }

    fn check_key(&self, request: &Request) -> Result<(), Refusal> {
        let Some(key) = &self.api_key else { return Ok(()) };
        let given = http::header_of(request, "Authorization").and_then(|value| value.strip_prefix("Bearer "));
        // All bytes are looked at, so that the time tells nothing.
        let differs = |given: &str| given.bytes().zip(key.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b)) != 0;
        match given {
            Some(given) if given.len() == key.len() && !differs(given) => Ok(()),
            _ => Err(Refusal::new(401, Code::BadArgument, "the key is missing or wrong")),
        }
    }
}

fn path(request: &Request) -> String {
    request.url().split('?').next().unwrap_or_default().to_string()
}
