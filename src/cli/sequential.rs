//! Rounding layer after layer: each matrix of a vision transformer is rounded for the inputs that it has once all before it
//! have been, and towards the products that the float model has.
//!
//! One model is enough. The residual stream of each picture is kept twice, of the float model and of the one rounded so
//! far; a layer is run on the first as long as its weights are floats.

use super::calibrate::{Data, Image, as_is, loaded, rewritten};
use super::source::Source;
use crate::error::Result;
use crate::image::PixelView;
use crate::layers::{Linear, observe};
use crate::models::vision::{Half, Tower};
use crate::quant::DType;
use crate::quantizer::{MovedInputs, Outline, Plan, Statistics, Target, policy};
use crate::repack::{PackedWeights, Packer};
use crate::tasks::{Loaded, VisionModel};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How much the tokens that the head reads count, compared with others: their errors reach the output as they are, while
/// those of hundreds of others partly cancel in the attention (`docs/quantization.md`).
const READ: f32 = 20.0;
/// The same behind the last attention, where no other token is read any more. Not more: the others tell what the few
/// tokens of the pictures leave open.
const READ_LAST: f32 = 1000.0;
/// Bytes of residual streams that are kept, at most: of fewer pictures where all of them have more.
const STREAMS: usize = 256 << 20;
/// The product with patches.
const PATCH_EMBED: &str = "patch_embed.proj.weight";

/// Whether [`run`] can round a model: its layers can be run one by one.
pub(super) fn can_run(model: &mut Loaded) -> bool {
    trunk(model).is_some()
}

fn trunk(model: &mut Loaded) -> Option<&mut Tower> {
    match model {
        Loaded::Vision(model) => model.trunk(),
        _ => None,
    }
}

/// Rounds the matrices of patches, layers and heads under a plan, and tells `statistics` what they become. Models whose
/// layers cannot be run one by one are left alone.
///
/// # Errors
/// What keeps the model from running, and a plan that does not fit.
pub(super) fn run(
    source: &Source,
    outline: &Outline,
    plan: &Plan,
    data: &Data,
    statistics: &mut Statistics,
    mut progress: impl FnMut(u64, u64),
) -> Result<()> {
    let bytes = rewritten(source, outline, &as_is(source)?, None)?;
    let mut model = loaded(&bytes)?;
    drop(bytes);
    if trunk(&mut model).is_none() {
        return Ok(());
    }
    let Loaded::Vision(mut model) = model else { return Ok(()) };
    let images = data.for_layers()?;
    let pictures = fitting(&mut model, &images)?;
    let n_read = model.n_read();
    let mut patches = None;
    let exact = streams(&mut model, &pictures, |name, k, x| {
        if name == PATCH_EMBED {
            patches.get_or_insert_with(|| MovedInputs::new(k)).add(x);
        }
    })?;
    let mut rounding = Rounding { source, outline, plan, statistics };
    let Some(tower) = model.trunk() else { return Ok(()) };
    if let Some(mut sums) = patches {
        sums.finish();
        let weights = rounding.round(PATCH_EMBED, &sums)?;
        weights.into_iter().for_each(|weights| tower.set_patch_embed(weights));
    }
    let n_layer = tower.layers_mut().len();
    let mut streams = Streams { n_read, exact, moved: streams(&mut model, &pictures, |_, _, _| ())? };
    let Some(tower) = model.trunk() else { return Ok(()) };
    for layer in 0..n_layer {
        progress(layer as u64, n_layer as u64);
        for half in [Half::Attention, Half::Mlp] {
            streams.round_half(tower, layer, half, &mut rounding)?;
        }
    }
    streams.round_heads(&mut model, n_layer, &pictures, &mut rounding)
}

/// As many pictures as have room, spread over all.
fn fitting<'a>(model: &mut VisionModel, images: &'a [Image]) -> Result<Vec<&'a Image>> {
    let Some(first) = images.first() else { return Ok(Vec::new()) };
    let bytes = 3 * 4 * first_input(model, first)?.len();
    let n = (STREAMS / bytes.max(1)).max(1);
    Ok(images.iter().step_by(images.len().div_ceil(n)).collect())
}

/// What the first layer reads, of each picture; `seen` is told what matrices before it are multiplied with.
fn streams(
    model: &mut VisionModel,
    images: &[&Image],
    mut seen: impl FnMut(&str, usize, &[f32]),
) -> Result<Vec<Vec<f32>>> {
    let stream = |image: &&Image| {
        let (stream, inputs) = inputs_of(|| first_input(model, image));
        inputs.iter().for_each(|input| seen(&input.name, input.k, &input.rows));
        stream
    };
    images.iter().map(stream).collect()
}

fn first_input(model: &mut VisionModel, (rgb, width, height): &Image) -> Result<Vec<f32>> {
    model.first_input(&PixelView::new(rgb, *width, *height, 3)?)
}

/// The residual streams of all pictures before a layer or half of one.
struct Streams {
    /// Tokens that the head reads, the first ones; none where it reads all.
    n_read: Option<usize>,
    /// Of the float model.
    exact: Vec<Vec<f32>>,
    /// Of the model as rounded so far.
    moved: Vec<Vec<f32>>,
}

impl Streams {
    /// Rounds the matrices of half a layer, and passes the streams through it.
    fn round_half(
        &mut self,
        tower: &mut Tower,
        layer: usize,
        half: Half,
        rounding: &mut Rounding,
    ) -> Result<()> {
        let n = tower.n_embd();
        let is_last = layer + 1 == tower.layers_mut().len();
        let mut sums = MovedInputs::new(n);
        let weight = if is_last && half == Half::Mlp { READ_LAST } else { READ };
        // What the half adds to the stream of the float model.
        let mut added: Vec<Vec<f32>> = Vec::with_capacity(self.exact.len());
        for (exact, moved) in self.exact.iter_mut().zip(&self.moved) {
            let mut exact_input = tower.half_input(layer, half, exact).to_vec();
            let mut input = tower.half_input(layer, half, moved).to_vec();
            self.n_read.into_iter().for_each(|n_read| {
                [&mut exact_input, &mut input].into_iter().for_each(|x| weigh(&mut x[..n_read * n], weight));
            });
            sums.add_inputs(&input, &exact_input);
            let before = exact.clone();
            tower.run_half(layer, half, exact);
            added.push(exact.iter().zip(&before).map(|(after, before)| after - before).collect());
        }
        sums.finish();
        let (first, _) = tower.layers_mut()[layer].products_mut(half);
        first.iter_mut().try_for_each(|linear| rounding.round_linear(linear, &sums))?;
        drop(sums);
        let sums = self.last_inputs(tower, layer, half, &added, if is_last { READ_LAST } else { READ });
        drop(added);
        rounding.round_linear(tower.layers_mut()[layer].products_mut(half).1, &sums)?;
        self.moved.iter_mut().for_each(|moved| tower.run_half(layer, half, moved));
        Ok(())
    }

    /// The inputs of the last product of half a layer, of which the others are rounded.
    fn last_inputs(
        &self,
        tower: &mut Tower,
        layer: usize,
        half: Half,
        added: &[Vec<f32>],
        weight: f32,
    ) -> MovedInputs {
        let n = tower.n_embd();
        let block = &mut tower.layers_mut()[layer];
        let scale = block.scale(half).map(<[f32]>::to_vec);
        let (_, last) = block.products_mut(half);
        let (name, k) = (last.name.clone(), last.weight.k());
        let mut sums = MovedInputs::new(k);
        for (moved, added) in self.moved.iter().zip(added) {
            let mut after = moved.clone();
            let ((), inputs) = inputs_of(|| tower.run_half(layer, half, &mut after));
            let input = inputs.into_iter().find(|input| *input.name == *name);
            let mut input = input.map(|input| input.rows).unwrap_or_default();
            let mut lack: Vec<f32> =
                added.iter().zip(after.iter().zip(moved)).map(|(a, (after, x))| a - (after - x)).collect();
            if let Some(scale) = &scale {
                // A channel that is multiplied with zero lacks nothing.
                let part = |(lack, s): (&mut f32, &f32)| *lack = if *s == 0.0 { 0.0 } else { *lack / s };
                lack.chunks_exact_mut(n).for_each(|row| row.iter_mut().zip(scale).for_each(part));
            }
            if let Some(n_read) = self.n_read {
                weigh(&mut input[..n_read * k], weight);
                weigh(&mut lack[..n_read * n], weight);
            }
            sums.add_products(&input, &lack, n);
        }
        sums.finish();
        sums
    }

    /// Rounds what follows the layers.
    fn round_heads(
        self,
        model: &mut VisionModel,
        n_layer: usize,
        pictures: &[&Image],
        rounding: &mut Rounding,
    ) -> Result<()> {
        let mut all: BTreeMap<String, MovedInputs> = BTreeMap::new();
        for (((rgb, width, height), exact), moved) in pictures.iter().zip(self.exact).zip(self.moved) {
            let view = PixelView::new(rgb, *width, *height, 3)?;
            let (logits, exact) = inputs_of(|| model.logits_from(&view, n_layer, exact));
            logits?;
            let (logits, moved) = inputs_of(|| model.logits_from(&view, n_layer, moved));
            logits?;
            for (exact, moved) in exact.into_iter().zip(moved).filter(|(input, _)| input.name != PATCH_EMBED)
            {
                let sums = all.entry(moved.name).or_insert_with(|| MovedInputs::new(moved.k));
                sums.add_inputs(&moved.rows, &exact.rows);
            }
        }
        for (name, mut sums) in all {
            sums.finish();
            rounding.round(&name, &sums)?;
        }
        Ok(())
    }
}

/// Has the products of rows with each other count so much.
fn weigh(rows: &mut [f32], weight: f32) {
    rows.iter_mut().for_each(|v| *v *= weight.sqrt());
}

/// What a matrix was multiplied with.
struct Input {
    name: String,
    k: usize,
    rows: Vec<f32>,
}

/// What `work` gives, and what matrices were multiplied with in it.
fn inputs_of<T>(work: impl FnOnce() -> T) -> (T, Vec<Input>) {
    let kept: Rc<RefCell<Vec<Input>>> = Rc::default();
    let writer = Rc::clone(&kept);
    let observer = Box::new(move |name: &str, k: usize, x: &[f32]| {
        writer.borrow_mut().push(Input { name: name.into(), k, rows: x.to_vec() });
    });
    let result = observe::watch(observer, work);
    (result, kept.take())
}

/// What is rounded to what.
struct Rounding<'a> {
    source: &'a Source,
    outline: &'a Outline,
    plan: &'a Plan,
    statistics: &'a mut Statistics,
}

impl<'a> Rounding<'a> {
    /// The values and the type of a matrix that is to be rounded.
    fn wanted(&self, name: &str) -> Result<Option<(&'a Target, DType, Vec<f32>)>> {
        let Some(target) = self.outline.tensors.iter().find(|t| t.name == name) else { return Ok(None) };
        let planned = self.plan.tensors.iter().find(|p| p.name == name);
        let dtype = planned.and_then(|p| DType::from_name(&p.dtype)).filter(|d| !policy::is_float(*d));
        dtype.map(|dtype| Ok((target, dtype, self.source.values(target)?))).transpose()
    }

    /// Rounds the matrix of that name, if the plan says so; its values as products take them.
    fn round(&mut self, name: &str, inputs: &MovedInputs) -> Result<Option<PackedWeights>> {
        let Some((target, dtype, values)) = self.wanted(name)? else { return Ok(None) };
        let Some((n, k)) = target.matrix() else { return Ok(None) };
        let rounded = inputs.round(target, &values, dtype, self.statistics.are_few())?;
        let weights = packed(&rounded.values, n, k)?;
        self.statistics.decide(name, dtype, rounded);
        Ok(Some(weights))
    }

    fn round_linear(&mut self, linear: &mut Linear, inputs: &MovedInputs) -> Result<()> {
        let weights = self.round(&linear.name, inputs)?;
        weights.into_iter().for_each(|weights| linear.weight = weights);
        Ok(())
    }
}

/// A matrix of floats as products take it.
fn packed(values: &[f32], n: usize, k: usize) -> Result<PackedWeights> {
    let mut packer = Packer::new(DType::F32, DType::F32, n, k)?;
    packer.push(bytemuck::cast_slice(values))?;
    packer.finish()
}
