//! What codes stand for, in units of the scale.

use super::whole;
use crate::quant::{fp4, iq4};

/// The values that a code can have.
pub trait Levels: Copy {
    /// The one nearest to `v`.
    fn nearest(&self, v: f32) -> f32;
}

/// All whole numbers from `lo` to `hi`.
#[derive(Clone, Copy)]
pub struct Linear {
    pub lo: f32,
    pub hi: f32,
}

impl Levels for Linear {
    #[inline(always)]
    fn nearest(&self, v: f32) -> f32 {
        whole(v.clamp(self.lo, self.hi))
    }
}

/// The sixteen levels of IQ4_NL and IQ4_XS.
#[derive(Clone, Copy)]
pub struct Nonlinear;

const fn middles<const N: usize, const M: usize>(levels: &[i8; N]) -> ([f32; M], [f32; M]) {
    let (mut middle, mut step) = ([0f32; M], [0f32; M]);
    let mut i = 0;
    while i < M {
        middle[i] = (levels[i] as f32 + levels[i + 1] as f32) / 2.0;
        step[i] = levels[i + 1] as f32 - levels[i] as f32;
        i += 1;
    }
    (middle, step)
}

const IQ4: ([f32; 15], [f32; 15]) = middles(&iq4::LEVELS);

impl Levels for Nonlinear {
    #[inline(always)]
    fn nearest(&self, v: f32) -> f32 {
        let mut level = f32::from(iq4::LEVELS[0]);
        for (middle, step) in IQ4.0.iter().zip(IQ4.1) {
            level += if v > *middle { step } else { 0.0 };
        }
        level
    }
}

/// The levels of MXFP4, doubled.
#[derive(Clone, Copy)]
pub struct Fp4;

impl Levels for Fp4 {
    #[inline(always)]
    fn nearest(&self, v: f32) -> f32 {
        let mut level = 0.0;
        for pair in fp4::LEVELS[..8].windows(2) {
            let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
            level += if v.abs() > (low + high) / 2.0 { high - low } else { 0.0 };
        }
        if v < 0.0 { -level } else { level }
    }
}
