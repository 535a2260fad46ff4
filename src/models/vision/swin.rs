//! Swin (Liu et al. 2021): attention within windows of patches, which every second layer shifts by half a window, and
//! stages between which four neighbours become one patch of twice the width.

use super::block::{self, EncoderSpec, optional_norm};
use super::patches::PatchEmbed;
use super::pool::mean;
use super::tower::TowerShape;
use super::vit::{activation, product};
use super::{
    Config, MAX_SIDE, Output, Picture, Source, Values, VisionArch, VisionFamily, VisionInfo, Weights, names,
    transformer_role,
};
use crate::error::{Code, Error, Result};
use crate::layers::{
    Activation, Attention, Batch, Linear, Mlp, Mode, Norm, Qkv, RelativeBias, ScoreBias, Workspace,
    dense_attention,
};
use std::sync::Arc;

/// The family.
pub const FAMILY: VisionFamily = VisionFamily {
    name: "swin",
    model_types: &["swin"],
    is_it: |has| has("patch_embed.proj.weight") && has("stages.0.blocks.0.attn.relative_position_bias_table"),
    canonical,
    role: transformer_role,
    build,
};

fn canonical(name: &str) -> String {
    const RULES: &[(&str, &str)] = &[
        ("encoder.layers.#.blocks.#.attention.self.query.", "stages.#.blocks.#.attn.q."),
        ("encoder.layers.#.blocks.#.attention.self.key.", "stages.#.blocks.#.attn.k."),
        ("encoder.layers.#.blocks.#.attention.self.value.", "stages.#.blocks.#.attn.v."),
        ("encoder.layers.#.blocks.#.attention.self.", "stages.#.blocks.#.attn."),
        ("encoder.layers.#.blocks.#.attention.output.dense.", "stages.#.blocks.#.attn.proj."),
        ("encoder.layers.#.blocks.#.layernorm_before.", "stages.#.blocks.#.norm1."),
        ("encoder.layers.#.blocks.#.layernorm_after.", "stages.#.blocks.#.norm2."),
        ("encoder.layers.#.blocks.#.intermediate.dense.", "stages.#.blocks.#.mlp.fc1."),
        ("encoder.layers.#.blocks.#.output.dense.", "stages.#.blocks.#.mlp.fc2."),
        ("encoder.layers.#.", "stages.#."),
        ("layers.#.", "stages.#."),
        ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("embeddings.norm.", "patch_embed.norm."),
        ("head.fc.", "head."),
        ("layernorm.", "norm."),
        ("classifier.", "head."),
    ];
    let name = ["swin.", "module."].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    names::rewrite(name, RULES).unwrap_or_else(|| name.into())
}

/// Widest window, patches.
const MAX_WINDOW: usize = 64;
const MAX_PATCHES: usize = 1 << 18;

struct Stage {
    blocks: Vec<SwinBlock>,
    merge: Option<Merge>,
}

struct SwinBlock {
    norm1: Norm,
    attention: Attention,
    bias: RelativeBias,
    /// Patches along a side.
    window: usize,
    is_shifted: bool,
    norm2: Norm,
    mlp: Mlp,
}

/// `W norm([x(0,0), x(1,0), x(0,1), x(1,1)])` of the four patches in a square of two by two.
struct Merge {
    norm: Norm,
    reduction: Linear,
}

struct Swin {
    info: VisionInfo,
    patch_size: usize,
    patch_embed: PatchEmbed,
    patch_norm: Option<Norm>,
    stages: Vec<Stage>,
    norm: Norm,
    head: Option<Linear>,
    work: Workspace,
}

fn build(source: Source) -> Result<Box<dyn VisionArch>> {
    let Source { config, weights, .. } = source;
    let TowerShape { n_embd, patch_size } = TowerShape::read(weights)?;
    let eps = config.positive("layer_norm_eps", 1e-5)?;
    let activation = activation(config, Activation::GeluErf)?;
    let n_stage = block::n_layer(weights, "stages")?.min(8);
    // Newer timm has the merging at the start of a stage, all others have it at the end of the one before.
    let ends = usize::from(!weights.has("stages.0.downsample.reduction.weight"));
    let mut stages = Vec::with_capacity(n_stage);
    let mut width = n_embd;
    for s in 0..n_stage {
        let n_block = block::n_layer(weights, &format!("stages.{s}.blocks"))?;
        let blocks = (0..n_block)
            .map(|i| {
                SwinBlock::build(
                    config,
                    weights,
                    &format!("stages.{s}.blocks.{i}"),
                    i,
                    width,
                    eps,
                    activation,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let stem = format!("stages.{}.downsample", s + ends);
        let merge = match s + 1 < n_stage {
            false => None,
            true => {
                let norm = block::norm(weights, &format!("{stem}.norm"), 4 * width, eps)?;
                let reduction = weights.linear(&format!("{stem}.reduction"), 2 * width, 4 * width)?;
                width *= 2;
                Some(Merge { norm, reduction })
            }
        };
        stages.push(Stage { blocks, merge });
    }
    let image_size = config.image_size()?.unwrap_or(224);
    if image_size > MAX_SIDE || !image_size.is_multiple_of(patch_size) {
        let rule = format!("{image_size} pixels in patches of {patch_size}");
        return Err(config.bad("image_size", rule));
    }
    let head = block::optional_linear(weights, "head", width)?;
    let info = VisionInfo {
        image_size,
        stride: patch_size,
        any_size: true,
        n_embd: width,
        n_class: head.as_ref().map_or(0, Linear::n),
        labels: config.labels()?,
        ..VisionInfo::default()
    };
    weights.ignore("embeddings.mask_token");
    Ok(Box::new(Swin {
        info,
        patch_size,
        patch_embed: PatchEmbed::new(
            weights.linear("patch_embed.proj", n_embd, 3 * patch_size * patch_size)?,
            patch_size,
        ),
        patch_norm: optional_norm(weights, "patch_embed.norm", n_embd, eps)?,
        stages,
        norm: block::norm(weights, "norm", width, eps)?,
        head,
        work: Workspace::default(),
    }))
}

impl SwinBlock {
    fn build(
        config: &Config,
        weights: &mut Weights,
        stem: &str,
        i: usize,
        n_embd: usize,
        eps: f32,
        activation: Activation,
    ) -> Result<Self> {
        let table = format!("{stem}.attn.relative_position_bias_table");
        let missing = || Error::new(Code::MissingTensor, "the architecture needs this tensor").tensor(&table);
        let shape = weights.shape(&table).ok_or_else(missing)?.to_vec();
        let rule =
            format!("shape {shape:?}, expected [(2 window - 1)^2, n_head] where n_head divides {n_embd}");
        let bad = || Error::new(Code::ShapeMismatch, rule).tensor(&table);
        let &[n_relative, n_head] = shape.as_slice() else { return Err(bad()) };
        let across = n_relative.isqrt();
        let window = across.div_ceil(2);
        let is_table = across * across == n_relative && across % 2 == 1 && window <= MAX_WINDOW;
        if !is_table || n_head == 0 || !n_embd.is_multiple_of(n_head) {
            return Err(bad());
        }
        if config.dim("window_size")?.is_some_and(|w| w < window) {
            return Err(config.bad("window_size", format!("the tensors are for windows of {window}")));
        }
        let values = weights.table(&table, n_relative, n_head)?;
        for buffer in ["attn.relative_position_index", "attn_mask"] {
            weights.ignore(&format!("{stem}.{buffer}"));
        }
        let spec = EncoderSpec { n_embd, n_head, eps, activation, bidirectional: true, rope: None };
        Ok(SwinBlock {
            norm1: block::norm(weights, &format!("{stem}.norm1"), n_embd, eps)?,
            attention: block::attention(weights, &format!("{stem}.attn"), &spec)?,
            bias: RelativeBias::new(&values, n_head, index(window)),
            window,
            is_shifted: i % 2 == 1,
            norm2: block::norm(weights, &format!("{stem}.norm2"), n_embd, eps)?,
            mlp: block::mlp(weights, &format!("{stem}.mlp"), &spec)?,
        })
    }

    /// Updates `w.x`, `[rows, cols, n_embd]`.
    fn forward(&self, w: &mut Workspace, (rows, cols): (usize, usize)) {
        w.m = rows * cols;
        let n_embd = w.x.len() / w.m;
        let order = WindowOrder::new((rows, cols), self.window, self.is_shifted);
        let mut normed = vec![0f32; w.x.len()];
        self.norm1.forward(&w.x, &mut normed);
        // Windows one after the other; what lies outside of the picture is zero and takes part.
        let input = w.act.fill(order.places.len(), n_embd, w.mode.is_integer());
        for (row, place) in input.chunks_exact_mut(n_embd).zip(&order.places) {
            match place {
                Some(at) => row.copy_from_slice(&normed[at * n_embd..][..n_embd]),
                None => row.fill(0.0),
            }
        }
        self.attend(w, &order, n_embd);
        for (row, place) in w.out.chunks_exact(n_embd).zip(&order.places) {
            if let Some(at) = place {
                w.x[at * n_embd..][..n_embd].iter_mut().zip(row).for_each(|(x, o)| *x += o);
            }
        }
        w.input_norm(&self.norm2);
        self.mlp.forward(w);
        w.add_out();
    }

    /// `w.out = W_o attention(w.act)`, window by window.
    fn attend(&self, w: &mut Workspace, order: &WindowOrder, n_embd: usize) {
        let m = order.places.len();
        for x in [&mut w.q, &mut w.k, &mut w.v] {
            x.resize(m * n_embd, 0.0);
        }
        match &self.attention.qkv {
            Qkv::Separate(qkv) => {
                let [q, k, v] = &**qkv;
                Linear::forward_all([q, k, v], &mut w.act, [&mut w.q, &mut w.k, &mut w.v]);
            }
            Qkv::Fused(qkv) => {
                w.qkv.resize(m * 3 * n_embd, 0.0);
                qkv.forward(&mut w.act, &mut w.qkv);
                for (i, row) in w.qkv.chunks_exact(3 * n_embd).enumerate() {
                    for (to, part) in [&mut w.q, &mut w.k, &mut w.v].into_iter().zip(row.chunks_exact(n_embd))
                    {
                        to[i * n_embd..][..n_embd].copy_from_slice(part);
                    }
                }
            }
        }
        let len = self.window * self.window;
        let out = w.act.fill(m, n_embd, w.mode.is_integer());
        let windows = out.chunks_exact_mut(len * n_embd).enumerate();
        for ((i, out), regions) in windows.zip(order.regions.chunks_exact(len)) {
            let part = |x: &'_ [f32]| x[i * len * n_embd..][..len * n_embd].to_vec();
            let (q, k, v) = (part(&w.q), part(&w.k), part(&w.v));
            let mask = (regions.iter().any(|r| *r != regions[0])).then(|| mask(regions));
            let bias = ScoreBias { relative: Some(&self.bias), mask: mask.as_deref() };
            dense_attention([&q, &k, &v], &self.attention.heads, bias, None, out);
        }
        w.out.resize(m * n_embd, 0.0);
        self.attention.output.forward(&mut w.act, &mut w.out);
    }
}

/// -100 between patches that are neighbours only because the picture was rolled, as published.
fn mask(regions: &[u8]) -> Vec<f32> {
    regions.iter().flat_map(|a| regions.iter().map(move |b| if a == b { 0.0 } else { -100.0 })).collect()
}

/// Which patch is where when windows follow one another.
struct WindowOrder {
    /// Index of the patch in the picture; `None` outside of it.
    places: Vec<Option<usize>>,
    /// Patches of one region see each other.
    regions: Vec<u8>,
}

impl WindowOrder {
    fn new((rows, cols): (usize, usize), window: usize, is_shifted: bool) -> Self {
        let shift = if is_shifted && rows.min(cols) > window { window / 2 } else { 0 };
        let (padded_rows, padded_cols) = (rows.next_multiple_of(window), cols.next_multiple_of(window));
        let region = |at: usize, len: usize| match at {
            _ if shift == 0 => 0u8,
            at if at < len - window => 0,
            at if at < len - shift => 1,
            _ => 2,
        };
        let mut order = WindowOrder { places: Vec::new(), regions: Vec::new() };
        for top in (0..padded_rows).step_by(window) {
            for left in (0..padded_cols).step_by(window) {
                for i in 0..window * window {
                    let (y, x) = (top + i / window, left + i % window);
                    let (from_y, from_x) = ((y + shift) % padded_rows, (x + shift) % padded_cols);
                    let inside = from_y < rows && from_x < cols;
                    order.places.push(inside.then_some(from_y * cols + from_x));
                    order.regions.push(region(y, padded_rows) * 3 + region(x, padded_cols));
                }
            }
        }
        order
    }
}

/// Which relative place each pair of patches in a window is.
fn index(window: usize) -> Arc<[u32]> {
    let (m, across) = (window * window, 2 * window - 1);
    let place = |from: usize, to: usize| {
        (from / window + window - 1 - to / window) * across + from % window + window - 1 - to % window
    };
    (0..m * m).map(|i| place(i / m, i % m) as u32).collect()
}

impl Merge {
    /// `w.x` of `[rows, cols]` patches to those of half as many rows and columns, rounded up.
    fn forward(&self, w: &mut Workspace, (rows, cols): (usize, usize)) -> (usize, usize) {
        let n_embd = w.x.len() / (rows * cols);
        let (new_rows, new_cols) = (rows.div_ceil(2), cols.div_ceil(2));
        let mut joined = vec![0f32; new_rows * new_cols * 4 * n_embd];
        for (i, out) in joined.chunks_exact_mut(4 * n_embd).enumerate() {
            for (part, out) in out.chunks_exact_mut(n_embd).enumerate() {
                let (y, x) = (i / new_cols * 2 + part % 2, i % new_cols * 2 + part / 2);
                if y < rows && x < cols {
                    out.copy_from_slice(&w.x[(y * cols + x) * n_embd..][..n_embd]);
                }
            }
        }
        w.m = new_rows * new_cols;
        self.norm.forward(&joined, w.act.fill(w.m, 4 * n_embd, w.mode.is_integer()));
        w.x.resize(w.m * self.reduction.n(), 0.0);
        self.reduction.forward(&mut w.act, &mut w.x);
        (new_rows, new_cols)
    }
}

impl Swin {
    /// The last stage's patches, normalised, and their rows and columns.
    fn encode(&mut self, picture: Picture, mode: Mode) -> Result<(usize, usize)> {
        let patch = self.patch_size;
        let mut grid = (picture.height / patch, picture.width / patch);
        let m = grid.0 * grid.1;
        if m > MAX_PATCHES {
            return Err(Error::new(Code::BadArgument, format!("{m} patches are too many")).key("shape"));
        }
        let w = &mut self.work;
        w.begin(Batch { m, first_pos: 0, n_ctx: m, mode }, self.patch_embed.n());
        self.patch_embed.forward(picture, &mut w.act, mode.is_integer(), &mut w.x);
        if let Some(norm) = &self.patch_norm {
            w.norm_x(norm);
        }
        for stage in &self.stages {
            stage.blocks.iter().for_each(|block| block.forward(w, grid));
            if let Some(merge) = &stage.merge {
                grid = merge.forward(w, grid);
            }
        }
        w.norm_x(&self.norm);
        Ok(grid)
    }
}

impl VisionArch for Swin {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn run(&mut self, picture: Picture, output: Output, mode: Mode) -> Result<Values> {
        let n_embd = self.info.n_embd;
        match output {
            Output::Attention(_) => {
                Err(self.info.lacks("attention over the whole picture: it attends within windows"))
            }
            Output::Patches => {
                let (rows, cols) = self.encode(picture, mode)?;
                Ok(Values { shape: vec![rows, cols, n_embd], values: self.work.x.clone() })
            }
            Output::Pooled | Output::Logits => {
                self.encode(picture, mode)?;
                let pooled = mean(&self.work.x, n_embd);
                let values = match (&self.head, output) {
                    (_, Output::Pooled) => pooled,
                    (Some(head), _) => product(head, &pooled, &mut self.work.act),
                    (None, _) => return Err(self.info.lacks("classification head")),
                };
                Ok(Values { shape: vec![values.len()], values })
            }
        }
    }
}
