//! `bitpane chat` and `bitpane template`, with the model that comes with the page.
#![cfg(not(target_arch = "wasm32"))]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/www/models/story.gguf");

/// Exit code, stdout, stderr.
fn run(stdin: &str, args: &[&str]) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bitpane"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read stdin may end before all is written.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().expect("ended by a signal"), text(output.stdout), text(output.stderr))
}

fn document(stdin: &str, args: &[&str]) -> Value {
    let (code, stdout, stderr) = run(stdin, args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

fn scratch(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn turns_follow_one_another_and_cost_what_is_new() {
    let say = ["chat", MODEL, "--json", "--max-tokens", "8", "--temperature", "0", "--system", "Be kind."];
    let two = document("", &[&say[..], &["--message", "The dog", "--message", "The cat"]].concat());
    let [first, second] = &two["turns"].as_array().unwrap()[..] else { panic!("{two}") };
    assert_eq!(first["cachedTokens"], 0);
    let n = |turn: &Value, key: &str| turn[key].as_u64().unwrap();
    assert!(n(second, "cachedTokens") + 1 >= n(first, "promptTokens") + n(first, "decodeTokens"), "{two}");
    assert_eq!(two["text"], second["text"]);
    assert_eq!(two["chatTemplate"], "chatml (the file has none)");
    let roles: Vec<&str> =
        two["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    // Lines of stdin are turns as well, and lines that are no turn are commands.
    let piped = document("The dog\n\n  The cat  \n/exit\nThe end\n", &say);
    assert_eq!(piped["messages"], two["messages"]);
    let anew = document("The bird\n/reset\nThe dog\n/system Be brief.\nThe cat\n", &say);
    assert_eq!(anew["messages"].as_array().unwrap().len(), 3);
    assert_eq!(anew["messages"][0]["content"], "Be brief.");
    assert_eq!(anew["turns"][1]["text"], first["text"]);
}

#[test]
fn answers_are_written_as_text_for_people() {
    let say = ["chat", MODEL, "--max-tokens", "8", "--temperature", "0", "--message", "The dog"];
    let (code, stdout, _) = run("", &say);
    let json = document("", &[&say[..], &["--json"]].concat());
    assert_eq!((code, stdout.strip_suffix('\n')), (0, json["text"].as_str()));
}

#[test]
fn a_template_of_ones_own_takes_the_place_of_the_models() {
    let template = scratch(
        "own.jinja",
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}BOT:",
    );
    let messages = scratch("messages.json", r#"{"messages": [{"role": "user", "content": "Hi </s>"}]}"#);
    let (template, messages) = (template.to_str().unwrap(), messages.to_str().unwrap());
    let show = ["template", MODEL, "--messages", messages, "--json"];
    let own = document("", &[&show[..], &["--template", template]].concat());
    assert_eq!(
        (own["text"].as_str(), own["chatTemplate"].as_str()),
        (Some("USER: Hi </s>\nBOT:"), Some("given"))
    );
    let chatml = document("", &show);
    assert_eq!(chatml["text"], "<|im_start|>user\nHi </s><|im_end|>\n<|im_start|>assistant\n");
    // No token of the prompt is the one that ends texts, whatever the message says.
    let end = document("", &["tokenize", MODEL, "--text", "</s>", "--parse-special", "--json"]);
    let end = end["tokens"][0].as_array().unwrap().last().unwrap();
    assert!(chatml["tokens"].as_array().unwrap().iter().all(|id| id != end), "{chatml}");
    let say = ["chat", MODEL, "--max-tokens", "2", "--message", "Hi", "--json", "--template", template];
    assert_eq!(document("", &say)["chatTemplate"], "given");
}

#[test]
fn failures_have_their_codes() {
    let file = |name: &str, text: &str| scratch(name, text).to_str().unwrap().to_string();
    let hi = file("hi.json", r#"[{"role": "user", "content": "hi"}]"#);
    let role = file("role.json", r#"[{"role": "wizard", "content": "hi"}]"#);
    let broken = file("broken.jinja", "{% if %}");
    let endless = file("endless.jinja", "{{ '-' * 10**10 }}");
    let large = file("large.jinja", &"x".repeat(10 << 20));
    let cases: [(&[&str], &str); 7] = [
        (&["template", MODEL, "--messages", &role], "BadArgument"),
        (&["template", MODEL, "--messages", "missing.json"], "Io"),
        (&["template", MODEL, "--messages", &hi, "--template", &broken], "TemplateError"),
        (&["template", MODEL, "--messages", &hi, "--template", &endless], "TemplateBudget"),
        (&["template", MODEL, "--messages", &hi, "--template", &large], "LimitExceeded"),
        (&["chat", MODEL, "--message", "hi", "--template", &broken], "TemplateError"),
        (&["chat", MODEL, "--message", &"word ".repeat(20_000)], "ContextOverflow"),
    ];
    for (args, code) in cases {
        let (exit, stdout, stderr) = run("", args);
        let shown: String = args.join(" ").chars().take(120).collect();
        assert_eq!((exit, stdout.as_str()), (1, ""), "{shown}: {stderr}");
        assert!(stderr.starts_with(&format!("error[{code}]: ")), "{shown}: {stderr}");
    }
    let (exit, _, stderr) = run("/nonsense\n", &["chat", MODEL]);
    assert_eq!(exit, 0);
    assert!(stderr.contains("/nonsense is no command"), "{stderr}");
}

#[test]
fn a_conversation_is_saved_and_taken_up() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chat.session");
    let file = file.to_str().unwrap();
    let base = ["chat", MODEL, "--json", "--temperature", "0", "--max-tokens", "12"];
    let first = document(
        "",
        &[&base[..], &["--system", "Be kind.", "--message", "A dog", "--save-session", file]].concat(),
    );
    let next = document("", &[&base[..], &["--message", "A cat", "--load-session", file]].concat());
    let messages = next["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 5);
    assert_eq!(messages[0]["content"], "Be kind.");
    assert_eq!(messages[2]["content"], first["text"]);
    let (turn, before) = (&next["turns"][0], &first["turns"][0]);
    assert!(turn["cachedTokens"].as_u64() >= before["promptTokens"].as_u64(), "{turn}");
}
