//! The first product of a vision transformer: patches of pixels.

use super::Picture;
use crate::kernels::act::Activations;
use crate::layers::{Linear, observe};
use crate::repack::PackedWeights;

/// Colours of a pixel.
const N_CHANNEL: usize = 3;

/// The product with patches.
///
/// Where it is one of integers, each patch goes in without its mean colour, which is added to the result as a float:
/// `W x = W (x - mean) + mean sum(W)`, channel by channel. Patches are mostly smooth, so that what is left to be rounded to
/// 8 bits is small beside the mean.
pub struct PatchEmbed {
    linear: Linear,
    patch: usize,
    /// `[channel][n]`, sums of each output's weights; empty where the product is of floats.
    sums: Vec<f32>,
    /// `[patch][channel]` of the last picture.
    means: Vec<f32>,
}

impl PatchEmbed {
    /// Patches of `patch * patch` pixels.
    pub fn new(linear: Linear, patch: usize) -> Self {
        let mut sums = Vec::new();
        if linear.weight.packing().is_integer() && linear.lora.is_empty() {
            let n = linear.n();
            sums.resize(N_CHANNEL * n, 0.0);
            let mut row = vec![0f32; linear.weight.k()];
            for j in 0..n {
                linear.weight.row(j, &mut row);
                for (channel, weights) in row.chunks_exact(patch * patch).enumerate() {
                    // In f64, for a sum of many that nearly cancel.
                    sums[channel * n + j] = weights.iter().map(|w| f64::from(*w)).sum::<f64>() as f32;
                }
            }
            let scale = linear.scale.unwrap_or(1.0);
            sums.iter_mut().for_each(|sum| *sum *= scale);
        }
        PatchEmbed { linear, patch, sums, means: Vec::new() }
    }

    /// Has it multiply with other weights, of floats.
    pub fn set_weight(&mut self, weight: PackedWeights) {
        self.linear.weight = weight;
        self.sums.clear();
    }

    /// Outputs of a patch.
    pub fn n(&self) -> usize {
        self.linear.n()
    }

    /// `out[n_patch, n]` of a picture; `integer` as in [`Activations::fill`].
    pub fn forward(&mut self, picture: Picture, act: &mut Activations, integer: bool, out: &mut [f32]) {
        let pixels = self.patch * self.patch;
        let n_patch = (picture.height / self.patch) * (picture.width / self.patch);
        let patches = act.fill(n_patch, N_CHANNEL * pixels, integer);
        cut_patches(picture, self.patch, patches);
        // Who looks at the inputs wants to see them as they are.
        let centred = integer && !self.sums.is_empty() && !observe::is_watched();
        if centred {
            self.means.clear();
            for channel in patches.chunks_exact_mut(pixels) {
                let mean = mean(channel, self.patch);
                channel.iter_mut().for_each(|x| *x -= mean);
                self.means.push(mean);
            }
        }
        self.linear.forward(act, out);
        if centred {
            let n = self.linear.n();
            for (out, means) in out.chunks_exact_mut(n).zip(self.means.chunks_exact(N_CHANNEL)) {
                for (sums, &mean) in self.sums.chunks_exact(n).zip(means) {
                    out.iter_mut().zip(sums).for_each(|(out, sum)| *out += mean * sum);
                }
            }
        }
    }
}

/// The mean of rows of `len`, each place of a row summed by itself: in one order whatever the instruction set.
fn mean(x: &[f32], len: usize) -> f32 {
    let mut sums = [0f32; super::tower::MAX_PATCH];
    let sums = &mut sums[..len];
    for row in x.chunks_exact(len) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
    sums.iter().sum::<f32>() / x.len() as f32
}

/// `[3, height, width]` to `[n_patch, 3 * patch * patch]`, patches row by row; within a patch the order of a
/// convolution kernel: channel, row, column.
fn cut_patches(picture: Picture, patch: usize, out: &mut [f32]) {
    let Picture { pixels, height, width } = picture;
    let mut rows = out.chunks_exact_mut(patch);
    for py in 0..height / patch {
        for px in 0..width / patch {
            for channel in 0..N_CHANNEL {
                for y in 0..patch {
                    let from = (channel * height + py * patch + y) * width + px * patch;
                    if let Some(row) = rows.next() {
                        row.copy_from_slice(&pixels[from..from + patch]);
                    }
                }
            }
        }
    }
}
