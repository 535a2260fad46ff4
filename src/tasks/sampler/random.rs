//! Random numbers that are the same everywhere.

/// Which of PCG's sequences is used: any number would do.
pub(super) const SEQUENCE: u64 = 54;

/// PCG-XSH-RR with 64 bits of state and 32 of output.
/// Source: M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
/// Random Number Generation", HMC-CS-2014-0905, section 6.3.1.
#[derive(Clone, Debug)]
pub(super) struct Pcg32 {
    state: u64,
    increment: u64,
}

impl Pcg32 {
    pub fn new(seed: u64, sequence: u64) -> Pcg32 {
        let mut this = Pcg32 { state: 0, increment: sequence << 1 | 1 };
        this.next();
        this.state = this.state.wrapping_add(seed);
        this.next();
        this
    }

    fn next(&mut self) -> u32 {
        let old = self.state;
        self.state = old.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(self.increment);
        ((((old >> 18) ^ old) >> 27) as u32).rotate_right((old >> 59) as u32)
    }

    /// A number from 0 to below 1 with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        let high = u64::from(self.next() >> 5);
        let low = u64::from(self.next() >> 6);
        (high << 26 | low) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcg_gives_its_published_sequence() {
        // The first outputs of the reference program's demo (seed 42, sequence 54).
        let mut random = Pcg32::new(42, 54);
        let expected = [0xa15c_02b7, 0x7b47_f409, 0xba1d_3330, 0x83d2_f293, 0xbfa4_784b, 0xcbed_606e];
        assert_eq!(std::array::from_fn(|_| random.next()), expected);
    }
}
