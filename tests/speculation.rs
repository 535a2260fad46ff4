//! Guessing tokens ahead changes how fast a text is written, and nothing else.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::Code;
use bitpane::tasks::sampler::SamplerParams;
use bitpane::tasks::{GenerateOptions, LoadOptions, Loaded, Loader, Speculation, Step, TextModel};
use common::shared;

const STORIES: &str = "data/lm/stories260K/stories260K.F32.gguf";
const PROMPT: &str = "Once upon a time, there was a little girl named Lily. Once upon a time, there was";

fn model(file: &str, quantize: Option<&str>) -> Option<TextModel> {
    let options = LoadOptions { quantize: quantize.map(String::from), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(&std::fs::read(shared(file)?).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => Some(*model),
        _ => panic!("no language model"),
    }
}

/// (tokens, guesses made, guesses right)
fn write(
    model: &mut TextModel,
    temperature: f32,
    speculative: Option<Speculation>,
) -> (Vec<u32>, usize, usize) {
    let sampler =
        SamplerParams { temperature, seed: Some(5), repeat_penalty: 1.1, ..SamplerParams::default() };
    let options = GenerateOptions {
        max_tokens: 120,
        ignore_eos: true,
        speculative,
        sampler,
        ..GenerateOptions::default()
    };
    let prompt = model.tokenize(PROMPT, true, false).unwrap();
    let mut generation = model.start(prompt, options).unwrap();
    while !matches!(model.step(&mut generation).unwrap(), Step::Done { .. }) {}
    let (made, right) = generation.n_drafted();
    (generation.tokens().to_vec(), made, right)
}

#[test]
fn the_text_is_the_same() {
    let Some(mut plain) = model(STORIES, None) else { return };
    let Some(mut drafted) = model(STORIES, None) else { return };
    let Some(draft) = model(STORIES, Some("Q4_0")) else { return };
    drafted.set_draft(draft).unwrap();
    for temperature in [0.0, 0.8, 1.5] {
        let (want, made, _) = write(&mut plain, temperature, None);
        assert_eq!((want.len(), made), (120, 0));
        for (name, max_draft) in [("lookup", 1), ("lookup", 8), ("draft", 4), ("draft", 16)] {
            let model = if name == "draft" { &mut drafted } else { &mut plain };
            model.forget();
            let speculation = Speculation { max_draft, min_p: 0.2, ..Speculation::default() };
            let (got, made, right) = write(model, temperature, Some(speculation));
            println!(
                "temperature {temperature}, {name}, at most {max_draft}: {right} of {made} guesses right"
            );
            assert_eq!(got, want, "{name} at {temperature}");
            assert!(made > 0 && right <= made, "{name} at {temperature}: {right} of {made}");
            if name == "draft" && temperature == 0.0 {
                assert!(right * 2 > made, "the same model with fewer bits guesses well: {right} of {made}");
            }
        }
    }
}

#[test]
fn it_ends_where_it_should() {
    let Some(mut model) = model(STORIES, None) else { return };
    let prompt = model.tokenize(PROMPT, true, false).unwrap();
    for max_tokens in 0..12 {
        let speculative = Some(Speculation::default());
        let sampler = SamplerParams { temperature: 0.0, ..SamplerParams::default() };
        let options = GenerateOptions {
            max_tokens,
            ignore_eos: true,
            speculative,
            sampler,
            ..GenerateOptions::default()
        };
        let mut generation = model.start(prompt.clone(), options).unwrap();
        while !matches!(model.step(&mut generation).unwrap(), Step::Done { .. }) {}
        assert_eq!(generation.tokens().len(), max_tokens);
    }
}

#[test]
fn options_and_models_that_do_not_fit() {
    let Some(mut stories) = model(STORIES, None) else { return };
    let bad = |speculation: Speculation| speculation.validate().unwrap_err();
    let plain = Speculation::default;
    for (speculation, key) in [
        (Speculation { max_draft: 0, ..plain() }, "maxDraft"),
        (Speculation { max_draft: 17, ..plain() }, "maxDraft"),
        (Speculation { ngram: 1, ..plain() }, "ngram"),
        (Speculation { ngram: 17, ..plain() }, "ngram"),
        (Speculation { min_p: -0.1, ..plain() }, "minP"),
        (Speculation { min_p: f32::NAN, ..plain() }, "minP"),
    ] {
        let error = bad(speculation);
        assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some(key)));
    }
    let Some(other) = model("data/lm/babyllama_tok105/babyllama105.Q8_0.gguf", None) else { return };
    let error = stories.set_draft(other).unwrap_err();
    assert_eq!((error.code, error.key.as_deref()), (Code::BadArgument, Some("draft")));
}
