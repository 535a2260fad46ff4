//! What the written file will hold: names, shapes and metadata, before any weight has been seen.

use super::import::{self, Files};
use super::policy;
use crate::container::{ContainerKind, Header, Metadata, TensorInfo, Value};
use crate::error::{Code, Error, Result};
use crate::models::vision::{Config, Role};
use crate::models::{Family, identify};

/// What happens to a tensor's values on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Transform {
    /// Nothing.
    #[default]
    None,
    /// 1 is added: norms that Hugging Face stores as their distance from 1.
    AddOne,
    /// Rows change places within each of so many heads: Hugging Face pairs dimension i with i + d / 2 in its rotary
    /// embedding, GGUF's `llama` pairs neighbours.
    Interleave {
        /// Heads that the rows divide into.
        n_head: usize,
    },
    /// Rows and columns change places: GPT-2 stores its matrices as `[in, out]`.
    Transpose,
    /// Rows `[head][q, k, v][d]` become `[q, k, v][head][d]`: GPT-NeoX.
    SplitHeads {
        /// Heads that the rows divide into.
        n_head: usize,
    },
}

/// One tensor of the written file.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name there.
    pub name: String,
    /// Its shape there, outermost first, as the model understands it.
    pub shape: Vec<usize>,
    /// Its index in the header that is read.
    pub source: usize,
    /// What happens to its values.
    pub transform: Transform,
    /// How it is kept.
    pub role: Role,
}

impl Target {
    /// `[n, k]` where it is a matrix or a stack of them, n counting all rows.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        let info = TensorInfo {
            name: self.name.clone(),
            dtype: crate::quant::DType::F32,
            shape: self.shape.clone(),
            offset: 0,
            n_bytes: 0,
        };
        let (n_expert, n, k) =
            policy::matrix_shape(&info).filter(|_| !matches!(self.role, Role::Table | Role::Depthwise))?;
        (n > 0 && k > 0).then_some((n_expert.unwrap_or(1) * n, k))
    }

    /// Elements.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&d| d as u64).product()
    }
}

/// Everything that a file says before its weights.
#[derive(Clone, Debug)]
pub struct Outline {
    /// As in `general.architecture`.
    pub architecture: String,
    /// Metadata of the written file.
    pub metadata: Metadata,
    /// Its tensors, in the order in which they are read.
    pub tensors: Vec<Target>,
    /// Vectors that follow from the configuration; they come last.
    pub extra: Vec<Extra>,
}

/// A vector of F32 that no file holds.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Its name in the written file.
    pub name: String,
    /// Its values.
    pub values: Vec<f32>,
}

impl Outline {
    /// That of a GGUF file or of a model in safetensors, with the files beside it.
    ///
    /// # Errors
    /// [`Code::UnsupportedArch`]; [`Code::ShardMismatch`] for one file of several; what [`import::text`] refuses.
    pub fn of(header: &Header, files: &Files) -> Result<Self> {
        let config = files.config.as_deref();
        if header.kind == ContainerKind::Safetensors && config.is_some_and(import::is_text) {
            return import::text(header, files);
        }
        let parsed = config.map(Config::from_json).transpose()?;
        let (family, architecture) = identify(header, parsed.as_ref())?;
        let canonical = |name: &str| match &family {
            Family::Vision(family) if header.kind == ContainerKind::Safetensors => (family.canonical)(name),
            _ => name.to_string(),
        };
        let target = |(source, tensor): (usize, &TensorInfo)| Target {
            name: canonical(&tensor.name),
            shape: tensor.shape.clone(),
            source,
            transform: Transform::None,
            role: policy::role(Some(&family), &tensor.name, &tensor.shape),
        };
        let metadata = match header.kind {
            ContainerKind::Gguf => header.metadata.clone(),
            ContainerKind::Safetensors => vision_metadata(header, &architecture, config),
        };
        if metadata.u64("split.count")?.is_some_and(|n| n > 1) {
            let rule = "one file of several cannot be quantized by itself: give them all, or merge them";
            return Err(Error::new(Code::ShardMismatch, rule).key("split.count"));
        }
        let tensors = header.tensors.iter().enumerate().map(target).collect();
        Ok(Outline { architecture, metadata, tensors, extra: Vec::new() })
    }

    /// Elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Target::n_elements).fold(0, u64::saturating_add)
    }
}

/// The configuration goes along as it is: the loader reads it from either container.
fn vision_metadata(header: &Header, architecture: &str, config: Option<&str>) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.push("general.architecture".into(), Value::Str(architecture.into()));
    for (key, value) in header.metadata.iter().filter(|(key, _)| *key != "format" && *key != "config") {
        metadata.push(key.into(), value.clone());
    }
    let own = header.metadata.get("config").cloned();
    if let Some(config) = config.map(|text| Value::Str(text.into())).or(own) {
        metadata.push("config".into(), config);
    }
    metadata
}
