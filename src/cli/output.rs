//! Where results and remarks go, and how numbers look.

use crate::error::Error;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Stdout: either one JSON document or text.
pub(super) struct Output {
    /// Whether one JSON document is wanted.
    pub(super) json: bool,
    is_terminal: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Output { json, is_terminal: stdout.is_terminal(), out: BufWriter::new(stdout.lock()) }
    }

    /// Writes the JSON document.
    pub(super) fn document(&mut self, document: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, document)?;
        self.out.write_all(b"\n")
    }

    /// Writes a line of text.
    pub(super) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", line.as_ref())
    }

    /// Writes a part of a text at once. A terminal gets no control characters: models and prompts
    /// could use them to rewrite what the user sees.
    pub(super) fn piece(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            let is_harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            let shown: String = text.chars().filter(|&c| is_harmless(c)).collect();
            self.out.write_all(shown.as_bytes())?;
        } else {
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    /// Writes rows in aligned columns, indented by two. `right` tells which columns hold numbers.
    pub(super) fn table<const N: usize>(&mut self, right: [bool; N], rows: &[[String; N]]) -> io::Result<()> {
        let widths: [usize; N] =
            std::array::from_fn(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0));
        for row in rows {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(widths).zip(right) {
                let pad = " ".repeat(width - cell.chars().count());
                line.push_str("  ");
                line.push_str(&if right { pad + cell } else { cell.clone() + &pad });
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Shows what was written so far.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Ends the output.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A line on stderr. Where stderr cannot be written, nothing can be told.
pub(super) fn note(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", line.as_ref());
}

/// An error on stderr, as every command reports it.
pub(super) fn report(error: &Error) {
    note(format!("{}: {error}", styled(&format!("error[{}]", error.code.as_str()), "1;31")));
}

/// A text for stderr, coloured (by the parameters of ANSI's "SGR") where a person reads it and has not asked for
/// none (no-color.org).
pub(super) fn styled(text: &str, parameters: &str) -> String {
    let wants = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    match wants && io::stderr().is_terminal() {
        true => format!("\x1b[{parameters}m{text}\x1b[0m"),
        false => text.to_string(),
    }
}

/// A line on stderr that replaces itself, only where a person watches.
pub(super) struct Progress {
    enabled: bool,
    shown: String,
}

impl Progress {
    pub(super) fn new() -> Self {
        Progress { enabled: io::stderr().is_terminal(), shown: String::new() }
    }

    /// Shows how much of `total` is done.
    pub(super) fn show(&mut self, what: &str, done: u64, total: u64) {
        if !self.enabled || total == 0 {
            return;
        }
        let line = format!("{what} {} %", done.min(total) as u128 * 100 / u128::from(total));
        if line != self.shown {
            let _ = write!(io::stderr(), "\r{line}");
            self.shown = line;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r{}\r", " ".repeat(self.shown.len()));
        }
    }
}

/// A count in words that fit a table: `935.0 K`.
pub(super) fn count(n: u64) -> String {
    scaled(n, &["", " K", " M", " G", " T"])
}

/// A number of bytes, decimal: `544.0 kB`.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, &[" bytes", " kB", " MB", " GB", " TB"])
}

fn scaled(n: u64, units: &[&str]) -> String {
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n}{}", units[0]) } else { format!("{value:.1}{}", units[unit]) }
}

/// Foreign text on one line: control characters escaped, cut after `max` characters.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == max {
            line.push('…');
            break;
        }
        if c.is_control() {
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// `n` of something, with its rate: `64 tokens in 120.3 ms (532.0 per second)`.
pub(super) fn rate(n: usize, what: &str, ms: f64) -> String {
    let per_second = if ms > 0.0 { n as f64 * 1000.0 / ms } else { 0.0 };
    format!("{n} {what} in {ms:.1} ms ({per_second:.1} per second)")
}

/// A bar of 20 cells, drawn in eighths of a cell.
pub(super) fn bar(score: f32) -> String {
    const CELLS: usize = 20;
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (score.clamp(0.0, 1.0) * (CELLS * 8) as f32).round() as usize;
    let drawn = "█".repeat(eighths / 8) + PARTS[eighths % 8];
    let blank = CELLS - drawn.chars().count();
    drawn + &" ".repeat(blank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(999), "999");
        assert_eq!(count(934_912), "934.9 K");
        assert_eq!(count(999_999), "1.0 M");
        assert_eq!(bytes(12), "12 bytes");
        assert_eq!(bytes(544_032), "544.0 kB");
        assert_eq!(bytes(u64::MAX), "18446744.1 TB");
    }

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a\u{1b}[2J\nb", 99), "a\\u{1b}[2J\\nb");
        assert_eq!(one_line("abcdef", 3), "abc…");
    }

    #[test]
    fn bars_have_one_length() {
        for (score, expected) in [(0.0, ""), (0.5, "██████████"), (1.0, "████████████████████"), (0.03, "▋")]
        {
            assert_eq!(bar(score).trim_end(), expected);
            assert_eq!(bar(score).chars().count(), 20);
        }
        assert_eq!(bar(f32::NAN).trim_end(), "");
    }
}
