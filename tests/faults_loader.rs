//! Rows of the fault catalogue's groups G and S that the model layer decides: a typed error
//! that names the offender, and a good model loads after it as if nothing had been.

mod bad_files;

use bad_files::model::{self, Model};
use bad_files::{Case, complaint};
use bitpane::tasks::{EmbedOptions, LoadOptions, Loaded, Loader};
use bitpane::{Code, Result};

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;
#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

fn load(file: &[u8], options: LoadOptions) -> Result<Loaded> {
    let mut loader = Loader::new(options, None)?;
    for piece in file.chunks(1000) {
        loader.push(piece)?;
    }
    loader.finish()
}

/// Logits of a model on a fixed input.
fn run(loaded: Loaded) -> Result<Vec<f32>> {
    match loaded {
        Loaded::Text(mut model) => model.logits(&[1, 5, 9], 1).map(|mut rows| rows.remove(0)),
        Loaded::Encoder(mut model) => model.embed_tokens(&[1, 5, 9], &EmbedOptions::default()),
        Loaded::Vision(mut model) => {
            let size = model.info().image_size;
            let pixels: Vec<f32> = (0..3 * size * size).map(|i| (i % 7) as f32 / 7.0).collect();
            model.logits(&pixels, &[3, size, size])
        }
    }
}

fn verdict(case: &Case) -> Result<()> {
    let logits = run(load(&case.bytes, LoadOptions::default())?)?;
    assert!(logits.iter().all(|l| l.is_finite()), "{} {}", case.id, case.what);
    Ok(())
}

#[test]
fn every_case_gets_its_verdict() {
    let good = Model::llama().gguf();
    let before = run(load(&good, LoadOptions::default()).unwrap()).unwrap();
    let cases = model::cases();
    let mut complaints = Vec::new();
    for case in &cases {
        #[cfg(not(target_arch = "wasm32"))]
        let verdict = std::panic::catch_unwind(|| verdict(case));
        #[cfg(target_arch = "wasm32")]
        let verdict = Ok::<_, ()>(verdict(case));
        let complaint = match &verdict {
            Ok(verdict) => complaint(case, verdict),
            Err(_) => Some("PANIC".into()),
        };
        if let Some(complaint) = complaint {
            complaints.push(format!("{} {}: wanted {:?}, {complaint}", case.id, case.what, case.code));
        }
    }
    assert!(complaints.is_empty(), "{} wrong verdicts\n{}", complaints.len(), complaints.join("\n"));
    let after = run(load(&good, LoadOptions::default()).unwrap()).unwrap();
    assert_eq!(before, after, "a good model computes the same after {} others", cases.len());
    let n_bad = cases.iter().filter(|c| c.code.is_some()).count();
    println!("{} model cases: {n_bad} refused, {} accepted", cases.len(), cases.len() - n_bad);
}

#[test]
fn weights_that_are_no_numbers_are_not_quantized() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for quantize in ["Q8_0", "Q4_0"] {
            let file = Model::llama().value("blk.0.ffn_up.weight", 100, value).gguf();
            let options = LoadOptions { quantize: Some(quantize.into()), ..LoadOptions::default() };
            let e = load(&file, options).map(|_| ()).expect_err("not a number");
            assert_eq!((e.code, e.tensor.as_deref()), (Code::NonFiniteWeight, Some("blk.0.ffn_up.weight")));
        }
    }
}

#[test]
fn extreme_weights_load() {
    for value in [f32::MAX, f32::MIN_POSITIVE, 1e-40, -0.0, 1e-30] {
        for quantize in [None, Some("Q8_0"), Some("Q4_0")] {
            let file = Model::llama().value("blk.0.ffn_up.weight", 100, value).gguf();
            let options = LoadOptions { quantize: quantize.map(str::to_string), ..LoadOptions::default() };
            match load(&file, options) {
                Ok(loaded) => drop(run(loaded)),
                Err(e) => assert_eq!(e.tensor.as_deref(), Some("blk.0.ffn_up.weight"), "{e}"),
            }
        }
    }
}
