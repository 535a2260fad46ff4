//! What the elements of a block can be rounded to once its scales are set.

use super::superblock::{LEN, SuperBlock};

/// The values that each element of one block can have: `base + step * level`.
pub struct Grid {
    /// Between neighbours, per element.
    pub step: [f32; LEN],
    /// The value of level 0, per element.
    pub base: [f32; LEN],
    /// What is subtracted from a code to be its level, where levels are whole numbers.
    pub offset: f32,
    /// Largest code.
    pub max_code: f32,
    /// Levels of the codes, ascending, where they are not whole numbers in a row.
    pub levels: Option<&'static [i8; 16]>,
    /// The codes chosen.
    pub codes: [u8; LEN],
}

impl Default for Grid {
    fn default() -> Self {
        Grid { step: [0.0; LEN], base: [0.0; LEN], offset: 0.0, max_code: 0.0, levels: None, codes: [0; LEN] }
    }
}

/// How a type's blocks give their grid and take codes.
#[derive(Clone, Copy)]
pub struct GridRule {
    /// Reads the grid of a block.
    pub read: fn(&[u8], &mut Grid),
    /// Replaces the codes of a block and leaves its scales.
    pub write: fn(&Grid, &mut [u8]),
}

impl Grid {
    /// Chooses the code of element `i` that is nearest to `v`; its value.
    pub fn round(&mut self, i: usize, v: f32) -> f32 {
        let (step, base) = (self.step[i], self.base[i]);
        let inv = if step == 0.0 { 0.0 } else { 1.0 / step };
        let wanted = (v - base) * inv;
        let (code, level) = match self.levels {
            None => {
                let code = (wanted + self.offset).round().clamp(0.0, self.max_code);
                (code as u8, code - self.offset)
            }
            Some(levels) => {
                let off = |l: i8| (f32::from(l) - wanted).abs();
                let best =
                    (1..16).fold(0, |best, c| if off(levels[c]) < off(levels[best]) { c } else { best });
                (best as u8, f32::from(levels[best]))
            }
        };
        self.codes[i] = code;
        base + step * level
    }

    /// One scale for the first `len` elements.
    pub(super) fn set_uniform(&mut self, len: usize, d: f32, base: f32, (offset, max_code): (f32, f32)) {
        self.step[..len].fill(d);
        self.base[..len].fill(base);
        (self.offset, self.max_code, self.levels) = (offset, max_code, None);
    }

    /// The grid of a block with sub-scales.
    pub(super) fn set_super(&mut self, parts: &SuperBlock, offset: u8, max_code: u8) {
        for j in 0..16 {
            self.step[16 * j..][..16].fill(parts.d * f32::from(parts.scales[j]));
            self.base[16 * j..][..16].fill(-(parts.dmin * f32::from(parts.mins[j])));
        }
        (self.offset, self.max_code, self.levels) = (f32::from(offset), f32::from(max_code), None);
    }
}
