//! The trunk that vision transformers share: patches, tokens put before them, positions, layers, a norm.

use super::block::{EncoderBlock, EncoderSpec, Half, n_layer, optional_norm};
use super::patches::PatchEmbed;
use super::{AttentionMap, Config, MAX_SIDE, Picture, Values, VisionInfo};
use crate::error::{Code, Error, Result};
use crate::kernels::attention::{KvCache, KvType};
use crate::kernels::vecmath;
use crate::layers::{Batch, I, Mode, Norm, Rope, Workspace, observe};
use crate::models::Weights;
use crate::repack::PackedWeights;

/// Most patches of a picture: scores of all pairs must fit into memory.
const MAX_PATCHES: usize = 16384;
/// Most tokens whose keys and values the first layer keeps as floats: products of more would take too long.
const MAX_FINE: usize = 1024;
/// Sides of a patch.
pub(super) const MAX_PATCH: usize = 256;

/// Makes the rotation for patches in so many rows and columns, behind so many other tokens.
pub type MakeRope = Box<dyn Fn(usize, usize, usize) -> Rope + Send>;

/// What a family says of its tower beyond what the tensors show.
pub struct TowerSpec {
    /// Of the layers.
    pub layers: EncoderSpec,
    /// The rotation of queries and keys.
    pub rope: Option<MakeRope>,
    /// Whether the size of the input is that of the positions, whatever the config says.
    pub keep_size: bool,
}

/// Position vectors of the patches of a grid.
struct Positions {
    /// Rows and columns of the table.
    grid: (usize, usize),
    /// `[n_row * n_col, n_embd]` as in the file.
    table: Vec<f32>,
    /// The same for the grid of the last picture.
    fitted: Vec<f32>,
    fitted_to: (usize, usize),
}

/// The trunk.
pub struct Tower {
    spec: TowerSpec,
    patch_size: usize,
    patch_embed: PatchEmbed,
    /// `[n_prefix, n_embd]`: class token, distillation token, registers, with their positions.
    prefix: Vec<f32>,
    positions: Option<Positions>,
    norm_pre: Option<Norm>,
    layers: Vec<EncoderBlock>,
    norm: Option<Norm>,
    work: Workspace,
    kv: Option<KvCache>,
    /// Of the first layer, where those of the others are codes.
    fine_kv: Option<KvCache>,
    /// Rows and columns of the last picture's patches.
    grid: (usize, usize),
    /// What happens to the residual stream between the layers.
    tap: Tap,
}

/// What is done with the residual stream before layers, beside running them.
#[derive(Default)]
pub enum Tap {
    /// Nothing.
    #[default]
    Off,
    /// It is kept, `[n_prefix + n_patch, n_embd]` for each layer.
    Keep(Vec<Vec<f32>>),
    /// The layers before this one are left out: it reads what is given, as [`Tap::Keep`] has kept it. The one behind the
    /// last layer is what follows.
    From(usize, Vec<f32>),
}

/// Sizes that the tensors show.
pub struct TowerShape {
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Side of a patch.
    pub patch_size: usize,
}

impl TowerShape {
    /// Reads `patch_embed.proj.weight`.
    ///
    /// # Errors
    /// `MissingTensor`, `ShapeMismatch`.
    pub fn read(weights: &Weights) -> Result<Self> {
        const NAME: &str = "patch_embed.proj.weight";
        let missing = || Error::new(Code::MissingTensor, "the architecture needs this tensor").tensor(NAME);
        let bad = |rule: &str| Error::new(Code::ShapeMismatch, rule).tensor(NAME);
        let (n_embd, patch_k) = match weights.shape(NAME).ok_or_else(missing)? {
            [n_embd, patch @ ..] if *n_embd > 0 => (*n_embd, patch.iter().product::<usize>()),
            _ => return Err(bad("no output channels")),
        };
        let patch_size = (patch_k / 3).isqrt();
        if patch_size == 0 || patch_size > MAX_PATCH || 3 * patch_size * patch_size != patch_k {
            return Err(bad("not a square patch of three channels"));
        }
        Ok(TowerShape { n_embd, patch_size })
    }

    /// Heads as the config says, or as published models of this width have.
    ///
    /// # Errors
    /// `BadConfig`.
    pub fn n_head(&self, config: &Config) -> Result<usize> {
        const KEY: &str = "num_attention_heads";
        let n_head = match (config.dim(KEY)?, config.dim("num_heads")?) {
            (Some(n), _) | (None, Some(n)) => n,
            // Huge, giant, gigantic and so400m; all others have heads of 64.
            (None, None) if [1152, 1280, 1408, 1664].contains(&self.n_embd) => 16,
            (None, None) => (self.n_embd / 64).max(1),
        };
        if !self.n_embd.is_multiple_of(n_head) {
            return Err(config.bad(KEY, format!("{n_head} does not divide {}", self.n_embd)));
        }
        Ok(n_head)
    }
}

impl Tower {
    /// Takes the tensors of the tower, but not its heads.
    ///
    /// # Errors
    /// `BadConfig`, `MissingTensor`, `ShapeMismatch`.
    pub fn build(config: &Config, weights: &mut Weights, spec: TowerSpec) -> Result<(Self, VisionInfo)> {
        let TowerShape { n_embd, patch_size } = TowerShape::read(weights)?;
        let mut prefix = weights.optional_values("cls_token", n_embd)?.unwrap_or_default();
        prefix.extend(weights.optional_values("dist_token", n_embd)?.unwrap_or_default());
        let n_class_token = prefix.len() / n_embd;
        if let Some(shape) = weights.shape("reg_token") {
            let len = shape.iter().product::<usize>();
            if len == 0 || !len.is_multiple_of(n_embd) {
                let rule = format!("shape {shape:?} is not of tokens of {n_embd}");
                return Err(Error::new(Code::ShapeMismatch, rule).tensor("reg_token"));
            }
            prefix.extend(weights.values("reg_token", len)?);
        }
        let positions = Positions::take(weights, &mut prefix, n_class_token, n_embd)?;
        let own_size = positions.as_ref().map(|p| p.grid.0 * patch_size);
        let image_size = match (own_size, config.image_size()?) {
            (Some(own), None) => own,
            (Some(own), Some(_)) if spec.keep_size => own,
            (_, Some(size)) => size,
            (None, None) => 224 / patch_size * patch_size,
        };
        let per_side = image_size / patch_size;
        if image_size > MAX_SIDE || !image_size.is_multiple_of(patch_size) || per_side.pow(2) > MAX_PATCHES {
            let rule = format!("{image_size} pixels in patches of {patch_size}");
            return Err(config.bad("image_size", rule));
        }
        let eps = spec.layers.eps;
        let n_layer = n_layer(weights, "blocks")?;
        let mut layers = (0..n_layer)
            .map(|i| EncoderBlock::build(weights, &format!("blocks.{i}"), &spec.layers))
            .collect::<Result<Vec<_>>>()?;
        for (i, layer) in layers.iter_mut().enumerate() {
            layer.set_fine(if i == 0 { usize::MAX } else { n_class_token });
        }
        let info = VisionInfo {
            image_size,
            stride: patch_size,
            any_size: true,
            n_embd,
            n_layer,
            n_head: spec.layers.n_head,
            ..VisionInfo::default()
        };
        let tower = Tower {
            patch_embed: PatchEmbed::new(
                weights.linear("patch_embed.proj", n_embd, 3 * patch_size * patch_size)?,
                patch_size,
            ),
            norm_pre: optional_norm(weights, "norm_pre", n_embd, eps)?,
            norm: optional_norm(weights, "norm", n_embd, eps)?,
            spec,
            patch_size,
            prefix,
            positions,
            layers,
            work: Workspace::default(),
            kv: None,
            fine_kv: None,
            grid: (0, 0),
            tap: Tap::Off,
        };
        Ok((tower, info))
    }

    /// Tokens before the patches.
    pub fn n_prefix(&self) -> usize {
        self.prefix.len() / self.n_embd()
    }

    /// Width of its tokens.
    pub fn n_embd(&self) -> usize {
        self.spec.layers.n_embd
    }

    /// What [`Self::encode`] gave.
    pub fn tokens(&self) -> &[f32] {
        &self.work.x
    }

    /// Has the residual stream tapped from the next picture on; what was done until now.
    pub fn set_tap(&mut self, tap: Tap) -> Tap {
        std::mem::replace(&mut self.tap, tap)
    }

    /// Its layers.
    pub fn layers_mut(&mut self) -> &mut [EncoderBlock] {
        &mut self.layers
    }

    /// Has patches be multiplied with other weights, of floats.
    pub fn set_patch_embed(&mut self, weight: PackedWeights) {
        self.patch_embed.set_weight(weight);
    }

    /// What the first layer reads of a picture, `[n_prefix + n_patch, n_embd]`. Its size is a multiple of the patch.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn first_input(&mut self, picture: Picture, mode: Mode) -> Result<&[f32]> {
        self.begin(picture, mode)?;
        Ok(&self.work.x)
    }

    /// Passes what a layer reads, or the second half of one, through half a layer. It is of a picture of the last one's
    /// size.
    ///
    /// # Panics
    /// Where it is not, or there is no such layer: a bug in the caller.
    pub fn run_half(&mut self, layer: usize, half: Half, x: &mut [f32]) {
        self.work.x.copy_from_slice(x);
        let kv = kv_of(layer, &mut self.kv, &mut self.fine_kv);
        self.layers[layer].forward_half(half, &mut self.work, kv);
        x.copy_from_slice(&self.work.x);
    }

    /// What the first products of half a layer are multiplied with, which reads `x`.
    ///
    /// # Panics
    /// As [`Self::run_half`].
    pub fn half_input(&mut self, layer: usize, half: Half, x: &[f32]) -> &[f32] {
        self.work.x.copy_from_slice(x);
        self.layers[layer].read(half, &mut self.work);
        self.work.act.x()
    }

    /// Passes a picture through all layers and the last norm: `[n_prefix + n_patch, n_embd]`. Its size is a
    /// multiple of the patch.
    ///
    /// # Errors
    /// [`Code::BadArgument`] for too many patches, or where [`Tap::From`] does not fit; [`Code::OutOfMemory`].
    pub fn encode(&mut self, picture: Picture, mode: Mode) -> Result<&[f32]> {
        self.encode_first(None, picture, mode)
    }

    /// [`Self::encode`] where only the first `n` tokens are read, if that is given: the last layer may leave out the
    /// others.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_first(&mut self, n: Option<usize>, picture: Picture, mode: Mode) -> Result<&[f32]> {
        self.begin(picture, mode)?;
        let (kv, fine_kv) = (&mut self.kv, &mut self.fine_kv);
        let first = match &self.tap {
            Tap::From(first, x) if x.len() == self.work.x.len() && *first <= self.layers.len() => {
                self.work.x.copy_from_slice(x);
                *first
            }
            Tap::From(first, x) => {
                let rule = format!(
                    "{} values of what layer {first} reads, of a model with {}",
                    x.len(),
                    self.layers.len()
                );
                return Err(Error::new(Code::BadArgument, rule).key("input"));
            }
            Tap::Off | Tap::Keep(_) => 0,
        };
        for (i, layer) in self.layers.iter().enumerate().skip(first) {
            if let Tap::Keep(inputs) = &mut self.tap {
                inputs.push(self.work.x.clone());
            }
            // Who observes the products shall see all of them.
            let is_last = i + 1 == self.layers.len() && !observe::is_watched();
            self.work.first_only = n.filter(|_| is_last);
            layer.forward(&mut self.work, kv_of(i, kv, fine_kv));
        }
        if let Some(norm) = &self.norm {
            self.work.norm_x(norm);
        }
        Ok(&self.work.x)
    }

    /// The patches among what [`Self::encode`] gave.
    pub fn patches(&self) -> Values {
        let (rows, cols) = self.grid;
        let n_embd = self.n_embd();
        let values = self.work.x[self.prefix.len()..].to_vec();
        Values { shape: vec![rows, cols, n_embd], values }
    }

    /// How much the first token attends to each patch; where there is no token before the patches, the mean
    /// over all.
    ///
    /// # Errors
    /// As [`Self::encode`], and [`Code::BadArgument`] for a layer or head that is not there.
    pub fn attention(&mut self, picture: Picture, map: AttentionMap, mode: Mode) -> Result<Values> {
        let n_head = self.spec.layers.n_head;
        if let AttentionMap::Layer { layer, head } = map {
            let bad = |key: &str, i: usize, n: usize| {
                Err(Error::new(Code::BadArgument, format!("{i} is not below {n}")).key(key))
            };
            if layer >= self.layers.len() {
                return bad("layer", layer, self.layers.len());
            }
            if let Some(head) = head.filter(|&h| h >= n_head) {
                return bad("head", head, n_head);
            }
        }
        self.begin(picture, mode)?;
        let (kv, fine_kv) = (&mut self.kv, &mut self.fine_kv);
        let m = self.work.m;
        let mut joined = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let wanted = !matches!(map, AttentionMap::Layer { layer, .. } if layer != i);
            self.work.map = wanted.then(Vec::new);
            layer.forward(&mut self.work, kv_of(i, kv, fine_kv));
            let Some(weights) = self.work.map.take() else { continue };
            match map {
                AttentionMap::Layer { head: Some(head), .. } => {
                    joined = Some(weights[head * m * m..][..m * m].to_vec());
                }
                AttentionMap::Layer { head: None, .. } => joined = Some(mean_of_heads(&weights, m)),
                AttentionMap::Rollout => {
                    let layer = with_residual(mean_of_heads(&weights, m), m);
                    joined = Some(joined.map_or_else(|| layer.clone(), |before| product(&layer, &before, m)));
                }
            }
        }
        let (rows, cols) = self.grid;
        let all = joined.unwrap_or_default();
        let seen = |n_row: usize| {
            let part = &all[..n_row * m];
            super::pool::mean(part, m)[m - rows * cols..].to_vec()
        };
        let values = seen(if self.prefix.is_empty() { m } else { 1 });
        Ok(Values { shape: vec![rows, cols], values })
    }

    /// Patches, tokens and positions: the residual stream before the first layer.
    fn begin(&mut self, picture: Picture, mode: Mode) -> Result<()> {
        let (patch, n_embd) = (self.patch_size, self.n_embd());
        let grid = (picture.height / patch, picture.width / patch);
        let n_patch = grid.0 * grid.1;
        if n_patch > MAX_PATCHES {
            let rule = format!("{n_patch} patches are more than {MAX_PATCHES}");
            return Err(Error::new(Code::BadArgument, rule).key("shape"));
        }
        let n_prefix = self.n_prefix();
        let m = n_prefix + n_patch;
        // Keys and values are codes where weights are codes, too; the first layer's may be kept as floats.
        let n_first = usize::from(self.layers.len() > 1 && self.layers[0].is_fine());
        let coded = mode.is_integer() && self.layers[n_first..].iter().all(EncoderBlock::has_codes);
        let n_head = self.spec.layers.n_head;
        make_room(&mut self.kv, if coded { KvType::Q8_0 } else { KvType::F32 }, n_head, n_embd, m)?;
        if coded && n_first > 0 && m <= MAX_FINE {
            make_room(&mut self.fine_kv, KvType::F32, n_head, n_embd, m)?;
        } else {
            self.fine_kv = None;
        }
        if let Some(rope) = self.spec.rope.as_ref().filter(|_| self.grid != grid) {
            self.work.ropes = vec![rope(grid.0, grid.1, n_prefix)];
        }
        self.grid = grid;
        let w = &mut self.work;
        w.map = None;
        w.first_only = None;
        w.begin(Batch { m, first_pos: 0, n_ctx: m, mode }, n_embd);
        let (prefix, patches) = w.x.split_at_mut(n_prefix * n_embd);
        prefix.copy_from_slice(&self.prefix);
        self.patch_embed.forward(picture, &mut w.act, mode.is_integer(), patches);
        if let Some(positions) = &mut self.positions {
            vecmath::add::<I>(patches, positions.fit(grid, n_embd));
        }
        if let Some(norm) = &self.norm_pre {
            w.norm_x(norm);
        }
        Ok(())
    }
}

/// Keys and values of layer `i`.
fn kv_of<'a>(i: usize, kv: &'a mut Option<KvCache>, fine: &'a mut Option<KvCache>) -> &'a mut KvCache {
    match (fine, kv) {
        (Some(fine), _) if i == 0 => fine,
        (_, Some(kv)) => kv,
        _ => unreachable!("begin makes room"),
    }
}

/// Has `kv` be of that type and of `m` tokens.
fn make_room(
    kv: &mut Option<KvCache>,
    kv_type: KvType,
    n_head: usize,
    n_embd: usize,
    m: usize,
) -> Result<()> {
    let fits = |kv: &KvCache| kv.kv_type() == kv_type && kv.n_ctx() == KvCache::room_for(m);
    if !kv.as_ref().is_some_and(fits) {
        *kv = Some(KvCache::new(kv_type, n_head, n_embd / n_head, m)?);
    }
    Ok(())
}

impl Positions {
    /// Takes `pos_embed`, and adds to the prefix what is its own. The rows of the table are those of the class
    /// tokens (or of the whole prefix, or of none of it) and of a square grid.
    fn take(
        weights: &mut Weights,
        prefix: &mut [f32],
        n_class_token: usize,
        n_embd: usize,
    ) -> Result<Option<Self>> {
        let Some(shape) = weights.shape("pos_embed") else { return Ok(None) };
        let bad = |rule: &str| Error::new(Code::ShapeMismatch, rule).tensor("pos_embed");
        let len = shape.iter().product::<usize>();
        if !len.is_multiple_of(n_embd) {
            return Err(bad("not a vector for each token"));
        }
        let n_rows = len / n_embd;
        let side = |n_before: usize| {
            let side = n_rows.checked_sub(n_before)?.isqrt();
            (side > 0 && side * side + n_before == n_rows).then_some((n_before, side))
        };
        let ways = [n_class_token, 0, prefix.len() / n_embd];
        let (n_before, side) =
            ways.into_iter().find_map(side).ok_or_else(|| bad("not a square grid of patches"))?;
        let mut all = weights.values("pos_embed", len)?;
        let table = all.split_off(n_before * n_embd);
        vecmath::add::<I>(&mut prefix[..all.len()], &all);
        Ok(Some(Positions { grid: (side, side), table, fitted: Vec::new(), fitted_to: (0, 0) }))
    }

    /// The vectors for a grid, interpolated where it is not their own.
    fn fit(&mut self, grid: (usize, usize), n_embd: usize) -> &[f32] {
        if grid == self.grid {
            return &self.table;
        }
        if self.fitted_to != grid {
            self.fitted = bicubic(&self.table, self.grid, grid, n_embd);
            self.fitted_to = grid;
        }
        &self.fitted
    }
}

/// `[rows, cols, n]` brought to other rows and columns by cubic convolution (Keys 1981, a = -0.75), edges repeated,
/// pixel centres at halves: what PyTorch's bicubic interpolation without antialiasing does.
fn bicubic(x: &[f32], from: (usize, usize), to: (usize, usize), n: usize) -> Vec<f32> {
    let across = resample(x, from.1, to.1, n);
    resample(&across, from.0, to.0, to.1 * n)
}

/// Resamples the middle dimension of `[outer, len, n]`.
fn resample(x: &[f32], len: usize, new_len: usize, n: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let mut out = vec![0f32; x.len() / len * new_len];
    for (x, out) in x.chunks_exact(len * n).zip(out.chunks_exact_mut(new_len * n)) {
        for (i, out) in out.chunks_exact_mut(n).enumerate() {
            let at = (i as f64 + 0.5) * len as f64 / new_len as f64 - 0.5;
            let first = at.floor();
            let t = at - first;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            for (tap, weight) in weights.into_iter().enumerate() {
                let from = (first as isize + tap as isize - 1).clamp(0, len as isize - 1) as usize;
                out.iter_mut().zip(&x[from * n..][..n]).for_each(|(o, x)| *o += weight as f32 * x);
            }
        }
    }
    out
}

/// `[n_head, m, m]` to `[m, m]`.
fn mean_of_heads(weights: &[f32], m: usize) -> Vec<f32> {
    super::pool::mean(weights, m * m)
}

/// Half attention, half identity; rows still sum to 1.
fn with_residual(mut a: Vec<f32>, m: usize) -> Vec<f32> {
    a.iter_mut().for_each(|x| *x *= 0.5);
    (0..m).for_each(|i| a[i * m + i] += 0.5);
    a
}

/// The product of two matrices `[m, m]`.
fn product(a: &[f32], b: &[f32], m: usize) -> Vec<f32> {
    let mut out = vec![0f32; m * m];
    for (a, out) in a.chunks_exact(m).zip(out.chunks_exact_mut(m)) {
        for (&x, b) in a.iter().zip(b.chunks_exact(m)) {
            out.iter_mut().zip(b).for_each(|(o, b)| *o += x * b);
        }
    }
    out
}
