//! Pixels to model input: resize the short side, crop the centre, rescale, normalise.
//!
//! The result agrees with what models are trained and measured with: Pillow's antialiased
//! resize in 8-bit fixed point, torchvision's size and crop arithmetic. Decoding files is
//! the caller's (the browser's, or the command line's).

mod resize;

pub use resize::Resample;

use crate::error::{Code, Error, Result};
use std::ops::Range;

/// Most pixels an image may have: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Most pixels along one side (what JPEG allows, and a bound on filter tables).
pub const MAX_SIDE: usize = 65_535;

/// A borrowed picture: 8-bit sRGB, rows top to bottom without padding.
///
/// The fourth channel is ignored, as Pillow's `convert("RGB")` ignores it: colours are
/// neither multiplied by alpha nor laid over a background.
#[derive(Clone, Copy)]
pub struct PixelView<'a> {
    data: &'a [u8],
    width: usize,
    height: usize,
    channels: usize,
    /// What of the picture `data` holds.
    part: Region,
}

/// A rectangle of a picture, in pixels from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first column.
    pub x: usize,
    /// The first row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Region {
    /// Where both axes have these inputs.
    fn of(columns: Range<usize>, rows: Range<usize>) -> Self {
        Region { x: columns.start, y: rows.start, width: columns.len(), height: rows.len() }
    }

    fn holds(&self, other: &Region) -> bool {
        let within = |at: usize, len: usize, from: usize, room: usize| {
            at >= from && at - from <= room && len <= room - (at - from)
        };
        within(other.x, other.width, self.x, self.width) && within(other.y, other.height, self.y, self.height)
    }
}

impl<'a> PixelView<'a> {
    /// A view of `data`, `[height, width, channels]` with 3 (RGB) or 4 (RGBA) channels.
    ///
    /// # Errors
    /// [`Code::ImageDecodeError`] for a picture without pixels or with more than
    /// [`MAX_PIXELS`] or [`MAX_SIDE`]; [`Code::BadArgument`] for another number of channels
    /// or bytes.
    pub fn new(data: &'a [u8], width: usize, height: usize, channels: usize) -> Result<Self> {
        Self::of_part(data, Region { x: 0, y: 0, width, height }, width, height, channels)
    }

    /// A view of a picture of `width * height` pixels of which `data` holds only `part`,
    /// `[part.height, part.width, channels]`: enough for whoever reads no more ([`Preprocess::region`]).
    ///
    /// # Errors
    /// As [`Self::new`], and [`Code::BadArgument`] for a part that is empty or not within the picture.
    pub fn of_part(
        data: &'a [u8],
        part: Region,
        width: usize,
        height: usize,
        channels: usize,
    ) -> Result<Self> {
        check_dimensions(width as u64, height as u64)?;
        if part.width == 0 || part.height == 0 || !(Region { x: 0, y: 0, width, height }).holds(&part) {
            let message = format!("{part:?} is no part of a picture of {width} x {height} pixels");
            return Err(Error::new(Code::BadArgument, message).key("part"));
        }
        if channels != 3 && channels != 4 {
            let message = format!("pixels have {channels} channels, expected 3 (RGB) or 4 (RGBA)");
            return Err(Error::new(Code::BadArgument, message).key("channels"));
        }
        let Region { width: columns, height: rows, .. } = part;
        let expected = columns * rows * channels;
        if data.len() != expected {
            let message = format!(
                "pixel buffer has {} bytes, {columns} x {rows} x {channels} needs {expected}",
                data.len()
            );
            return Err(Error::new(Code::BadArgument, message).key("data"));
        }
        Ok(PixelView { data, width, height, channels, part })
    }

    /// Pixels per row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Row `y` of the picture, as far as it is here: from column `part.x` on.
    fn row(&self, y: usize) -> &'a [u8] {
        let row_bytes = self.part.width * self.channels;
        &self.data[(y - self.part.y) * row_bytes..][..row_bytes]
    }
}

/// Refuses pictures without pixels and pictures beyond the limits. For decoders: to be
/// asked with the declared size, before anything is allocated.
///
/// # Errors
/// [`Code::ImageDecodeError`].
pub fn check_dimensions(width: u64, height: u64) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::new(Code::ImageDecodeError, format!("image has no pixels ({width} x {height})")));
    }
    let side = MAX_SIDE as u64;
    if width > side || height > side || width * height > MAX_PIXELS {
        let message = format!(
            "image of {width} x {height} pixels is too large: at most {} megapixels and {side} pixels a side",
            MAX_PIXELS >> 20
        );
        return Err(Error::new(Code::ImageDecodeError, message));
    }
    Ok(())
}

/// How the picture is brought to size before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The short side becomes `resize`, the long side keeps the ratio (torchvision, timm).
    Short,
    /// Both sides become `resize`, whatever the ratio (Hugging Face's ViT processor).
    Stretch,
}

/// What a model's authors do to a picture before it enters the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// Pixels of the short side (or of both sides) after resizing.
    pub resize: usize,
    /// What `resize` applies to.
    pub fit: Fit,
    /// Pixels of each side of the centre crop; at most `resize`.
    pub crop: usize,
    /// The filter.
    pub resample: Resample,
    /// The value of a pixel that counts as 1.
    pub one: f32,
    /// Whether the model takes blue first; mean and deviation are in its order.
    pub blue_first: bool,
    /// Subtracted per channel (R, G, B) from values in 0..=1.
    pub mean: [f32; 3],
    /// Divides what is left.
    pub std: [f32; 3],
}

impl Preprocess {
    /// timm's evaluation recipe: short side `floor(crop / crop_pct)`, bicubic, centre crop,
    /// ImageNet mean and deviation.
    pub fn timm(crop: usize, crop_pct: f64) -> Self {
        Preprocess {
            resize: (crop as f64 / crop_pct).floor() as usize,
            fit: Fit::Short,
            crop,
            resample: Resample::Bicubic,
            one: 255.0,
            blue_first: false,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }

    /// Checks the recipe.
    ///
    /// # Errors
    /// [`Code::BadConfig`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let bad = |key, message: String| Err(Error::new(Code::BadConfig, message).key(key));
        if self.crop == 0 || self.crop > 4096 {
            return bad("crop", format!("crop of {} pixels is not within 1..=4096", self.crop));
        }
        if self.resize < self.crop || self.resize > 8192 {
            let message = format!("resize to {} pixels is not within {}..=8192", self.resize, self.crop);
            return bad("resize", message);
        }
        if !(self.one.is_finite() && self.one > 0.0) {
            return bad("one", format!("a range of {} is not positive and finite", self.one));
        }
        if !self.mean.iter().all(|m| m.is_finite()) {
            return bad("mean", format!("mean {:?} is not finite", self.mean));
        }
        if !self.std.iter().all(|s| s.is_finite() && *s > 0.0) {
            return bad("std", format!("std {:?} is not positive and finite", self.std));
        }
        Ok(())
    }

    /// Size (width, height) after resizing a picture of that size, before the crop. The long
    /// side is rounded down, as torchvision does.
    fn resized(&self, width: usize, height: usize) -> (u64, u64) {
        let target = self.resize as u64;
        let long = |long: usize, short: usize| target * long as u64 / short as u64;
        match self.fit {
            Fit::Stretch => (target, target),
            Fit::Short if width <= height => (target, long(height, width)),
            Fit::Short => (long(width, height), target),
        }
    }

    /// The filters along rows and along columns for a picture of that size.
    fn taps(&self, width: usize, height: usize) -> (resize::Taps, resize::Taps) {
        let (new_width, new_height) = self.resized(width, height);
        let axis = |n_in, n_out| {
            resize::Taps::new(self.resample, n_in, n_out, crop_start(n_out, self.crop), self.crop)
        };
        (axis(width, new_width), axis(height, new_height))
    }

    /// All that [`preprocess`] reads of a picture of `width * height` pixels: what the crop shows, and around it what the
    /// filter takes in. [`PixelView::of_part`] of this gives the same bytes as the whole picture.
    ///
    /// # Errors
    /// [`Code::BadConfig`] for an impossible recipe; [`Code::ImageDecodeError`] for an impossible size.
    pub fn region(&self, width: usize, height: usize) -> Result<Region> {
        self.validate()?;
        check_dimensions(width as u64, height as u64)?;
        let (columns, rows) = self.taps(width, height);
        Ok(Region::of(columns.inputs(), rows.inputs()))
    }
}

/// Where the centre crop begins: half the excess, halves to the even side (Python's `round`,
/// which torchvision uses).
fn crop_start(resized: u64, crop: usize) -> u64 {
    let excess = resized - crop as u64;
    let floor = excess / 2;
    if excess % 2 == 1 { floor + floor % 2 } else { floor }
}

/// Resizes and crops: `[crop, crop, 3]`, RGB.
///
/// Only what the crop shows is computed; the bytes equal those of resizing everything first.
///
/// # Errors
/// [`Code::BadConfig`] for an impossible recipe; [`Code::BadArgument`] for a part of a picture that lacks pixels.
pub fn resize_crop(pixels: &PixelView, recipe: &Preprocess) -> Result<Vec<u8>> {
    recipe.validate()?;
    let (columns, rows) = recipe.taps(pixels.width, pixels.height);
    let needed = Region::of(columns.inputs(), rows.inputs());
    if !pixels.part.holds(&needed) {
        let message = format!("of the picture {:?} is here, but {needed:?} is needed", pixels.part);
        return Err(Error::new(Code::BadArgument, message).key("part"));
    }
    Ok(resize::convolve(pixels, &columns, &rows))
}

/// Resizes, crops and normalises: `[3, crop, crop]`, `(value / one - mean) / std`.
///
/// # Errors
/// As [`resize_crop`].
pub fn preprocess(pixels: &PixelView, recipe: &Preprocess) -> Result<Vec<f32>> {
    let rgb = resize_crop(pixels, recipe)?;
    let mut out = Vec::with_capacity(rgb.len());
    for c in 0..3 {
        let table: [f32; 256] =
            std::array::from_fn(|v| (v as f32 / recipe.one - recipe.mean[c]) / recipe.std[c]);
        let from = if recipe.blue_first { 2 - c } else { c };
        out.extend(rgb.chunks_exact(3).map(|px| table[px[from] as usize]));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T>(result: Result<T>) -> Option<Code> {
        result.err().map(|e| e.code)
    }

    #[test]
    fn views_refuse_what_is_no_picture() {
        let cases = [
            (0, 0, 0, 3, Code::ImageDecodeError),
            (0, 5, 0, 3, Code::ImageDecodeError),
            (0, 30_000, 30_000, 3, Code::ImageDecodeError),
            (0, 70_000, 1, 3, Code::ImageDecodeError),
            (0, usize::MAX, usize::MAX, 4, Code::ImageDecodeError),
            (12, 2, 2, 1, Code::BadArgument),
            (11, 2, 2, 3, Code::BadArgument),
            (12, 2, 2, 4, Code::BadArgument),
        ];
        for (n_bytes, width, height, channels, expected) in cases {
            let data = vec![0; n_bytes];
            assert_eq!(
                code(PixelView::new(&data, width, height, channels)),
                Some(expected),
                "{width} x {height} x {channels}, {n_bytes} bytes"
            );
        }
        assert_eq!(code(PixelView::new(&[1, 2, 3], 1, 1, 3)), None);
    }

    #[test]
    fn impossible_recipes_name_the_field() {
        let pixels = PixelView::new(&[1, 2, 3], 1, 1, 3).unwrap();
        let good = Preprocess::timm(8, 0.5);
        let cases = [
            (Preprocess { crop: 0, ..good.clone() }, "crop"),
            (Preprocess { crop: 17, ..good.clone() }, "resize"),
            (Preprocess { resize: 1 << 20, ..good.clone() }, "resize"),
            (Preprocess { one: 0.0, ..good.clone() }, "one"),
            (Preprocess { mean: [f32::NAN, 0.0, 0.0], ..good.clone() }, "mean"),
            (Preprocess { std: [1.0, 0.0, 1.0], ..good.clone() }, "std"),
        ];
        for (recipe, key) in cases {
            let error = preprocess(&pixels, &recipe).unwrap_err();
            assert_eq!((error.code, error.key.as_deref()), (Code::BadConfig, Some(key)));
        }
    }

    #[test]
    fn extreme_shapes_give_whole_crops() {
        let recipe = Preprocess::timm(8, 0.875);
        for (width, height) in [(1, 1), (1, 2), (65_535, 1), (1, 65_535), (9, 9), (300, 2)] {
            let data = vec![255; width * height * 4];
            let out = preprocess(&PixelView::new(&data, width, height, 4).unwrap(), &recipe).unwrap();
            let white = (1.0 - recipe.mean[2]) / recipe.std[2];
            assert_eq!(out.len(), 3 * 8 * 8);
            assert!(out[2 * 64..].iter().all(|&v| v == white), "{width} x {height}");
        }
    }

    #[test]
    fn sizes_and_crops_round_like_torchvision() {
        let recipe = Preprocess::timm(224, 0.875);
        assert_eq!(recipe.resize, 256);
        assert_eq!(recipe.resized(512, 343), (382, 256));
        assert_eq!(recipe.resized(343, 512), (256, 382));
        assert_eq!(recipe.resized(300, 300), (256, 256));
        let starts: Vec<u64> = (8..15).map(|resized| crop_start(resized, 8)).collect();
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3]);
    }
}
