//! Vision transformer classifiers: ViT (Dosovitskiy et al. 2021) and DeiT with or without
//! distillation token (Touvron et al. 2021).

use super::config::Reader;
use super::{Weights, names};
use crate::container::{Array, Metadata};
use crate::error::{Code, Error, Result};
use crate::kernels::act::Activations;
use crate::kernels::attention::{KvCache, Mask, Query, Scratch, attention};
use crate::kernels::vecmath;
use crate::layers::{Activation, I, LayerNorm, Linear, Mode};

/// Dimensions of a ViT.
#[derive(Clone, Debug)]
pub struct VitConfig {
    /// Side of the square input, pixels.
    pub image_size: usize,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Heads.
    pub n_head: usize,
    /// Classes.
    pub n_class: usize,
    /// Added to the variance in layer norms.
    pub eps: f32,
    /// Class names from the file, if it has them.
    pub labels: Vec<String>,
}

enum Qkv {
    Fused(Linear),
    Separate(Box<[Linear; 3]>),
}

struct Layer {
    norm1: LayerNorm,
    qkv: Qkv,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

/// A ViT classifier.
pub struct Vit {
    config: VitConfig,
    patch_embed: Linear,
    /// `[n_prefix, n_embd]`: class token, then distillation token if there is one.
    prefix: Vec<f32>,
    /// `[n_prefix + n_patch, n_embd]`.
    pos_embed: Vec<f32>,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Linear,
    head_dist: Option<Linear>,
    kv: KvCache,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    act: Activations,
    qkv: Vec<f32>,
    q: Vec<f32>,
    out: Vec<f32>,
    attention: Scratch,
}

impl Vit {
    /// Reads the configuration (metadata where it is, shapes otherwise) and takes the tensors.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`, `OutOfMemory`.
    pub fn build(metadata: &Metadata, weights: &mut Weights) -> Result<Self> {
        weights.rename(names::to_timm);
        let config = read_config(metadata, weights)?;
        let VitConfig { n_embd, eps, .. } = config;
        let n_patch = (config.image_size / config.patch_size).pow(2);
        let mut prefix = weights.values("cls_token", n_embd)?;
        if let Some(dist) = weights.optional_values("dist_token", n_embd)? {
            prefix.extend(dist);
        }
        let n_tokens = n_patch + prefix.len() / n_embd;
        let pos_embed = weights.values("pos_embed", n_tokens * n_embd)?;
        let patch_k = 3 * config.patch_size * config.patch_size;
        let patch_embed = weights.linear("patch_embed.proj", n_embd, patch_k)?;
        let layers =
            (0..config.n_layer).map(|i| Layer::build(weights, i, n_embd, eps)).collect::<Result<Vec<_>>>()?;
        let head_dist = match weights.has("head_dist.weight") {
            true => Some(weights.linear("head_dist", config.n_class, n_embd)?),
            false => None,
        };
        Ok(Vit {
            norm: weights.layer_norm("norm", n_embd, eps)?,
            head: weights.linear("head", config.n_class, n_embd)?,
            kv: KvCache::new(config.n_head, n_embd / config.n_head, n_tokens)?,
            config,
            patch_embed,
            prefix,
            pos_embed,
            layers,
            head_dist,
            buffers: Buffers::default(),
        })
    }

    /// Its dimensions.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Logits `[n_class]` of normalised pixels `[3, image_size, image_size]`. With a
    /// distillation token they are the mean of both heads, as in DeiT section 5.
    pub fn logits(&mut self, pixels: &[f32], mode: Mode) -> Vec<f32> {
        self.encode(pixels, mode);
        let n_embd = self.config.n_embd;
        let mut logits = vec![0f32; self.config.n_class];
        let b = &mut self.buffers;
        self.norm.forward(&b.x[..n_embd], b.act.fill(1, n_embd, mode.is_integer()));
        self.head.forward(&mut b.act, &mut logits);
        if let Some(head) = &self.head_dist {
            let mut second = vec![0f32; logits.len()];
            self.norm.forward(&b.x[n_embd..2 * n_embd], b.act.fill(1, n_embd, mode.is_integer()));
            head.forward(&mut b.act, &mut second);
            logits.iter_mut().zip(second).for_each(|(a, b)| *a = (*a + b) / 2.0);
        }
        logits
    }

    /// The normalised class token `[n_embd]`: a feature vector of the whole image.
    pub fn features(&mut self, pixels: &[f32], mode: Mode) -> Vec<f32> {
        self.encode(pixels, mode);
        let mut out = vec![0f32; self.config.n_embd];
        self.norm.forward(&self.buffers.x[..self.config.n_embd], &mut out);
        out
    }

    /// Runs all layers; leaves the tokens in `buffers.x`.
    fn encode(&mut self, pixels: &[f32], mode: Mode) {
        let VitConfig { image_size, patch_size, n_embd, n_head, .. } = self.config;
        assert_eq!(pixels.len(), 3 * image_size * image_size, "pixels are not [3, image_size, image_size]");
        let per_side = image_size / patch_size;
        let (n_patch, n_prefix) = (per_side * per_side, self.prefix.len() / n_embd);
        let m = n_prefix + n_patch;
        let b = &mut self.buffers;
        let patches = b.act.fill(n_patch, 3 * patch_size * patch_size, mode.is_integer());
        cut_patches(pixels, image_size, patch_size, patches);
        b.x.resize(m * n_embd, 0.0);
        self.patch_embed.forward(&mut b.act, &mut b.x[n_prefix * n_embd..]);
        b.x[..n_prefix * n_embd].copy_from_slice(&self.prefix);
        vecmath::add::<I>(&mut b.x, &self.pos_embed);
        for layer in &self.layers {
            layer.attend(n_head, m, &mut self.kv, mode, b);
            layer.feed_forward(m, mode, b);
        }
    }
}

/// `[3, size, size]` to `[n_patch, 3 * patch * patch]`, patches row by row; within a patch
/// the order of a convolution kernel: channel, row, column.
fn cut_patches(pixels: &[f32], size: usize, patch: usize, out: &mut [f32]) {
    let per_side = size / patch;
    let mut rows = out.chunks_exact_mut(patch);
    for py in 0..per_side {
        for px in 0..per_side {
            for channel in 0..3 {
                for y in 0..patch {
                    let from = channel * size * size + (py * patch + y) * size + px * patch;
                    if let Some(row) = rows.next() {
                        row.copy_from_slice(&pixels[from..from + patch]);
                    }
                }
            }
        }
    }
}

impl Layer {
    fn build(weights: &mut Weights, i: usize, n_embd: usize, eps: f32) -> Result<Layer> {
        let name = |part: &str| format!("blocks.{i}.{part}");
        let qkv = if weights.has(&name("attn.qkv.weight")) {
            Qkv::Fused(weights.linear(&name("attn.qkv"), 3 * n_embd, n_embd)?)
        } else {
            let mut part = |p: &str| weights.linear(&name(p), n_embd, n_embd);
            Qkv::Separate(Box::new([part("attn.q")?, part("attn.k")?, part("attn.v")?]))
        };
        let fc1 = name("mlp.fc1");
        let n_ff = weights.shape(&format!("{fc1}.weight")).map_or(4 * n_embd, |s| s[0]);
        Ok(Layer {
            norm1: weights.layer_norm(&name("norm1"), n_embd, eps)?,
            qkv,
            proj: weights.linear(&name("attn.proj"), n_embd, n_embd)?,
            norm2: weights.layer_norm(&name("norm2"), n_embd, eps)?,
            fc1: weights.linear(&fc1, n_ff, n_embd)?,
            fc2: weights.linear(&name("mlp.fc2"), n_embd, n_ff)?,
        })
    }

    /// `x += W_o attention(q, k, v)` with `q, k, v = W_qkv norm1(x)`; all tokens see all.
    fn attend(&self, n_head: usize, m: usize, kv: &mut KvCache, mode: Mode, b: &mut Buffers) {
        let n_embd = self.norm1.weight.len();
        self.norm1.forward(&b.x, b.act.fill(m, n_embd, mode.is_integer()));
        b.q.resize(m * n_embd, 0.0);
        b.qkv.resize(m * 3 * n_embd, 0.0);
        match &self.qkv {
            Qkv::Fused(qkv) => {
                qkv.forward(&mut b.act, &mut b.qkv);
                for (i, row) in b.qkv.chunks_exact(3 * n_embd).enumerate() {
                    b.q[i * n_embd..][..n_embd].copy_from_slice(&row[..n_embd]);
                    kv.store(i, &row[n_embd..2 * n_embd], &row[2 * n_embd..]);
                }
            }
            Qkv::Separate(parts) => {
                let [q, k, v] = parts.as_ref();
                let (keys, rest) = b.qkv.split_at_mut(m * n_embd);
                let values = &mut rest[..m * n_embd];
                Linear::forward_all([q, k, v], &mut b.act, [&mut b.q, keys, values]);
                for (i, (k, v)) in keys.chunks_exact(n_embd).zip(values.chunks_exact(n_embd)).enumerate() {
                    kv.store(i, k, v);
                }
            }
        }
        let query = Query::plain(n_head, n_embd / n_head, Mask::Full { n: m });
        attention::<I>(&b.q, &query, kv, &mut b.attention, b.act.fill(m, n_embd, mode.is_integer()));
        b.out.resize(m * n_embd, 0.0);
        self.proj.forward(&mut b.act, &mut b.out);
        vecmath::add::<I>(&mut b.x, &b.out);
    }

    /// `x += W_2 gelu(W_1 norm2(x))`.
    fn feed_forward(&self, m: usize, mode: Mode, b: &mut Buffers) {
        let (n_embd, n_ff) = (self.norm2.weight.len(), self.fc1.n());
        self.norm2.forward(&b.x, b.act.fill(m, n_embd, mode.is_integer()));
        b.out.resize(m * n_ff, 0.0);
        self.fc1.forward(&mut b.act, &mut b.out);
        Activation::GeluErf.apply(&mut b.out);
        b.act.fill(m, n_ff, mode.is_integer()).copy_from_slice(&b.out);
        b.out.resize(m * n_embd, 0.0);
        self.fc2.forward(&mut b.act, &mut b.out);
        vecmath::add::<I>(&mut b.x, &b.out);
    }
}

/// Metadata (`vit.*`) first; what it lacks follows from the shapes. Heads have 64 elements
/// unless the metadata says otherwise, as in every published ViT and DeiT.
fn read_config(metadata: &Metadata, weights: &Weights) -> Result<VitConfig> {
    let reader = Reader::new(metadata, "vit");
    let shape = |name: &str| {
        let missing = || Error::new(Code::MissingTensor, "the architecture needs this tensor").tensor(name);
        weights.shape(name).ok_or_else(missing)
    };
    let bad_shape = |name: &str, rule: &str| Error::new(Code::ShapeMismatch, rule).tensor(name);
    let conv = shape("patch_embed.proj.weight")?;
    let (n_embd, patch_k) = match conv {
        [n_embd, patch @ ..] if *n_embd > 0 => (*n_embd, patch.iter().product::<usize>()),
        _ => return Err(bad_shape("patch_embed.proj.weight", "no output channels")),
    };
    let patch_size = (patch_k / 3).isqrt();
    if patch_size == 0 || 3 * patch_size * patch_size != patch_k {
        return Err(bad_shape("patch_embed.proj.weight", "not a square patch of three channels"));
    }
    let n_head = match reader.optional_dim("attention.head_count")? {
        Some(n) => n,
        None => (n_embd / 64).max(1),
    };
    if !n_embd.is_multiple_of(n_head) {
        return Err(reader.bad("attention.head_count", format!("{n_head} does not divide {n_embd}")));
    }
    let n_prefix = 1 + usize::from(weights.has("dist_token"));
    let n_tokens = shape("pos_embed")?.iter().product::<usize>() / n_embd;
    let per_side = n_tokens.saturating_sub(n_prefix).isqrt();
    if per_side == 0 || per_side * per_side + n_prefix != n_tokens {
        return Err(bad_shape("pos_embed", "not a square grid of patches"));
    }
    let last_layer =
        weights.names().filter_map(|n| n.strip_prefix("blocks.")?.split('.').next()?.parse().ok());
    let n_layer = last_layer.max().map_or(0, |i: usize| i.saturating_add(1));
    if n_layer == 0 || n_layer > 1024 {
        return Err(Error::new(Code::MissingTensor, "no transformer blocks").tensor("blocks.0.norm1.weight"));
    }
    Ok(VitConfig {
        image_size: per_side * patch_size,
        patch_size,
        n_embd,
        n_layer,
        n_head,
        n_class: *shape("head.weight")?.first().ok_or_else(|| bad_shape("head.weight", "no rows"))?,
        eps: reader.positive("attention.layer_norm_epsilon", 1e-6)?,
        labels: read_labels(metadata)?,
    })
}

fn read_labels(metadata: &Metadata) -> Result<Vec<String>> {
    match metadata.array("vit.labels")? {
        None => Ok(Vec::new()),
        Some(Array::Str(names)) => {
            Ok(names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect())
        }
        Some(_) => Err(Error::new(Code::BadConfig, "expected an array of strings").key("vit.labels")),
    }
}
