//! `bitpane classify`: says what photos show.

use super::{Failure, Outcome, labels, open, output, output::Output, photo};
use crate::error::{Code, Error, Result};
use crate::tasks::{Class, VisionModel, ZeroShotOptions};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Say what photos show, with an image classifier
#[derive(clap::Args)]
pub(super) struct Args {
    /// A vision model: a safetensors (with its config.json beside it) or GGUF file
    model: PathBuf,
    /// Photos: BMP, JPEG, PNG or WebP
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// How many of the most probable classes to name
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    top_k: u32,
    /// Names of the classes: a file with one per line, as in "tench" or "n01440764 tench"; or, for models that read
    /// texts (CLIP, SigLIP), what the photos may show, separated by commas
    #[arg(long, value_name = "FILE|LIST")]
    labels: Option<String>,
    /// For models that read texts: the sentence around a label, in which {} stands for it
    #[arg(long, value_name = "TEXT", default_value_t = ZeroShotOptions::default().template)]
    template: String,
    #[command(flatten)]
    load: open::LoadArgs,
}

#[derive(Serialize)]
struct Document {
    results: Vec<Answer>,
}

/// One photo's classes, or why there are none.
#[derive(Serialize)]
struct Answer {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failed>,
    /// Best first.
    top: Vec<Class>,
    /// Milliseconds from pixels to answer.
    ms: f64,
}

#[derive(Serialize)]
struct Failed {
    code: &'static str,
    message: String,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let is_list = |given: &str| given.contains(',') && !Path::new(given).exists();
    let names = match args.labels.as_deref() {
        None => None,
        Some(list) if is_list(list) => Some(list.split(',').map(|name| name.trim().to_string()).collect()),
        Some(file) => Some(labels::read(Path::new(file))?),
    };
    let mut model = open::vision_model(&args.model, &args.load)?;
    let mut task = Task { top_k: args.top_k as usize, zero_shot: None };
    if model.has_text_tower() {
        let rule = "the model compares photos with texts: say what they may show";
        let names = names.ok_or_else(|| Failure::Usage(Error::new(Code::BadArgument, rule).key("labels")))?;
        task.zero_shot = Some((names, ZeroShotOptions { template: args.template.clone() }));
    } else if let Some(names) = names {
        let path = Path::new(args.labels.as_deref().unwrap_or(""));
        model.set_labels(names).map_err(|e| open::in_file(path, e))?;
    }
    let mut results = Vec::with_capacity(args.images.len());
    let mut any_failed = false;
    for path in &args.images {
        let answer = answer(&mut model, path, &task);
        any_failed |= answer.error.is_some();
        if out.json {
            results.push(answer);
        } else {
            print(&answer, out)?;
        }
    }
    if out.json {
        out.document(&Document { results })?;
    }
    if any_failed { Err(Failure::Reported) } else { Ok(()) }
}

/// What to do with each photo.
struct Task {
    top_k: usize,
    zero_shot: Option<(Vec<String>, ZeroShotOptions)>,
}

/// Classifies one photo. A photo that fails is reported: the others may be fine.
fn answer(model: &mut VisionModel, path: &Path, task: &Task) -> Answer {
    let file = path.display().to_string();
    match classify(model, path, task) {
        Ok((top, ms)) => Answer { file, error: None, top, ms },
        Err(error) => {
            output::report(&error);
            let failed = Failed { code: error.code.as_str(), message: error.message };
            Answer { file, error: Some(failed), top: Vec::new(), ms: 0.0 }
        }
    }
}

fn classify(model: &mut VisionModel, path: &Path, task: &Task) -> Result<(Vec<Class>, f64)> {
    let photo = photo::read(path)?;
    let begin = Instant::now();
    let view = photo.view()?;
    let top = match &task.zero_shot {
        None => model.classify(&view, task.top_k),
        Some((labels, options)) => model.zero_shot(&view, labels, options).map(|mut all| {
            all.truncate(task.top_k);
            all
        }),
    };
    let top = top.map_err(|e| open::in_file(path, e))?;
    Ok((top, begin.elapsed().as_secs_f64() * 1e3))
}

fn print(answer: &Answer, out: &mut Output) -> std::io::Result<()> {
    if answer.error.is_some() {
        return Ok(());
    }
    let top = &answer.top;
    out.line(format!("{} ({:.0} ms)", answer.file, answer.ms))?;
    let rows: Vec<[String; 4]> = top
        .iter()
        .map(|class| {
            [
                format!("{:.1} %", class.score * 100.0),
                output::bar(class.score),
                class.index.to_string(),
                output::one_line(&class.label, 60),
            ]
        })
        .collect();
    out.table([true, false, true, false], &rows)
}
