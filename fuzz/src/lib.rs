//! What the targets check. What they share with `tests/fuzz.rs` lies there.

#[allow(dead_code, reason = "made for the tests, which also make inputs out of numbers")]
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../tests/bad_files/tally.rs"]
mod tally;
#[allow(dead_code, reason = "as above")]
#[path = "../../tests/fuzz/template.rs"]
pub mod template;
#[allow(dead_code, reason = "as above")]
#[path = "../../tests/fuzz/tokenizer.rs"]
pub mod tokenizer;

use bitpane::container::{self, Header};
use bitpane::quant::FORMATS;
use bitpane::quantizer::{Arriving, Files, Outline, Plan, RewriteOptions, Rewriter};
use bitpane::tasks::{LoadOptions, Loader};
use bitpane::{Code, Error, Result};

/// What a model may take while it is loaded.
const MEMORY_LIMIT: u64 = 64 << 20;

/// A file is refused or lies within itself, whichever way it is read, and loads or is refused.
pub fn container(file: &[u8]) {
    let len = file.len() as u64;
    let parsed = container::parse(file, Some(len));
    if let Ok(Some(header)) = &parsed {
        for t in &header.tensors {
            assert!(
                t.n_bytes == 0 || (t.offset >= header.data_offset && t.offset + t.n_bytes <= len),
                "{t:?}"
            );
        }
    }
    let chunks = [usize::MAX, 1 + file.len() / 7];
    let verdicts = chunks.map(|chunk| tally::stream(file, Some(len), chunk));
    for verdict in &verdicts {
        assert_eq!(verdict.is_ok(), matches!(parsed, Ok(Some(_))), "{verdict:?}");
    }
    let options =
        LoadOptions { memory_limit: Some(MEMORY_LIMIT), context_length: Some(16), ..LoadOptions::default() };
    let load = |quantize: Option<&str>| -> Result<()> {
        let options = LoadOptions { quantize: quantize.map(String::from), ..options.clone() };
        let mut loader = Loader::new(options, Some(len))?;
        loader.push(file)?;
        loader.finish().map(drop)
    };
    told(load(None));
    told(load(Some("Q4_0")));
}

/// An error says something, and not too much.
fn told<T>(result: Result<T>) {
    if let Err(error) = result {
        assert!(!error.message.is_empty() && error.message.len() < 4096, "{} bytes", error.message.len());
    }
}

/// Block `values` in every type that can be written, or a file rewritten in one: the first byte says which.
pub fn quantizer(data: &[u8]) {
    let Some((&which, rest)) = data.split_first() else { return };
    let writable: Vec<_> = FORMATS.iter().filter(|f| f.codec.is_some_and(|c| c.quantize.is_some())).collect();
    let format = writable[which as usize % writable.len()];
    if rest.starts_with(b"GGUF") {
        return told(rewritten(rest, format.name));
    }
    let codec = format.codec.unwrap();
    let numbers = rest.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    // What f16 scales cannot hold is another matter: it must not panic, but need not be finite.
    let is_moderate = numbers.clone().all(|v| v.abs() <= 60_000.0);
    let mut values: Vec<f32> =
        numbers.take(4 * format.block_len).map(|v| if v.is_finite() { v } else { 0.0 }).collect();
    values.truncate(values.len() / format.block_len * format.block_len);
    let weights: Vec<f32> = values.iter().rev().map(|v| v.abs().min(1e6)).collect();
    for weights in [vec![1.0; values.len()], weights] {
        let mut blocks = vec![0; values.len() / format.block_len * format.block_bytes];
        assert!(codec.encode(&values, &weights, &mut blocks));
        let mut back = vec![f32::NAN; values.len()];
        (codec.dequantize)(&blocks, &mut back);
        if is_moderate {
            assert!(back.iter().all(|v| v.is_finite()), "{} of {values:?} gives {back:?}", format.name);
        }
    }
}

/// A file that is written can be read.
fn rewritten(file: &[u8], name: &str) -> Result<()> {
    let wanted = bitpane::quantizer::writable(name, "type")?;
    let make = move |header: &Header| {
        let n_bytes = header.tensors.iter().map(|t| t.n_bytes).fold(0, u64::saturating_add);
        if n_bytes > MEMORY_LIMIT {
            return Err(Error::new(Code::OutOfMemory, "too large for this target"));
        }
        let outline = Outline::of(header, &Files::default())?;
        let plan = Plan::uniform(&outline, header, wanted);
        let options =
            RewriteOptions { requantize: true, zero_nonfinite: true, nearest: true, calibration: None };
        Rewriter::new(header, outline, &plan, options, Vec::new())
    };
    let mut arriving = Arriving::new(Some(file.len() as u64), Box::new(make));
    arriving.push(file)?;
    let (written, _) = arriving.finish()?.finish()?;
    assert!(
        matches!(container::parse(&written, Some(written.len() as u64)), Ok(Some(_))),
        "what is written cannot be read"
    );
    Ok(())
}
