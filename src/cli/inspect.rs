//! `bitpane inspect`: what rounding costs, tensor by tensor.

use super::calibrate::{self, Data, Drift};
use super::open::Threads;
use super::source::Source;
use super::{Outcome, open, output, output::Output, output::Progress};
use crate::error::{Error, Result};
use crate::quantizer::{CurvePoint, Survey, SurveyOptions, Surveyor};
use serde::Serialize;
use std::path::PathBuf;

/// Show what each type would cost each tensor, and how two files of a model differ
///
/// The losses are expectations: shares of lost power times what that part of a model has been seen to cost.
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF or safetensors file, or a folder with safetensors files
    file: PathBuf,
    /// Another file of the same model, such as the quantized one
    #[arg(long, value_name = "OTHER")]
    against: Option<PathBuf>,
    /// With --against: run both on these texts or images, and show how far apart they come
    #[arg(long, value_name = "PATH", requires = "against", num_args = 0..)]
    input: Option<Vec<PathBuf>>,
    /// Print the tensors as CSV
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    #[command(flatten)]
    threads: Threads,
}

/// One tensor in both files.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    name: String,
    r#type: &'static str,
    against_type: &'static str,
    bytes: u64,
    against_bytes: u64,
    sqnr_db: Option<f64>,
    max_error: f32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(flatten)]
    survey: &'a Survey,
    curve: Vec<CurvePoint>,
    against: Option<&'a [Difference]>,
    drift: Option<&'a Drift>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    args.threads.start();
    let source = Source::open(&args.file)?;
    let outline = source.outline().map_err(|e| open::in_file(&args.file, e))?;
    let mut surveyor = Surveyor::new(source.header(), outline, SurveyOptions::default())?;
    let mut progress = Progress::new();
    source.stream(&mut surveyor, |done, total| progress.show("measuring", done, total))?;
    drop(progress);
    let survey = surveyor.finish();
    let other = args.against.as_deref().map(Source::open).transpose()?;
    let differences = other.as_ref().map(|other| differences(&source, other)).transpose()?;
    let drift = match (&other, &args.input) {
        (Some(other), Some(paths)) => Some(calibrate::compare(&source, other, &Data::read(paths)?)?),
        _ => None,
    };
    let document = Document {
        survey: &survey,
        curve: survey.curve(),
        against: differences.as_deref(),
        drift: drift.as_ref(),
    };
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    if args.csv {
        return csv(out, &document);
    }
    print(out, &document)
}

fn differences(a: &Source, b: &Source) -> Result<Vec<Difference>> {
    let (first, second) = (a.outline()?, b.outline()?);
    let mut found = Vec::new();
    for target in &first.tensors {
        let Some(other) = second.tensors.iter().find(|t| t.name == target.name) else { continue };
        let (ours, theirs) = (&a.header().tensors[target.source], &b.header().tensors[other.source]);
        let (x, y) = match (a.values(target), b.values(other)) {
            (Ok(x), Ok(y)) if x.len() == y.len() => (x, y),
            (Err(e), _) | (_, Err(e)) => return Err(e.tensor(&target.name)),
            _ => return Err(shape_error(&target.name)),
        };
        let power: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
        let error: f64 = x.iter().zip(&y).map(|(p, q)| f64::from(p - q).powi(2)).sum();
        found.push(Difference {
            name: target.name.clone(),
            r#type: ours.dtype.name(),
            against_type: theirs.dtype.name(),
            bytes: ours.n_bytes,
            against_bytes: theirs.n_bytes,
            sqnr_db: (error > 0.0 && power > 0.0).then(|| 10.0 * libm::log10(power / error)),
            max_error: x.iter().zip(&y).fold(0f32, |m, (p, q)| m.max((p - q).abs())),
        });
    }
    Ok(found)
}

fn shape_error(name: &str) -> Error {
    let rule = "the two files are not of one model: the tensor has another size in the other";
    Error::new(crate::error::Code::ShapeMismatch, rule).tensor(name)
}

/// A field of CSV.
fn quoted(text: &str) -> String {
    format!("\"{}\"", output::one_line(text, 200).replace('"', "\"\""))
}

fn csv(out: &mut Output, document: &Document) -> Outcome {
    out.line("name,type,bytes,rms,maxAbs,outliers,sensitivity,choice,choiceBytes,choiceSqnrDb,choiceMaxError,choiceLoss")?;
    for t in &document.survey.tensors {
        for c in &t.choices {
            out.line(format!(
                "{},{},{},{},{},{},{},{},{},{},{},{}",
                quoted(&t.name),
                t.dtype,
                t.bytes,
                t.rms,
                t.max_abs,
                t.outliers.len(),
                t.sensitivity,
                c.dtype,
                c.bytes,
                c.sqnr_db.map_or(String::new(), |db| db.to_string()),
                c.max_error,
                c.loss
            ))?;
        }
    }
    Ok(())
}

fn print(out: &mut Output, document: &Document) -> Outcome {
    let db = |sqnr: Option<f64>| sqnr.map_or("exact".into(), |db| format!("{db:.1} dB"));
    let mut rows = vec![
        ["tensor", "type", "bytes", "rms", "largest", "outliers", "sensitivity", "at each type"]
            .map(String::from),
    ];
    for t in document.survey.tensors.iter().filter(|t| t.choices.len() > 1) {
        let outliers: Vec<String> = t.outliers.iter().take(2).map(|(c, r)| format!("{c}: {r:.1}x")).collect();
        let choices: Vec<String> = t
            .choices
            .iter()
            .map(|c| format!("{} {}", c.dtype, c.sqnr_db.map_or("exact".into(), |db| format!("{db:.0}"))))
            .collect();
        rows.push([
            output::one_line(&t.name, 40),
            t.dtype.clone(),
            output::bytes(t.bytes),
            format!("{:.4}", t.rms),
            format!("{:.3}", t.max_abs),
            outliers.join(" "),
            format!("{:.3}", t.sensitivity),
            choices.join("  "),
        ]);
    }
    out.table([false, false, true, true, true, false, true, false], &rows)?;
    if let Some(differences) = document.against {
        out.line("\nAgainst the other file")?;
        let row = |d: &Difference| {
            [
                output::one_line(&d.name, 40),
                format!("{} > {}", d.r#type, d.against_type),
                format!("{} > {}", output::bytes(d.bytes), output::bytes(d.against_bytes)),
                db(d.sqnr_db),
                format!("{:.2e}", d.max_error),
            ]
        };
        out.table([false, false, false, true, true], &differences.iter().map(row).collect::<Vec<_>>())?;
    }
    if let Some(drift) = document.drift {
        out.line("\nDrift of what goes into each matrix")?;
        let row = |(name, share): &(String, f64)| {
            [output::one_line(name, 40), format!("{:.2} %", share * 100.0), output::bar(*share as f32)]
        };
        out.table([false, true, false], &drift.layers.iter().map(row).collect::<Vec<_>>())?;
        out.line(format!(
            "output: divergence {:.5} nats, the same likeliest answer {:.1} % of the time",
            drift.mean_divergence,
            drift.same_top * 100.0
        ))?;
    }
    out.line("\nSize against expected loss")?;
    let shown = document.curve.len().div_ceil(16).max(1);
    let row = |p: &CurvePoint| {
        [output::bytes(p.bytes), format!("{:.2} bits", p.bits_per_weight), format!("{:.5}", p.loss)]
    };
    let rows: Vec<_> = document.curve.iter().step_by(shown).map(row).collect();
    out.table([true, true, true], &rows)?;
    Ok(())
}
