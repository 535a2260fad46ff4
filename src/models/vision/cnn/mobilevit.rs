//! MobileViT (Mehta and Rastegari 2022): inverted residuals, and from the third stage on transformers over the places
//! that are alike in all patches.

use super::net::{Builder, MapOp, Want};
use super::role;
use crate::error::{Code, Error, Result};
use crate::kernels::attention::{KvCache, KvType};
use crate::layers::{Activation, Batch, FeatureMap, Mode, Norm, Workspace};
use crate::models::vision::block::{self, EncoderBlock, EncoderSpec, n_layer};
use crate::models::vision::{Config, Source, VisionArch, VisionFamily, names};

/// The family.
pub const MOBILEVIT: VisionFamily = VisionFamily {
    name: "mobilevit",
    model_types: &["mobilevit"],
    is_it: |has| has("stem.conv.weight") && has("stages.2.1.conv_kxk.conv.weight"),
    canonical,
    role,
    build,
};

fn canonical(name: &str) -> String {
    const RULES: &[(&str, &str)] = &[
        ("conv_stem.", "stem."),
        ("conv_1x1_exp.", "final_conv."),
        ("classifier.", "head.fc."),
        ("encoder.layer.#.layer.#.expand_1x1.", "stages.#.#.conv1_1x1."),
        ("encoder.layer.#.layer.#.conv_3x3.", "stages.#.#.conv2_kxk."),
        ("encoder.layer.#.layer.#.reduce_1x1.", "stages.#.#.conv3_1x1."),
        ("encoder.layer.#.downsampling_layer.expand_1x1.", "stages.#.0.conv1_1x1."),
        ("encoder.layer.#.downsampling_layer.conv_3x3.", "stages.#.0.conv2_kxk."),
        ("encoder.layer.#.downsampling_layer.reduce_1x1.", "stages.#.0.conv3_1x1."),
        ("encoder.layer.#.conv_1x1.convolution.", "stages.#.1.conv_1x1."),
        ("encoder.layer.#.conv_projection.", "stages.#.1.conv_proj."),
        ("encoder.layer.#.fusion.", "stages.#.1.conv_fusion."),
        ("encoder.layer.#.layernorm.", "stages.#.1.norm."),
        (
            "encoder.layer.#.transformer.layer.#.attention.attention.query.",
            "stages.#.1.transformer.#.attn.q.",
        ),
        ("encoder.layer.#.transformer.layer.#.attention.attention.key.", "stages.#.1.transformer.#.attn.k."),
        (
            "encoder.layer.#.transformer.layer.#.attention.attention.value.",
            "stages.#.1.transformer.#.attn.v.",
        ),
        (
            "encoder.layer.#.transformer.layer.#.attention.output.dense.",
            "stages.#.1.transformer.#.attn.proj.",
        ),
        ("encoder.layer.#.transformer.layer.#.intermediate.dense.", "stages.#.1.transformer.#.mlp.fc1."),
        ("encoder.layer.#.transformer.layer.#.output.dense.", "stages.#.1.transformer.#.mlp.fc2."),
        ("encoder.layer.#.transformer.layer.#.layernorm_before.", "stages.#.1.transformer.#.norm1."),
        ("encoder.layer.#.transformer.layer.#.layernorm_after.", "stages.#.1.transformer.#.norm2."),
        ("encoder.layer.#.", "stages.#.1."),
    ];
    let name = ["mobilevit.", "module."].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    let name = names::rewrite(name, RULES).unwrap_or_else(|| name.into());
    name.replace(".convolution.", ".conv.").replace(".normalization.", ".bn.")
}

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let n_stage = n_layer(weights, "stages")?;
    let mut b = Builder::new(weights, 1e-5);
    conv(&mut b, "stem", 2, true)?;
    for stage in 0..n_stage {
        for i in 0..n_layer(b.weights, &format!("stages.{stage}"))? {
            let stem = format!("stages.{stage}.{i}");
            if b.weights.has(&format!("{stem}.conv_kxk.conv.weight")) {
                transformer(config, &mut b, &stem)?;
            } else {
                inverted(&mut b, &stem, if stage > 0 && i == 0 { 2 } else { 1 })?;
            }
        }
    }
    conv(&mut b, "final_conv", 1, true)?;
    b.mean();
    b.finish(config, "head.fc")
}

/// A convolution with its batch norm.
fn conv(b: &mut Builder, stem: &str, stride: usize, is_active: bool) -> Result<()> {
    b.conv(Want {
        conv: &format!("{stem}.conv"),
        norm: Some(&format!("{stem}.bn")),
        stride,
        padding: None,
        activation: is_active.then_some(Activation::Silu),
    })
}

/// Wider, each channel by itself, narrower (Sandler et al. 2018).
fn inverted(b: &mut Builder, stem: &str, stride: usize) -> Result<()> {
    let before = b.channels();
    let reduce = format!("{stem}.conv3_1x1");
    let after = b.weights.shape(&format!("{reduce}.conv.weight")).and_then(|s| s.first().copied());
    let is_residual = stride == 1 && after == Some(before);
    if is_residual {
        b.keep();
    }
    conv(b, &format!("{stem}.conv1_1x1"), 1, true)?;
    conv(b, &format!("{stem}.conv2_kxk"), stride, true)?;
    conv(b, &reduce, 1, false)?;
    if is_residual { b.add(None, &reduce) } else { Ok(()) }
}

/// Convolutions around transformers, joined with what came in.
fn transformer(config: &Config, b: &mut Builder, stem: &str) -> Result<()> {
    b.keep();
    conv(b, &format!("{stem}.conv_kxk"), 1, true)?;
    let (conv_1x1, activation) = (format!("{stem}.conv_1x1"), None);
    b.conv(Want { conv: &conv_1x1, norm: None, stride: 1, padding: None, activation })?;
    let n_embd = b.channels();
    let n_head = config.dim("num_attention_heads")?.unwrap_or(4);
    if !n_embd.is_multiple_of(n_head) {
        return Err(config.bad("num_attention_heads", format!("{n_head} does not divide {n_embd}")));
    }
    let eps = config.positive("layer_norm_eps", 1e-5)?;
    let spec =
        EncoderSpec { n_embd, n_head, eps, activation: Activation::Silu, bidirectional: true, rope: None };
    let patch = config.dim("patch_size")?.unwrap_or(2);
    if patch > 16 {
        return Err(config.bad("patch_size", format!("{patch} is more than 16")));
    }
    let n_block = n_layer(b.weights, &format!("{stem}.transformer"))?;
    let blocks = (0..n_block)
        .map(|i| EncoderBlock::build(b.weights, &format!("{stem}.transformer.{i}"), &spec))
        .collect::<Result<Vec<_>>>()?;
    let norm = block::norm(b.weights, &format!("{stem}.norm"), n_embd, eps)?;
    b.op(Box::new(Unfolded { patch, spec, blocks, norm }));
    conv(b, &format!("{stem}.conv_proj"), 1, true)?;
    if b.weights.has(&format!("{stem}.conv_fusion.conv.weight")) {
        b.join();
        conv(b, &format!("{stem}.conv_fusion"), 1, true)?;
    }
    Ok(())
}

/// Transformers over the first places of all patches, over the second ones, and so on.
struct Unfolded {
    /// Side of a patch.
    patch: usize,
    spec: EncoderSpec,
    blocks: Vec<EncoderBlock>,
    norm: Norm,
}

impl MapOp for Unfolded {
    fn apply(&self, x: &mut FeatureMap, w: &mut Workspace, mode: Mode) -> Result<()> {
        let (p, EncoderSpec { n_embd, n_head, .. }) = (self.patch, self.spec);
        let [rows, cols, _] = x.shape;
        let (new_rows, new_cols) = (rows.next_multiple_of(p), cols.next_multiple_of(p));
        let is_resized = (new_rows, new_cols) != (rows, cols);
        let mut map = if is_resized { bilinear(x, new_rows, new_cols) } else { std::mem::take(x) };
        let (down, across) = (new_rows / p, new_cols / p);
        let m = down * across;
        if m > MAX_PATCHES {
            return Err(Error::new(Code::BadArgument, format!("{m} patches are too many")).key("shape"));
        }
        let mut kv = KvCache::new(KvType::F32, n_head, n_embd / n_head, m)?;
        for place in 0..p * p {
            let at =
                |i: usize| ((i / across * p + place / p) * new_cols + i % across * p + place % p) * n_embd;
            w.begin(Batch { m, first_pos: 0, n_ctx: m, mode }, n_embd);
            for (i, row) in w.x.chunks_exact_mut(n_embd).enumerate() {
                row.copy_from_slice(&map.data[at(i)..][..n_embd]);
            }
            for block in &self.blocks {
                block.forward(w, &mut kv);
            }
            w.norm_x(&self.norm);
            for (i, row) in w.x.chunks_exact(n_embd).enumerate() {
                map.data[at(i)..][..n_embd].copy_from_slice(row);
            }
        }
        *x = if is_resized { bilinear(&map, rows, cols) } else { map };
        Ok(())
    }
}

/// Most tokens of a transformer.
const MAX_PATCHES: usize = 1 << 14;

/// A map brought to other rows and columns between its four neighbours, edges repeated, pixel centres at halves.
fn bilinear(x: &FeatureMap, rows: usize, cols: usize) -> FeatureMap {
    let [old_rows, old_cols, n] = x.shape;
    let place = |i: usize, len: usize, old: usize| {
        let at = ((i as f32 + 0.5) * old as f32 / len as f32 - 0.5).max(0.0);
        let first = (at as usize).min(old - 1);
        (first, (first + 1).min(old - 1), at - first as f32)
    };
    let mut data = Vec::with_capacity(rows * cols * n);
    for y in 0..rows {
        let (top, bottom, down) = place(y, rows, old_rows);
        for column in 0..cols {
            let (left, right, across) = place(column, cols, old_cols);
            let part = |y: usize, x_: usize| &x.data[(y * old_cols + x_) * n..][..n];
            let corners = [part(top, left), part(top, right), part(bottom, left), part(bottom, right)];
            data.extend((0..n).map(|c| {
                let upper = corners[0][c] * (1.0 - across) + corners[1][c] * across;
                let lower = corners[2][c] * (1.0 - across) + corners[3][c] * across;
                upper * (1.0 - down) + lower * down
            }));
        }
    }
    FeatureMap { shape: [rows, cols, n], data }
}
