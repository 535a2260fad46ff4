//! Numbers as text: integers within bounds, and numbers of limited length.

use super::super::expr::{Expr, Rules};

/// Digits that a double holds exactly, and so does every reader of JSON.
const MAX_DIGITS: u32 = 15;
const LIMIT: i128 = 999_999_999_999_999;

fn digit(low: u8, high: u8) -> Expr {
    Expr::Chars(vec![(u32::from(low), u32::from(high))])
}

fn digits(min: u32, max: u32) -> Expr {
    digit(b'0', b'9').repeat(min, Some(max))
}

/// `0`, or digits of which the first is not 0.
fn natural() -> Expr {
    Expr::Any(vec![Expr::text("0"), Expr::Seq(vec![digit(b'1', b'9'), digits(0, MAX_DIGITS - 1)])])
}

/// Any number, in at most 15 digits before the point, 15 after it and 2 of an exponent.
pub(super) fn any_number(rules: &mut Rules) -> Expr {
    let fraction = Expr::Seq(vec![Expr::text("."), digits(1, MAX_DIGITS)]);
    let sign = Expr::Chars(vec![(0x2B, 0x2B), (0x2D, 0x2D)]);
    let exponent =
        Expr::Seq(vec![Expr::Chars(vec![(0x45, 0x45), (0x65, 0x65)]), sign.optional(), digits(1, 2)]);
    let number =
        Expr::Seq(vec![Expr::text("-").optional(), natural(), fraction.optional(), exponent.optional()]);
    rules.share("number", number)
}

/// The integers from `low` to `high`, which default to what 15 digits can write.
pub(super) fn integers(low: Option<i128>, high: Option<i128>) -> Option<Expr> {
    let low_is = low.unwrap_or(high.map_or(-LIMIT, |high| (high - 1).min(-LIMIT)));
    let high_is = high.unwrap_or((low_is + 1).max(LIMIT));
    if low_is > high_is {
        return None;
    }
    let mut parts = Vec::new();
    if low_is < 0 {
        let magnitudes = naturals((-high_is).max(1) as u128, (-low_is) as u128);
        parts.push(Expr::Seq(vec![Expr::text("-"), magnitudes]));
    }
    if high_is >= 0 {
        parts.push(naturals(low_is.max(0) as u128, high_is as u128));
    }
    Some(Expr::Any(parts))
}

/// The natural numbers from `low` to `high`, `low <= high`.
pub(super) fn naturals(low: u128, high: u128) -> Expr {
    let mut parts = Vec::new();
    let mut from = low;
    loop {
        // The numbers of as many digits as `from` has.
        let text = from.to_string();
        let last = 10u128.pow(text.len() as u32) - 1;
        let to = last.min(high);
        parts.push(same_length(text.as_bytes(), to.to_string().as_bytes()));
        if to == high {
            return Expr::Any(parts);
        }
        from = to + 1;
    }
}

/// The numbers between two of the same length.
fn same_length(low: &[u8], high: &[u8]) -> Expr {
    let n_rest = low.len() as u32 - 1;
    let is_all = |text: &[u8], digit: u8| text.iter().all(|&d| d == digit);
    if n_rest == 0 {
        return digit(low[0], high[0]);
    }
    if low[0] == high[0] {
        return Expr::Seq(vec![digit(low[0], low[0]), same_length(&low[1..], &high[1..])]);
    }
    // First digits whose rest is free, and one part for each end where it is not.
    let low_is_free = is_all(&low[1..], b'0');
    let high_is_free = is_all(&high[1..], b'9');
    let (first, last) = (low[0] + u8::from(!low_is_free), high[0] - u8::from(!high_is_free));
    let mut parts = Vec::new();
    if !low_is_free {
        let nines = vec![b'9'; n_rest as usize];
        parts.push(Expr::Seq(vec![digit(low[0], low[0]), same_length(&low[1..], &nines)]));
    }
    if first <= last {
        parts.push(Expr::Seq(vec![digit(first, last), digits(n_rest, n_rest)]));
    }
    if !high_is_free {
        let zeros = vec![b'0'; n_rest as usize];
        parts.push(Expr::Seq(vec![digit(high[0], high[0]), same_length(&zeros, &high[1..])]));
    }
    Expr::Any(parts)
}

/// The numbers from `low` to `high` (both integers), with up to 15 digits after the point.
pub(super) fn numbers(low: Option<i128>, high: Option<i128>) -> Option<Expr> {
    let low_is = low.unwrap_or(high.map_or(-LIMIT, |high| (high - 1).min(-LIMIT)));
    let high_is = high.unwrap_or((low_is + 1).max(LIMIT));
    if low_is > high_is {
        return None;
    }
    let mut parts = vec![integers(Some(low_is), Some(high_is))?];
    let fraction = || Expr::Seq(vec![Expr::text("."), digits(1, MAX_DIGITS)]);
    // k.xxx lies from k to below k + 1; without its sign the same.
    if high_is > 0 {
        parts.push(Expr::Seq(vec![naturals(low_is.max(0) as u128, (high_is - 1) as u128), fraction()]));
    }
    if low_is < 0 {
        let magnitudes = naturals((-high_is).max(0) as u128, (-low_is - 1) as u128);
        parts.push(Expr::Seq(vec![Expr::text("-"), magnitudes, fraction()]));
    }
    Some(Expr::Any(parts))
}
