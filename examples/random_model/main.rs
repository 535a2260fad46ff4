//! Writes a model file with seeded random weights in the shape of a well-known model.
//!
//! Speed does not depend on what dense weights hold, so benchmarks need only a file of the
//! right shape and type, not the real one. The tokenizer is generated too, so that every
//! GGUF runtime accepts the file (see `vocabulary.rs`).
//!
//! ```text
//! cargo run --release --example random_model -- --shape smollm2-135m --type Q4_0 OUT.gguf
//! cargo run --release --example random_model -- --shape deit-tiny --type F16 OUT.safetensors
//! ```

mod gguf;
mod safetensors;
mod shapes;
mod vocabulary;
mod weights;

use bitpane::quant::DType;
use bitpane::{Code, Error, Result};
use shapes::{TEXT_SHAPES, VISION_SHAPES};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// What the command line asks for.
struct Args {
    shape: String,
    dtype: DType,
    out: String,
}

fn main() -> ExitCode {
    let Some(args) = parse_args(std::env::args().skip(1)) else {
        let names: Vec<_> =
            TEXT_SHAPES.iter().map(|s| s.name).chain(VISION_SHAPES.iter().map(|s| s.name)).collect();
        eprintln!("usage: random_model --shape SHAPE --type TYPE OUT\nshapes: {}", names.join(", "));
        return ExitCode::from(2);
    };
    match write_model(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error[{}]: {error}", error.code.as_str());
            ExitCode::FAILURE
        }
    }
}

/// `None` where the arguments are not understood.
fn parse_args(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let (mut shape, mut dtype, mut out) = (None, None, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--shape" => shape = args.next(),
            "--type" => dtype = Some(DType::from_name(&args.next()?)?),
            _ if out.is_none() && !arg.starts_with("--") => out = Some(arg),
            _ => return None,
        }
    }
    Some(Args { shape: shape?, dtype: dtype?, out: out? })
}

fn write_model(args: &Args) -> Result<()> {
    let file = File::create(&args.out).map_err(io_error)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    if let Some(shape) = TEXT_SHAPES.iter().find(|s| s.name == args.shape) {
        gguf::write(shape, args.dtype, &mut out)?;
    } else if let Some(shape) = VISION_SHAPES.iter().find(|s| s.name == args.shape) {
        safetensors::write(shape, args.dtype, &mut out)?;
    } else {
        return Err(Error::new(Code::BadArgument, format!("unknown shape {:?}", args.shape)).key("--shape"));
    }
    out.flush().map_err(io_error)
}

/// A failed write as the project's error.
fn io_error(source: std::io::Error) -> Error {
    Error::new(Code::Io, "writing the file failed").source(source)
}
