//! Seeded random tensors, written in pieces so that memory stays small.

use bitpane::quant::DType;
use bitpane::{Code, Error, Result};

/// Elements made at a time: a multiple of every block length.
const CHUNK_LEN: usize = 1 << 15;

/// What a tensor holds.
#[derive(Clone, Copy)]
pub enum Fill {
    /// Around zero with the spread of a freshly initialized network.
    Random,
    /// The same, but zero in so many leading elements.
    RandomAfter(usize),
    /// Ones: the weight of a norm.
    Ones,
}

/// The splitmix64 generator: one addition and a mix per 64 bits, seeded by any number.
pub struct Random(u64);

impl Random {
    /// A generator whose output depends on `seed` only.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Fills `out` with values of mean 0 and standard deviation 0.02. The sum of two
    /// uniform 16-bit numbers is bell-shaped enough and gives two values per draw.
    fn fill(&mut self, out: &mut [f32]) {
        const SCALE: f32 = 0.02 * 2.449_489_8 / 65_536.0;
        for pair in out.chunks_mut(2) {
            let bits = self.next();
            let part = |i: u32| ((bits >> (16 * i)) & 0xFFFF) as f32;
            for (i, value) in pair.iter_mut().enumerate() {
                *value = (part(2 * i as u32) + part(2 * i as u32 + 1) - 65_535.0) * SCALE;
            }
        }
    }
}

/// Makes one tensor of `n_elements` in `dtype` and hands its bytes to `write`, piece by piece.
///
/// # Errors
/// A type that cannot be written; what `write` returns.
pub fn write_tensor(
    random: &mut Random,
    n_elements: usize,
    dtype: DType,
    fill: Fill,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let (format, codec) = dtype.codec()?;
    let quantize = codec
        .quantize
        .ok_or_else(|| Error::new(Code::UnsupportedQuant, format!("{} cannot be written", dtype.name())))?;
    let mut values = vec![1.0; CHUNK_LEN.min(n_elements)];
    let mut bytes = vec![0; values.len() / format.block_len * format.block_bytes];
    let mut n_done = 0;
    while n_done < n_elements {
        let n = CHUNK_LEN.min(n_elements - n_done);
        let n_bytes = n / format.block_len * format.block_bytes;
        let n_zero = match fill {
            Fill::Ones => None,
            Fill::Random => Some(0),
            Fill::RandomAfter(end) => Some(end.saturating_sub(n_done).min(n)),
        };
        if let Some(n_zero) = n_zero {
            random.fill(&mut values[..n]);
            values[..n_zero].fill(0.0);
        }
        quantize(&values[..n], &mut bytes[..n_bytes]);
        write(&bytes[..n_bytes])?;
        n_done += n;
    }
    Ok(())
}
