//! Pictures: what their headers declare is checked before anything is allocated; what decodes, can be prepared.
#![no_main]

use bitpane::cli::decode_image;
use bitpane::image::{PixelView, Preprocess, preprocess};

/// Pixels decoded at most: beyond that an input costs more time than it shows.
const MAX_PIXELS: u64 = 1 << 18;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok((pixels, width, height)) = decode_image(data, MAX_PIXELS) else { return };
    let view = PixelView::new(&pixels, width, height, 3).unwrap();
    let prepared = preprocess(&view, &Preprocess::timm(32, 0.9)).unwrap();
    assert!(prepared.len() == 3 * 32 * 32 && prepared.iter().all(|v| v.is_finite()));
});
