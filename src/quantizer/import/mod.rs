//! Language models as Hugging Face keeps them, under GGUF's names and keys, as llama.cpp's converter writes them.

mod hparams;
mod names;
mod tokenizer;

use super::{Outline, Target, Transform};
use crate::container::{Header, Metadata, Value};
use crate::error::{Code, Error, Result};
use crate::models::vision::Role;
use hparams::Hparams;
use names::Arch;
use serde::Deserialize;

/// What lies beside the weights.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Files {
    /// `config.json`.
    pub config: Option<String>,
    /// `tokenizer.json`.
    pub tokenizer: Option<String>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<String>,
    /// `chat_template.jinja`, where the template has a file of its own.
    pub chat_template: Option<String>,
    /// What the model is called.
    pub name: Option<String>,
}

/// Whether the configuration names a language model that can be imported.
pub fn is_text(config: &str) -> bool {
    Hparams::parse(config).is_ok_and(|h| Arch::of(&h).is_some())
}

/// The model types that can be imported, for messages.
pub fn known() -> String {
    names::ARCHS.iter().flat_map(|a| a.model_types).copied().collect::<Vec<_>>().join(", ")
}

/// What the GGUF file of a language model will hold.
///
/// # Errors
/// [`Code::UnsupportedArch`], [`Code::BadConfig`], [`Code::TokenizerInvalid`] or [`Code::UnsupportedPreTokenizer`] naming
/// what cannot be taken over; [`Code::MissingTensor`] for tensors without a place.
pub fn text(header: &Header, files: &Files) -> Result<Outline> {
    let config = files.config.as_deref().unwrap_or("{}");
    let hparams = Hparams::parse(config)?;
    let arch = Arch::of(&hparams).ok_or_else(|| {
        let found = hparams.str("model_type").unwrap_or("none");
        let rule = format!("model type {found:?} cannot be imported; supported: {}", known());
        Error::new(Code::UnsupportedArch, rule).key("model_type")
    })?;
    let mut metadata = Metadata::default();
    metadata.push("general.architecture".into(), Value::Str(arch.gguf.into()));
    metadata.push("general.type".into(), Value::Str("model".into()));
    if let Some(name) = &files.name {
        metadata.push("general.name".into(), Value::Str(name.as_bytes().to_vec()));
    }
    hparams.write(arch, &mut metadata)?;
    let n_vocab = n_vocab(header, arch);
    tokenizer::write(files, &hparams, arch, n_vocab, &mut metadata)?;
    let mut tensors = Vec::new();
    for (source, tensor) in header.tensors.iter().enumerate() {
        if let Some((name, transform)) = arch.place(&tensor.name, &hparams)? {
            let mut shape = tensor.shape.clone();
            if transform == Transform::Transpose {
                shape.reverse();
            }
            let role = if crate::models::names::is_table(&name) { Role::Table } else { Role::Matrix };
            tensors.push(Target { name, shape, source, transform, role });
        }
    }
    let extra = hparams.extra(arch)?;
    Ok(Outline { architecture: arch.gguf.into(), metadata, tensors, extra })
}

/// Rows of the table of tokens: more than the tokenizer knows where they were padded.
fn n_vocab(header: &Header, arch: &Arch) -> Option<usize> {
    let is_table = |name: &str| arch.rename(name).as_deref() == Some("token_embd.weight");
    header.tensors.iter().find(|t| is_table(&t.name)).and_then(|t| t.shape.first().copied())
}
