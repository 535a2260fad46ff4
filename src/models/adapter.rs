//! LoRA adapters in GGUF: for some matrices `X` of a model, tensors `X.lora_a` and `X.lora_b`.

use super::weights::{Tensor, Weights};
use crate::container::Metadata;
use crate::error::{Code, Error, Result};
use crate::layers::Lora;
use crate::repack::PackedWeights;
use std::collections::BTreeMap;

const A: &str = ".lora_a";
const B: &str = ".lora_b";

/// An adapter, to be loaded into a model.
pub struct Adapter {
    architecture: String,
    alpha: f32,
    pairs: BTreeMap<String, (PackedWeights, PackedWeights)>,
}

/// Whether metadata are those of an adapter rather than of a model.
pub fn is_adapter(metadata: &Metadata) -> bool {
    matches!(metadata.str("general.type"), Ok(Some("adapter")))
}

impl Adapter {
    /// Takes the pairs of matrices.
    ///
    /// # Errors
    /// [`Code::BadConfig`] where it is no LoRA adapter; [`Code::MissingTensor`] and
    /// [`Code::ShapeMismatch`] for matrices that are no pair.
    pub fn build(metadata: &Metadata, weights: &mut Weights) -> Result<Adapter> {
        let bad = |key: &str, rule: String| Error::new(Code::BadConfig, rule).key(key);
        if !is_adapter(metadata) {
            return Err(bad("general.type", "the file is no adapter".into()));
        }
        let key = "adapter.type";
        match metadata.str(key).map_err(|e| bad(key, e.message))? {
            Some("lora") => {}
            other => return Err(bad(key, format!("{other:?} is not supported; supported: \"lora\""))),
        }
        let key = "adapter.lora.alpha";
        let alpha = metadata.f32(key).map_err(|e| bad(key, e.message))?.unwrap_or(0.0);
        if !alpha.is_finite() {
            return Err(bad(key, format!("{alpha} is not finite")));
        }
        let architecture = metadata.str("general.architecture").ok().flatten().unwrap_or_default().into();
        let names: Vec<String> =
            weights.names().filter_map(|n| n.strip_suffix(A).map(String::from)).collect();
        let mut pairs = BTreeMap::new();
        for name in names {
            let a = weights.any_matrix(&format!("{name}{A}"))?;
            let b = weights.any_matrix(&format!("{name}{B}"))?;
            if a.n() != b.k() {
                let rule = format!("rank {} does not fit the {} of {name}{A}", b.k(), a.n());
                return Err(Error::new(Code::ShapeMismatch, rule).tensor(format!("{name}{B}")));
            }
            pairs.insert(name, (a, b));
        }
        match weights.names().next() {
            Some(left) => {
                Err(Error::new(Code::MissingTensor, "an adapter's matrix without its other half")
                    .tensor(left))
            }
            None if pairs.is_empty() => Err(bad("general.type", "the adapter holds no matrices".into())),
            None => Ok(Adapter { architecture, alpha, pairs }),
        }
    }

    /// Lays the adapter beside the tensors of a model: they are multiplied together from then on.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for an adapter of another architecture; [`Code::MissingTensor`] and
    /// [`Code::ShapeMismatch`] where the model has no such matrix.
    pub fn attach(self, scale: f32, architecture: &str, weights: &mut Weights) -> Result<()> {
        if !self.architecture.is_empty() && self.architecture != architecture {
            let rule = format!("an adapter for {:?} does not fit a {architecture:?}", self.architecture);
            return Err(Error::new(Code::BadConfig, rule).key("general.architecture"));
        }
        for (name, (a, b)) in self.pairs {
            let wanted = [b.n(), a.k()];
            match weights.shape(&name) {
                Some(shape) if shape == wanted => {}
                Some(shape) => {
                    let rule = format!("the adapter is for {wanted:?}, the model has {shape:?}");
                    return Err(Error::new(Code::ShapeMismatch, rule).tensor(&name));
                }
                None => {
                    let rule = "the adapter changes a matrix that the model does not have";
                    return Err(Error::new(Code::MissingTensor, rule).tensor(&name));
                }
            }
            // alpha / rank (Hu et al., section 4.1); files without alpha want B A as it is.
            let per_rank = if self.alpha == 0.0 { 1.0 } else { self.alpha / a.n().max(1) as f32 };
            weights.adapt(name, Lora::new(a, b, scale * per_rank));
        }
        Ok(())
    }
}

impl Weights {
    fn any_matrix(&mut self, name: &str) -> Result<PackedWeights> {
        match self.take(name)? {
            (_, Tensor::Matrix(m)) => Ok(m),
            (shape, _) => {
                Err(Error::new(Code::ShapeMismatch, format!("shape {shape:?} is no matrix")).tensor(name))
            }
        }
    }
}
