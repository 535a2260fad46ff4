//! Convolutional classifiers: a family each over a list of operators ([`net`]).

mod convnext;
mod inverted;
mod layout;
mod mobilevit;
mod net;
mod quantized;
mod resnet;

pub use convnext::CONVNEXT;
pub use inverted::{EFFICIENTNET, MOBILENET_V1, MOBILENET_V2, MOBILENET_V3};
pub use mobilevit::MOBILEVIT;
pub use quantized::QCNN;
pub use resnet::RESNET;

use super::Role;

/// How a CNN's tensors are kept: depthwise filters, the first convolution and the classifier with at least 8 bits.
fn role(canonical: &str, shape: &[usize]) -> Role {
    let is_classifier = ["classifier.", "fc.", "head.fc."].iter().any(|p| canonical.starts_with(p));
    match shape {
        [_, 1, _, _] => Role::Depthwise,
        [_, 3, _, _] => Role::OuterFilter,
        [_, _] if is_classifier => Role::OuterFilter,
        // Layers that convolutions know nothing of, which take their rows as they are.
        [_, _] if canonical.contains(".transformer.") => Role::Matrix,
        _ => Role::Filter,
    }
}

/// Names without what training frameworks put before them, and short enough for GGUF.
fn canonical(name: &str) -> String {
    let inner = ["module.", "model.", "efficientnet."].iter().find_map(|p| name.strip_prefix(p));
    inner.unwrap_or(name).to_string()
}
