//! Contexts that are shifted, marked, saved and taken up again.
#![cfg(not(target_arch = "wasm32"))]

use bitpane::tasks::{GenerateOptions, LoadOptions, Loaded, Loader, Reason, Speculation, Step, TextModel};
use bitpane::{Code, Result};
use std::path::{Path, PathBuf};

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn load(bytes: &[u8], n_ctx: usize) -> TextModel {
    let options = LoadOptions { context_length: Some(n_ctx), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(bytes).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => *model,
        _ => panic!("no language model"),
    }
}

fn story(n_ctx: usize) -> TextModel {
    load(&std::fs::read(root("www/models/story.gguf")).unwrap(), n_ctx)
}

fn golden(name: &str, n_ctx: usize) -> TextModel {
    load(&std::fs::read(root(&format!("tests/data/arch/{name}.gguf"))).unwrap(), n_ctx)
}

fn greedy(n: usize) -> GenerateOptions {
    let mut options = GenerateOptions { max_tokens: n, ignore_eos: true, ..GenerateOptions::default() };
    options.sampler.temperature = 0.0;
    options
}

struct Run {
    tokens: Vec<u32>,
    reason: Reason,
    n_cached: usize,
    n_forgotten: usize,
    n_right: usize,
}

fn run(model: &mut TextModel, prompt: &[u32], options: GenerateOptions) -> Result<Run> {
    let mut g = model.start(prompt.to_vec(), options)?;
    let reason = loop {
        if let Step::Done { reason, .. } = model.step(&mut g)? {
            break reason;
        }
    };
    let (_, n_right) = g.n_drafted();
    let (n_cached, n_forgotten) = (g.n_cached(), g.n_forgotten());
    Ok(Run { tokens: g.tokens().to_vec(), reason, n_cached, n_forgotten, n_right })
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a))).unwrap() as u32
}

/// The file with only its first layer, whose keys depend on nothing but a token and its place.
fn first_layer_only(name: &str, arch: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(root(&format!("tests/data/arch/{name}.gguf"))).unwrap();
    let key = format!("{arch}.block_count");
    let at = bytes.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&1u32.to_le_bytes());
    bytes
}

/// With one layer, a shifted context is the same as one in which the forgotten tokens never were.
#[test]
fn a_shifted_context_is_what_its_tokens_make() {
    const N_CTX: usize = 24;
    for (name, arch) in [
        ("llama-linear", "llama"),
        ("llama-yarn", "llama"),
        ("granite", "granite"),
        ("stablelm", "stablelm"),
        ("falcon", "falcon"),
        ("hunyuan-dense", "hunyuan-dense"),
        ("starcoder", "starcoder"),
    ] {
        let bytes = first_layer_only(name, arch);
        let (mut model, mut fresh) = (load(&bytes, N_CTX), load(&bytes, N_CTX));
        let prompt: Vec<u32> = (0..9).map(|i| (i * 7 + 3) % 60).collect();
        for n_keep in [0, 3, -1] {
            let options = GenerateOptions { context_shift: true, n_keep, ..greedy(70) };
            let got = run(&mut model, &prompt, options).unwrap();
            assert_eq!((got.tokens.len(), got.reason), (70, Reason::Length), "{name}");
            let bos = usize::from(fresh.tokenizer().bos() == Some(prompt[0]));
            let keep = if n_keep < 0 { 9 } else { n_keep as usize + bos };
            let mut window = prompt.clone();
            let mut n_forgotten = 0;
            for (i, &token) in got.tokens.iter().enumerate() {
                let row = fresh.logits(&window, 1).unwrap().remove(0);
                // Turned keys are rounded once more, so near ties may fall either way.
                let best = argmax(&row);
                let gap = row[best as usize] - row[token as usize];
                assert!(gap < 2e-3, "{name}, n_keep {n_keep}, token {i}: {token} instead of {best} by {gap}");
                window.push(token);
                if window.len() == N_CTX {
                    let n = (N_CTX - 1 - keep).div_ceil(2);
                    window.drain(keep..keep + n);
                    n_forgotten += n;
                }
            }
            assert_eq!(got.n_forgotten, n_forgotten, "{name}");
        }
    }
}

#[test]
fn every_kind_of_memory_can_be_shifted() {
    for entry in std::fs::read_dir(root("tests/data/arch")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|e| e != "gguf") || name.contains("bert") {
            continue;
        }
        let mut model = golden(&name, 20);
        let options = GenerateOptions { context_shift: true, n_keep: 2, ..greedy(50) };
        let shifted = run(&mut model, &[5, 6, 7, 8], options).unwrap();
        assert_eq!((shifted.tokens.len(), shifted.reason), (50, Reason::Length), "{name}");
        let plain = run(&mut model, &[5, 6, 7, 8], greedy(50)).unwrap();
        assert_eq!((plain.tokens.len(), plain.reason), (16, Reason::Context), "{name}");
        assert_eq!(plain.tokens, shifted.tokens[..16], "{name}");
    }
}

/// Guesses that were made before tokens were forgotten are void; the text stays the same.
#[test]
fn guessing_ahead_changes_nothing_where_the_context_is_shifted() {
    let mut model = story(48);
    let prompt = model.tokenize("Once upon a time there was a dog. A dog", true, false).unwrap();
    for draft in [false, true] {
        if draft {
            model.set_draft(story(48)).unwrap();
        }
        let options = GenerateOptions { context_shift: true, n_keep: 3, ..greedy(200) };
        let plain = run(&mut model, &prompt, options.clone()).unwrap();
        let speculative = Some(Speculation { min_p: 0.0, ..Speculation::default() });
        let guessed = run(&mut model, &prompt, GenerateOptions { speculative, ..options }).unwrap();
        assert_eq!(guessed.tokens, plain.tokens);
        assert_eq!(guessed.n_forgotten, plain.n_forgotten);
        assert!(plain.n_forgotten > 100 && guessed.n_right > 0, "{} guesses were right", guessed.n_right);
    }
}

/// Whichever part of a prompt a generation was left in, what follows is as if it had not been.
#[test]
fn a01_a_prompt_left_at_any_part_leaves_no_trace() {
    let prompt: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % 60).collect();
    let parallel = ["stablelm-parallel", "gptneox-sequential"];
    for name in ["llama-yarn", "gemma3", "olmo2", "mamba2", "lfm2", "rwkv7"].into_iter().chain(parallel) {
        let want = run(&mut golden(name, 256), &prompt, greedy(6)).unwrap().tokens;
        let short = run(&mut golden(name, 256), &prompt[..20], greedy(6)).unwrap().tokens;
        let mut model = golden(name, 256);
        for n_parts in 1.. {
            model.forget();
            // Held before, and where the memory is a state, marked before its last token.
            run(&mut model, &prompt[..20], greedy(1)).unwrap();
            let mut left = model.start(prompt.clone(), greedy(6)).unwrap();
            let n_steps = (0..n_parts).take_while(
                |_| matches!(model.step(&mut left).unwrap(), Step::Prefill { done, total } if done < total),
            );
            let is_whole = n_steps.count() < n_parts;
            let session = model.save_session(b"").unwrap();
            assert_eq!(run(&mut model, &prompt, greedy(6)).unwrap().tokens, want, "{name}, {n_parts}");
            assert_eq!(run(&mut model, &prompt[..20], greedy(6)).unwrap().tokens, short, "{name}, {n_parts}");
            model.restore_session(&session).unwrap();
            assert_eq!(run(&mut model, &prompt, greedy(6)).unwrap().tokens, want, "{name}, {n_parts}");
            // Left once more, and another prompt next.
            model.forget();
            let mut left = model.start(prompt.clone(), greedy(6)).unwrap();
            (0..n_parts).for_each(|_| drop(model.step(&mut left)));
            assert_eq!(run(&mut model, &prompt[..20], greedy(6)).unwrap().tokens, short, "{name}, {n_parts}");
            if is_whole {
                // Two steps of 128 tokens and 22, in parts of two layers or more.
                assert!(n_parts > 6, "{name}: {n_parts} parts");
                break;
            }
        }
    }
}

/// Fault A04.
#[test]
fn a04_prompts_at_the_end_of_the_context() {
    let mut model = story(32);
    let prompt: Vec<u32> = (0..40).map(|i| 5 + i % 30).collect();
    for n in [32, 33, 40] {
        let error = run(&mut model, &prompt[..n], greedy(4)).err().unwrap();
        assert_eq!((error.code, error.key.as_deref()), (Code::ContextOverflow, Some("prompt")), "{n}");
        let options = GenerateOptions { context_shift: true, ..greedy(40) };
        let shifted = run(&mut model, &prompt[..n], options).unwrap();
        assert_eq!((shifted.tokens.len(), shifted.reason), (40, Reason::Length), "{n}");
        assert!(shifted.n_forgotten > n - 32);
    }
    let last = run(&mut model, &prompt[..31], greedy(4)).unwrap();
    assert_eq!((last.tokens.len(), last.reason), (1, Reason::Context));
    assert_eq!(run(&mut model, &[], greedy(4)).err().unwrap().code, Code::BadArgument);
    let bad = GenerateOptions { n_keep: -2, ..greedy(4) };
    assert_eq!(run(&mut model, &prompt[..3], bad).err().unwrap().key.as_deref(), Some("nKeep"));
    let options = GenerateOptions { context_shift: true, ..greedy(4) };
    assert_eq!(run(&mut story(1), &prompt[..1], options).err().unwrap().code, Code::ContextOverflow);
    // The smallest contexts there can be.
    for n_ctx in [2, 3, 5] {
        let options = GenerateOptions { context_shift: true, n_keep: -1, ..greedy(20) };
        assert_eq!(run(&mut story(n_ctx), &prompt[..1], options).unwrap().tokens.len(), 20, "{n_ctx}");
    }
}

/// The same prompt again costs its last token only, also where the memory is a state.
#[test]
fn answers_share_the_work_of_their_prompt() {
    let prompt: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % 60).collect();
    for name in ["llama-yarn", "mamba2", "lfm2", "rwkv7"] {
        let mut model = golden(name, 256);
        let first = run(&mut model, &prompt, greedy(20)).unwrap();
        for _ in 0..2 {
            let again = run(&mut model, &prompt, greedy(20)).unwrap();
            assert_eq!((first.n_cached, again.n_cached), (0, prompt.len() - 1), "{name}");
            assert_eq!(again.tokens, first.tokens, "{name}");
        }
        let other = run(&mut model, &prompt[..100], greedy(5)).unwrap();
        model.forget();
        assert_eq!(run(&mut model, &prompt[..100], greedy(5)).unwrap().tokens, other.tokens, "{name}");
    }
}

#[test]
fn a_restored_session_goes_on_with_the_same_text() {
    let prompt: Vec<u32> = (0..40).map(|i| (i * 7 + 3) % 60).collect();
    for name in ["llama-yarn", "gemma3", "mamba2", "lfm2", "rwkv7", "granitemoe"] {
        let mut model = golden(name, 128);
        let begin = run(&mut model, &prompt, greedy(10)).unwrap();
        let bytes = model.save_session(b"a note").unwrap();
        let longer = [&prompt[..], &begin.tokens].concat();
        let want = run(&mut model, &longer, greedy(30)).unwrap();
        let mut other = golden(name, 200);
        let (n, note) = other.restore_session(&bytes).unwrap();
        assert_eq!((n, &note[..]), (longer.len() - 1, &b"a note"[..]), "{name}");
        let got = run(&mut other, &longer, greedy(30)).unwrap();
        assert_eq!((got.n_cached, got.tokens), (longer.len() - 1, want.tokens), "{name}");
        // An empty context is a session as well.
        other.forget();
        let empty = other.save_session(b"").unwrap();
        assert_eq!(model.restore_session(&empty).unwrap(), (0, vec![]), "{name}");
    }
}

#[test]
fn sessions_that_do_not_fit_are_typed_errors_and_change_nothing() {
    let mut model = story(64);
    let prompt = model.tokenize("Once upon a time", true, false).unwrap();
    let want = run(&mut model, &prompt, greedy(20)).unwrap().tokens;
    let bytes = model.save_session(b"a note").unwrap();
    let held = prompt.len() + want.len() - 1;
    let code = |model: &mut TextModel, bytes: &[u8]| {
        let error = model.restore_session(bytes).expect_err("an error");
        assert_eq!(error.key.as_deref(), Some("session"), "{error}");
        error.code
    };
    assert_eq!(code(&mut model, b""), Code::BadMagic);
    assert_eq!(code(&mut model, b"GGUF and so on"), Code::BadMagic);
    assert_eq!(code(&mut model, &bytes[..20]), Code::Truncated);
    assert_eq!(code(&mut model, &bytes[..60]), Code::Truncated);
    let mut other = bytes.clone();
    other[8] = 9;
    assert_eq!(code(&mut model, &other), Code::UnsupportedVersion);
    // Every cut and every flipped bit is found; most of them by the checksum.
    for i in (0..bytes.len()).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[i] ^= 1 << (i % 8);
        assert!(model.restore_session(&damaged).is_err(), "byte {i}");
        assert!(model.restore_session(&bytes[..i]).is_err(), "cut at {i}");
    }
    let huge = [&bytes[..20], &u32::MAX.to_le_bytes(), &bytes[24..]].concat();
    assert_eq!(code(&mut model, &huge), Code::Truncated);
    assert_eq!(code(&mut story(held - 1), &bytes), Code::ContextOverflow);
    assert_eq!(code(&mut golden("llama-yarn", 64), &bytes), Code::BadArgument);
    let again = run(&mut model, &prompt, greedy(20)).unwrap();
    assert_eq!((again.n_cached, again.tokens), (prompt.len() - 1, want));
}
