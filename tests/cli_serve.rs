//! `bitpane serve`, `bench` and `completions`, with the model that comes with the page.
#![cfg(not(target_arch = "wasm32"))]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/story.gguf");
const ENCODER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/arch/nomic-bert.gguf");

fn bitpane(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitpane"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that ends with the test.
struct Server {
    child: Child,
    port: u16,
    model: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Response {
    status: u16,
    head: String,
    body: String,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The documents of a stream, which ends as it should.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        assert!(self.head.contains("text/event-stream"), "{}", self.head);
        let mut events: Vec<&str> = self.body.split("\n\n").map(|e| e.trim_start_matches("data: ")).collect();
        assert_eq!(events.pop(), Some(""));
        assert_eq!(events.pop(), Some("[DONE]"));
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

impl Server {
    fn start(model: &str, args: &[&str]) -> Server {
        let mut child =
            bitpane(&[&["serve", model, "--port", "0", "--json"], args].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let port = told["port"].as_u64().unwrap() as u16;
        Server { child, port, model: told["model"].as_str().unwrap().into() }
    }

    fn raw(&self, request: &str) -> Response {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Response { status, head: head.into(), body: if chunked { unchunked(body) } else { body.into() } }
    }

    fn get(&self, path: &str) -> Response {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    fn post(&self, path: &str, body: &str) -> Response {
        self.post_with(path, "Content-Type: application/json\r\n", body)
    }

    fn post_with(&self, path: &str, headers: &str, body: &str) -> Response {
        let n = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{headers}Content-Length: {n}\r\n\r\n{body}",
            self.port
        ))
    }
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    loop {
        let (len, rest) = body.split_once("\r\n").unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        if len == 0 {
            return out;
        }
        out.push_str(&rest[..len]);
        body = &rest[len + 2..];
    }
}

#[test]
fn conversations_have_openai_s_shape_whole_and_streamed() {
    let server = Server::start(MODEL, &[]);
    assert_eq!(server.get("/health").json(), json!({ "status": "ok" }));
    let models = server.get("/v1/models").json();
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!(server.model)));
    assert_eq!(server.get(&format!("/v1/models/{}", server.model)).json()["object"], "model");

    let ask = json!({
        "model": "whatever", "messages": [{ "role": "user", "content": "A dog" }], "max_tokens": 12, "temperature": 0,
        "logprobs": true, "top_logprobs": 2, "stop": null, "some_new_option": 7,
    });
    let whole = server.post("/v1/chat/completions", &ask.to_string()).json();
    assert_eq!(whole["object"], "chat.completion");
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["message"]["role"], &choice["finish_reason"]),
        (&json!("assistant"), &json!("length"))
    );
    assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 12);
    assert_eq!(choice["logprobs"]["content"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(whole["usage"]["completion_tokens"], 12);

    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({ "include_usage": true });
    let mut events = server.post("/v1/chat/completions", &streamed.to_string()).events();
    let usage = events.pop().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    // The same prompt again: all but its last token was there.
    let n_prompt = usage["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], n_prompt - 1);
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, choice["message"]["content"].as_str().unwrap());
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");

    let mut two = ask.clone();
    (two["n"], two["temperature"], two["seed"]) = (2.into(), 1.into(), 5.into());
    let two = server.post("/v1/chat/completions", &two.to_string()).json();
    assert_eq!(two["choices"].as_array().unwrap().len(), 2);
    assert_ne!(two["choices"][0]["message"], two["choices"][1]["message"]);
    assert_eq!(two["usage"]["completion_tokens"], 24);
}

#[test]
fn tools_and_formats_are_kept_to() {
    let server = Server::start(MODEL, &[]);
    let parameters = json!({ "type": "object", "properties": { "age": { "type": "integer", "minimum": 1, "maximum": 9 } }, "required": ["age"] });
    let ask = json!({
        "messages": [{ "role": "user", "content": "A dog" }], "max_tokens": 100, "temperature": 1, "seed": 4,
        "tools": [{ "type": "function", "function": { "name": "find_dog", "parameters": parameters } }],
        "tool_choice": "required",
    });
    for choice in [json!("required"), json!({ "type": "function", "function": { "name": "find_dog" } })] {
        let mut ask = ask.clone();
        ask["tool_choice"] = choice;
        let answer = server.post("/v1/chat/completions", &ask.to_string()).json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            (&message["content"], &answer["choices"][0]["finish_reason"]),
            (&Value::Null, &json!("tool_calls"))
        );
        let call = &message["tool_calls"][0];
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("find_dog")));
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!((1..=9).contains(&arguments["age"].as_i64().unwrap()));
        assert_eq!(call["id"].as_str().unwrap().len(), 9);
        ask["stream"] = true.into();
        let events = server.post("/v1/chat/completions", &ask.to_string()).events();
        let calls: Vec<&Value> = events
            .iter()
            .map(|e| &e["choices"][0]["delta"]["tool_calls"][0])
            .filter(|c| !c.is_null())
            .collect();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0]["function"], call["function"]);
    }
    let format = json!({ "type": "json_schema", "json_schema": { "schema": { "enum": ["yes", "no"] } } });
    let ask = json!({ "messages": [{ "role": "user", "content": "A dog" }], "response_format": format });
    let answer = server.post("/v1/chat/completions", &ask.to_string()).json();
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(["\"yes\"", "\"no\""].contains(&content), "{content}");
}

#[test]
fn texts_are_continued() {
    let server = Server::start(MODEL, &[]);
    let ask = json!({ "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0, "logprobs": 1 });
    let whole = server.post("/v1/completions", &ask.to_string()).json();
    assert_eq!(whole["object"], "text_completion");
    let text = whole["choices"][0]["text"].as_str().unwrap();
    assert_eq!(whole["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 8);
    let mut streamed = ask.clone();
    (streamed["stream"], streamed["echo"]) = (true.into(), true.into());
    let events = server.post("/v1/completions", &streamed.to_string()).events();
    let pieces: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, format!("Once upon a time{text}"));
    let many = json!({ "prompt": ["The cat", "The dog"], "n": 2, "max_tokens": 2, "ignore_eos": true });
    let many = server.post("/v1/completions", &many.to_string()).json();
    assert_eq!(many["choices"].as_array().unwrap().len(), 4);
    assert_eq!(many["usage"]["completion_tokens"], 8);
}

#[test]
fn vectors_of_a_language_model_and_of_an_encoder() {
    for model in [MODEL, ENCODER] {
        let server = Server::start(model, &[]);
        let ask = json!({ "input": ["a dog", "a cat"] });
        let answer = server.post("/v1/embeddings", &ask.to_string()).json();
        let vectors = answer["data"].as_array().unwrap();
        assert_eq!((vectors.len(), &vectors[1]["index"]), (2, &json!(1)));
        let square: f64 =
            vectors[0]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
        assert!((square - 1.0).abs() < 1e-4, "{square}");
        let coded = json!({ "input": "a dog", "encoding_format": "base64" });
        let coded = server.post("/v1/embeddings", &coded.to_string()).json();
        let n = vectors[0]["embedding"].as_array().unwrap().len();
        assert_eq!(coded["data"][0]["embedding"].as_str().unwrap().len(), (n * 4).div_ceil(3) * 4);
    }
    let server = Server::start(ENCODER, &[]);
    let refused = server.post(
        "/v1/chat/completions",
        &json!({ "messages": [{ "role": "user", "content": "a" }] }).to_string(),
    );
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &json!("UnsupportedArch")));
}

#[test]
fn what_is_wrong_is_told_in_openai_s_shape() {
    let server = Server::start(MODEL, &["--api-key", "secret", "--context-length", "64"]);
    let auth = "Content-Type: application/json\r\nAuthorization: Bearer secret\r\n";
    let hi = json!([{ "role": "user", "content": "hi" }]);
    let long = json!([{ "role": "user", "content": "word ".repeat(500) }]);
    for (path, body, status, code, param) in [
        ("/v1/chat/completions", "{".to_string(), 400, "BadArgument", None),
        ("/v1/chat/completions", "[]".to_string(), 400, "BadArgument", None),
        ("/v1/chat/completions", "{}".to_string(), 400, "BadArgument", Some("messages")),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "temperature": -1 }).to_string(),
            400,
            "BadArgument",
            Some("temperature"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "top_k": "many" }).to_string(),
            400,
            "BadArgument",
            Some("top_k"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "n": 0 }).to_string(),
            400,
            "BadArgument",
            Some("n"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "tool_choice": "required" }).to_string(),
            400,
            "BadArgument",
            Some("tool_choice"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": hi, "grammar": "root ::= x" }).to_string(),
            400,
            "GrammarError",
            Some("grammar"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": [{ "role": "wizard", "content": "x" }], "stream": true }).to_string(),
            400,
            "BadArgument",
            Some("messages[0].role"),
        ),
        (
            "/v1/chat/completions",
            json!({ "messages": long, "stream": true }).to_string(),
            400,
            "ContextOverflow",
            Some("messages"),
        ),
        ("/v1/completions", json!({ "prompt": 5 }).to_string(), 400, "BadArgument", Some("prompt")),
        ("/v1/completions", json!({ "prompt": [9_999_999] }).to_string(), 400, "BadArgument", Some("prompt")),
        (
            "/v1/completions",
            json!({ "prompt": "a", "suffix": "b" }).to_string(),
            400,
            "BadArgument",
            Some("suffix"),
        ),
        ("/v1/embeddings", json!({ "input": [] }).to_string(), 400, "BadArgument", Some("input")),
        ("/v1/nothing", "{}".to_string(), 404, "BadArgument", None),
        ("/v1/models", "{}".to_string(), 405, "BadArgument", None),
    ] {
        let response = server.post_with(path, auth, &body);
        let error = &response.json()["error"];
        assert_eq!((response.status, error["code"].as_str()), (status, Some(code)), "{path} {body}: {error}");
        assert_eq!(error["param"].as_str(), param, "{path} {body}: {error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string());
    }
    for headers in [
        "",
        "Authorization: Bearer secres\r\n",
        "Authorization: Bearer secretsecret\r\n",
        "Authorization: secret\r\n",
    ] {
        let response = server.post_with(
            "/v1/completions",
            &format!("Content-Type: application/json\r\n{headers}"),
            "{}",
        );
        assert_eq!(
            (response.status, &response.json()["error"]["type"]),
            (401, &json!("authentication_error"))
        );
    }
    let plain = server.post_with(
        "/v1/completions",
        "Authorization: Bearer secret\r\nContent-Type: text/plain\r\n",
        "{}",
    );
    assert_eq!(plain.status, 415);
    let length = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 99999999\r\n";
    assert_eq!(server.raw(&format!("{length}{auth}\r\n")).status, 413);
    let foreign = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(foreign).status, 403);
    // It still works.
    let fine =
        server.post_with("/v1/completions", auth, &json!({ "prompt": "a", "max_tokens": 1 }).to_string());
    assert_eq!(fine.status, 200, "{}", fine.body);
}

#[test]
fn a_client_that_leaves_does_not_stop_the_server() {
    let server = Server::start(MODEL, &[]);
    let ask = json!({ "prompt": "Once", "max_tokens": 100_000, "ignore_eos": true, "context_shift": true, "stream": true }).to_string();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let n = ask.len();
        write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {n}\r\n\r\n{ask}").unwrap();
        let mut some = [0; 400];
        stream.read_exact(&mut some).unwrap();
    }
    let fine = server.post("/v1/completions", &json!({ "prompt": "a", "max_tokens": 1 }).to_string());
    assert_eq!(fine.status, 200, "{}", fine.body);
}

fn outcome(args: &[&str]) -> (i32, String, String) {
    let output = bitpane(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("ended by a signal"), text(output.stdout), text(output.stderr))
}

#[test]
fn what_cannot_be_served_is_said() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, stderr) = outcome(&["serve", MODEL, "--port", &port]);
    assert!(code == 1 && stderr.starts_with("error[Io]: cannot listen at 127.0.0.1:"), "{code}: {stderr}");
    let (code, _, stderr) = outcome(&["serve", "/nowhere.gguf", "--port", "0"]);
    assert!(code == 1 && stderr.starts_with("error[Io]: /nowhere.gguf"), "{code}: {stderr}");
    assert_eq!(outcome(&["serve", MODEL, "--port", "70000"]).0, 2);
    assert_eq!(outcome(&["serve", MODEL, "--host", "not an address"]).0, 2);
}

#[test]
fn bench_measures_both_phases() {
    let args = ["bench", MODEL, "--prompt", "20", "--decode", "10", "--repeats", "3", "--json"];
    let (code, stdout, stderr) = outcome(&args);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&stdout).unwrap();
    let number = |key: &str| document[key].as_f64().unwrap();
    let mut times: Vec<f64> =
        document["decodeMs"].as_array().unwrap().iter().map(|t| t.as_f64().unwrap()).collect();
    times.sort_by(f64::total_cmp);
    assert_eq!((times.len(), number("promptTokens"), number("decodeTokens")), (3, 20.0, 9.0));
    assert!((number("decodeTps") - 9.0 / times[1] * 1e3).abs() < 1e-6 * number("decodeTps"));
    assert!(number("promptTps") > 0.0 && number("loadMs") > 0.0 && number("threads") >= 1.0);
    assert_eq!(outcome(&["bench", MODEL, "--prompt", "999999"]).0, 2);
    assert_eq!(outcome(&["bench", MODEL, "--decode", "0"]).0, 2);
}

#[test]
fn completions_know_every_command() {
    let (_, help, _) = outcome(&["--help"]);
    let section = help.split("Commands:").nth(1).unwrap().split("\n\n").next().unwrap();
    let commands: Vec<&str> = section.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"serve") && commands.contains(&"generate"), "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = outcome(&["completions", shell]);
        assert_eq!(code, 0);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    assert_eq!(outcome(&["completions", "cmd.exe"]).0, 2);
}

#[test]
fn sessions_go_to_files_and_come_back() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join("story.session");
    let file = file.to_str().unwrap();
    let run = |args: &[&str]| {
        let base = ["generate", MODEL, "--temperature", "0", "--ignore-eos", "--json"];
        let (code, stdout, stderr) = outcome(&[&base[..], args].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let first = run(&["--prompt", "Once upon a time", "--max-tokens", "20", "--save-session", file]);
    assert_eq!(first["cachedTokens"], 0);
    let again = run(&["--prompt", "Once upon a time", "--max-tokens", "20", "--load-session", file]);
    assert_eq!(again["cachedTokens"], first["promptTokens"].as_u64().unwrap() - 1);
    assert_eq!(again["tokens"], first["tokens"]);
    let shifted = run(&[
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "60",
        "--context-length",
        "32",
        "--context-shift",
        "--n-keep",
        "2",
    ]);
    assert_eq!(
        (shifted["reason"].as_str(), shifted["tokens"].as_array().unwrap().len()),
        (Some("length"), 60)
    );
    assert!(shifted["forgottenTokens"].as_u64().unwrap() > 20);
    let bad = ["generate", MODEL, "--prompt", "a", "--load-session", MODEL];
    let (code, _, stderr) = outcome(&bad);
    assert!(code == 1 && stderr.contains("error[BadMagic]"), "{code}: {stderr}");
    let nowhere =
        ["generate", MODEL, "--prompt", "a", "--max-tokens", "1", "--save-session", "/no/such/folder/x"];
    assert!(outcome(&nowhere).2.contains("error[Io]"));
    assert_eq!(outcome(&["generate", MODEL, "--prompt", "a", "--n-keep", "-2"]).0, 2);
}
