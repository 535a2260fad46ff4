//! What Q2_K to Q6_K have in common: one codec made of how a type packs its integers and how it finds them.

use super::blocks::encode_blocks;
use super::search;
use super::superblock::{LEN, SuperBlock, decode};
use super::{Codec, GridRule, KernelForm, SuperForm};

/// A type of blocks of 256 with integer sub-scales, `BYTES` bytes each.
pub(super) trait KQuant<const BYTES: usize> {
    /// How the kernels take its blocks apart.
    const FORM: SuperForm;
    /// Largest code.
    const MAX_CODE: u8 = ((1u32 << Self::FORM.bits) - 1) as u8;

    /// The inverse of the form's `decompose`.
    fn compose(parts: &SuperBlock, block: &mut [u8; BYTES]);

    /// Codes under scales that hold the extremes.
    fn round(x: &[f32; LEN]) -> SuperBlock;

    /// Codes under scales of little squared error, each value's counted `w` times.
    fn search(x: &[f32; LEN], w: &[f32; LEN]) -> SuperBlock;
}

/// The type's row in the table of formats.
pub(super) const fn codec<T: KQuant<BYTES>, const BYTES: usize>() -> Codec {
    Codec {
        dequantize: dequantize::<T, BYTES>,
        quantize: Some(quantize::<T, BYTES>),
        search: Some(search_all::<T, BYTES>),
        grid: Some(GridRule {
            read: |block, grid| grid.set_super(&parts_of::<T, BYTES>(block), T::FORM.offset, T::MAX_CODE),
            write: |grid, block| {
                let parts = SuperBlock { codes: grid.codes, ..parts_of::<T, BYTES>(block) };
                if let Some(block) = block.as_mut_array() {
                    T::compose(&parts, block);
                }
            },
        }),
        kernel: KernelForm::Super(T::FORM),
    }
}

fn parts_of<T: KQuant<BYTES>, const BYTES: usize>(block: &[u8]) -> SuperBlock {
    let mut parts = SuperBlock::default();
    (T::FORM.decompose)(block, &mut parts);
    parts
}

fn dequantize<T: KQuant<BYTES>, const BYTES: usize>(bytes: &[u8], out: &mut [f32]) {
    decode::<BYTES>(bytes, out, T::FORM.offset, T::FORM.decompose);
}

fn quantize<T: KQuant<BYTES>, const BYTES: usize>(values: &[f32], out: &mut [u8]) {
    encode_blocks(values, out, |x: &[f32; LEN], block: &mut [u8; BYTES]| T::compose(&T::round(x), block));
}

fn search_all<T: KQuant<BYTES>, const BYTES: usize>(values: &[f32], weights: &[f32], out: &mut [u8]) {
    let plain = (quantize::<T, BYTES> as super::Quantize, dequantize::<T, BYTES> as fn(&[u8], &mut [f32]));
    search::search_blocks(values, weights, out, plain, |x, w, block| T::compose(&T::search(x, w), block));
}

/// Bits above the low four of each code, and the like: bit `bit` of element `32 b + l` is bit `b` of byte `l`.
pub(super) fn add_high_bits(high: &[u8], bit: u32, codes: &mut [u8; LEN]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (high[i % 32] >> (i / 32) & 1) << bit;
    }
}

/// The inverse of [`add_high_bits`].
pub(super) fn join_high_bits(codes: &[u8; LEN], bit: u32, high: &mut [u8]) {
    high.fill(0);
    for (i, code) in codes.iter().enumerate() {
        high[i % 32] |= (code >> bit & 1) << (i / 32);
    }
}
