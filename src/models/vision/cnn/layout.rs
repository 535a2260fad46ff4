//! The names of inverted residual networks in files of timm, of torchvision and of Hugging Face.

use crate::models::Weights;
use std::collections::BTreeSet;

/// The numbers that follow `stem.` in tensor names, ascending.
pub(super) fn children(weights: &Weights, stem: &str) -> Vec<usize> {
    let number = |name: &str| name.strip_prefix(stem)?.strip_prefix('.')?.split('.').next()?.parse().ok();
    weights.names().filter_map(number).collect::<BTreeSet<usize>>().into_iter().collect()
}

/// A convolution and the batch norm that follows it.
pub(super) type ConvNorm = (String, String);

/// A block: one to three convolutions, the depthwise one among them.
#[derive(Debug, PartialEq)]
pub(super) struct Block {
    /// In the order in which they run.
    pub convs: Vec<ConvNorm>,
    /// The two layers of squeeze and excitation.
    pub gate: Option<[String; 2]>,
    /// The stage, and whether it is the stage's first block; `None` where names do not tell.
    pub stage: Option<(usize, bool)>,
}

/// All names of a network.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub stem: ConvNorm,
    pub blocks: Vec<Block>,
    /// Convolutions after the blocks.
    pub last: Vec<ConvNorm>,
    /// A linear layer (or a convolution) between the mean and the classifier.
    pub hidden: Option<String>,
    pub classifier: &'static str,
    /// Blocks that never have a residual.
    pub plain: Plain,
}

/// Which blocks have no residual although their input would fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Plain {
    #[default]
    None,
    /// The first of the network.
    First,
    /// The first of each stage.
    FirstOfStage,
}

fn pair(conv: impl Into<String>, norm: impl Into<String>) -> ConvNorm {
    (conv.into(), norm.into())
}

impl Layout {
    /// The layout of the file that the weights are from.
    pub(super) fn of(weights: &Weights) -> Layout {
        let has = |name: &str| weights.has(&format!("{name}.weight"));
        if has("mobilenet_v1.conv_stem.convolution") {
            mobilenet_v1(weights)
        } else if has("mobilenet_v2.conv_stem.first_conv.convolution") {
            mobilenet_v2(weights)
        } else if has("embeddings.convolution") {
            efficientnet(weights, &has)
        } else if has("features.0.0") {
            torchvision(weights, &has)
        } else {
            timm(weights, &has)
        }
    }
}

fn timm(weights: &Weights, has: &dyn Fn(&str) -> bool) -> Layout {
    let mut blocks = Vec::new();
    for stage in children(weights, "blocks") {
        for (i, id) in children(weights, &format!("blocks.{stage}")).into_iter().enumerate() {
            let name = |part: &str| format!("blocks.{stage}.{id}.{part}");
            let order: &[&str] = if has(&name("conv_pwl")) {
                &["conv_pw", "conv_dw", "conv_pwl"]
            } else if has(&name("conv_dw")) {
                &["conv_dw", "conv_pw"]
            } else {
                &["conv"]
            };
            let numbered = order.iter().zip(["bn1", "bn2", "bn3"]);
            blocks.push(Block {
                convs: numbered.map(|(conv, norm)| pair(name(conv), name(norm))).collect(),
                gate: has(&name("se.conv_reduce")).then(|| ["se.conv_reduce", "se.conv_expand"].map(name)),
                stage: Some((stage, i == 0)),
            });
        }
    }
    let is_normed = has("bn2");
    Layout {
        stem: pair("conv_stem", "bn1"),
        blocks,
        last: if is_normed { vec![pair("conv_head", "bn2")] } else { Vec::new() },
        hidden: (!is_normed && has("conv_head")).then(|| "conv_head".into()),
        classifier: "classifier",
        plain: Plain::None,
    }
}

fn torchvision(weights: &Weights, has: &dyn Fn(&str) -> bool) -> Layout {
    let mut layout = Layout { stem: pair("features.0.0", "features.0.1"), ..Layout::default() };
    for i in children(weights, "features").into_iter().skip(1) {
        let stem = format!("features.{i}");
        if weights.shape(&format!("{stem}.0.weight")).is_some_and(|shape| shape.len() == 4) {
            layout.last.push(pair(format!("{stem}.0"), format!("{stem}.1")));
        } else if has(&format!("{stem}.conv.0.0")) {
            layout.blocks.push(mobilenet_v2_block(&stem, has));
        } else if !children(weights, &format!("{stem}.block")).is_empty() {
            layout.blocks.push(block_of(weights, &stem, has, None));
        } else {
            for (n, id) in children(weights, &stem).into_iter().enumerate() {
                layout.blocks.push(block_of(weights, &format!("{stem}.{id}"), has, Some((i - 1, n == 0))));
            }
        }
    }
    let is_v3 = has("classifier.3");
    layout.hidden = is_v3.then(|| "classifier.0".into());
    layout.classifier = if is_v3 { "classifier.3" } else { "classifier.1" };
    layout
}

/// A block of torchvision's MobileNetV2: the last two entries are a convolution and its norm.
fn mobilenet_v2_block(stem: &str, has: &dyn Fn(&str) -> bool) -> Block {
    let name = |part: &str| format!("{stem}.conv.{part}");
    let convs = match has(&name("3")) {
        true => vec![("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")],
        false => vec![("0.0", "0.1"), ("1", "2")],
    };
    let convs = convs.into_iter().map(|(conv, norm)| pair(name(conv), name(norm))).collect();
    Block { convs, gate: None, stage: None }
}

/// A block of torchvision's other networks: a list of convolutions with norms, and of gates.
fn block_of(
    weights: &Weights,
    stem: &str,
    has: &dyn Fn(&str) -> bool,
    stage: Option<(usize, bool)>,
) -> Block {
    let mut block = Block { convs: Vec::new(), gate: None, stage };
    for j in children(weights, &format!("{stem}.block")) {
        let name = |part: &str| format!("{stem}.block.{j}.{part}");
        if has(&name("fc1")) {
            block.gate = Some(["fc1", "fc2"].map(name));
        } else {
            block.convs.push(pair(name("0"), name("1")));
        }
    }
    block
}

fn mobilenet_v1(weights: &Weights) -> Layout {
    let layer = |stem: String| pair(format!("{stem}.convolution"), format!("{stem}.normalization"));
    let layers: Vec<_> = children(weights, "mobilenet_v1.layer")
        .into_iter()
        .map(|i| layer(format!("mobilenet_v1.layer.{i}")))
        .collect();
    let block = |convs: &[ConvNorm]| Block { convs: convs.to_vec(), gate: None, stage: None };
    Layout {
        stem: layer("mobilenet_v1.conv_stem".into()),
        blocks: layers.chunks(2).map(block).collect(),
        classifier: "classifier",
        ..Layout::default()
    }
}

fn mobilenet_v2(weights: &Weights) -> Layout {
    let layer = |stem: &str| pair(format!("{stem}.convolution"), format!("{stem}.normalization"));
    let block = |stem: String, parts: &[&str]| Block {
        convs: parts.iter().map(|part| layer(&format!("{stem}.{part}"))).collect(),
        gate: None,
        stage: None,
    };
    let mut blocks = vec![block("mobilenet_v2.conv_stem".into(), &["conv_3x3", "reduce_1x1"])];
    for i in children(weights, "mobilenet_v2.layer") {
        blocks.push(block(format!("mobilenet_v2.layer.{i}"), &["expand_1x1", "conv_3x3", "reduce_1x1"]));
    }
    Layout {
        stem: layer("mobilenet_v2.conv_stem.first_conv"),
        blocks,
        last: vec![layer("mobilenet_v2.conv_1x1")],
        classifier: "classifier",
        plain: Plain::First,
        ..Layout::default()
    }
}

fn efficientnet(weights: &Weights, has: &dyn Fn(&str) -> bool) -> Layout {
    const PARTS: [(&str, &str); 3] = [
        ("expansion.expand_conv", "expansion.expand_bn"),
        ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
        ("projection.project_conv", "projection.project_bn"),
    ];
    let block = |i: usize| {
        let name = |part: &str| format!("encoder.blocks.{i}.{part}");
        let parts = PARTS.iter().filter(|(conv, _)| has(&name(conv)));
        Block {
            convs: parts.map(|(conv, norm)| pair(name(conv), name(norm))).collect(),
            gate: Some(["squeeze_excite.reduce", "squeeze_excite.expand"].map(name)),
            stage: None,
        }
    };
    Layout {
        stem: pair("embeddings.convolution", "embeddings.batchnorm"),
        blocks: children(weights, "encoder.blocks").into_iter().map(block).collect(),
        last: vec![pair("encoder.top_conv", "encoder.top_bn")],
        classifier: "classifier",
        plain: Plain::FirstOfStage,
        ..Layout::default()
    }
}
