//! The exponential function with the same bits on every platform.

/// 1 / k! for k from 0 to 13: constants, because dividing at run time would take most of the time.
const INVERSE_FACTORIALS: [f64; 14] = {
    let mut inverse = [1.0; 14];
    let mut factorial = 1u64;
    let mut k = 1;
    while k < 14 {
        factorial *= k as u64;
        inverse[k] = 1.0 / factorial as f64;
        k += 1;
    }
    inverse
};

/// exp(x) for x <= 0, within 2 units in the last place. The standard library's may round differently on
/// each platform; this uses only operations that IEEE 754 defines exactly.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2, then a Taylor series in r, whose rest is below 2^-56 at 13 terms.
pub(super) fn exp(x: f64) -> f64 {
    // Below this the result is no normal number, and no draw would hit it.
    if x < -708.0 {
        return 0.0;
    }
    // ln 2 in two parts: n * LN2_HIGH is exact for every n that occurs.
    const LN2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let sum = INVERSE_FACTORIALS.iter().rev().fold(0.0, |sum, c| sum * r + c);
    sum * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        for i in 0..70_000 {
            let x = -f64::from(i) / 100.0;
            let (got, want) = (exp(x), x.exp());
            assert!((got - want).abs() <= want * 4.5e-16, "exp({x}) = {got}, not {want}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e300), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }
}
