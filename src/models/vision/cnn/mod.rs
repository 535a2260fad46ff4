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

/// How a CNN's tensors are kept: kernels of one input channel as values, which the depthwise kernels read; the
/// first convolution and the classifier with at least 8 bits.
fn role(canonical: &str, shape: &[usize]) -> Role {
    let is_classifier = ["classifier.", "fc.", "head.fc."].iter().any(|p| canonical.starts_with(p));
    match shape {
        [_, 1, _, _] => Role::Table,
        [_, 3, _, _] => Role::Outer,
        [_, _] if is_classifier => Role::Outer,
        _ => Role::Matrix,
    }
}

/// Names without what training frameworks put before them.
fn canonical(name: &str) -> String {
    let inner = ["module.", "model."].iter().find_map(|p| name.strip_prefix(p));
    inner.unwrap_or(name).to_string()
}
