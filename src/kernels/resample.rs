//! Weighted sums of pixels in fixed point: what resizing a picture consists of.
//!
//! A weight of up to 27 bits is taken apart, `low + 2^11 * high`, so that products of 16 bits with two pixels at a time do:
//! `sum w p = sum low p + 2^11 * sum high p`, exactly where the sum fits 32 bits.

use super::isa::Isa;

/// Rows that [`along_rows`] takes together, so that each weight is loaded once for all.
pub const ROWS: usize = 4;
/// Bits of the lower part of a weight.
const LOW_BITS: u32 = 11;
/// Bits after the binary point of a weight: 32, less 8 of the pixel, less 2 for the sign and for sums that
/// overshoot.
pub const POINT: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (POINT - 1);

/// The weights of two pixels: the lower parts, then the upper ones.
pub type Pair = [i16; 4];

/// Appends `weights` in pairs, the last with 0 where they are odd.
pub fn pairs(weights: &[i32], to: &mut Vec<Pair>) {
    let low = |w: i32| (w & ((1 << LOW_BITS) - 1)) as i16;
    let high = |w: i32| (w >> LOW_BITS) as i16;
    to.extend(weights.chunks(2).map(|pair| {
        let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
        [low(a), low(b), high(a), high(b)]
    }));
}

/// Sums of four lanes, of lower and of upper parts.
#[derive(Clone, Copy)]
struct Sums<V>([V; 2]);

impl<V: Copy> Sums<V> {
    #[inline(always)]
    fn new<I: Isa<V = V>>() -> Self {
        Sums([I::splat32(HALF), I::splat32(0)])
    }

    /// Adds the products of pairs of numbers, side by side, with both parts of a pair of weights.
    #[inline(always)]
    fn add<I: Isa<V = V>>(&mut self, numbers: V, weights: [V; 2]) {
        for (sum, w) in self.0.iter_mut().zip(weights) {
            *sum = I::add32(*sum, I::dot16(numbers, w));
        }
    }

    /// Without the places after the point.
    #[inline(always)]
    fn whole<I: Isa<V = V>>(self) -> V {
        let [low, high] = self.0;
        I::sar32::<POINT>(I::add32(low, I::shl32::<LOW_BITS>(high)))
    }
}

/// Both parts of a pair of weights, in all lanes.
///
/// # Safety
/// `pair` is readable.
#[inline(always)]
unsafe fn splat<I: Isa>(pair: *const Pair) -> [I::V; 2] {
    // SAFETY: the caller's.
    unsafe { [I::load32_splat(pair.cast()), I::load32_splat(pair.cast::<u8>().add(4))] }
}

/// For each of four rows the weighted sum of some pixels beside each other, rounded and clamped to bytes.
///
/// # Panics
/// Where rows differ in length, or there are not as many weights: a bug in the caller.
#[inline(always)]
pub fn along_rows<I: Isa>(rows: [&[[u8; 4]]; ROWS], weights: &[Pair]) -> [[u8; 4]; ROWS] {
    let n = rows[0].len();
    assert!(rows.iter().all(|row| row.len() == n) && weights.len() == n.div_ceil(2));
    let mut sums = [Sums::new::<I>(); ROWS];
    // SAFETY: two pixels of a row, a pair of weights.
    let mut add = |pair: usize, two: [*const u8; ROWS]| unsafe {
        let weights = splat::<I>(weights.as_ptr().add(pair));
        for (sums, two) in sums.iter_mut().zip(two) {
            let pixels = I::load8x8_unsigned(two);
            sums.add::<I>(I::zip_low16(pixels, I::swap64(pixels)), weights);
        }
    };
    for i in 0..n / 2 {
        // Two of n pixels.
        add(i, rows.map(|row| row.as_ptr().wrapping_add(2 * i).cast()));
    }
    if n % 2 == 1 {
        let last = rows.map(|row| [row[n - 1], [0; 4]]);
        add(n / 2, last.each_ref().map(|two| two.as_ptr().cast()));
    }
    let [a, b, c, d] = sums.map(|sums| sums.whole::<I>());
    let mut out = [[0; 4]; ROWS];
    // SAFETY: 16 bytes.
    unsafe { I::store(out.as_mut_ptr().cast(), I::narrow8_unsigned(I::narrow16(a, b), I::narrow16(c, d))) };
    out
}

/// The weighted sums of rows of bytes below each other, as long as `out`; rounded and clamped to bytes.
///
/// # Panics
/// Where there are not as many weights as rows: a bug in the caller.
pub fn across_rows<I: Isa>(rows: &[u8], weights: &[Pair], out: &mut [u8]) {
    let width = out.len();
    let n = rows.len() / width.max(1);
    assert!(rows.len() == n * width && weights.len() == n.div_ceil(2));
    let (eights, rest) = out.as_chunks_mut::<8>();
    let first_of_rest = 8 * eights.len();
    for (i, out) in eights.iter_mut().enumerate() {
        // Eight of the `width` bytes of one of n rows.
        *out = eight::<I>(|row| rows.as_ptr().wrapping_add(row * width + 8 * i), n, weights);
    }
    if !rest.is_empty() {
        let padded: Vec<[u8; 8]> = rows
            .chunks_exact(width)
            .map(|row| {
                let mut padded = [0; 8];
                padded[..width - first_of_rest].copy_from_slice(&row[first_of_rest..]);
                padded
            })
            .collect();
        let out = eight::<I>(|row| padded[row].as_ptr(), n, weights);
        rest.copy_from_slice(&out[..rest.len()]);
    }
}

/// Eight sums over `n` rows; `at` gives where eight bytes of a row are. There are weights for all of them.
#[inline(always)]
fn eight<I: Isa>(at: impl Fn(usize) -> *const u8, n: usize, weights: &[Pair]) -> [u8; 8] {
    let mut sums = [Sums::new::<I>(); 2];
    for (i, pair) in weights.iter().enumerate() {
        // SAFETY: `at` vouches for 8 bytes of each row.
        unsafe {
            let a = I::load8x8_unsigned(at(2 * i));
            let b = if 2 * i + 1 < n { I::load8x8_unsigned(at(2 * i + 1)) } else { I::splat32(0) };
            let weights = splat::<I>(pair);
            sums[0].add::<I>(I::zip_low16(a, b), weights);
            sums[1].add::<I>(I::zip_high16(a, b), weights);
        }
    }
    let [a, b] = sums.map(|sums| sums.whole::<I>());
    let halves = I::narrow16(a, b);
    let mut out = [0; 16];
    // SAFETY: 16 bytes.
    unsafe { I::store(out.as_mut_ptr(), I::narrow8_unsigned(halves, halves)) };
    std::array::from_fn(|i| out[i])
}
