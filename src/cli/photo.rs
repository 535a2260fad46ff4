//! Image files to pixels.

use super::open;
use crate::error::{Code, Error, Result};
use crate::image::{self as pixels, PixelView};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

/// A decoded photo, RGB, turned upright as its EXIF orientation says. Alpha is dropped.
pub(super) struct Photo {
    rgb: image::RgbImage,
}

impl Photo {
    /// Its pixels, three bytes each, with width and height.
    pub(super) fn into_pixels(self) -> (Vec<u8>, usize, usize) {
        let (width, height) = (self.rgb.width() as usize, self.rgb.height() as usize);
        (self.rgb.into_raw(), width, height)
    }

    /// The photo as input for a model.
    pub(super) fn view(&self) -> Result<PixelView<'_>> {
        PixelView::new(self.rgb.as_raw(), self.rgb.width() as usize, self.rgb.height() as usize, 3)
    }
}

/// Decodes a BMP, JPEG, PNG or WebP file, told apart by content.
///
/// # Errors
/// [`Code::Io`] where the file cannot be read, [`Code::ImageDecodeError`] for all else.
pub(super) fn read(path: &Path) -> Result<Photo> {
    let (file, _) = open::open(path)?;
    let reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(|e| open::io_error(path, "cannot read", e))?;
    if reader.format().is_none() {
        let message = format!("{}: not a BMP, JPEG, PNG or WebP image", path.display());
        return Err(Error::new(Code::ImageDecodeError, message));
    }
    decode(reader).map_err(|e| open::in_file(path, e))
}

/// Decodes a BMP, JPEG, PNG or WebP file of at most `max_pixels` in memory: RGB pixels, width and height.
///
/// # Errors
/// [`Code::ImageDecodeError`].
pub fn decode_image(bytes: &[u8], max_pixels: u64) -> Result<(Vec<u8>, usize, usize)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let reader = reader.map_err(|e| undecodable(ImageError::IoError(e)))?;
    decode_within(reader, max_pixels).map(Photo::into_pixels)
}

fn decode(reader: ImageReader<impl BufRead + Seek>) -> Result<Photo> {
    decode_within(reader, pixels::MAX_PIXELS)
}

fn decode_within(mut reader: ImageReader<impl BufRead + Seek>, max_pixels: u64) -> Result<Photo> {
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    pixels::check_dimensions(width.into(), height.into())?;
    if u64::from(width) * u64::from(height) > max_pixels {
        let rule = format!("image of {width} x {height} pixels, at most {max_pixels} are wanted");
        return Err(Error::new(Code::ImageDecodeError, rule));
    }
    // A photo with a broken EXIF block is still a photo.
    let orientation = decoder.orientation().ok();
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    if let Some(orientation) = orientation {
        decoded.apply_orientation(orientation);
    }
    Ok(Photo { rgb: decoded.into_rgb8() })
}

/// The decoder's own limits: eight bytes per pixel are four channels of 16 bits.
fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(pixels::MAX_SIDE as u32);
    limits.max_image_height = Some(pixels::MAX_SIDE as u32);
    limits.max_alloc = Some(pixels::MAX_PIXELS * 8 + (64 << 20));
    limits
}

fn undecodable(error: ImageError) -> Error {
    match error {
        ImageError::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => {
            Error::new(Code::ImageDecodeError, format!("cannot read the image: {e}")).source(e)
        }
        error => {
            Error::new(Code::ImageDecodeError, format!("cannot decode the image: {error}")).source(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ImageEncoder, ImageFormat, Rgb, RgbImage};

    fn decoded(bytes: Vec<u8>) -> Result<Photo> {
        decode(ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap())
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// A TIFF block with the one tag "orientation".
    fn exif(orientation: u8) -> Vec<u8> {
        let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
        [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
    }

    #[test]
    fn exif_orientation_turns_the_photo() {
        // Left half red, right half blue: a camera held upright stores this on its side.
        let stored =
            RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
        for (orientation, size, top_left_is_red) in
            [(1, (32, 16), true), (3, (32, 16), false), (6, (16, 32), true), (8, (16, 32), false)]
        {
            let mut bytes = Vec::new();
            let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
            encoder.set_exif_metadata(exif(orientation)).unwrap();
            encoder.encode_image(&stored).unwrap();
            let photo = decoded(bytes).unwrap();
            assert_eq!(photo.rgb.dimensions(), size, "orientation {orientation}");
            assert_eq!(photo.rgb.get_pixel(2, 2)[0] > 200, top_left_is_red, "orientation {orientation}");
        }
    }

    #[test]
    fn every_kind_of_pixel_becomes_rgb() {
        let sixteen = image::ImageBuffer::from_pixel(3, 2, image::Rgba([65_535u16, 32_896, 0, 0]));
        let cases = [
            (encoded(&DynamicImage::ImageRgba16(sixteen), ImageFormat::Png), [255, 128, 0]),
            (
                encoded(
                    &DynamicImage::ImageLuma8(image::GrayImage::from_pixel(3, 2, image::Luma([9]))),
                    ImageFormat::Png,
                ),
                [9; 3],
            ),
            (
                encoded(
                    &DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(3, 2, image::Rgba([7, 8, 9, 0]))),
                    ImageFormat::WebP,
                ),
                [7, 8, 9],
            ),
            (
                encoded(
                    &DynamicImage::ImageRgb8(RgbImage::from_pixel(1, 1, Rgb([1, 2, 3]))),
                    ImageFormat::Bmp,
                ),
                [1, 2, 3],
            ),
        ];
        for (i, (bytes, expected)) in cases.into_iter().enumerate() {
            assert_eq!(decoded(bytes).unwrap().rgb.get_pixel(0, 0).0, expected, "case {i}");
        }
    }

    /// As printers' photos are stored: left half red (no cyan), right half blue (no yellow).
    #[test]
    fn cmyk_becomes_rgb() {
        let photo = decoded(include_bytes!("../../tests/data/image/cmyk.jpg").to_vec()).unwrap();
        let [left, right] = [2, 13].map(|x| photo.rgb.get_pixel(x, 8).0);
        assert!(left[0] > 200 && left[1] < 50 && left[2] < 50, "{left:?}");
        assert!(right[2] > 200 && right[0] < 50 && right[1] < 50, "{right:?}");
    }

    /// Headers with bytes changed at random, in files of every format: a photo or an error, and soon.
    #[test]
    fn damaged_headers_are_errors() {
        let picture = DynamicImage::ImageRgb8(RgbImage::from_fn(24, 17, |x, y| Rgb([x as u8, y as u8, 7])));
        let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp];
        let mut state = 9u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let (mut good, mut bad) = (0, 0);
        for format in formats {
            let whole = encoded(&picture, format);
            for _ in 0..500 {
                let mut bytes = whole.clone();
                for _ in 0..1 + random(4) {
                    let at = random(bytes.len().min(96));
                    bytes[at] = random(256) as u8;
                }
                bytes.truncate(bytes.len() - random(2) * random(bytes.len()));
                match decoded(bytes) {
                    Ok(photo) => {
                        good += 1;
                        assert!(photo.view().is_ok());
                    }
                    Err(error) => {
                        bad += 1;
                        assert_eq!(error.code, Code::ImageDecodeError);
                    }
                }
            }
        }
        assert!(good > 100 && bad > 100, "{good} good, {bad} bad: one side is not tested");
    }

    #[test]
    fn hostile_files_are_refused_before_their_pixels_are_allocated() {
        let png = encoded(&DynamicImage::ImageRgb8(RgbImage::new(40, 40)), ImageFormat::Png);
        let bmp = encoded(&DynamicImage::ImageRgb8(RgbImage::new(4, 4)), ImageFormat::Bmp);
        let with_size = |width: u32, height: u32| {
            let mut bytes = bmp.clone();
            bytes[18..22].copy_from_slice(&width.to_le_bytes());
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
            bytes
        };
        let cases = [
            ("truncated PNG", png[..png.len() / 2].to_vec()),
            ("0 x 0", with_size(0, 0)),
            ("20000 x 20000", with_size(20_000, 20_000)),
            ("30000 x 30000", with_size(30_000, 30_000)),
            ("70000 x 1", with_size(70_000, 1)),
            ("more rows than bytes", with_size(4, 4000)),
            ("only a signature", b"\x89PNG\r\n\x1a\n".to_vec()),
            ("animated GIF", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()),
        ];
        for (name, bytes) in cases {
            let code = decoded(bytes).err().map(|e| e.code);
            assert_eq!(code, Some(Code::ImageDecodeError), "{name}");
        }
    }
}
