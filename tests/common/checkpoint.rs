//! The goldens of vision models, taken apart and put together again.
#![allow(dead_code)] // not every test file does everything

use bitpane::error::Error;
use bitpane::tasks::{LoadOptions, Loaded, Loader, VisionModel};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// A safetensors file taken apart.
#[derive(Clone)]
pub struct Checkpoint {
    pub config: Value,
    pub tensors: Vec<(String, Value, Vec<u8>)>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vision")
}

impl Checkpoint {
    pub fn read(name: &str) -> Checkpoint {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&rest[..length]).unwrap();
        let part = |info: &Value, i: usize| length + info["data_offsets"][i].as_u64().unwrap() as usize;
        let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
        let tensors = tensors.map(|(name, info)| {
            let data = rest[part(&info, 0)..part(&info, 1)].to_vec();
            (name, info, data)
        });
        let golden: Value =
            serde_json::from_slice(&std::fs::read(folder().join(format!("{name}.json"))).unwrap()).unwrap();
        let config = golden["config"].clone();
        Checkpoint { config, tensors: tensors.collect() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, info, bytes) in &self.tensors {
            let begin = data.len();
            data.extend(bytes);
            let entry =
                json!({"dtype": info["dtype"], "shape": info["shape"], "data_offsets": [begin, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat()
    }

    /// Loads it with its config.
    pub fn load(&self) -> Result<VisionModel, Error> {
        load(&self.bytes(), LoadOptions { config: Some(self.config.to_string()), ..LoadOptions::default() })
    }
}

/// Loads a vision model from a file's bytes.
pub fn load(bytes: &[u8], options: LoadOptions) -> Result<VisionModel, Error> {
    let mut loader = Loader::new(options, Some(bytes.len() as u64))?;
    loader.push(bytes)?;
    match loader.finish()? {
        Loaded::Vision(model) => Ok(*model),
        _ => panic!("no vision model"),
    }
}
