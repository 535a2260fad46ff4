//! `bitpane quantize`: a model file of fewer bits.

use super::calibrate::{self, Calibrated, Data, Keep};
use super::open::Threads;
use super::sequential;
use super::source::Source;
use super::{Failure, Outcome, open, output, output::Output, output::Progress};
use crate::error::{Code, Error, Result};
use crate::quantizer::{
    Budget, Calibration, Outline, Plan, Report, RewriteOptions, Rewriter, Statistics, Survey, SurveyOptions,
    Surveyor, writable,
};
use serde::Serialize;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write a model as a GGUF file of fewer bits, in one type or within a budget
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF or safetensors file, or a folder with safetensors files and their config.json
    input: PathBuf,
    /// The GGUF file to write
    output: PathBuf,
    /// One type for all matrices, such as Q8_0, Q4_K or Q4_0
    #[arg(long = "type", value_name = "TYPE", group = "what")]
    dtype: Option<String>,
    /// Mix types so that the file has at most so many bytes
    #[arg(long, value_name = "N", group = "what")]
    target_bytes: Option<u64>,
    /// Mix types so that weights have at most so many bits on average
    #[arg(long, value_name = "X", group = "what", allow_negative_numbers = true)]
    bits_per_weight: Option<f64>,
    /// Mix types so that the expected loss is at most this, in the unit that the plan shows
    #[arg(long, value_name = "X", group = "what", visible_alias = "max-kl")]
    max_loss: Option<f64>,
    /// Use the types of a plan that --plan has written, perhaps edited
    #[arg(long, value_name = "FILE", group = "what")]
    plan_in: Option<PathBuf>,
    /// Write the plan, as JSON
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Print the plan and write no model
    #[arg(long)]
    dry_run: bool,
    /// Types that a mix may use, separated by commas [default: all that fit]
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    types: Vec<String>,
    /// Weigh errors by this importance matrix, of `bitpane imatrix` or llama.cpp
    #[arg(long, value_name = "FILE", conflicts_with = "calibrate")]
    imatrix: Option<PathBuf>,
    /// Run the model on texts, images or folders of images (or, without any, on data that comes with this program): errors
    /// are weighed by what is seen, and plans rest on measured losses
    #[arg(long, value_name = "PATH", num_args = 0..)]
    calibrate: Option<Vec<PathBuf>>,
    /// With --calibrate: let each column make up for what others lose (GPTQ)
    #[arg(long, requires = "calibrate")]
    gptq: bool,
    /// Round to the nearest codes instead of searching for scales: the baseline
    #[arg(long)]
    nearest: bool,
    /// Round again what has been rounded before, which loses more than rounding the original
    #[arg(long)]
    allow_requantize: bool,
    /// What to do with weights that are NaN or infinite, instead of refusing them
    #[arg(long, value_name = "zero", value_parser = ["zero"])]
    allow_nonfinite: Option<String>,
    #[command(flatten)]
    threads: Threads,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a Report,
    plan: &'a Plan,
    loss_unit: Option<&'a str>,
    ms: f64,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let budget = check(args).map_err(Failure::Usage)?;
    args.threads.start();
    let begin = Instant::now();
    let source = Source::open(&args.input)?;
    refuse_same_file(&source.files, &args.output)?;
    let outline = source.outline().map_err(|e| open::in_file(&args.input, e))?;
    let mut known = Known::of(args, &source, &outline)?;
    let (plan, survey) = make_plan(args, budget, &source, &outline, &mut known)?;
    if let Some(path) = &args.plan {
        let json = serde_json::to_vec_pretty(&plan).map_err(|e| Error::new(Code::Io, e.to_string()))?;
        std::fs::write(path, json).map_err(|e| open::io_error(path, "cannot write", e))?;
    }
    let loss_unit = survey.as_ref().map(|s| s.loss_unit.as_str());
    let report = match args.dry_run {
        true => Report {
            bytes_before: source.header().data_bytes(),
            bytes_after: plan.bytes,
            bits_per_weight: plan.bits_per_weight,
            ..Report::default()
        },
        false => {
            if args.gptq {
                known.round_layers(&source, &outline, &plan)?;
            }
            write(args, &source, outline, &plan, known.into_statistics())?
        }
    };
    let ms = begin.elapsed().as_secs_f64() * 1e3;
    report.notes.iter().for_each(|note| output::note(format!("note: {note}")));
    if out.json {
        out.document(&Document { report: &report, plan: &plan, loss_unit, ms })?;
        return Ok(());
    }
    print(out, args, &report, &plan, ms)
}

/// The budget, if one is asked for.
fn check(args: &Args) -> Result<Option<Budget>> {
    let budget = Budget {
        target_bytes: args.target_bytes,
        bits_per_weight: args.bits_per_weight,
        max_loss: args.max_loss,
    };
    args.types.iter().try_for_each(|name| writable(name, "types").map(drop))?;
    if let Some(name) = &args.dtype {
        writable(name, "type")?;
        return Ok(None);
    }
    if args.plan_in.is_some() {
        return Ok(None);
    }
    if args.target_bytes.is_none() && args.bits_per_weight.is_none() && args.max_loss.is_none() {
        let rule = "say what to write: --type, --target-bytes, --bits-per-weight, --max-loss or --plan-in";
        return Err(Error::new(Code::BadArgument, rule).key("type"));
    }
    Ok(Some(budget))
}

fn make_plan(
    args: &Args,
    budget: Option<Budget>,
    source: &Source,
    outline: &Outline,
    known: &mut Known,
) -> std::result::Result<(Plan, Option<Survey>), Failure> {
    if let Some(name) = &args.dtype {
        let dtype = writable(name, "type").map_err(Failure::Usage)?;
        return Ok((Plan::uniform(outline, source.header(), dtype), None));
    }
    if let Some(path) = &args.plan_in {
        let text = open::read_text(path, 64 << 20)?;
        let bad =
            |e: serde_json::Error| Error::new(Code::BadValue, format!("{}: {e}", path.display())).source(e);
        return Ok((serde_json::from_str(&text).map_err(bad)?, None));
    }
    let types = args.types.iter().map(|name| writable(name, "types")).collect::<Result<Vec<_>>>()?;
    let options =
        SurveyOptions { types, zero_nonfinite: args.allow_nonfinite.is_some(), calibration: known.weights() };
    let mut surveyor = Surveyor::new(source.header(), outline.clone(), options)?;
    let mut progress = Progress::new();
    source.stream(&mut surveyor, |done, total| progress.show("measuring", done, total))?;
    drop(progress);
    let mut survey = surveyor.finish();
    if let Some(Calibrated { statistics, probe: Some(probe), .. }) = &mut known.calibrated {
        let mut progress = Progress::new();
        let show = |done, total| progress.show("probing", done, total);
        probe.measure(&mut survey, statistics, source, outline, show)?;
    }
    let plan = survey.plan(&budget.unwrap_or_default())?;
    Ok((plan, Some(survey)))
}

/// What is known from data.
#[derive(Default)]
struct Known {
    /// Of a file.
    imatrix: Option<Statistics>,
    calibrated: Option<Calibrated>,
}

impl Known {
    fn of(args: &Args, source: &Source, outline: &Outline) -> Result<Self> {
        if let Some(path) = &args.imatrix {
            let imatrix = Some(calibrate::read_imatrix(path, outline)?);
            return Ok(Known { imatrix, ..Known::default() });
        }
        let Some(paths) = &args.calibrate else { return Ok(Known::default()) };
        let has_types = args.dtype.is_some() || args.plan_in.is_some();
        let keep = match args.gptq {
            true if has_types => Keep::PairsUnlessLayered,
            true => Keep::Pairs,
            false => Keep::Squares,
        };
        let calibrated = calibrate::run(source, outline, Data::read(paths)?, keep, has_types)?;
        Ok(Known { calibrated: Some(calibrated), ..Known::default() })
    }

    /// Rounds layer after layer what can be.
    fn round_layers(&mut self, source: &Source, outline: &Outline, plan: &Plan) -> Result<()> {
        let Some(known) = self.calibrated.as_mut().filter(|known| known.is_layered) else { return Ok(()) };
        let mut progress = Progress::new();
        let show = |done, total| progress.show("rounding", done, total);
        sequential::run(source, outline, plan, &known.data, &mut known.statistics, show)
    }

    fn statistics(&self) -> Option<&Statistics> {
        self.imatrix.as_ref().or(self.calibrated.as_ref().map(|c| &c.statistics))
    }

    fn into_statistics(self) -> Option<Statistics> {
        self.imatrix.or(self.calibrated.map(|c| c.statistics))
    }

    /// What a survey needs.
    fn weights(&self) -> Option<Box<dyn Calibration>> {
        self.statistics().map(|s| Box::new(s.without_pairs()) as Box<dyn Calibration>)
    }
}

fn write(
    args: &Args,
    source: &Source,
    outline: Outline,
    plan: &Plan,
    statistics: Option<Statistics>,
) -> Result<Report> {
    let options = RewriteOptions {
        requantize: args.allow_requantize,
        zero_nonfinite: args.allow_nonfinite.is_some(),
        nearest: args.nearest,
        calibration: statistics.map(|s| Box::new(s) as Box<dyn Calibration>),
    };
    let (temporary, file) = Temporary::create(&args.output)?;
    let named = NamedFile { file, path: &args.output };
    let mut rewriter = Rewriter::new(source.header(), outline, plan, options, BufWriter::new(named))?;
    let mut progress = Progress::new();
    source.stream(&mut rewriter, |done, total| progress.show("quantizing", done, total))?;
    let (file, report) = rewriter.finish()?;
    let file = file.into_inner().map_err(|e| open::io_error(&args.output, "cannot write", e.into_error()))?;
    file.file.sync_all().map_err(|e| open::io_error(&args.output, "cannot write", e))?;
    temporary.rename(&args.output)?;
    Ok(report)
}

/// Whether the output would replace what is read.
fn refuse_same_file(inputs: &[PathBuf], output: &Path) -> Result<()> {
    let of = |path: &Path| path.canonicalize().ok();
    let same = |input: &&PathBuf| of(input).is_some_and(|i| of(output) == Some(i));
    match inputs.iter().find(same) {
        None => Ok(()),
        Some(input) => {
            let rule = format!("{}: the output would replace the model that is read", input.display());
            Err(Error::new(Code::BadArgument, rule).key("output"))
        }
    }
}

/// A file whose errors name what it is to become.
struct NamedFile<'a> {
    file: File,
    path: &'a Path,
}

impl NamedFile<'_> {
    fn named(&self, e: io::Error) -> io::Error {
        io::Error::new(e.kind(), format!("{}: {e}", self.path.display()))
    }
}

impl Write for NamedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|e| self.named(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|e| self.named(e))
    }
}

/// A file beside the output that becomes it when it is whole, and goes away otherwise.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn create(output: &Path) -> Result<(Temporary, File)> {
        if output.is_dir() {
            return Err(Error::new(Code::Io, format!("{}: is a directory, not a file", output.display())));
        }
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.part", std::process::id()));
        let path = output.with_file_name(name);
        let file = File::create(&path).map_err(|e| open::io_error(output, "cannot create", e))?;
        Ok((Temporary { path }, file))
    }

    fn rename(self, output: &Path) -> Result<()> {
        std::fs::rename(&self.path, output).map_err(|e| open::io_error(output, "cannot write", e))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn print(out: &mut Output, args: &Args, report: &Report, plan: &Plan, ms: f64) -> Outcome {
    let rows: Vec<[String; 6]> = report
        .per_tensor
        .iter()
        .map(|t| {
            let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
            [
                output::one_line(&t.name, 60),
                shape.join(" x "),
                format!("{} > {}", t.from, t.dtype),
                output::bytes(t.bytes),
                t.sqnr_db.map_or("exact".into(), |db| format!("{db:.1} dB")),
                output::one_line(t.note.as_deref().unwrap_or(""), 100),
            ]
        })
        .collect();
    out.table([false, false, false, true, true, false], &rows)?;
    if args.dry_run {
        let rows: Vec<[String; 2]> =
            plan.tensors.iter().map(|p| [output::one_line(&p.name, 60), p.dtype.clone()]).collect();
        out.table([false, false], &rows)?;
    }
    let mut line = format!(
        "{} of weights {} a file of {}, {:.3} bits per weight",
        output::bytes(report.bytes_before),
        if args.dry_run { "would become" } else { "become" },
        output::bytes(report.bytes_after),
        report.bits_per_weight
    );
    if let Some(loss) = plan.expected_loss {
        line += &format!(", expected loss {loss:.4}");
    }
    out.line(format!("{line} ({:.1} s)", ms / 1e3))?;
    Ok(())
}
