//! Helpers shared by the codecs: little-endian fields, storable scales, loops over blocks.

use half::f16;

/// 32 elements share a scale in the kernels' 8-bit form.
pub(super) const GROUP: usize = 32;

/// The f16 at byte `at`.
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_bits(u16_at(block, at)).to_f32()
}

/// The u16 at byte `at`.
pub(super) fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The u32 at byte `at`.
pub(super) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from(u16_at(block, at)) | u32::from(u16_at(block, at + 2)) << 16
}

/// The f16 nearest to `v`, as it decodes. Values beyond f16 saturate: an infinite scale would
/// turn every weight of the block into infinity or NaN.
pub(super) fn nearest_f16(v: f32) -> f32 {
    let max = f16::MAX.to_f32();
    f16::from_f32(v.clamp(-max, max)).to_f32()
}

/// Stores `v`, which [`nearest_f16`] gave, at byte `at`.
pub(super) fn put_f16(block: &mut [u8], at: usize, v: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(v).to_le_bytes());
}

/// `1 / d`, or 0 for 0, so that a block without a scale gets the codes of zeros.
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// The value of largest magnitude, with its sign; 0 for zeros.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m })
}

/// Smallest and largest value.
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v), hi.max(v)))
}

/// Runs `unpack` on each block with its codes and its scales (one per 32 elements).
pub(super) fn unpack_blocks<S, const LEN: usize, const BYTES: usize>(
    blocks: &[u8],
    codes: &mut [u8],
    scales: &mut [S],
    unpack: impl Fn(&[u8; BYTES], &mut [u8; LEN], &mut [S]),
) {
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    let (codes, _) = codes.as_chunks_mut::<LEN>();
    for ((block, codes), scales) in blocks.iter().zip(codes).zip(scales.chunks_exact_mut(LEN / GROUP)) {
        unpack(block, codes, scales);
    }
}

/// [`unpack_blocks`] where all of a block's scales are the f16 that it holds.
pub(super) fn unpack_halves<const LEN: usize, const BYTES: usize>(
    blocks: &[u8],
    codes: &mut [u8],
    scales: &mut [f16],
    unpack: impl Fn(&[u8; BYTES], &mut [u8; LEN], &mut [f32]),
) {
    unpack_blocks(blocks, codes, scales, |block, codes, scales: &mut [f16]| {
        let mut floats = [0f32; 8];
        unpack(block, codes, &mut floats[..scales.len()]);
        scales.iter_mut().zip(floats).for_each(|(scale, float)| *scale = f16::from_f32(float));
    });
}

/// Brings 32 codes under one scale where each 16 have their own: codes of the half with the
/// larger scale are multiplied by a whole number j, those of the other half become the nearest
/// whole numbers. The j with the least error is taken; where the scales are as 9 to 8, say,
/// there is none. Returns the scale.
pub(super) fn merge_scales(scales: [f32; 2], codes: &mut [u8; GROUP]) -> f32 {
    let big = usize::from(scales[1].abs() > scales[0].abs());
    if scales[big] == 0.0 || !(scales[0] + scales[1]).is_finite() {
        codes.fill(u8::from(scales[big] != 0.0));
        return scales[0] + scales[1];
    }
    let ratio = scales[1 - big] / scales[big];
    let largest = |half: usize| codes[16 * half..][..16].iter().map(|&c| (c as i8).unsigned_abs()).max();
    let [large, small] = [big, 1 - big].map(|half| f32::from(largest(half).unwrap_or(0).max(1)));
    let limit = (127.0 / large).min(127.0 / (small * ratio.abs())) as u8;
    let error = |j: f32| {
        let of = |&c: &u8| {
            let exact = j * ratio * f32::from(c as i8);
            ((exact - exact.round()) / j).powi(2)
        };
        codes[16 * (1 - big)..][..16].iter().map(of).sum::<f32>()
    };
    let better = |best: (f32, f32), j: u8| {
        let found = (error(f32::from(j)), f32::from(j));
        if found.0 < best.0 { found } else { best }
    };
    let (_, j) = (1..=limit.max(1)).fold((f32::INFINITY, 1.0), better);
    for (half, factor) in [(big, j), (1 - big, j * ratio)] {
        for code in &mut codes[16 * half..][..16] {
            *code = (factor * f32::from(*code as i8)).round() as i8 as u8;
        }
    }
    scales[big] / j
}

/// Values of a type whose blocks are signed 8-bit codes with one scale per 32.
pub(super) fn scaled_codes<const LEN: usize, const BYTES: usize>(
    blocks: &[u8],
    out: &mut [f32],
    unpack: impl Fn(&[u8; BYTES], &mut [u8; LEN], &mut [f32]),
) {
    let mut codes = [0u8; LEN];
    let mut scales = [0f32; 8];
    let scales = &mut scales[..LEN / GROUP];
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.chunks_exact_mut(LEN)) {
        unpack(block, &mut codes, scales);
        for (i, (o, &code)) in out.iter_mut().zip(&codes).enumerate() {
            *o = scales[i / GROUP] * f32::from(code as i8);
        }
    }
}

/// Runs `encode` on each block with its values.
pub(super) fn encode_blocks<const LEN: usize, const BYTES: usize>(
    values: &[f32],
    blocks: &mut [u8],
    encode: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    for (x, block) in values.as_chunks::<LEN>().0.iter().zip(blocks.as_chunks_mut::<BYTES>().0) {
        encode(x, block);
    }
}
