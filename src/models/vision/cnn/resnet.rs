//! ResNet (He et al. 2015, arXiv 1512.03385), with the stride in the 3 x 3 convolution as torchvision has it.

use super::super::{Source, VisionArch, VisionFamily};
use super::layout::children;
use super::net::{Builder, Want};
use super::{canonical, role};
use crate::error::{Code, Error, Result};
use crate::layers::{Activation, Padding};

/// The family.
pub const RESNET: VisionFamily = VisionFamily {
    name: "resnet",
    model_types: &["resnet"],
    is_it: |has| has("layer1.0.conv1.weight") || has("resnet.embedder.embedder.convolution.weight"),
    canonical,
    role,
    build,
};

const RELU: Option<Activation> = Some(Activation::Relu);

/// The names of a block's tensors.
struct Block {
    /// Convolutions and their norms.
    convs: Vec<(String, String)>,
    shortcut: (String, String),
}

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    for (flag, used) in [("downsample_in_first_stage", false), ("downsample_in_bottleneck", false)] {
        if config.flag(flag, used) != used {
            return Err(config.bad(flag, "is not supported"));
        }
    }
    let is_hugging_face = weights.has("resnet.embedder.embedder.convolution.weight");
    let mut b = Builder::new(weights, 1e-5);
    let (conv, norm, head) = match is_hugging_face {
        true => {
            let stem = "resnet.embedder.embedder";
            (format!("{stem}.convolution"), format!("{stem}.normalization"), "classifier.1")
        }
        false => ("conv1".into(), "bn1".into(), "fc"),
    };
    b.conv(Want { conv: &conv, norm: Some(&norm), stride: 2, padding: None, activation: RELU })?;
    b.max_pool();
    for stage in 0..4 {
        let stem = match is_hugging_face {
            true => format!("resnet.encoder.stages.{stage}.layers"),
            false => format!("layer{}", stage + 1),
        };
        let blocks = children(b.weights, &stem);
        if blocks.is_empty() {
            let missing = Error::new(Code::MissingTensor, "the architecture needs this tensor");
            return Err(missing.tensor(format!("{stem}.0.conv1.weight")));
        }
        for i in blocks {
            let names = names(&b, &format!("{stem}.{i}"), is_hugging_face);
            block(&mut b, &names, if stage > 0 && i == 0 { 2 } else { 1 })?;
        }
    }
    b.mean();
    b.finish(config, head)
}

fn names(b: &Builder, stem: &str, is_hugging_face: bool) -> Block {
    let pair = |i: usize| match is_hugging_face {
        true => (format!("{stem}.layer.{i}.convolution"), format!("{stem}.layer.{i}.normalization")),
        false => (format!("{stem}.conv{}", i + 1), format!("{stem}.bn{}", i + 1)),
    };
    let shortcut = match is_hugging_face {
        true => (format!("{stem}.shortcut.convolution"), format!("{stem}.shortcut.normalization")),
        false => (format!("{stem}.downsample.0"), format!("{stem}.downsample.1")),
    };
    let has = |conv: &str| b.weights.has(&format!("{conv}.weight"));
    let n = 2 + usize::from(has(&pair(2).0));
    Block { convs: (0..n).map(pair).collect(), shortcut }
}

/// Two convolutions of 3 x 3, or one between two of 1 x 1; and what goes around them.
fn block(b: &mut Builder, names: &Block, stride: usize) -> Result<()> {
    let n = names.convs.len();
    let strided = n - 2;
    b.keep();
    for (i, (conv, norm)) in names.convs.iter().enumerate() {
        let activation = RELU.filter(|_| i + 1 < n);
        let stride = if i == strided { stride } else { 1 };
        b.conv(Want { conv, norm: Some(norm), stride, padding: None, activation })?;
    }
    let (conv, norm) = &names.shortcut;
    if b.weights.has(&format!("{conv}.weight")) {
        let padding = Some(Padding::Fixed(0, 0));
        b.shortcut(Want { conv, norm: Some(norm), stride, padding, activation: None })?;
    } else if stride != 1 {
        return Err(Error::new(Code::MissingTensor, "a stride needs it").tensor(format!("{conv}.weight")));
    }
    b.add(RELU, &names.convs[n - 1].0)
}
