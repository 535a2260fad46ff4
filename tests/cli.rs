//! The built command line: exit codes, errors on stderr, JSON documents, and that nothing panics.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use common::{json, shared};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COMMANDS: [&str; 11] = [
    "info",
    "generate",
    "chat",
    "classify",
    "tokenize",
    "logits",
    "embed",
    "rerank",
    "perplexity",
    "bench",
    "serve",
];

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The one JSON document on stdout of a run that succeeded.
    fn document(&self) -> Value {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// The code in `error[CODE]: ...`, which opens stderr.
    fn error_code(&self) -> &str {
        let tail = self.stderr.strip_prefix("error[").unwrap_or_else(|| panic!("stderr: {}", self.stderr));
        tail.split_once("]: ").unwrap_or_else(|| panic!("stderr: {}", self.stderr)).0
    }
}

fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    run_with("", args)
}

fn run_with<S: AsRef<OsStr>>(stdin: &str, args: impl IntoIterator<Item = S>) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_bitpane"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // A command that does not read stdin may end before all is written.
    let _ = pipe.write_all(stdin.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    let ran = Ran {
        code: output.status.code().expect("ended by a signal"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(ran.code <= 2 && !ran.stderr.contains("panicked"), "code {}: {}", ran.code, ran.stderr);
    ran
}

/// A file in the tests' scratch folder.
fn scratch(name: &str, bytes: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Arguments that each command needs besides a model.
fn with_model<'a>(command: &'a str, model: &'a str, other: &'a str) -> Vec<&'a str> {
    let rest: &[&str] = match command {
        "info" | "bench" => &[],
        "serve" => &["--port", "0"],
        "generate" => &["--prompt", "a"],
        "chat" => &["--message", "a"],
        "tokenize" => &["--text", "a"],
        "logits" | "embed" => &["--tokens", "1"],
        "rerank" => &["--query", "a", "--document", "b"],
        _ => &[other],
    };
    [&[command, model], rest].concat()
}

#[test]
fn help_names_what_exists() {
    let overview = run(["--help"]);
    assert_eq!(overview.code, 0);
    for command in COMMANDS {
        assert!(overview.stdout.contains(&format!("\n  {command}")), "{command} is not listed");
        let help = run([command, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{command}");
        assert!(help.stdout.contains("--json"), "{command}");
    }
    assert_eq!(run(["--version"]).stdout, format!("bitpane {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let file = scratch("usage.txt", b"a");
    let m = text(&file);
    let cases: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["chat"],
        &["chat", m, "--max-tokens", "-5"],
        &["chat", m, "--temperature=-1"],
        &["template", m],
        &["info"],
        &["info", m, "--nonsense"],
        &["info", m, "surplus"],
        &["generate", m],
        &["generate", m, "--prompt", "a", "--max-tokens", "-5"],
        &["generate", m, "--prompt", "a", "--temperature", "warm"],
        &["generate", m, "--prompt", "a", "--temperature=-1"],
        &["generate", m, "--prompt", "a", "--temperature", "NaN"],
        &["generate", m, "--prompt", "a", "--top-p", "1.5"],
        &["generate", m, "--prompt", "a", "--repeat-penalty", "0"],
        &["generate", m, "--prompt", "a", "--seed=-1"],
        &["generate", m, "--prompt", "a", "--quantize", "Q9_9"],
        &["generate", m, "--prompt", "a", "--quantize", "Q8_K"],
        &["generate", m, "--prompt", "a", "--context-length", "0"],
        &["generate", m, "--prompt", "a", "--threads", "0"],
        &["classify", m],
        &["classify", m, m, "--top-k", "0"],
        &["tokenize", m],
        &["tokenize", m, "--text", "a", "--stdin-json"],
        &["logits", m],
        &["logits", m, "--tokens", "1,x"],
        &["logits", m, "--tokens", "1,-2"],
        &["logits", m, "--tokens", "1", "--last", "0"],
        &["perplexity", m],
        &["perplexity", m, m, "--context", "1"],
    ];
    for args in cases {
        let ran = run(*args);
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    let ran = run(["generate", m, "--prompt", "a", "--repeat-penalty", "0"]);
    assert!(ran.stderr.starts_with("error[BadArgument]: --repeat-penalty: "), "{}", ran.stderr);
}

#[test]
fn what_is_no_model_is_exit_code_1() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let any_text = scratch("any.txt", b"some text");
    let cases = [
        (PathBuf::from(folder).join("missing.gguf"), "Io"),
        (PathBuf::from(folder), "Io"),
        (scratch("empty.gguf", b""), "Truncated"),
        (scratch("page.gguf", b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n"), "BadMagic"),
        (scratch("short.gguf", b"GGUF\x03\0\0\0"), "Truncated"),
        (scratch("version.gguf", &[&b"GGUF\x63\0\0\0"[..], &[0; 64]].concat()), "UnsupportedVersion"),
        (scratch("archive.gguf", b"PK\x03\x04 and so on, for more than a few bytes"), "BadMagic"),
    ];
    for (path, expected) in cases {
        for command in COMMANDS {
            let ran = run(with_model(command, text(&path), text(&any_text)));
            assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{command} {}", path.display());
            assert_eq!(ran.error_code(), expected, "{command} {}", path.display());
            assert!(ran.stderr.contains(text(&path)), "{command}: {}", ran.stderr);
        }
    }
}

#[test]
fn every_error_code_is_one_of_the_list() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let Some(vit) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let (m, v) = (text(&model), text(&vit));
    let not_text = scratch("latin1.txt", b"caf\xe9");
    let blank = scratch("blank.txt", b"");
    let html = scratch("page.png", b"<html></html>");
    let labels = scratch("two-labels.txt", b"cat\ndog\n");
    let half = scratch("half.gguf", &std::fs::read(&model).unwrap()[..500_000]);
    let long = vec!["1"; 5000].join(",");
    let cases: &[(&[&str], &str)] = &[
        (&["generate", text(&half), "--prompt", "a"], "Truncated"),
        (&["info", text(&half)], "Truncated"),
        (&["generate", m, "--prompt", "a", "--context-length", "100000"], "BadArgument"),
        (&["generate", m, "--prompt", &"word ".repeat(2000)], "ContextOverflow"),
        (&["generate", v, "--prompt", "a"], "UnsupportedArch"),
        (&["logits", m, "--tokens", "512"], "BadArgument"),
        (&["logits", m, "--tokens", "1,2", "--last", "3"], "BadArgument"),
        (&["logits", m, "--tokens", &long], "ContextOverflow"),
        (&["perplexity", m, "missing.txt"], "Io"),
        (&["perplexity", m, text(&not_text)], "BadValue"),
        (&["perplexity", m, text(&blank)], "BadArgument"),
        (&["tokenize", v, "--text", "a"], "TokenizerInvalid"),
        (&["classify", m, text(&html)], "UnsupportedArch"),
        (&["classify", v, text(&html)], "ImageDecodeError"),
        (&["classify", v, "missing.png"], "Io"),
        (&["classify", v, text(&html), "--labels", text(&labels)], "BadArgument"),
        (&["classify", v, text(&html), "--labels", "missing.txt"], "Io"),
    ];
    for (args, expected) in cases {
        let ran = run(*args);
        let shown: String = args.join(" ").chars().take(120).collect();
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{shown}: {}", ran.stderr);
        assert_eq!(ran.error_code(), *expected, "{shown}: {}", ran.stderr);
        assert!(bitpane::Code::ALL.iter().any(|code| code.as_str() == ran.error_code()));
    }
}

#[test]
fn info_describes_the_file() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let document = run(["info", text(&model), "--json"]).document();
    assert_eq!(document["architecture"], "llama");
    assert_eq!(document["metadata"]["llama.block_count"], 5);
    assert_eq!(document["metadata"]["tokenizer.ggml.tokens"].as_array().unwrap().len(), 512);
    let tensors = document["tensors"].as_array().unwrap();
    let n_elements =
        |t: &Value| t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>();
    assert_eq!(document["parameters"], tensors.iter().map(n_elements).sum::<u64>());
    assert_eq!(document["bitsPerWeight"], 32.0);
    let embedding = tensors.iter().find(|t| t["name"] == "token_embd.weight").unwrap();
    assert_eq!(
        *embedding,
        json!({"name": "token_embd.weight", "type": "F32", "shape": [512, 64], "bytes": 131_072, "heldAs": "F32"})
    );
    let shown = run(["info", text(&model)]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("token_embd.weight") && shown.stdout.contains("llama.block_count"));
    let Some(quantized) = shared("golden/quant/llama-IQ2_XS.gguf") else { return };
    let shown = run(["info", text(&quantized)]).stdout;
    assert!(shown.contains("IQ2_XS  8-bit codes, a scale per 32, rounded"), "{shown}");
}

#[test]
fn generate_writes_the_reference_text() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let Some(golden) = shared("data/lm/stories260K/golden_greedy.json") else { return };
    let golden = json(&golden);
    let expected = &golden["token_ids"].as_array().unwrap()[5..69];
    let args = [
        "generate",
        text(&model),
        "--prompt",
        "Once upon a time",
        "--max-tokens",
        "64",
        "--temperature",
        "0",
    ];
    for mode in [&["--json"][..], &["--json", "--reference"]] {
        let document = run(args.iter().chain(mode)).document();
        assert_eq!(document["tokens"].as_array().unwrap(), expected);
        assert_eq!((&document["promptTokens"], &document["decodeTokens"]), (&json!(5), &json!(64)));
        assert_eq!(document["reason"], "length");
        assert!(document["promptMs"].as_f64().unwrap() > 0.0 && document["decodeMs"].as_f64().unwrap() > 0.0);
        let shown = run(args);
        assert_eq!(shown.stdout, format!("Once upon a time{}\n", document["text"].as_str().unwrap()));
        assert!(shown.stderr.contains("64 tokens in"), "{}", shown.stderr);
    }
}

#[test]
fn generate_obeys_its_options() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let with = |options: &[&str]| {
        let args = ["generate", text(&model), "--json", "--prompt", "Once upon a time"];
        run(args.iter().chain(options)).document()
    };
    let seeded = with(&["--max-tokens", "24", "--seed", "7"]);
    assert_eq!(seeded["tokens"], with(&["--max-tokens", "24", "--seed", "7"])["tokens"]);
    assert_ne!(seeded["tokens"], with(&["--max-tokens", "24", "--seed", "8"])["tokens"]);
    let stopped = with(&["--temperature", "0", "--stop", " girl"]);
    assert_eq!((&stopped["text"], &stopped["reason"]), (&json!(", there was a little"), &json!("stop")));
    let full = with(&["--context-length", "10"]);
    assert_eq!((&full["decodeTokens"], &full["reason"]), (&json!(5), &json!("context")));
    assert_eq!(with(&["--max-tokens", "0"])["text"], "");
}

/// A model of our own goldens, with what llama.cpp makes of its tokens.
fn own(name: &str) -> (String, Value, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/arch/{name}"));
    let golden = json(&path.with_extension("json"));
    let ids: Vec<String> =
        golden["token_ids"].as_array().unwrap().iter().map(std::string::ToString::to_string).collect();
    (path.with_extension("gguf").display().to_string(), golden, ids.join(","))
}

#[test]
fn vectors_and_scores() {
    let (model, golden, ids) = own("modern-bert");
    let document = run(["embed", &model, "--tokens", &ids, "--no-normalize", "--json"]).document();
    let vector = document["embedding"].as_array().unwrap();
    assert_eq!(vector.len(), 32);
    for (got, want) in vector.iter().zip(golden["pooled_f32"].as_array().unwrap()) {
        assert!((got.as_f64().unwrap() - want.as_f64().unwrap()).abs() < 5e-3, "{got} is not {want}");
    }
    let unit = run(["embed", &model, "--text", "abc", "--json"]).document();
    let length: f64 = unit["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-5);
    let each = run(["embed", &model, "--tokens", "1,5,9", "--pooling", "none", "--json"]).document();
    assert_eq!(each["embedding"].as_array().unwrap().len(), 3);
    assert_eq!(run(["embed", &model, "--text", "abc"]).stdout.lines().count(), 32);
    assert_eq!(run(["embed", &model, "--text", "abc", "--pooling", "median"]).code, 2);
    assert_eq!(run(["embed", &model]).code, 2);
    for refused in [
        vec!["logits", &model, "--tokens", "1"],
        vec!["generate", &model, "--prompt", "a"],
        vec!["rerank", &own("qwen3moe").0, "--query", "a", "--document", "b"],
    ] {
        let ran = run(&refused);
        assert_eq!((ran.code, ran.error_code()), (1, "UnsupportedArch"), "{refused:?}");
    }
    let ranks = ["rerank", &own("bert-rank").0, "--query", "abc", "--document", "de", "--document", "f g"];
    let scores = run(ranks.iter().chain(&["--json"])).document();
    assert_eq!(scores["scores"].as_array().unwrap().len(), 2);
    assert_eq!(run(ranks).stdout.lines().count(), 2);
}

#[test]
fn logits_are_rows_in_order() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let with = |tokens: &str, last: &str| {
        let args = ["logits", text(&model), "--json", "--reference", "--tokens", tokens, "--last", last];
        run(args).document()["logits"].as_array().unwrap().clone()
    };
    let rows = with("1,403,407,261", "3");
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 512));
    assert_eq!(rows[2], with("1,403,407,261", "1")[0]);
    assert_eq!(rows[0], with("1,403", "1")[0]);
    assert_eq!(run(["logits", text(&model), "--tokens", "1,403", "--last", "2"]).code, 0);
}

#[test]
fn tokenize_needs_only_a_vocabulary() {
    let Some(vocab) = shared("data/tokenizers/llama.cpp/ggml-vocab-llama-spm.gguf") else { return };
    let document = run(["tokenize", text(&vocab), "--text", "Hello world", "--json"]).document();
    assert_eq!(document, json!({"tokens": [[15043, 3186]], "text": ["Hello world"]}));
    let args = ["tokenize", text(&vocab), "--stdin-json", "--json", "--add-special"];
    let document = run_with("[\"Hello world\", \"\"]", args).document();
    assert_eq!(document["tokens"], json!([[1, 15043, 3186], [1]]));
    let args = ["tokenize", text(&vocab), "--text", "<s>", "--json", "--parse-special"];
    assert_eq!(run(args).document()["tokens"], json!([[1]]));
    for stdin in ["", "{}", "[1]", "[\"a\"", "\u{feff}[]"] {
        let ran = run_with(stdin, ["tokenize", text(&vocab), "--stdin-json", "--json"]);
        assert_eq!((ran.code, ran.error_code(), ran.stdout.as_str()), (1, "BadArgument", ""), "{stdin:?}");
    }
}

#[test]
fn perplexity_agrees_with_the_reference() {
    /// Between this engine's and llama.cpp's mean nats per token; both round activations to 8 bits.
    const TOLERANCE: f64 = 0.001;
    for kind in ["F16", "Q8_0", "Q4_0"] {
        let Some(golden) = shared(&format!("golden/perplexity/babyllama105.{kind}.json")) else { return };
        let Some(model) = shared(&format!("data/lm/babyllama_tok105/babyllama105.{kind}.gguf")) else {
            return;
        };
        let golden = json(&golden);
        let file = scratch(&format!("perplexity.{kind}.txt"), golden["text"].as_str().unwrap().as_bytes());
        let document =
            run(["perplexity", text(&model), text(&file), "--context", "256", "--json"]).document();
        assert_eq!(document["tokens"], golden["scored_tokens"], "{kind}");
        let (ours, theirs) = (document["nll"].as_f64().unwrap(), golden["mean_nll"].as_f64().unwrap());
        assert!((ours - theirs).abs() < TOLERANCE, "{kind}: {ours} against {theirs}");
    }
}

#[test]
fn divergence_from_a_record() {
    let Some(model) = shared("data/lm/stories260K/stories260K.F32.gguf") else { return };
    let file = scratch("story.txt", b"Once upon a time, there was a little girl. She was very happy.");
    let record = scratch("story.record", b"");
    let (m, f, r) = (text(&model), text(&file), text(&record));
    run(["perplexity", m, f, "--context", "16", "--record", r, "--json"]).document();
    let args = ["perplexity", m, f, "--context", "16", "--against", r, "--json"];
    let same = run(args).document();
    assert!(same["divergence"]["mean"].as_f64().unwrap().abs() < 1e-6, "{same}");
    let coarse = run(args.into_iter().chain(["--quantize", "Q4_0"])).document();
    assert!(coarse["divergence"]["mean"].as_f64().unwrap() > 1e-4, "{coarse}");
    let other = run(["perplexity", m, f, "--context", "17", "--against", r]);
    assert_eq!((other.code, other.error_code()), (1, "BadArgument"));
}

#[test]
fn classify_names_what_photos_show() {
    let Some(vit) = shared("data/vit/deit_tiny_patch16_224_imagenet1k.f32.safetensors") else { return };
    let (Some(cat), Some(names)) =
        (shared("data/images/cat.bmp"), shared("data/vit/imagenet_synset_words.txt"))
    else {
        return;
    };
    let broken = scratch("broken.jpg", b"\xff\xd8\xff\xe0 no photo");
    let args = [
        "classify",
        text(&vit),
        text(&broken),
        text(&cat),
        "--labels",
        text(&names),
        "--top-k",
        "3",
        "--json",
    ];
    let ran = run(args);
    assert_eq!((ran.code, ran.error_code()), (1, "ImageDecodeError"), "one photo is broken");
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let [failed, good] = document["results"].as_array().unwrap().as_slice() else { panic!("{document}") };
    assert_eq!((&failed["error"]["code"], &failed["top"]), (&json!("ImageDecodeError"), &json!([])));
    assert_eq!(good["file"], text(&cat));
    let top = good["top"].as_array().unwrap();
    assert_eq!(top.len(), 3);
    assert_eq!((&top[0]["index"], &top[0]["label"]), (&json!(285), &json!("Egyptian cat")));
    // The reference gives 7.6762.
    assert!((top[0]["logit"].as_f64().unwrap() - 7.6762).abs() < 0.05, "{top:?}");
    assert!(top.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let Some(vocab) = shared("data/tokenizers/llama.cpp/ggml-vocab-llama-spm.gguf") else { return };
    let mut child = Command::new(env!("CARGO_BIN_EXE_bitpane"))
        .args(["info", text(&vocab), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut few = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut few).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
