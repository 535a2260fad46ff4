//! What becomes of a context that is full, and of one at the end of a command.

use super::{Failure, open};
use crate::error::{Code, Error};
use crate::tasks::{GenerateOptions, TextModel};
use std::path::PathBuf;

/// Longer files hold no session.
const MAX_SESSION_BYTES: u64 = 4 << 30;

/// Contexts that are full, and sessions in files
#[derive(clap::Args)]
#[command(next_help_heading = "Context")]
pub(super) struct SessionArgs {
    /// Most tokens that the context may have [default: the model's, at most 2048]
    #[arg(long, value_name = "N")]
    pub(super) context_length: Option<usize>,
    /// Where the context is full, forget half of it and go on
    #[arg(long)]
    context_shift: bool,
    /// With --context-shift: never forget the first N tokens (-1: the whole prompt)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    n_keep: i64,
    /// Begin with the context in this file: what it holds of the prompt costs nothing
    #[arg(long, value_name = "FILE")]
    load_session: Option<PathBuf>,
    /// Write the context to this file at the end
    #[arg(long, value_name = "FILE")]
    save_session: Option<PathBuf>,
}

impl SessionArgs {
    /// Sets the options of a generation.
    pub(super) fn apply(&self, options: &mut GenerateOptions) {
        options.context_shift = self.context_shift;
        options.n_keep = self.n_keep;
    }

    /// Takes up the session, if there is one; its note.
    pub(super) fn restore(&self, model: &mut TextModel) -> Result<Vec<u8>, Failure> {
        let Some(path) = &self.load_session else { return Ok(Vec::new()) };
        let bytes = open::read_bytes(path, MAX_SESSION_BYTES)?;
        let (_, note) = model.restore_session(&bytes).map_err(|error| open::in_file(path, error))?;
        Ok(note)
    }

    /// Writes the session with a note, if one is wanted: whole, or not at all.
    pub(super) fn save(&self, model: &mut TextModel, note: &[u8]) -> Result<(), Failure> {
        let Some(path) = &self.save_session else { return Ok(()) };
        let bytes = model.save_session(note)?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
        written.map_err(|error| {
            let _ = std::fs::remove_file(&part);
            let message = format!("{}: cannot write: {error}", path.display());
            Failure::Input(Error::new(Code::Io, message).source(error))
        })
    }
}
