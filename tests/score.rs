//! Scoring a text, and the divergence between two models, against the formulas in f64.
#![cfg(not(target_arch = "wasm32"))]

mod common;

use bitpane::Code;
use bitpane::tasks::{LoadOptions, Loaded, Loader, ScoreOptions, Scoring, TextModel};
use common::shared;

const MODEL: &str = "data/lm/stories260K/stories260K.F32.gguf";
const TEXT: &str = "Once upon a time, there was a little girl. She was very happy and had a red ball.";
const CONTEXT: usize = 20;

fn model(quantize: Option<&str>) -> Option<TextModel> {
    let options = LoadOptions { quantize: quantize.map(String::from), ..LoadOptions::default() };
    let mut loader = Loader::new(options, None).unwrap();
    loader.push(&std::fs::read(shared(MODEL)?).unwrap()).unwrap();
    match loader.finish().unwrap() {
        Loaded::Text(model) => Some(*model),
        _ => panic!("no language model"),
    }
}

/// Scores [`TEXT`] and gives the finished scoring with its record.
fn score(model: &mut TextModel, against: Option<Vec<u8>>) -> (Scoring, Vec<u8>) {
    let options = ScoreOptions { context: Some(CONTEXT), record: true, against };
    let mut scoring = model.start_scoring(TEXT, options).unwrap();
    let mut record = Vec::new();
    while !model.step_scoring(&mut scoring).unwrap() {
        record.extend(scoring.take_record());
    }
    record.extend(scoring.take_record());
    (scoring, record)
}

/// ln p of every row, in f64, for each piece of the text, and the tokens that follow.
fn distributions(model: &mut TextModel) -> Vec<(Vec<f64>, usize)> {
    let tokens = model.tokenize(TEXT, false, false).unwrap();
    let bos = model.tokenizer().bos().unwrap();
    let mut rows = Vec::new();
    for piece in tokens.chunks(CONTEXT - 1) {
        let chunk: Vec<u32> = [bos].into_iter().chain(piece.iter().copied()).collect();
        let logits = model.logits(&chunk, chunk.len()).unwrap();
        for (row, &next) in logits.iter().zip(&chunk[1..]) {
            let sum: f64 = row.iter().map(|&v| f64::from(v).exp()).sum();
            rows.push((row.iter().map(|&v| f64::from(v) - sum.ln()).collect(), next as usize));
        }
    }
    rows
}

fn top(row: &[f64]) -> usize {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap()
}

#[test]
fn divergence_and_nll_follow_their_formulas() {
    let (Some(mut fine), Some(mut coarse)) = (model(None), model(Some("Q4_0"))) else { return };
    let (ours, record) = score(&mut fine, None);
    let (theirs, _) = score(&mut coarse, Some(record));
    let (p, q) = (distributions(&mut fine), distributions(&mut coarse));
    let n = p.len() as f64;
    let nll = |rows: &[(Vec<f64>, usize)]| -rows.iter().map(|(row, next)| row[*next]).sum::<f64>() / n;
    let kl: Vec<f64> = p
        .iter()
        .zip(&q)
        .map(|((p, _), (q, _))| p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum())
        .collect();
    let same = p.iter().zip(&q).filter(|((p, _), (q, _))| top(p) == top(q)).count() as f64;
    let (ours, theirs) = (ours.score(), theirs.score());
    let d = theirs.divergence.unwrap();
    println!(
        "KL {:.6} +- {:.6}, same top {:.3}, nll {:.5}",
        d.mean, d.standard_error, d.same_top, theirs.nll
    );
    assert_eq!((ours.tokens, theirs.tokens), (p.len(), p.len()));
    assert!((ours.nll - nll(&p)).abs() < 1e-9 && (theirs.nll - nll(&q)).abs() < 1e-9);
    assert!((ours.perplexity - ours.nll.exp()).abs() < 1e-9);
    // The record rounds ln p to steps of 4e-4.
    assert!((d.mean - kl.iter().sum::<f64>() / n).abs() < 1e-5, "{} {:?}", d.mean, kl);
    assert!((d.max - kl.iter().copied().fold(0.0, f64::max)).abs() < 1e-4);
    assert!((d.reference_nll - nll(&p)).abs() < 1e-3);
    assert_eq!(d.same_top, same / n);
    assert!(d.mean > 1e-4 && d.median <= d.p99 && d.p99 <= d.max);
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let Some(mut model) = model(None) else { return };
    let (_, record) = score(&mut model, None);
    let (again, _) = score(&mut model, Some(record));
    let d = again.score().divergence.unwrap();
    assert!(d.mean.abs() < 1e-6 && d.max < 1e-5 && d.same_top == 1.0, "{d:?}");
}

#[test]
fn damaged_and_foreign_records_are_errors() {
    let Some(mut model) = model(None) else { return };
    let (_, record) = score(&mut model, None);
    let mut attempt = |record: Vec<u8>| {
        let options = ScoreOptions { context: Some(CONTEXT), record: false, against: Some(record) };
        let mut scoring = model.start_scoring(TEXT, options).map_err(|e| (e.code, e.key))?;
        loop {
            if model.step_scoring(&mut scoring).map_err(|e| (e.code, e.key))? {
                return Ok(());
            }
        }
    };
    let key = || Some("against".to_string());
    assert_eq!(attempt(record.clone()), Ok(()));
    assert_eq!(attempt(Vec::new()), Err((Code::BadValue, key())));
    for len in [4, 10, 19, 30, record.len() - 1] {
        assert_eq!(attempt(record[..len].to_vec()), Err((Code::Truncated, key())), "{len}");
    }
    // Version, vocabulary, context, number of tokens, first token.
    for (i, code) in
        [Code::BadValue, Code::BadArgument, Code::BadArgument, Code::BadArgument, Code::BadArgument]
            .into_iter()
            .enumerate()
    {
        let mut changed = record.clone();
        changed[4 + 4 * i] ^= 1;
        assert_eq!(attempt(changed), Err((code, key())), "field {i}");
    }
    for context in [0, 1, 1 << 20] {
        let options = ScoreOptions { context: Some(context), ..ScoreOptions::default() };
        assert_eq!(model.start_scoring(TEXT, options).err().map(|e| e.code), Some(Code::BadArgument));
    }
}
