//! Quantized CNNs among the vision models.

use super::super::{Output, Picture, Role, Source, Values, VisionArch, VisionFamily, VisionInfo};
use crate::error::Result;
use crate::layers::Mode;
use crate::models::qcnn::QuantizedCnn;

/// The family: files that `bitpane convert` makes of .tflite.
pub const QCNN: VisionFamily = VisionFamily {
    name: "qcnn",
    model_types: &["qcnn"],
    is_it: |_| false,
    canonical: |name| name.into(),
    role: |name, _| if name.ends_with(".scale") { Role::Table } else { Role::Raw },
    build,
};

struct Quantized {
    info: VisionInfo,
    model: QuantizedCnn,
}

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, metadata, weights } = source;
    let model = QuantizedCnn::build(metadata, weights)?;
    let (scale, zero) = model.input();
    let range = [zero as f32 / 255.0, 1.0 / (255.0 * scale)];
    let info = VisionInfo {
        image_size: model.image_size(),
        stride: 1,
        n_embd: model.n_embd(),
        n_class: model.n_class(),
        labels: config.labels()?,
        normalization: Some([[range[0]; 3], [range[1]; 3]]),
        ..VisionInfo::default()
    };
    Ok(Box::new(Quantized { info, model }))
}

impl VisionArch for Quantized {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    /// The mode makes no difference: the file fixes how activations are rounded.
    fn run(&mut self, picture: Picture, output: Output, _mode: Mode) -> Result<Values> {
        let values = match output {
            Output::Logits => self.model.logits(picture.pixels),
            Output::Pooled => self.model.features(picture.pixels),
            Output::Patches => return Err(self.info.lacks("output of patches")),
            Output::Attention(_) => return Err(self.info.lacks("attention")),
        };
        Ok(Values { shape: vec![values.len()], values })
    }
}
