//! CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): a tower for pictures and one for texts, whose vectors can
//! be compared.

use super::block::optional_linear;
use super::pool::{AttentionPool, Pool};
use super::text_tower::{TextEncoder, TextSpec};
use super::tower::{Tower, TowerSpec};
use super::vit::{self, product};
use super::{
    Output, Picture, Source, TextTower, Values, VisionArch, VisionFamily, VisionInfo, names, transformer_role,
};
use crate::error::Result;
use crate::kernels::act::Activations;
use crate::layers::{Activation, Linear, Mode};

/// CLIP.
pub const CLIP: VisionFamily = VisionFamily {
    name: "clip",
    model_types: &["clip", "clip_vision_model"],
    is_it: |has| {
        let is_whole = has("visual_projection.weight") || has("text.token_embedding.weight");
        has("patch_embed.proj.weight") && (is_whole || has("norm_pre.weight") && !has("head.weight"))
    },
    canonical: names::transformer,
    role: transformer_role,
    build: |source| build(source, &CLIP_TEXT),
};

/// SigLIP.
pub const SIGLIP: VisionFamily = VisionFamily {
    name: "siglip",
    model_types: &["siglip", "siglip_vision_model"],
    is_it: |has| {
        let is_whole = has("attn_pool.in_proj.weight") || has("logit_bias");
        has("patch_embed.proj.weight") && (is_whole || !has("cls_token") && has("text.head.weight"))
    },
    canonical: names::transformer,
    role: transformer_role,
    build: |source| build(source, &SIGLIP_TEXT),
};

/// Mean and standard deviation of the pictures that CLIP was trained with.
const CLIP_PIXELS: [[f32; 3]; 2] =
    [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_6, 0.275_777_1]];

const CLIP_TEXT: TextSpec = TextSpec {
    bidirectional: false,
    activation: Activation::QuickGelu,
    pad: None,
    projection: "text_projection",
    is_sigmoid: false,
};

const SIGLIP_TEXT: TextSpec = TextSpec {
    bidirectional: true,
    activation: Activation::Gelu,
    pad: Some(1),
    projection: "text.head",
    is_sigmoid: true,
};

/// Both towers.
struct Dual {
    info: VisionInfo,
    tower: Tower,
    pool: Pool,
    projection: Option<Linear>,
    text: Option<TextEncoder>,
    act: Activations,
}

fn build(source: Source, how: &TextSpec) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    // The config of a vision tower alone has everything outside.
    let section = config.section("vision_config");
    let vision = if section.is_empty() { config } else { &section };
    let mut layers = vit::spec(vision, weights, if how.is_sigmoid { 1e-6 } else { 1e-5 })?;
    layers.activation = vit::activation(vision, gguf_activation(config, how.activation))?;
    for name in ["embeddings.position_ids", "position_ids"] {
        weights.ignore(name);
    }
    let pool = match weights.has("attn_pool.latent") {
        true => Pool::Attention(Box::new(AttentionPool::build(weights, &layers)?)),
        false if weights.has("cls_token") => Pool::Token,
        false => Pool::Mean,
    };
    let tower = TowerSpec { layers, rope: None, keep_size: true };
    let (tower, mut info) = Tower::build(vision, weights, tower)?;
    info.normalization = Some(if how.is_sigmoid { [[0.5; 3]; 2] } else { CLIP_PIXELS });
    let projection = optional_linear(weights, "visual_projection", layers.n_embd)?;
    info.n_embd = projection.as_ref().map_or(layers.n_embd, Linear::n);
    let text = TextEncoder::build(config, weights, how, info.n_embd)?;
    Ok(Box::new(Dual { info, tower, pool, projection, text, act: Activations::default() }))
}

/// GGUF files name the activation by flags.
fn gguf_activation(config: &super::Config, default: Activation) -> Activation {
    match (config.flag("use_gelu", false), config.flag("use_silu", false)) {
        (true, _) => Activation::Gelu,
        (_, true) => Activation::Silu,
        _ => default,
    }
}

impl VisionArch for Dual {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn run(&mut self, picture: Picture, output: Output, mode: Mode) -> Result<Values> {
        match output {
            Output::Logits => {
                let what = "classification head: give labels, or compare vectors";
                Err(self.info.lacks(what))
            }
            Output::Pooled => {
                let (n_prefix, n_embd) = (self.tower.n_prefix(), self.tower.n_embd());
                let tokens = self.tower.encode_first(self.pool.n_first(), picture, mode)?;
                let pooled = self.pool.apply(tokens, n_prefix, n_embd, mode);
                let values = match &self.projection {
                    Some(projection) => product(projection, &pooled, &mut self.act),
                    None => pooled,
                };
                Ok(Values { shape: vec![values.len()], values })
            }
            Output::Patches => {
                self.tower.encode(picture, mode)?;
                Ok(self.tower.patches())
            }
            Output::Attention(map) => self.tower.attention(picture, map, mode),
        }
    }

    fn text(&mut self) -> Option<&mut dyn TextTower> {
        self.text.as_mut().map(|text| text as &mut dyn TextTower)
    }
}
