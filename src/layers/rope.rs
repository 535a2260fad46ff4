//! Rotary position embedding (Su et al. 2021, RoFormer, eq. 34).

use crate::kernels::parallel::{self, work};

/// Which two elements of a head form a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopePairing {
    /// (2i, 2i + 1): llama files.
    Adjacent,
    /// (i, i + n_rot / 2): the NeoX family.
    Halves,
}

/// What the frequencies of a rotation are made from.
#[derive(Clone, Copy, Debug)]
pub struct RopeParams {
    /// Which elements form a pair.
    pub pairing: RopePairing,
    /// Elements of a head that are rotated.
    pub n_rot: usize,
    /// Radians per position fall from 1 to about `1 / base`.
    pub base: f32,
    /// Multiplies the frequencies: linear position interpolation (Chen et al. 2023).
    pub scale: f32,
    /// Interpolates only the low frequencies.
    pub yarn: Option<Yarn>,
    /// Multiplies what is rotated.
    pub magnitude: f32,
}

/// YaRN (Peng et al. 2023, section 3.2): pairs that turn often within the original context keep
/// their frequency, those that turn rarely are interpolated, with a ramp between.
#[derive(Clone, Copy, Debug)]
pub struct Yarn {
    /// Context length before it was extended.
    pub n_ctx_orig: usize,
    /// From this many turns on a pair keeps its frequency.
    pub beta_fast: f32,
    /// Up to this many turns a pair is interpolated.
    pub beta_slow: f32,
}

impl Yarn {
    /// The share, 0 to 1, of the plain frequency that pair `i` keeps.
    fn kept(&self, params: &RopeParams, i: usize) -> f64 {
        let n_rot = params.n_rot as f64;
        let pair = |turns: f32| {
            let per_turn = f64::from(turns) * std::f64::consts::TAU;
            n_rot * libm::log(self.n_ctx_orig as f64 / per_turn) / (2.0 * libm::log(f64::from(params.base)))
        };
        let low = libm::floor(pair(self.beta_fast)).max(0.0);
        let high = libm::ceil(pair(self.beta_slow)).min(n_rot - 1.0);
        1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0)
    }
}

/// Rotation frequencies of one model, and the angles of the current batch.
pub struct Rope {
    pairing: RopePairing,
    magnitude: f64,
    /// Radians per position, one per pair.
    frequencies: Vec<f64>,
    /// Those of contexts longer than this many tokens.
    long: Option<(usize, Vec<f64>)>,
    /// Cosines per token and pair, and sines: apart, so that loops over pairs become vector instructions.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Whether the angles are given and not those of positions in a line.
    fixed: bool,
}

impl Rope {
    /// Frequencies `base^(-2i / n_rot) / factors[i]` for pairs `i < n_rot / 2`, stretched as the
    /// parameters say; `factors` is empty or has `n_rot / 2` entries.
    pub fn new(params: &RopeParams, factors: &[f32]) -> Self {
        Rope {
            pairing: params.pairing,
            magnitude: f64::from(params.magnitude),
            frequencies: frequencies(params, factors),
            long: None,
            cos: Vec::new(),
            sin: Vec::new(),
            fixed: false,
        }
    }

    /// A rotation by given angles in radians, `[n_tokens, n_pair]`, for sequences of exactly so many tokens:
    /// positions in a picture, for example.
    pub fn fixed(pairing: RopePairing, angles: &[f64], n_pair: usize) -> Self {
        Rope {
            pairing,
            magnitude: 1.0,
            frequencies: vec![0.0; n_pair],
            long: None,
            cos: angles.iter().map(|&a| libm::cos(a) as f32).collect(),
            sin: angles.iter().map(|&a| libm::sin(a) as f32).collect(),
            fixed: true,
        }
    }

    /// With other factors in contexts of more than `n_ctx` tokens (LongRoPE, Ding et al. 2024).
    pub fn with_long(mut self, params: &RopeParams, n_ctx: usize, factors: &[f32]) -> Self {
        self.long = Some((n_ctx, frequencies(params, factors)));
        self
    }

    /// Tokens up to which the factors for short contexts hold.
    pub fn n_ctx_short(&self) -> usize {
        self.long.as_ref().map_or(usize::MAX, |(n_ctx, _)| *n_ctx)
    }

    /// Computes the angles of positions `first_pos .. first_pos + n_tokens` in a context with room
    /// for `n_ctx`.
    pub fn prepare(&mut self, first_pos: usize, n_tokens: usize, n_ctx: usize) {
        let positions = first_pos..first_pos + n_tokens;
        self.set_angles(positions.map(|pos| pos as f64), self.magnitude, n_ctx);
    }

    /// Has [`Self::rotate`] turn one token, rotated already, back by `n` positions, in a context with room for `n_ctx`.
    pub fn prepare_back(&mut self, n: usize, n_ctx: usize) {
        self.set_angles([-(n as f64)].into_iter(), 1.0, n_ctx);
    }

    fn set_angles(&mut self, positions: impl Iterator<Item = f64>, magnitude: f64, n_ctx: usize) {
        if self.fixed {
            return;
        }
        let frequencies = match &self.long {
            Some((above, long)) if n_ctx > *above => long,
            _ => &self.frequencies,
        };
        self.cos.clear();
        self.sin.clear();
        for pos in positions {
            self.cos.extend(frequencies.iter().map(|f| (libm::cos(pos * f) * magnitude) as f32));
            self.sin.extend(frequencies.iter().map(|f| (libm::sin(pos * f) * magnitude) as f32));
        }
    }

    /// Rotates `x`, `[n_tokens, n_head, head_dim]`, in place; elements past n_rot stay.
    pub fn rotate(&self, x: &mut [f32], n_head: usize, head_dim: usize) {
        let (n_pairs, width) = (self.frequencies.len(), n_head * head_dim);
        parallel::chunks(x, width, work::NORM, &|first, x| {
            for (i, token) in x.chunks_exact_mut(width).enumerate() {
                let pairs = (first / width + i) * n_pairs..(first / width + i + 1) * n_pairs;
                let (Some(cos), Some(sin)) = (self.cos.get(pairs.clone()), self.sin.get(pairs)) else {
                    return;
                };
                token.chunks_exact_mut(head_dim).for_each(|head| self.rotate_head(head, cos, sin));
            }
        });
    }

    #[inline(always)]
    fn rotate_head(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let turned = |a: f32, b: f32, cos: f32, sin: f32| (a * cos - b * sin, a * sin + b * cos);
        match self.pairing {
            RopePairing::Adjacent => {
                for (([a, b], &cos), &sin) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
                    (*a, *b) = turned(*a, *b, cos, sin);
                }
            }
            RopePairing::Halves => {
                let (low, high) = head[..2 * cos.len()].split_at_mut(cos.len());
                for (((a, b), &cos), &sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    (*a, *b) = turned(*a, *b, cos, sin);
                }
            }
        }
    }
}

fn frequencies(params: &RopeParams, factors: &[f32]) -> Vec<f64> {
    let RopeParams { n_rot, base, scale, yarn, .. } = *params;
    let frequency = |i: usize| {
        let plain = libm::pow(f64::from(base), -(2.0 * i as f64) / n_rot as f64);
        let plain = factors.get(i).map_or(plain, |&f| plain / f64::from(f));
        let interpolated = plain * f64::from(scale);
        let kept = yarn.map_or(0.0, |y| y.kept(params, i));
        interpolated * (1.0 - kept) + plain * kept
    };
    (0..n_rot / 2).map(frequency).collect()
}
