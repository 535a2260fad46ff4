//! Blocks of bytes for the tests of the tensor types.

use bitpane::quant::DType;

/// Values of whole blocks.
#[allow(dead_code)] // not every test file decodes
pub fn decoded(dtype: DType, blocks: &[u8]) -> Vec<f32> {
    let (format, codec) = dtype.codec().unwrap();
    let mut out = vec![f32::NAN; blocks.len() / format.block_bytes * format.block_len];
    (codec.dequantize)(blocks, &mut out);
    out
}

/// The generator of `format_goldens.py`.
#[allow(dead_code)] // as above
pub fn splitmix_bytes(n: usize, seed: u64) -> Vec<u8> {
    let word = |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (1..=n.div_ceil(8) as u64).flat_map(word).collect();
    bytes.truncate(n);
    bytes
}

/// Root of the mean squared difference.
#[allow(dead_code)] // as above
pub fn rms(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let sum: f64 = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum();
    (sum / a.len() as f64).sqrt()
}
