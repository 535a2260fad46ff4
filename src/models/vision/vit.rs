//! ViT (Dosovitskiy et al. 2021) and DeiT with or without distillation token (Touvron et al. 2021); and what all
//! transformers with a classification head share.

use super::block::{EncoderSpec, optional_linear, optional_norm};
use super::pool::{AttentionPool, Pool};
use super::tower::{TowerShape, TowerSpec};
use super::{
    Config, Output, Picture, Source, Tower, Values, VisionArch, VisionFamily, VisionInfo, names,
    transformer_role,
};
use crate::error::{Code, Error, Result};
use crate::kernels::act::Activations;
use crate::layers::{Activation, Linear, Mode, Norm};

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "vit",
    model_types: &["vit", "deit"],
    is_it: |has| has("patch_embed.proj.weight"),
    canonical: names::transformer,
    role: transformer_role,
    build,
};

/// ViT or DeiT.
fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let spec = spec(config, weights, 1e-6)?;
    // A class token is what makes a ViT, but those that pool by mean or attention have none.
    let pooled_otherwise = weights.has("fc_norm.weight") || weights.has("attn_pool.latent");
    if !weights.has("cls_token") && !pooled_otherwise {
        weights.values("cls_token", spec.n_embd)?;
    }
    let tower = TowerSpec { layers: spec, rope: None, keep_size: true };
    weights.ignore("mask_token");
    weights.ignore("pooler.dense.weight");
    weights.ignore("pooler.dense.bias");
    if !weights.has("pos_embed") {
        weights.values("pos_embed", spec.n_embd)?;
    }
    Ok(Box::new(Classifier::build(config, weights, tower, None)?))
}

/// What layers have in common, from the config and the shapes.
///
/// # Errors
/// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
pub fn spec(config: &Config, weights: &super::Weights, eps: f32) -> Result<EncoderSpec> {
    let shape = TowerShape::read(weights)?;
    Ok(EncoderSpec {
        n_embd: shape.n_embd,
        n_head: shape.n_head(config)?,
        eps: config.positive("layer_norm_eps", eps)?,
        activation: activation(config, Activation::GeluErf)?,
        bidirectional: true,
        rope: None,
    })
}

/// `hidden_act` of a config.
///
/// # Errors
/// `BadConfig` for one that is not known.
pub fn activation(config: &Config, default: Activation) -> Result<Activation> {
    Ok(match config.str("hidden_act") {
        None => default,
        Some("gelu") => Activation::GeluErf,
        Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast") => Activation::Gelu,
        Some("quick_gelu") => Activation::QuickGelu,
        Some("silu" | "swish") => Activation::Silu,
        Some("relu") => Activation::Relu,
        Some(other) => return Err(config.bad("hidden_act", format!("{other:?} is not supported"))),
    })
}

/// A transformer with a classification head, or without one.
pub struct Classifier {
    info: VisionInfo,
    tower: Tower,
    pool: Pool,
    fc_norm: Option<Norm>,
    head: Option<Linear>,
    /// Reads the second token; logits are the mean of both heads (DeiT, section 5).
    head_dist: Option<Linear>,
    act: Activations,
}

impl Classifier {
    /// Takes the tower and the heads. `pool` is how the family makes one vector of many; by default the first
    /// token where there is one and no norm for a mean, else attention or the mean.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn build(
        config: &Config,
        weights: &mut super::Weights,
        spec: TowerSpec,
        pool: Option<Pool>,
    ) -> Result<Self> {
        let layers = spec.layers;
        let pool = match pool {
            Some(pool) => pool,
            None if weights.has("attn_pool.latent") => {
                Pool::Attention(Box::new(AttentionPool::build(weights, &layers)?))
            }
            None if weights.has("fc_norm.weight") || !weights.has("cls_token") => Pool::Mean,
            None => Pool::Token,
        };
        let (tower, mut info) = Tower::build(config, weights, spec)?;
        let n_embd = layers.n_embd;
        info.n_embd = pool.n_out(n_embd);
        let head = optional_linear(weights, "head", info.n_embd)?;
        if head.is_none() && weights.has("head.bias") {
            let rule = "the architecture needs this tensor";
            return Err(Error::new(Code::MissingTensor, rule).tensor("head.weight"));
        }
        info.n_class = head.as_ref().map_or(0, Linear::n);
        info.labels = config.labels()?;
        let head_dist = match &head {
            Some(head) if weights.has("head_dist.weight") => {
                Some(weights.linear("head_dist", head.n(), n_embd)?)
            }
            _ => None,
        };
        Ok(Classifier {
            fc_norm: optional_norm(weights, "fc_norm", n_embd, layers.eps)?,
            info,
            tower,
            pool,
            head,
            head_dist,
            act: Activations::default(),
        })
    }

    /// Its tower.
    pub fn tower_mut(&mut self) -> &mut Tower {
        &mut self.tower
    }

    /// Its facts.
    pub fn info_mut(&mut self) -> &mut VisionInfo {
        &mut self.info
    }

    fn logits(&mut self, picture: Picture, mode: Mode) -> Result<Vec<f32>> {
        let pooled = self.pooled(picture, mode)?;
        let Some(head) = &self.head else { return Err(self.info.lacks("classification head")) };
        let mut logits = product(head, &pooled, &mut self.act);
        if let Some(head) = &self.head_dist {
            let n_embd = pooled.len();
            let second = product(head, &self.tower.tokens()[n_embd..2 * n_embd], &mut self.act);
            logits.iter_mut().zip(second).for_each(|(a, b)| *a = (*a + b) / 2.0);
        }
        Ok(logits)
    }

    fn pooled(&mut self, picture: Picture, mode: Mode) -> Result<Vec<f32>> {
        let (n_prefix, n_embd) = (self.tower.n_prefix(), self.tower.n_embd());
        let tokens = self.tower.encode_first(self.n_read(), picture, mode)?;
        let mut x = self.pool.apply(tokens, n_prefix, n_embd, mode);
        if let Some(norm) = &self.fc_norm {
            norm.in_place(&mut x, &mut Vec::new());
        }
        Ok(x)
    }
}

/// One row through a layer, as floats: it is only one.
pub fn product(linear: &Linear, x: &[f32], act: &mut Activations) -> Vec<f32> {
    act.fill(1, x.len(), false).copy_from_slice(x);
    let mut out = vec![0f32; linear.n()];
    linear.forward(act, &mut out);
    out
}

impl VisionArch for Classifier {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn trunk(&mut self) -> Option<&mut Tower> {
        Some(&mut self.tower)
    }

    fn n_read(&self) -> Option<usize> {
        self.pool.n_first().map(|n| if self.head_dist.is_some() { n + 1 } else { n })
    }

    fn run(&mut self, picture: Picture, output: Output, mode: Mode) -> Result<Values> {
        let row = |values: Vec<f32>| Values { shape: vec![values.len()], values };
        match output {
            Output::Logits => self.logits(picture, mode).map(row),
            Output::Pooled => self.pooled(picture, mode).map(row),
            Output::Patches => {
                self.tower.encode(picture, mode)?;
                Ok(self.tower.patches())
            }
            Output::Attention(map) => self.tower.attention(picture, map, mode),
        }
    }
}
