//! Files of other programs to GGUF.

mod tflite;
mod torch;

pub use tflite::tflite_to_gguf;
pub use torch::{Converted, torch_to_gguf};

use crate::container::gguf_write::GgufWriter;
use crate::error::{Code, Error, Result};
use serde_json::Value;

/// What goes into a GGUF file beside what the other file holds.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// `general.name`.
    pub name: Option<String>,
    /// A `config.json`.
    pub config: Option<String>,
    /// A `preprocessor_config.json`.
    pub preprocessor: Option<String>,
    /// Names of the classes.
    pub labels: Option<Vec<String>>,
}

impl Extras {
    /// Adds them to a file of that architecture.
    fn put(&self, architecture: &str, out: &mut GgufWriter) -> Result<()> {
        out.str("general.architecture", architecture);
        if let Some(name) = &self.name {
            out.str("general.name", name);
        }
        match (&self.config, &self.labels) {
            (None, Some(labels)) => drop(out.strs(&format!("{architecture}.labels"), labels)),
            (Some(config), None) => drop(out.str("config", config)),
            (Some(config), Some(labels)) => {
                let bad =
                    |e| Error::new(Code::BadConfig, format!("config.json is not JSON: {e}")).key("config");
                let mut config: Value = serde_json::from_str(config).map_err(bad)?;
                config["label_names"] = labels.clone().into();
                out.str("config", &config.to_string());
            }
            (None, None) => {}
        }
        if let Some(preprocessor) = &self.preprocessor {
            out.str("preprocessor_config", preprocessor);
        }
        Ok(())
    }
}
