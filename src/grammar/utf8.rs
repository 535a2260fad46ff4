//! Ranges of code points as ranges of bytes.

/// Calls `take` with sequences of byte ranges that together match the UTF-8 of exactly the code points
/// `low..=high`. Surrogates have no UTF-8.
pub(super) fn sequences(low: u32, high: u32, take: &mut impl FnMut(&[(u8, u8)])) {
    for (first, last, n) in
        [(0, 0x7F, 1), (0x80, 0x7FF, 2), (0x800, 0xD7FF, 3), (0xE000, 0xFFFF, 3), (0x1_0000, 0x10_FFFF, 4)]
    {
        let (low, high) = (low.max(first), high.min(last));
        if low <= high {
            split(low, high, n, take);
        }
    }
}

/// Splits a range whose characters all take `n` bytes until each part is a product of byte ranges.
fn split(low: u32, high: u32, n: usize, take: &mut impl FnMut(&[(u8, u8)])) {
    for tail in 1..n {
        // The last `tail` bytes carry these bits.
        let mask = (1u32 << (6 * tail)) - 1;
        if low & !mask == high & !mask {
            continue;
        }
        if low & mask != 0 {
            split(low, low | mask, n, take);
            return split((low | mask) + 1, high, n, take);
        }
        if high & mask != mask {
            split(low, (high & !mask) - 1, n, take);
            return split(high & !mask, high, n, take);
        }
    }
    let (mut from, mut to) = ([0u8; 4], [0u8; 4]);
    if let (Some(x), Some(y)) = (char::from_u32(low), char::from_u32(high)) {
        x.encode_utf8(&mut from);
        y.encode_utf8(&mut to);
        let pairs: [(u8, u8); 4] = std::array::from_fn(|i| (from[i], to[i]));
        take(&pairs[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_characters_of_a_range_match() {
        let edges =
            [0, 0x41, 0x7F, 0x80, 0xE9, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x1_0000, 0x1_F600, 0x10_FFFF];
        for (i, &low) in edges.iter().enumerate() {
            for &high in &edges[i..] {
                let mut found = Vec::new();
                sequences(low, high, &mut |s| found.push(s.to_vec()));
                let matches = |bytes: &[u8]| {
                    let fits = |s: &&Vec<(u8, u8)>| {
                        s.len() == bytes.len() && s.iter().zip(bytes).all(|(r, b)| (r.0..=r.1).contains(b))
                    };
                    found.iter().filter(fits).count()
                };
                let near = edges.iter().flat_map(|&e| e.saturating_sub(2)..=e + 2);
                for c in near.chain((0..0x11_0000).step_by(997)).filter_map(char::from_u32) {
                    let inside = (low..=high).contains(&u32::from(c));
                    let mut buffer = [0; 4];
                    let n = matches(c.encode_utf8(&mut buffer).as_bytes());
                    assert_eq!(n, usize::from(inside), "{c:?} in {low:X}..={high:X}");
                }
            }
        }
    }
}
