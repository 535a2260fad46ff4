//! Requests and answers over HTTP, and errors in OpenAI's shape.

use crate::error::{Code, Error};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use tiny_http::{HTTPVersion, Header, Request, Response};

/// Longer bodies are refused.
pub(super) const MAX_BODY_BYTES: u64 = 16 << 20;

/// Why a request gets no result.
pub(super) struct Refusal {
    status: u16,
    error: Box<Error>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.code {
            Code::NumericFault | Code::OutOfMemory | Code::Io => 500,
            _ => 400,
        };
        Refusal { status, error: error.into() }
    }
}

impl Refusal {
    pub(super) fn new(status: u16, code: Code, message: impl Into<String>) -> Refusal {
        Refusal { status, error: Error::new(code, message).into() }
    }

    /// OpenAI's error object.
    pub(super) fn document(&self) -> Value {
        let kind = match self.status {
            401 => "authentication_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let Error { message, key, code, .. } = &*self.error;
        json!({ "error": { "message": message, "type": kind, "param": key, "code": code.as_str() } })
    }
}

fn header(name: &str, value: &str) -> Header {
    match Header::from_bytes(name, value) {
        Ok(header) => header,
        Err(()) => unreachable!("all headers written here are ASCII"),
    }
}

/// Answers with JSON. Where the client has gone, nobody is there to be told.
pub(super) fn answer(request: Request, status: u16, document: &impl Serialize) {
    let body = serde_json::to_vec(document).unwrap_or_default();
    let json = header("Content-Type", "application/json");
    let _ = request.respond(Response::from_data(body).with_status_code(status).with_header(json));
}

pub(super) fn refuse(request: Request, refusal: &Refusal) {
    answer(request, refusal.status, &refusal.document());
}

/// The value of a header.
pub(super) fn header_of<'a>(request: &'a Request, name: &'static str) -> Option<&'a str> {
    request.headers().iter().find(|header| header.field.equiv(name)).map(|header| header.value.as_str())
}

/// The body of a request.
///
/// # Errors
/// 413 beyond the limit, 415 where it is not declared to be JSON, 400 where it ends early.
pub(super) fn body(request: &mut Request) -> Result<Vec<u8>, Refusal> {
    // A page of another site can send other types without asking first.
    let is_json =
        header_of(request, "Content-Type").is_some_and(|value| value.starts_with("application/json"));
    if !is_json {
        return Err(Refusal::new(415, Code::BadArgument, "the Content-Type must be application/json"));
    }
    let too_long = || Refusal::new(413, Code::LimitExceeded, format!("more than {MAX_BODY_BYTES} bytes"));
    if request.body_length().is_some_and(|len| len as u64 > MAX_BODY_BYTES) {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    request.as_reader().take(MAX_BODY_BYTES + 1).read_to_end(&mut bytes).map_err(|error| {
        let error = Error::new(Code::Io, format!("the body cannot be read: {error}")).source(error);
        Refusal { status: 400, error: error.into() }
    })?;
    if bytes.len() as u64 > MAX_BODY_BYTES { Err(too_long()) } else { Ok(bytes) }
}

/// Server-sent events.
pub(super) struct Events {
    out: Box<dyn Write + Send>,
    is_chunked: bool,
}

impl Events {
    /// Begins the answer.
    pub(super) fn begin(request: Request) -> io::Result<Events> {
        let is_chunked = *request.http_version() >= HTTPVersion(1, 1);
        let framing = if is_chunked { "Transfer-Encoding: chunked" } else { "Connection: close" };
        let mut out = request.into_writer();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n{framing}\r\n\r\n"
        )?;
        out.flush()?;
        Ok(Events { out, is_chunked })
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.is_chunked {
            write!(self.out, "{:x}\r\n{text}\r\n", text.len())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    /// One event, at once.
    pub(super) fn send(&mut self, document: &Value) -> io::Result<()> {
        self.write(&format!("data: {document}\n\n"))
    }

    /// Ends the answer.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.write("data: [DONE]\n\n")?;
        if self.is_chunked {
            self.out.write_all(b"0\r\n\r\n")?;
        }
        self.out.flush()
    }
}
