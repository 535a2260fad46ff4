//! Networks of depthwise convolutions between convolutions of 1 x 1: MobileNetV1 (Howard et al. 2017, arXiv
//! 1704.04861), V2 (Sandler et al. 2018, arXiv 1801.04381), V3 (Howard et al. 2019, arXiv 1905.02244),
//! EfficientNet (Tan and Le 2019, arXiv 1905.11946) and EfficientNet-Lite.
//!
//! What a block has shows in its tensors; strides and activations are the publications'.

use super::super::{Config, Source, VisionArch, VisionFamily};
use super::layout::{Block, Layout, Plain};
use super::net::{Builder, Want};
use super::{canonical, role};
use crate::error::{Code, Error, Result};
use crate::layers::{Activation, Padding};

/// What a network of this kind is beside its tensors.
struct Recipe {
    /// Of the first block of each stage.
    stage_strides: &'static [usize],
    /// Blocks per stage, where names do not tell.
    repeats: &'static [usize],
    /// After the stem and the last convolutions, and in blocks from `plain_stages` on.
    activation: Activation,
    /// Stages that have ReLU instead.
    plain_stages: usize,
    /// Between the two layers of a gate, and after them.
    gate: [Activation; 2],
    /// Whether an activation follows a block's last convolution, and no residual is added.
    is_chain: bool,
}

const V1: Recipe = Recipe {
    stage_strides: &[1, 2, 2, 2, 2],
    repeats: &[1, 2, 2, 6, 2],
    activation: Activation::Relu6,
    plain_stages: 0,
    gate: [Activation::Relu, Activation::Sigmoid],
    is_chain: true,
};
const V2: Recipe =
    Recipe { stage_strides: &[1, 2, 2, 2, 1, 2, 1], repeats: &[1, 2, 3, 4, 3, 3, 1], is_chain: false, ..V1 };
const V3_LARGE: Recipe = Recipe {
    stage_strides: &[1, 2, 2, 2, 1, 2, 1],
    repeats: &[1, 2, 3, 4, 2, 3],
    activation: Activation::HardSwish,
    plain_stages: 3,
    gate: [Activation::Relu, Activation::HardSigmoid],
    is_chain: false,
};
const V3_SMALL: Recipe =
    Recipe { stage_strides: &[2, 2, 2, 1, 2, 1], repeats: &[1, 2, 3, 2, 3], plain_stages: 2, ..V3_LARGE };
const EFFICIENT: Recipe = Recipe {
    stage_strides: &[1, 2, 2, 2, 1, 2, 1],
    repeats: &[1, 2, 2, 3, 3, 4, 1],
    activation: Activation::Silu,
    plain_stages: 0,
    gate: [Activation::Silu, Activation::Sigmoid],
    is_chain: false,
};
const LITE: Recipe = Recipe { activation: Activation::Relu6, ..EFFICIENT };

/// MobileNetV1.
pub const MOBILENET_V1: VisionFamily = VisionFamily {
    name: "mobilenet_v1",
    model_types: &["mobilenet_v1", "mobilenetv1"],
    is_it: |has| {
        has("mobilenet_v1.conv_stem.convolution.weight")
            || has("blocks.4.1.conv_dw.weight") && !has("blocks.5.0.bn1.weight") && !has("conv_head.weight")
    },
    canonical,
    role,
    build: |source| build(source, &V1),
};

/// MobileNetV2.
pub const MOBILENET_V2: VisionFamily = VisionFamily {
    name: "mobilenet_v2",
    model_types: &["mobilenet_v2", "mobilenetv2"],
    is_it: |has| {
        has("mobilenet_v2.conv_stem.first_conv.convolution.weight")
            || has("features.1.conv.0.0.weight")
            // Stages of 1, 2, 3, 4, 3, 3 and 1 blocks without gates: EfficientNet-Lite's third has fewer.
            || has("blocks.2.2.conv_pwl.weight")
                && has("blocks.6.0.conv_pwl.weight")
                && !has("blocks.5.3.conv_pwl.weight")
                && !has("blocks.3.0.se.conv_reduce.weight")
    },
    canonical,
    role,
    build: |source| build(source, &V2),
};

/// MobileNetV3, large and small.
pub const MOBILENET_V3: VisionFamily = VisionFamily {
    name: "mobilenet_v3",
    model_types: &["mobilenet_v3", "mobilenetv3", "tf_mobilenetv3"],
    is_it: |has| {
        has("conv_head.bias") && !has("bn2.weight") && has("blocks.4.0.conv_pwl.weight")
            || has("features.1.block.0.0.weight") && has("classifier.3.weight")
    },
    canonical,
    role,
    build: build_v3,
};

/// EfficientNet and EfficientNet-Lite.
pub const EFFICIENTNET: VisionFamily = VisionFamily {
    name: "efficientnet",
    model_types: &["efficientnet", "tf_efficientnet"],
    is_it: |has| {
        has("embeddings.convolution.weight")
            || has("features.1.0.block.0.0.weight")
            || has("conv_head.weight") && has("bn2.weight") && has("blocks.6.0.conv_pwl.weight")
    },
    canonical,
    role,
    build: build_efficientnet,
};

fn build_v3(source: Source) -> Result<Box<dyn VisionArch>> {
    // The small one has a stage less: 5 with blocks, and (timm counts it) one with a single convolution.
    let layout = Layout::of(source.weights);
    let n_convs = |block: &Block| block.convs.len();
    let n = layout.blocks.iter().filter(|b| n_convs(b) > 1).count();
    let recipe = if n <= V3_SMALL.repeats.iter().sum() { &V3_SMALL } else { &V3_LARGE };
    build(source, recipe)
}

fn build_efficientnet(source: Source) -> Result<Box<dyn VisionArch>> {
    let has_gates = Layout::of(source.weights).blocks.iter().any(|b| b.gate.is_some());
    build(source, if has_gates { &EFFICIENT } else { &LITE })
}

/// How convolutions treat edges.
#[derive(Clone, Copy, PartialEq)]
enum Edges {
    /// As many zeros on either side.
    Centred,
    /// TensorFlow's rule.
    Same,
    /// One zero fewer before than after, where the stride is 2 (Hugging Face's EfficientNet).
    Late,
}

impl Edges {
    fn of(config: &Config, is_hugging_face_efficientnet: bool) -> Self {
        let is_tf_name = config.str("architecture").is_some_and(|name| name.starts_with("tf_"));
        // Hugging Face's MobileNets have it unless they say otherwise.
        let is_mobilenet = config.str("model_type").is_some_and(|name| name.starts_with("mobilenet"));
        if is_hugging_face_efficientnet {
            Edges::Late
        } else if is_tf_name || config.flag("tf_padding", is_mobilenet) {
            Edges::Same
        } else {
            Edges::Centred
        }
    }

    fn padding(self, size: usize, stride: usize) -> Padding {
        match self {
            Edges::Same => Padding::Same,
            Edges::Late if stride == 2 => Padding::Fixed((size / 2).saturating_sub(1), size / 2),
            _ => Padding::centred(size),
        }
    }
}

/// What is added to variances: the config's, or what the library of the file's names has.
fn epsilon(config: &Config, layout: &Layout, recipe: &Recipe) -> Result<f32> {
    let is_tf = config.str("architecture").is_some_and(|name| name.starts_with("tf_"));
    let is_torchvision_v3 = layout.stem.0.starts_with("features.") && layout.hidden.is_some();
    let is_hugging_face = layout.stem.0.starts_with("mobilenet_") || layout.stem.0.starts_with("embeddings.");
    let is_keras = is_tf || is_hugging_face || is_torchvision_v3 && recipe.plain_stages > 0;
    let default = config.positive("batch_norm_eps", if is_keras { 1e-3 } else { 1e-5 })?;
    config.positive("layer_norm_eps", default)
}

fn build(source: Source, recipe: &Recipe) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let layout = Layout::of(weights);
    let edges = Edges::of(config, layout.stem.0.starts_with("embeddings."));
    let stages = stages(config, &layout, recipe)?;
    let eps = epsilon(config, &layout, recipe)?;
    let listed = config.get("depthwise_padding").and_then(serde_json::Value::as_array);
    let centred: Vec<usize> =
        listed.into_iter().flatten().filter_map(|v| v.as_u64().map(|i| i as usize)).collect();
    let mut b = Builder::new(weights, eps);
    let activation = Some(recipe.activation);
    conv(&mut b, &layout.stem, edges, 2, activation)?;
    for (i, (names, (stage, is_first))) in layout.blocks.iter().zip(stages).enumerate() {
        let stride = if is_first { recipe.stage_strides[stage] } else { 1 };
        let inner = if stage < recipe.plain_stages { Activation::Relu } else { recipe.activation };
        let is_never = match layout.plain {
            Plain::None => false,
            Plain::First => i == 0,
            Plain::FirstOfStage => is_first,
        };
        let is_plain = recipe.is_chain || names.convs.len() < 2 || is_never;
        // Blocks in that list of Hugging Face's EfficientNet have as many zeros on either side.
        let edges = if centred.contains(&i) { Edges::Centred } else { edges };
        block(&mut b, names, &Style { stride, inner, is_plain, edges, recipe })?;
    }
    for names in &layout.last {
        conv(&mut b, names, edges, 1, activation)?;
    }
    b.mean();
    if let Some(hidden) = &layout.hidden {
        b.conv(Want { conv: hidden, norm: None, stride: 1, padding: None, activation })?;
    }
    b.finish(config, layout.classifier)
}

/// The stage of each block, and whether it is the stage's first.
fn stages(config: &Config, layout: &Layout, recipe: &Recipe) -> Result<Vec<(usize, bool)>> {
    let n_blocks = layout.blocks.len();
    let told: Option<Vec<_>> = layout.blocks.iter().map(|block| block.stage).collect();
    let stages = match told {
        Some(stages) => stages,
        None => {
            let repeats = match config.dims("num_block_repeats")? {
                Some(repeats) => repeats,
                None => recipe.repeats.to_vec(),
            };
            let depth = f64::from(config.positive("depth_coefficient", 1.0)?);
            let n = |repeats: usize| ((repeats as f64 * depth).ceil() as usize).min(n_blocks);
            let stage = |(stage, repeats)| (0..n(repeats)).map(move |i| (stage, i == 0));
            repeats.into_iter().enumerate().flat_map(stage).take(n_blocks + 1).collect()
        }
    };
    if n_blocks == 0 || stages.len() != n_blocks {
        let rule = format!("{n_blocks} blocks, expected {}", stages.len());
        return Err(Error::new(Code::UnsupportedArch, rule).key("general.architecture"));
    }
    match stages.iter().find(|(stage, _)| *stage >= recipe.stage_strides.len()) {
        Some((stage, _)) => {
            let rule = format!("a stage {stage}, which the architecture does not have");
            Err(Error::new(Code::UnsupportedArch, rule).key("general.architecture"))
        }
        None => Ok(stages),
    }
}

/// How a block computes.
struct Style<'a> {
    /// Of its depthwise convolution.
    stride: usize,
    /// After the convolutions before the last.
    inner: Activation,
    /// Whether it has no residual.
    is_plain: bool,
    edges: Edges,
    recipe: &'a Recipe,
}

fn block(b: &mut Builder, names: &Block, style: &Style) -> Result<()> {
    let Style { stride, inner, is_plain, edges, recipe } = *style;
    let n = names.convs.len();
    let channels = b.channels();
    let last = names.convs.last().map(|(conv, _)| format!("{conv}.weight"));
    let n_out = last.and_then(|name| b.weights.shape(&name)).and_then(|shape| shape.first().copied());
    let has_residual = !is_plain && stride == 1 && n_out == Some(channels);
    if has_residual {
        b.keep();
    }
    // The depthwise one is the last but one.
    let depthwise = n.saturating_sub(2);
    for (i, pair) in names.convs.iter().enumerate() {
        let is_last = i + 1 == n;
        let activation = (!is_last || recipe.is_chain || n == 1).then_some(inner);
        let stride = if i == depthwise && n > 1 { stride } else { 1 };
        conv(b, pair, edges, stride, activation)?;
        if let (true, Some([reduce, expand])) = (i == depthwise, &names.gate) {
            b.squeeze_excite(reduce, expand, recipe.gate)?;
        }
    }
    match has_residual {
        true => b.add(None, &names.convs[n - 1].0),
        false => Ok(()),
    }
}

fn conv(
    b: &mut Builder,
    (conv, norm): &(String, String),
    edges: Edges,
    stride: usize,
    activation: Option<Activation>,
) -> Result<()> {
    let size =
        b.weights.shape(&format!("{conv}.weight")).and_then(|shape| shape.get(2).copied()).unwrap_or(1);
    let padding = Some(edges.padding(size, stride));
    b.conv(Want { conv, norm: Some(norm), stride, padding, activation })
}
