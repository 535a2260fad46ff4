//! Rotary position embedding (Su et al. 2021, RoFormer, eq. 34).

/// Which two elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// (2i, 2i + 1): llama files.
    Adjacent,
    /// (i, i + n_rot / 2): the NeoX family.
    Halves,
}

/// Rotation frequencies of one model, and the angles of the current batch.
pub struct Rope {
    pairing: RopePairing,
    /// Radians per position, one per pair.
    frequencies: Vec<f64>,
    /// (cos, sin) per token and pair.
    angles: Vec<(f32, f32)>,
}

impl Rope {
    /// Frequencies `base^(-2i / n_rot) * scale / factors[i]` for pairs `i < n_rot / 2`;
    /// `factors` is empty or has `n_rot / 2` entries.
    pub fn new(pairing: RopePairing, n_rot: usize, base: f32, scale: f32, factors: &[f32]) -> Self {
        let frequency = |i: usize| {
            let plain = libm::pow(f64::from(base), -(2.0 * i as f64) / n_rot as f64) * f64::from(scale);
            factors.get(i).map_or(plain, |&f| plain / f64::from(f))
        };
        Rope { pairing, frequencies: (0..n_rot / 2).map(frequency).collect(), angles: Vec::new() }
    }

    /// Computes the angles of positions `first_pos .. first_pos + n_tokens`.
    pub fn prepare(&mut self, first_pos: usize, n_tokens: usize) {
        self.angles.clear();
        for pos in first_pos..first_pos + n_tokens {
            self.angles.extend(self.frequencies.iter().map(|f| {
                let angle = pos as f64 * f;
                (libm::cos(angle) as f32, libm::sin(angle) as f32)
            }));
        }
    }

    /// Rotates `x`, `[n_tokens, n_head, head_dim]`, in place; elements past n_rot stay.
    pub fn rotate(&self, x: &mut [f32], n_head: usize, head_dim: usize) {
        let n_pairs = self.frequencies.len();
        for (token, angles) in
            x.chunks_exact_mut(n_head * head_dim).zip(self.angles.chunks_exact(n_pairs.max(1)))
        {
            for head in token.chunks_exact_mut(head_dim) {
                match self.pairing {
                    RopePairing::Adjacent => {
                        for (pair, &(cos, sin)) in head.chunks_exact_mut(2).zip(angles) {
                            let (a, b) = (pair[0], pair[1]);
                            pair[0] = a * cos - b * sin;
                            pair[1] = a * sin + b * cos;
                        }
                    }
                    RopePairing::Halves => {
                        let (low, high) = head[..2 * n_pairs].split_at_mut(n_pairs);
                        for ((a, b), &(cos, sin)) in low.iter_mut().zip(high).zip(angles) {
                            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                        }
                    }
                }
            }
        }
    }
}
