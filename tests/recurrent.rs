//! Models that keep a state, and mixtures of experts: steps equal batches. A state is continued
//! only whole.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::tasks::{GenerateOptions, LoadOptions, Loaded, Loader, Step, TextModel};
use common::{json, numbers, shared};

/// Architectures of the reference data whose memory is a state, at least in part.
const NAMES: [&str; 3] = ["mamba2", "rwkv7", "lfm2"];

fn load(name: &str) -> Option<(TextModel, Vec<u32>)> {
    let golden = json(&shared(&format!("golden/arch/{name}.json"))?);
    let mut loader = Loader::new(LoadOptions::default(), None).unwrap();
    loader.push(&std::fs::read(shared(&format!("golden/arch/{name}.gguf"))?).unwrap()).unwrap();
    let Loaded::Text(model) = loader.finish().unwrap() else { panic!("{name} is no language model") };
    Some((*model, numbers(&golden["token_ids"]).iter().map(|&id| id as u32).collect()))
}

/// Tokens written one by one, and how many of the prompt were still held.
fn greedy(model: &mut TextModel, prompt: &[u32], n: usize) -> (Vec<u32>, usize) {
    let mut options = GenerateOptions { max_tokens: n, ignore_eos: true, ..GenerateOptions::default() };
    options.sampler.temperature = 0.0;
    let mut generation = model.start(prompt.to_vec(), options).unwrap();
    while !matches!(model.step(&mut generation).unwrap(), Step::Done { .. }) {}
    (generation.tokens().to_vec(), generation.n_cached())
}

#[test]
fn steps_equal_batches() {
    for name in NAMES.into_iter().chain(["olmoe", "qwen2moe"]) {
        let Some((mut model, prompt)) = load(name) else { return };
        let (written, _) = greedy(&mut model, &prompt, 40);
        let all = [prompt.as_slice(), &written].concat();
        let rows = model.logits(&all, written.len() + 1).unwrap();
        for (i, (row, &token)) in rows.iter().zip(&written).enumerate() {
            let best = row.iter().fold(f32::MIN, |m, &x| m.max(x));
            // A token that was best one by one is best, up to rounding, among all at once.
            assert!(best - row[token as usize] < 1e-4, "{name}, token {i}: {best} {}", row[token as usize]);
        }
    }
}

#[test]
fn a_context_is_continued_whole_from_its_mark_or_begun_anew() {
    for name in NAMES {
        let Some((mut model, prompt)) = load(name) else { return };
        let (written, cached) = greedy(&mut model, &prompt, 20);
        assert_eq!(cached, 0);
        // The last token written was never processed: all before it are held.
        let held = prompt.len() + written.len() - 1;
        let longer = [prompt.as_slice(), &written].concat();
        let (rest, cached) = greedy(&mut model, &longer, 10);
        assert_eq!(cached, held, "{name}: a longer prompt continues what is held");
        // What comes before the prompt's last token was marked when it was first read.
        let marked = prompt.len() - 1;
        assert_eq!(
            greedy(&mut model, &longer, 10),
            (rest, marked),
            "{name}: a shorter one goes back to the mark"
        );
        // Now the longer prompt has the mark, and nothing that begins like this one is left.
        assert_eq!(greedy(&mut model, &prompt, 20), (written, 0), "{name}");
        let other = [&prompt[..4], &prompt[6..]].concat();
        assert_eq!(greedy(&mut model, &other, 1).1, 0, "{name}: another one begins anew");
    }
}
