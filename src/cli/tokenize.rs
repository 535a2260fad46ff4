//! `bitpane tokenize`: text to token ids and back. Needs no weights, only the vocabulary.

use super::{Outcome, open, output, output::Output};
use crate::error::{Code, Error, Result};
use crate::tokenizer::Tokenizer;
use serde::Serialize;
use std::io::Read;
use std::path::PathBuf;

/// Most bytes of JSON that stdin may have.
const MAX_STDIN_BYTES: u64 = 256 << 20;

/// Show the tokens of a text
#[derive(clap::Args)]
pub(super) struct Args {
    /// A GGUF file with a vocabulary; weights are not needed
    model: PathBuf,
    /// The text
    #[arg(long, value_name = "TEXT", required_unless_present = "stdin_json", conflicts_with = "stdin_json")]
    text: Option<String>,
    /// Read texts from stdin instead: a JSON array of strings
    #[arg(long)]
    stdin_json: bool,
    /// Add the tokens that begin and end a text, where the model has them
    #[arg(long)]
    add_special: bool,
    /// Let the names of special tokens within the text stand for these tokens
    #[arg(long)]
    parse_special: bool,
}

#[derive(Serialize)]
struct Document {
    /// Ids of each text.
    tokens: Vec<Vec<u32>>,
    /// What the ids of each text decode to.
    text: Vec<String>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Outcome {
    let header = open::header(&args.model)?;
    let tokenizer = Tokenizer::from_gguf(&header.metadata).map_err(|e| open::in_file(&args.model, e))?;
    let texts = match &args.text {
        Some(text) => vec![text.clone()],
        None => read_stdin()?,
    };
    let mut document = Document { tokens: Vec::new(), text: Vec::new() };
    for text in &texts {
        let ids = tokenizer.encode(text, args.add_special, args.parse_special)?;
        document.text.push(String::from_utf8_lossy(&tokenizer.decode(&ids, false, true)?).into_owned());
        document.tokens.push(ids);
    }
    if out.json {
        out.document(&document)?;
        return Ok(());
    }
    for ids in &document.tokens {
        print(&tokenizer, ids, out)?;
    }
    Ok(())
}

fn print(tokenizer: &Tokenizer, ids: &[u32], out: &mut Output) -> std::io::Result<()> {
    let row = |&id: &u32| {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        [id.to_string(), format!("{:?}", output::one_line(&String::from_utf8_lossy(bytes), 48))]
    };
    let rows: Vec<[String; 2]> = ids.iter().map(row).collect();
    out.line(format!("{} tokens", ids.len()))?;
    out.table([true, false], &rows)
}

fn read_stdin() -> Result<Vec<String>> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_STDIN_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::new(Code::Io, format!("cannot read stdin: {e}")).source(e))?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Error::new(Code::LimitExceeded, format!("stdin is longer than {MAX_STDIN_BYTES} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(Code::BadArgument, format!("stdin is not a JSON array of strings: {e}")).source(e)
    })
}
