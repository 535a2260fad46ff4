//! Strings as JSON writes them: characters, lengths and formats.

use super::super::expr::{Chars, Expr, Rules, complement, holds, over_budget, without};
use crate::error::Result;

/// What a JSON string cannot hold as it is: control characters, quotation mark, backslash.
const ESCAPED: [(u32, u32); 4] = [(0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)];

const SHORT_ESCAPES: [(u32, &str); 7] = [
    (0x22, "\\\""),
    (0x5C, "\\\\"),
    (0x08, "\\b"),
    (0x0C, "\\f"),
    (0x0A, "\\n"),
    (0x0D, "\\r"),
    (0x09, "\\t"),
];

fn set(text: &[(u8, u8)]) -> Expr {
    Expr::Chars(text.iter().map(|&(low, high)| (u32::from(low), u32::from(high))).collect())
}

fn hex() -> Expr {
    set(&[(b'0', b'9'), (b'A', b'F'), (b'a', b'f')])
}

/// One character of any string, as it is or escaped. Escaped halves of surrogate pairs are left out: not
/// every reader takes them alone.
pub(super) fn any_char(rules: &mut Rules) -> Expr {
    let plain = Expr::Chars(complement(&ESCAPED));
    let short = set(&[
        (b'"', b'"'),
        (b'/', b'/'),
        (b'\\', b'\\'),
        (b'b', b'b'),
        (b'f', b'f'),
        (b'n', b'n'),
        (b'r', b'r'),
        (b't', b't'),
    ]);
    let first = set(&[(b'0', b'9'), (b'A', b'C'), (b'E', b'F'), (b'a', b'c'), (b'e', b'f')]);
    let code = Expr::Any(vec![
        Expr::Seq(vec![first, hex().repeat(3, Some(3))]),
        Expr::Seq(vec![set(&[(b'D', b'D'), (b'd', b'd')]), set(&[(b'0', b'7')]), hex().repeat(2, Some(2))]),
    ]);
    let escape = Expr::Any(vec![short, Expr::Seq(vec![Expr::text("u"), code])]);
    rules.share("char", Expr::Any(vec![plain, Expr::Seq(vec![Expr::text("\\"), escape])]))
}

/// One character of a set, as a JSON string writes it.
pub(super) fn char_of(set: &Chars) -> Expr {
    let mut parts = vec![Expr::Chars(without(set, &ESCAPED))];
    for (c, escape) in SHORT_ESCAPES {
        if holds(set, c) {
            parts.push(Expr::text(escape));
        }
    }
    for c in (0..0x20).chain([0x7F]) {
        if holds(set, c) && SHORT_ESCAPES.iter().all(|short| short.0 != c) {
            parts.push(Expr::Text(format!("\\u{c:04x}")));
        }
    }
    Expr::Any(parts)
}

pub(super) fn within_quotes(inner: Expr) -> Expr {
    Expr::Seq(vec![Expr::text("\""), inner, Expr::text("\"")])
}

/// The texts of a format (without quotation marks): RFC 3339 dates and times, UUIDs of RFC 9562. `None` for
/// others.
pub(super) fn format(name: &str) -> Option<Expr> {
    let text = |text: &str| Expr::text(text);
    let two = |low: u8, high: u8| Expr::Seq(vec![set(&[(low, high)]), set(&[(b'0', b'9')])]);
    let digits = |n| set(&[(b'0', b'9')]).repeat(n, Some(n));
    // 01 to 28 exist in every month, 29 and 30 in all but February, 31 in seven.
    let date = || {
        let first_nine = |tens: &str| Expr::Seq(vec![text(tens), set(&[(b'1', b'9')])]);
        let to_28 = || {
            let twenties = Expr::Seq(vec![text("2"), set(&[(b'0', b'8')])]);
            Expr::Any(vec![first_nine("0"), two(b'1', b'1'), twenties])
        };
        let months = |list: &[&str]| Expr::Any(list.iter().copied().map(Expr::text).collect());
        let all_but_february = ["01", "03", "04", "05", "06", "07", "08", "09", "10", "11", "12"];
        let long = months(&["01", "03", "05", "07", "08", "10", "12"]);
        let day = Expr::Any(vec![
            Expr::Seq(vec![text("02-"), to_28()]),
            Expr::Seq(vec![
                months(&all_but_february),
                text("-"),
                Expr::Any(vec![to_28(), text("29"), text("30")]),
            ]),
            Expr::Seq(vec![long, text("-31")]),
        ]);
        Expr::Seq(vec![set(&[(b'1', b'9')]), digits(3), text("-"), day])
    };
    let time = || {
        let hour = || Expr::Any(vec![two(b'0', b'1'), Expr::Seq(vec![text("2"), set(&[(b'0', b'3')])])]);
        let sixty = || two(b'0', b'5');
        let fraction = Expr::Seq(vec![text("."), set(&[(b'0', b'9')]).repeat(1, Some(6))]);
        let sign = set(&[(b'+', b'+'), (b'-', b'-')]);
        let zone = Expr::Any(vec![text("Z"), Expr::Seq(vec![sign, hour(), text(":"), sixty()])]);
        let clock = [hour(), text(":"), sixty(), text(":"), sixty()];
        Expr::Seq(clock.into_iter().chain([fraction.optional(), zone]).collect())
    };
    match name {
        "date" => Some(date()),
        "time" => Some(time()),
        "date-time" => Some(Expr::Seq(vec![date(), text("T"), time()])),
        "uuid" => {
            let group = |n| hex().repeat(n, Some(n));
            let mut parts = vec![group(8)];
            for n in [4, 4, 4, 12] {
                parts.extend([text("-"), group(n)]);
            }
            Some(Expr::Seq(parts))
        }
        _ => None,
    }
}

/// Longer names are refused where other ones are to be told from them.
const MAX_NAME_LEN: usize = 128;

/// One key of a JSON object that is none of `names`, without its quotation marks and without escapes, so that
/// it cannot be one of them in disguise.
///
/// # Errors
/// `GrammarBudget` for a long name.
pub(super) fn other_keys(names: &[&str]) -> Result<Expr> {
    if let Some(long) = names.iter().find(|name| name.len() > MAX_NAME_LEN) {
        return Err(over_budget(format!("the property name {long:?} is longer than {MAX_NAME_LEN} bytes")));
    }
    let inside = complement(&ESCAPED);
    Ok(other_than(&names.iter().map(|name| name.chars().collect()).collect::<Vec<_>>(), &inside))
}

fn other_than(names: &[Vec<char>], inside: &Chars) -> Expr {
    let any = || Expr::Chars(inside.clone()).repeat(0, None);
    // What may follow after the characters so far: nothing (unless that is a name), a character that no name
    // has here and then anything, or one that some have, and so on.
    let mut firsts: Vec<char> = names.iter().filter_map(|name| name.first().copied()).collect();
    firsts.sort_unstable();
    firsts.dedup();
    let used: Chars = firsts.iter().map(|&c| (u32::from(c), u32::from(c))).collect();
    let mut parts = vec![Expr::Seq(vec![Expr::Chars(without(inside, &used)), any()])];
    if !names.iter().any(Vec::is_empty) {
        parts.push(Expr::empty());
    }
    for first in firsts.into_iter().filter(|&c| holds(inside, u32::from(c))) {
        let rests: Vec<Vec<char>> =
            names.iter().filter(|n| n.first() == Some(&first)).map(|n| n[1..].to_vec()).collect();
        parts.push(Expr::Seq(vec![Expr::text(first), other_than(&rests, inside)]));
    }
    Expr::Any(parts)
}
