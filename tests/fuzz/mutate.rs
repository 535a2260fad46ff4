//! Random inputs out of seeds.

use std::path::Path;

/// Numbers that only depend on where they begin (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn range(&mut self, len: usize) -> (usize, usize) {
        let (a, b) = (self.below(len + 1), self.below(len + 1));
        (a.min(b), a.max(b))
    }
}

/// The seeds of a target: what lies in its folder, in the order of the names.
pub fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A seed with some changes: words put in, parts taken out, doubled, moved in from another seed, bytes changed.
pub fn mutated(random: &mut Random, seeds: &[impl AsRef<[u8]>], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].as_ref().to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(6) {
            0 | 1 => drop(bytes.splice(at..at, random.pick(words).iter().copied())),
            2 => {
                let (start, end) = random.range(bytes.len());
                bytes.drain(start..end.min(start + 40));
            }
            3 => {
                let (start, end) = random.range(bytes.len());
                let part = bytes[start..end].repeat(1 + random.below(3));
                bytes.splice(at..at, part);
            }
            4 => {
                let other = seeds[random.below(seeds.len())].as_ref();
                let (start, end) = random.range(other.len());
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
        }
        bytes.truncate(1 << 16);
    }
    bytes
}
