//! `bitpane info`: what a model file says, without loading its weights.

use super::{Outcome, open, output, output::Output};
use crate::container::{Array, ContainerKind, Header, TensorInfo, Value};
use crate::models;
use crate::quant::DType;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::path::PathBuf;

/// Show what a model file holds: architecture, sizes, metadata, tensors
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF, safetensors or .tflite file; of the last what it is loaded as
    file: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let header = open::header(&args.file)?;
    let mut summary = Summary::of(&header);
    if open::is_tflite(&args.file).unwrap_or(false) {
        summary.container = "tflite";
    }
    if out.json {
        out.document(&Document { summary: &summary, header: &header })?;
        return Ok(());
    }
    let name = args.file.display().to_string();
    out.line(name)?;
    print_summary(&summary, &header, out)?;
    let metadata: Vec<[String; 2]> =
        header.metadata.iter().map(|(key, value)| [output::one_line(key, 80), describe(value)]).collect();
    let tensors: Vec<[String; 4]> = header.tensors.iter().map(tensor_row).collect();
    if !metadata.is_empty() {
        out.line("\nMetadata")?;
        out.table([false, false], &metadata)?;
    }
    if !tensors.is_empty() {
        out.line("\nTensors")?;
        out.table([false, false, false, true], &tensors)?;
    }
    Ok(())
}

/// What can be said in a line each.
struct Summary {
    container: &'static str,
    architecture: Option<String>,
    parameters: u64,
    weight_bytes: u64,
    bits_per_weight: f64,
}

impl Summary {
    fn of(header: &Header) -> Self {
        let n_elements = |t: &TensorInfo| t.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        let parameters = header.tensors.iter().fold(0u64, |sum, t| sum.saturating_add(n_elements(t)));
        let weight_bytes = header.tensors.iter().fold(0u64, |sum, t| sum.saturating_add(t.n_bytes));
        Summary {
            container: match header.kind {
                ContainerKind::Gguf => "GGUF",
                ContainerKind::Safetensors => "safetensors",
            },
            architecture: architecture(header),
            parameters,
            weight_bytes,
            bits_per_weight: if parameters == 0 {
                0.0
            } else {
                weight_bytes as f64 * 8.0 / parameters as f64
            },
        }
    }
}

/// As the file names it, supported or not; else as its tensors show.
fn architecture(header: &Header) -> Option<String> {
    let named = header.metadata.str("general.architecture").ok().flatten();
    named.map(String::from).or_else(|| models::identify(header, None).ok().map(|(_, name)| name))
}

fn print_summary(summary: &Summary, header: &Header, out: &mut Output) -> std::io::Result<()> {
    let supported = match models::identify(header, None) {
        Ok(_) => "",
        Err(_) => " (not supported)",
    };
    let architecture = summary.architecture.as_deref().unwrap_or("unknown");
    let row = |name: &str, value: String| [name.to_string(), value];
    out.table(
        [false, false],
        &[
            row("container", summary.container.to_string()),
            row("architecture", output::one_line(architecture, 64) + supported),
            row("parameters", output::count(summary.parameters)),
            row(
                "weights",
                format!("{}, {:.2} bits each", output::bytes(summary.weight_bytes), summary.bits_per_weight),
            ),
            row("types", types(header)),
        ],
    )?;
    let mut matrices: Vec<_> = header.tensors.iter().filter(|t| t.shape.len() > 1).map(|t| t.dtype).collect();
    matrices.sort_by_key(|dtype| dtype.0);
    matrices.dedup();
    let held = |dtype: &DType| dtype.held_as().unwrap_or_else(|| "not supported".into());
    let rows: Vec<[String; 2]> = matrices.iter().map(|d| [d.name().to_string(), held(d)]).collect();
    if !rows.is_empty() {
        out.line("\nIn memory")?;
        out.table([false, false], &rows)?;
    }
    Ok(())
}

/// How many tensors there are of each type, as in `36 Q4_0, 11 F32`.
fn types(header: &Header) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for tensor in &header.tensors {
        let name = tensor.dtype.name();
        match counts.iter_mut().find(|(n, _)| *n == name) {
            Some((_, n)) => *n += 1,
            None => counts.push((name, 1)),
        }
    }
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let parts: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
    if parts.is_empty() { "no tensors".into() } else { parts.join(", ") }
}

fn tensor_row(tensor: &TensorInfo) -> [String; 4] {
    let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
    [
        output::one_line(&tensor.name, 80),
        tensor.dtype.name().to_string(),
        shape.join(" x "),
        output::bytes(tensor.n_bytes),
    ]
}

/// A value on one line.
fn describe(value: &Value) -> String {
    match value {
        Value::U64(v) => v.to_string(),
        Value::I64(v) => v.to_string(),
        Value::F32(v) => v.to_string(),
        Value::F64(v) => v.to_string(),
        Value::Bool(v) => v.to_string(),
        Value::Str(v) => lossy(v, 72),
        Value::Array(array) => describe_array(array),
    }
}

fn describe_array(array: &Array) -> String {
    const SHOWN: usize = 4;
    let n = array.len();
    let mut shown: Vec<String> = (0..n.min(SHOWN)).map(|i| describe_element(array, i)).collect();
    if n > SHOWN {
        shown.push("…".into());
    }
    format!("{n}: {}", shown.join(", "))
}

/// Element `i`, which exists.
fn describe_element(array: &Array, i: usize) -> String {
    match array {
        Array::F32(v) => v[i].to_string(),
        Array::F64(v) => v[i].to_string(),
        Array::Bool(v) => v[i].to_string(),
        Array::U64(v) => v[i].to_string(),
        Array::Str(v) => format!("\"{}\"", lossy(v.get(i).unwrap_or_default(), 16)),
        narrower => narrower.i64(i).map_or(String::new(), |v| v.to_string()),
    }
}

fn lossy(bytes: &[u8], max: usize) -> String {
    output::one_line(&String::from_utf8_lossy(bytes), max)
}

/// The JSON document.
struct Document<'a> {
    summary: &'a Summary,
    header: &'a Header,
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("container", self.summary.container)?;
        map.serialize_entry("architecture", &self.summary.architecture)?;
        map.serialize_entry("parameters", &self.summary.parameters)?;
        map.serialize_entry("weightBytes", &self.summary.weight_bytes)?;
        map.serialize_entry("bitsPerWeight", &self.summary.bits_per_weight)?;
        map.serialize_entry("tensors", &Tensors(&self.header.tensors))?;
        map.serialize_entry("metadata", &Entries(self.header))?;
        map.end()
    }
}

struct Tensors<'a>(&'a [TensorInfo]);

impl Serialize for Tensors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Row<'a> {
            name: &'a str,
            r#type: &'a str,
            shape: &'a [usize],
            bytes: u64,
            /// How a matrix of this type is held once it is loaded.
            #[serde(skip_serializing_if = "Option::is_none")]
            held_as: Option<String>,
        }
        serializer.collect_seq(self.0.iter().map(|t| Row {
            name: &t.name,
            r#type: t.dtype.name(),
            shape: &t.shape,
            bytes: t.n_bytes,
            held_as: t.dtype.held_as().filter(|_| t.shape.len() > 1),
        }))
    }
}

struct Entries<'a>(&'a Header);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.metadata.iter().map(|(key, value)| (key, Plain(value))))
    }
}

/// A metadata value as JSON: bytes that are not UTF-8 become U+FFFD, NaN and infinities null.
struct Plain<'a>(&'a Value);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::U64(v) => serializer.serialize_u64(*v),
            Value::I64(v) => serializer.serialize_i64(*v),
            Value::F32(v) => serializer.serialize_f32(*v),
            Value::F64(v) => serializer.serialize_f64(*v),
            Value::Bool(v) => serializer.serialize_bool(*v),
            Value::Str(v) => serializer.serialize_str(&String::from_utf8_lossy(v)),
            Value::Array(array) => serialize_array(array, serializer),
        }
    }
}

fn serialize_array<S: Serializer>(array: &Array, serializer: S) -> Result<S::Ok, S::Error> {
    match array {
        Array::U8(v) => v.serialize(serializer),
        Array::I8(v) => v.serialize(serializer),
        Array::U16(v) => v.serialize(serializer),
        Array::I16(v) => v.serialize(serializer),
        Array::U64(v) => v.serialize(serializer),
        Array::I64(v) => v.serialize(serializer),
        Array::F32(v) => v.serialize(serializer),
        Array::F64(v) => v.serialize(serializer),
        Array::Bool(v) => v.serialize(serializer),
        Array::Str(v) => serializer.collect_seq(v.iter().map(String::from_utf8_lossy)),
    }
}
