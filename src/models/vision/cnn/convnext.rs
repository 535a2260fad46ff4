//! ConvNeXt (Liu et al. 2022, arXiv 2201.03545).

use super::super::{Source, VisionArch, VisionFamily};
use super::layout::children;
use super::net::{Builder, Want};
use super::role;
use crate::error::{Code, Error, Result};
use crate::layers::{Activation, Padding};

/// The family. Its names are timm's.
pub const CONVNEXT: VisionFamily = VisionFamily {
    name: "convnext",
    model_types: &["convnext", "convnext_"],
    is_it: |has| has("stages.0.blocks.0.conv_dw.weight"),
    canonical,
    role,
    build,
};

/// Hugging Face's names and torchvision's become timm's.
fn canonical(name: &str) -> String {
    let name = super::canonical(name);
    let inner = name.strip_prefix("convnext.").unwrap_or(&name);
    if let Some(rest) = inner.strip_prefix("encoder.stages.") {
        return hugging_face(rest);
    }
    if let Some(rest) = inner.strip_prefix("features.") {
        return torchvision(rest).unwrap_or_else(|| name.clone());
    }
    const OUTER: &[(&str, &str)] = &[
        ("embeddings.patch_embeddings.", "stem.0."),
        ("embeddings.layernorm.", "stem.1."),
        ("layernorm.", "head.norm."),
        ("classifier.0.", "head.norm."),
        ("classifier.2.", "head.fc."),
        ("classifier.", "head.fc."),
    ];
    let renamed = OUTER.iter().find_map(|(from, to)| Some(format!("{to}{}", inner.strip_prefix(from)?)));
    renamed.unwrap_or(name)
}

fn hugging_face(rest: &str) -> String {
    const PARTS: &[(&str, &str)] = &[
        (".layers.", ".blocks."),
        (".downsampling_layer.", ".downsample."),
        (".layer_scale_parameter", ".gamma"),
        (".dwconv.", ".conv_dw."),
        (".layernorm.", ".norm."),
        (".pwconv1.", ".mlp.fc1."),
        (".pwconv2.", ".mlp.fc2."),
    ];
    PARTS.iter().fold(format!("stages.{rest}"), |name, (from, to)| name.replace(from, to))
}

/// Even features are what halves the size, odd ones are stages.
fn torchvision(rest: &str) -> Option<String> {
    let (i, rest) = rest.split_once('.')?;
    let i: usize = i.parse().ok()?;
    if i == 0 {
        return Some(format!("stem.{rest}"));
    }
    if i.is_multiple_of(2) {
        return Some(format!("stages.{}.downsample.{rest}", i / 2));
    }
    let (block, rest) = rest.split_once('.')?;
    const PARTS: &[(&str, &str)] = &[
        ("layer_scale", "gamma"),
        ("block.0.", "conv_dw."),
        ("block.2.", "norm."),
        ("block.3.", "mlp.fc1."),
        ("block.5.", "mlp.fc2."),
    ];
    let part = PARTS.iter().find_map(|(from, to)| Some(format!("{to}{}", rest.strip_prefix(from)?)))?;
    Some(format!("stages.{}.blocks.{block}.{part}", i / 2))
}

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    const EPS: f32 = 1e-6;
    let Source { config, weights, .. } = source;
    let mut b = Builder::new(weights, EPS);
    shrink(&mut b, "stem.0", 4)?;
    b.norm("stem.1", EPS)?;
    for stage in 0..4 {
        let stem = format!("stages.{stage}");
        if stage > 0 {
            b.norm(&format!("{stem}.downsample.0"), EPS)?;
            shrink(&mut b, &format!("{stem}.downsample.1"), 2)?;
        }
        let blocks = children(b.weights, &format!("{stem}.blocks"));
        if blocks.is_empty() {
            let missing = Error::new(Code::MissingTensor, "the architecture needs this tensor");
            return Err(missing.tensor(format!("{stem}.blocks.0.conv_dw.weight")));
        }
        for i in blocks {
            block(&mut b, &format!("{stem}.blocks.{i}"), EPS)?;
        }
    }
    b.mean();
    let eps = config.positive("layer_norm_eps", EPS)?;
    b.norm("head.norm", eps)?;
    b.finish(config, "head.fc")
}

/// A convolution of tiles that do not overlap.
fn shrink(b: &mut Builder, conv: &str, stride: usize) -> Result<()> {
    b.conv(Want { conv, norm: None, stride, padding: Some(Padding::Fixed(0, 0)), activation: None })
}

/// `x += gamma * W_2 gelu(W_1 norm(depthwise(x)))`.
fn block(b: &mut Builder, stem: &str, eps: f32) -> Result<()> {
    let name = |part: &str| format!("{stem}.{part}");
    fn conv(b: &mut Builder, conv: &str, activation: Option<Activation>) -> Result<()> {
        b.conv(Want { conv, norm: None, stride: 1, padding: None, activation })
    }
    b.keep();
    conv(b, &name("conv_dw"), None)?;
    b.norm(&name("norm"), eps)?;
    conv(b, &name("mlp.fc1"), Some(Activation::GeluErf))?;
    conv(b, &name("mlp.fc2"), None)?;
    b.optional_scale(&name("gamma"))?;
    b.add(None, &name("mlp.fc2"))
}
