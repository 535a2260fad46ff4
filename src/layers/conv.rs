//! Causal convolution over time, each channel by itself, and its memory of the last inputs.

/// `y[t, c] = bias[c] + sum over j of weight[j, c] * x[t - (n_tap - 1) + j, c]`.
pub struct CausalConv {
    /// `[n_tap, n_channel]`.
    weight: Vec<f32>,
    /// `[n_channel]`.
    bias: Option<Vec<f32>>,
    n_channel: usize,
}

impl CausalConv {
    /// A convolution with `weight` as files hold it, `[n_channel, n_tap]`.
    ///
    /// # Panics
    /// Where `n_channel` is 0 or does not divide the weights.
    pub fn new(weight: &[f32], bias: Option<Vec<f32>>, n_channel: usize) -> Self {
        let n_tap = weight.len() / n_channel;
        assert_eq!(weight.len(), n_channel * n_tap, "whole taps");
        let by_tap = |i: usize| weight[i % n_channel * n_tap + i / n_channel];
        CausalConv { weight: (0..weight.len()).map(by_tap).collect(), bias, n_channel }
    }

    /// Length of the memory: the `n_tap - 1` inputs before the next.
    pub fn state_len(&self) -> usize {
        self.weight.len() - self.n_channel
    }

    /// Convolves `x` `[m, n_channel]` in place; `state` are the inputs before it, then those before
    /// what will follow. `scratch` is kept between calls.
    pub fn forward(&self, x: &mut [f32], state: &mut [f32], scratch: &mut Vec<f32>) {
        let n = self.n_channel;
        scratch.clear();
        scratch.extend_from_slice(state);
        scratch.extend_from_slice(x);
        for (t, y) in x.chunks_exact_mut(n).enumerate() {
            match &self.bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(0.0),
            }
            for (w, x) in self.weight.chunks_exact(n).zip(scratch[t * n..].chunks_exact(n)) {
                for ((y, w), x) in y.iter_mut().zip(w).zip(x) {
                    *y += w * x;
                }
            }
        }
        state.copy_from_slice(&scratch[scratch.len() - state.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::CausalConv;

    #[test]
    fn taps_reach_back_across_calls() {
        // Two channels, three taps; the last tap is the present.
        let conv = CausalConv::new(&[1.0, 10.0, 100.0, 0.0, 0.0, 2.0], Some(vec![0.5, 0.0]), 2);
        let x: Vec<f32> = (1..=10).map(|i| i as f32).collect();
        let (mut whole, mut state, mut scratch) = (x.clone(), vec![0.0; conv.state_len()], Vec::new());
        conv.forward(&mut whole, &mut state, &mut scratch);
        assert_eq!(whole, [100.5, 4.0, 310.5, 8.0, 531.5, 12.0, 753.5, 16.0, 975.5, 20.0]);
        assert_eq!(state, x[6..]);
        let (mut parts, mut state) = (x, vec![0.0; conv.state_len()]);
        for step in parts.chunks_mut(2) {
            conv.forward(step, &mut state, &mut scratch);
        }
        assert_eq!(parts, whole);
    }
}
