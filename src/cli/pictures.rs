//! The pictures that vision models are calibrated on where a user gives none.
//!
//! Some are drawn: shapes and textures on squares of several sizes, sharp and soft. The others are small, as thumbnails are,
//! and painted by a model of photos that this project trained (`training/README.md`): what they have that drawn ones lack
//! is how photos are composed and coloured. How much each kind is worth is in `docs/quantization.md`.

use super::calibrate::Image;
use crate::error::{Code, Error, Result};
use crate::quantizer::pictures::draw;
use std::ops::Range;

/// A JPEG file of squares, row by row.
const SHEET: &[u8] = include_bytes!("painted.jpg");
/// Pixels along the side of each.
const SIDE: usize = 32;

/// Which pictures: numbers of drawn ones and places of painted ones.
struct Set {
    drawn: Range<u32>,
    painted: Range<usize>,
}

/// Pictures that inputs are learnt from, for sensitivities.
const LEARN: Set = Set { drawn: 0..32, painted: 0..32 };
/// Others, on which plans are judged.
const JUDGE: Set = Set { drawn: 64..68, painted: 32..36 };
/// What layers are rounded on: each matrix once, not in many types, so that more of them are affordable.
const ROUND: Set = Set { drawn: 0..64, painted: 0..usize::MAX };

pub(super) fn to_learn() -> Result<Vec<Image>> {
    LEARN.images()
}

pub(super) fn to_judge() -> Result<Vec<Image>> {
    JUDGE.images()
}

pub(super) fn to_round() -> Result<Vec<Image>> {
    ROUND.images()
}

impl Set {
    fn images(&self) -> Result<Vec<Image>> {
        let drawn = self.drawn.clone().map(draw).map(|p| (p.rgb, p.side, p.side));
        let painted = painted()?;
        let chosen = &painted[self.painted.start.min(painted.len())..self.painted.end.min(painted.len())];
        Ok(drawn.chain(chosen.iter().cloned()).collect())
    }
}

/// All painted pictures.
fn painted() -> Result<Vec<Image>> {
    let bad = |e: image::ImageError| {
        Error::new(Code::ImageDecodeError, "the sheet of pictures that comes with this program").source(e)
    };
    let sheet = image::load_from_memory(SHEET).map_err(bad)?.into_rgb8();
    let (bytes, stride) = (sheet.as_raw(), 3 * sheet.width() as usize);
    let (n_col, n_row) = (sheet.width() as usize / SIDE, sheet.height() as usize / SIDE);
    let cut = |i: usize| {
        let corner = i / n_col * SIDE * stride + i % n_col * SIDE * 3;
        let row = |y: usize| &bytes[corner + y * stride..][..3 * SIDE];
        ((0..SIDE).flat_map(row).copied().collect(), SIDE, SIDE)
    };
    Ok((0..n_col * n_row).map(cut).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures are squares of the sheet as they are, and no two are the same.
    #[test]
    fn the_sheet_is_cut_into_pictures() {
        let round = to_round().unwrap();
        let small: Vec<&Image> = round.iter().skip(ROUND.drawn.len()).collect();
        assert!(
            small.len() >= 256 && small.iter().all(|(rgb, w, h)| (*w, *h) == (32, 32) && rgb.len() == 3072)
        );
        let mut distinct: Vec<&Vec<u8>> = small.iter().map(|(rgb, ..)| rgb).collect();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), small.len());
        let sheet = image::load_from_memory(SHEET).unwrap().into_rgb8();
        assert_eq!(small[17].0[3 * (32 + 5)..][..3], sheet.get_pixel(32 + 5, 32 + 1).0);
        assert_eq!((to_learn().unwrap().len(), to_judge().unwrap().len()), (64, 8));
    }
}
