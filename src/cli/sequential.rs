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

/// The matrices that [`run`] rounds.
pub(super) fn names(model: &mut Loaded) -> Vec<String> {
    let Some(tower) = trunk(model) else { return Vec::new() };
    let mut names = Vec::new();
    for layer in tower.layers_mut() {
        for half in [Half::Attention, Half::Mlp] {
            let (first, last) = layer.products_mut(half);
            names.extend(first.iter().map(|linear| linear.name.to_string()));
            names.push(last.name.to_string());
        }
    }
    names
}

fn trunk(model: &mut Loaded) -> Option<&mut Tower> {
    match model {
        Loaded::Vision(model) => model.trunk(),
        _ => None,
    }
}

/// Rounds the matrices of all layers under a plan, and tells `statistics` what they become. Models whose layers cannot be
/// run one by one are left alone.
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
    let images = data.for_layers();
    let pictures = fitting(&mut model, &images)?;
    let n_read = model.n_read();
    let exact = streams(&mut model, &pictures)?;
    let mut rounding = Rounding { source, outline, plan, statistics };
    let Some(tower) = model.trunk() else { return Ok(()) };
    if let Some(weights) = rounding.patch_embed()? {
        tower.set_patch_embed(weights);
    }
    let mut streams = Streams { n_read, exact, moved: streams(&mut model, &pictures)? };
    let Some(tower) = model.trunk() else { return Ok(()) };
    let n_layer = tower.layers_mut().len();
    for layer in 0..n_layer {
        progress(layer as u64, n_layer as u64);
        for half in [Half::Attention, Half::Mlp] {
            streams.round_half(tower, layer, half, &mut rounding)?;
        }
    }
    Ok(())
}

/// As many pictures as have room, spread over all.
fn fitting<'a>(model: &mut VisionModel, images: &'a [Image]) -> Result<Vec<&'a Image>> {
    let Some(first) = images.first() else { return Ok(Vec::new()) };
    let bytes = 3 * 4 * first_input(model, first)?.len();
    let n = (STREAMS / bytes.max(1)).max(1);
    Ok(images.iter().step_by(images.len().div_ceil(n)).collect())
}

/// What the first layer reads, of each picture.
fn streams(model: &mut VisionModel, images: &[&Image]) -> Result<Vec<Vec<f32>>> {
    images.iter().map(|image| first_input(model, image)).collect()
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
        first.iter_mut().try_for_each(|linear| rounding.round(linear, &sums))?;
        drop(sums);
        let sums = self.last_inputs(tower, layer, half, &added, if is_last { READ_LAST } else { READ });
        drop(added);
        rounding.round(tower.layers_mut()[layer].products_mut(half).1, &sums)?;
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
            let mut input = input_of(&name, || tower.run_half(layer, half, &mut after));
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
}

/// Has the products of rows with each other count so much.
fn weigh(rows: &mut [f32], weight: f32) {
    rows.iter_mut().for_each(|v| *v *= weight.sqrt());
}

/// What the matrix of that name was multiplied with in `work`.
fn input_of(name: &str, work: impl FnOnce()) -> Vec<f32> {
    let kept: Rc<RefCell<Vec<f32>>> = Rc::default();
    let (writer, wanted) = (Rc::clone(&kept), name.to_string());
    let observer = Box::new(move |name: &str, _: usize, x: &[f32]| {
        if name == wanted {
            writer.replace(x.to_vec());
        }
    });
    observe::watch(observer, work);
    kept.take()
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

    /// The product with patches as the file will have it. Nothing before it moves its inputs.
    fn patch_embed(&mut self) -> Result<Option<PackedWeights>> {
        let Some((target, dtype, values)) = self.wanted(PATCH_EMBED)? else { return Ok(None) };
        let Some(blocks) = self.statistics.encode_as(target, &values, dtype.name())? else { return Ok(None) };
        let mut rounded = vec![0f32; values.len()];
        (dtype.codec()?.1.dequantize)(&blocks, &mut rounded);
        let Some((n, k)) = target.matrix() else { return Ok(None) };
        packed(&rounded, n, k).map(Some)
    }

    fn round(&mut self, linear: &mut Linear, inputs: &MovedInputs) -> Result<()> {
        let Some((target, dtype, values)) = self.wanted(&linear.name)? else { return Ok(()) };
        let rounded = inputs.round(target, &values, dtype, self.statistics.is_drawn())?;
        linear.weight = packed(&rounded.values, linear.weight.n(), linear.weight.k())?;
        self.statistics.decide(&linear.name, dtype, rounded);
        Ok(())
    }
}

/// A matrix of floats as products take it.
fn packed(values: &[f32], n: usize, k: usize) -> Result<PackedWeights> {
    let mut packer = Packer::new(DType::F32, DType::F32, n, k)?;
    packer.push(bytemuck::cast_slice(values))?;
    packer.finish()
}
