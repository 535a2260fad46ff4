//! Measured sensitivities: how far the output of a model moves when one tensor is rounded.

use super::calibrate::{Data, PROBE, as_is, divergence, loaded, mean, outputs, rewritten};
use super::source::Source;
use crate::error::Result;
use crate::image::PixelView;
use crate::quant::DType;
use crate::quantizer::{Calibration, Outline, Statistics, Survey, Surveyed, Target};
use crate::tasks::Loaded;

/// Bits per weight at which tensors are rounded to be measured, about: noise that shows, and does not ruin everything.
const BITS: f64 = 4.5;

/// One in so many groups of rows tells what a type would cost, where the file is not made of it.
const SAMPLED: usize = 4;

/// What sensitivities are measured on, and what the model makes of it.
pub(super) struct Probe {
    data: Data,
    reference: Vec<Vec<f32>>,
    /// What each layer reads, of each picture, where its layers can be run one by one.
    inputs: Vec<Vec<Vec<f32>>>,
}

/// One tensor's blocks.
struct Blocks {
    name: String,
    blocks: Vec<u8>,
}

impl Calibration for Blocks {
    fn column_weights(&self, _: &str, _: usize) -> Option<&[f32]> {
        None
    }

    fn encode(&mut self, name: &str, _: &[f32], _: usize, _: DType) -> Option<Vec<u8>> {
        (name == self.name).then(|| std::mem::take(&mut self.blocks))
    }

    fn wants_whole(&self, name: &str) -> bool {
        name == self.name
    }
}

impl Probe {
    /// Runs the model as it is.
    ///
    /// # Errors
    /// What keeps it from running.
    pub(super) fn of(model: &mut Loaded, data: Data) -> Result<Self> {
        let mut probe = Probe { data, reference: Vec::new(), inputs: Vec::new() };
        if let Loaded::Vision(model) = model {
            for (rgb, width, height) in &probe.data.images {
                let (logits, inputs) = model.logits_and_inputs(&PixelView::new(rgb, *width, *height, 3)?)?;
                probe.reference.push(logits);
                probe.inputs.push(inputs);
            }
        }
        if probe.inputs.iter().any(Vec::is_empty) || probe.inputs.is_empty() {
            probe.inputs.clear();
            probe.reference = outputs(model, &probe.data, (PROBE.0, usize::MAX))?;
        }
        Ok(probe)
    }

    /// Measures all tensors of a survey, and puts in the place of its losses divergences of the output, in nats. With GPTQ
    /// in `known` tensors are rounded as it will round them.
    ///
    /// # Errors
    /// What keeps a rounded model from running.
    pub(super) fn measure(
        &self,
        survey: &mut Survey,
        known: &mut Statistics,
        source: &Source,
        outline: &Outline,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let total = survey.tensors.len() as u64;
        for (i, tensor) in survey.tensors.iter_mut().enumerate() {
            progress(i as u64, total);
            let target = outline.tensors.iter().find(|t| t.name == tensor.name && known.has_pairs(&t.name));
            let whole = target.map(|t| Ok((t, source.values(t)?))).transpose()?;
            if let Some((target, values)) = &whole {
                // What is rounded anew, layer after layer, need not be whole yet.
                let stride = if self.inputs.is_empty() { 1 } else { SAMPLED };
                tensor.recount(target, values, known, stride)?;
            }
            self.measure_one(tensor, whole, known, source, outline)?;
        }
        survey.loss_unit = "nats".into();
        Ok(())
    }

    /// `whole` is what GPTQ rounds, for tensors that it can round.
    fn measure_one(
        &self,
        tensor: &mut Surveyed,
        whole: Option<(&Target, Vec<f32>)>,
        known: &mut Statistics,
        source: &Source,
        outline: &Outline,
    ) -> Result<()> {
        let elements: f64 = tensor.shape.iter().map(|&d| d as f64).product();
        let off = |bytes: u64| (bytes as f64 * 8.0 / elements - BITS).abs();
        let near = tensor.choices.iter().filter(|c| c.loss > 0.0);
        let Some(choice) = near.min_by(|a, b| off(a.bytes).total_cmp(&off(b.bytes))) else { return Ok(()) };
        let relative = choice.loss / tensor.sensitivity;
        // The others stay as they are: floats of 32 bits are not halved, which would only take time here.
        let mut plan = as_is(source)?;
        let planned = plan.tensors.iter_mut().find(|p| p.name == tensor.name);
        planned.into_iter().for_each(|p| p.dtype.clone_from(&choice.dtype));
        let blocks = match whole {
            Some((target, values)) => known.encode_as(target, &values, &choice.dtype)?,
            None => None,
        };
        let blocks = blocks.map(|blocks| Box::new(Blocks { name: tensor.name.clone(), blocks }) as Box<_>);
        let mut model = loaded(&rewritten(source, outline, &plan, blocks)?)?;
        let other = self.outputs(&mut model, &tensor.name)?;
        // Below a millionth the kernels' own rounding is measured.
        let measured = (mean(&divergence(&self.reference, &other).0) / relative).max(1e-6);
        let scale = measured / tensor.sensitivity;
        tensor.choices.iter_mut().for_each(|c| c.loss *= scale);
        tensor.sensitivity = measured;
        Ok(())
    }

    /// The outputs of a model that is the first one but for one tensor: layers before that are not run again.
    fn outputs(&self, model: &mut Loaded, changed: &str) -> Result<Vec<Vec<f32>>> {
        let Loaded::Vision(vision) = model else { return outputs(model, &self.data, (PROBE.0, usize::MAX)) };
        let n_layer = self.inputs.first().map_or(0, Vec::len);
        let Some(layer) = first_changed(changed, n_layer) else {
            return outputs(model, &self.data, (PROBE.0, usize::MAX));
        };
        let mut rows = Vec::with_capacity(self.inputs.len());
        for ((rgb, width, height), inputs) in self.data.images.iter().zip(&self.inputs) {
            let view = PixelView::new(rgb, *width, *height, 3)?;
            rows.push(vision.logits_from(&view, layer, inputs[layer].clone())?);
        }
        Ok(rows)
    }
}

/// The first of `n` layers that reads something else when a tensor is changed, where that is not the first of all.
fn first_changed(name: &str, n: usize) -> Option<usize> {
    if name.starts_with("head") {
        return n.checked_sub(1);
    }
    let layer: usize = name.strip_prefix("blocks.")?.split('.').next()?.parse().ok()?;
    (layer < n).then_some(layer)
}
