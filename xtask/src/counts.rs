//! Reads how many tests ran out of what test programs print.

/// Tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Counts {
    /// Adds another count to this one.
    pub fn add(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Counts the tests in the output of Rust's test harness (cargo test, wasm-pack test).
///
/// A test that finds its reference data absent says so in a line that starts with
/// `skipped:` and returns; the harness calls that passed, this does not. The harness has to
/// run with `--show-output` for these lines to be there.
pub fn rust(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines() {
        let Some(results) = line.trim_start().strip_prefix("test result: ") else { continue };
        counts.passed += number_before(results, " passed");
        counts.failed += number_before(results, " failed");
        counts.skipped += number_before(results, " ignored");
    }
    let returned_early = skipping_tests(output).min(counts.passed);
    counts.passed -= returned_early;
    counts.skipped += returned_early;
    counts
}

/// Counts the tests in the output of `node --test` (as TAP or for people), or of a script
/// that ends with a line `N passed, M failed, K skipped`.
pub fn node(output: &str) -> Counts {
    let mut counts = Counts::default();
    for line in output.lines() {
        let line = line.trim();
        if let Some(fact) = line.strip_prefix("# ").or_else(|| line.strip_prefix("\u{2139} ")) {
            let Some((name, n)) = fact.split_once(' ') else { continue };
            let Ok(n) = n.parse::<u32>() else { continue };
            match name {
                "pass" => counts.passed += n,
                "fail" | "cancelled" => counts.failed += n,
                "skipped" | "todo" => counts.skipped += n,
                _ => {}
            }
        } else if let [passed, failed, skipped] = line.split(", ").collect::<Vec<_>>()[..]
            && passed.ends_with(" passed")
            && skipped.ends_with(" skipped")
        {
            counts.passed += number_before(passed, " passed");
            counts.failed += number_before(failed, " failed");
            counts.skipped += number_before(skipped, " skipped");
        }
    }
    counts
}

/// The lines that say what was skipped and why, each once.
pub fn skip_reasons(output: &str) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for line in output.lines().map(str::trim) {
        let reason = match line.split_once(" # SKIP") {
            Some((test, why)) => format!("skipped: {}:{why}", test.trim_start_matches("ok ")),
            None if line.starts_with("skipped:") => line.to_string(),
            None => continue,
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// How many tests printed a line that starts with `skipped:`.
fn skipping_tests(output: &str) -> u32 {
    let mut n_tests = 0;
    let mut in_test = false;
    for line in output.lines() {
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            in_test = true;
        } else if line == "failures:" || line == "successes:" || line.starts_with("test result: ") {
            in_test = false;
        } else if in_test && line.trim_start().starts_with("skipped:") {
            n_tests += 1;
            in_test = false;
        }
    }
    n_tests
}

/// The number that stands right before `word`; 0 where there is none.
fn number_before(text: &str, word: &str) -> u32 {
    let Some(end) = text.find(word) else { return 0 };
    let digits = text[..end].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARNESS: &str = "\
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
skipped: ../shared/golden absent
skipped: ../shared/data absent

---- b stdout ----
looked at 3 files

failures:

---- c stdout ----
thread panicked

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn a_test_that_returned_early_counts_as_skipped() {
        assert_eq!(rust(HARNESS), Counts { passed: 6, failed: 1, skipped: 5 });
    }

    #[test]
    fn reasons_are_listed_once_each() {
        let twice = format!("{HARNESS}{HARNESS}");
        assert_eq!(
            skip_reasons(&twice),
            ["skipped: ../shared/golden absent", "skipped: ../shared/data absent"]
        );
    }

    #[test]
    fn reasons_of_tap() {
        assert_eq!(
            skip_reasons("    ok 3 - writes text # SKIP no model"),
            ["skipped: 3 - writes text: no model"]
        );
    }

    #[test]
    fn node_reporters_and_plain_scripts() {
        let wanted = Counts { passed: 7, failed: 1, skipped: 2 };
        assert_eq!(node("# tests 10\n# pass 7\n# fail 1\n# skipped 2\n# todo 0\n# duration_ms 12"), wanted);
        let spec = "\u{2139} pass 7\n\u{2139} fail 1\n\u{2139} skipped 2\n";
        assert_eq!(node(spec), wanted);
        assert_eq!(node("chatter\n7 passed, 1 failed, 2 skipped\n"), wanted);
    }

    #[test]
    fn no_tests_are_no_tests() {
        assert_eq!(rust("no tests to run!"), Counts::default());
        assert_eq!(node(""), Counts::default());
    }
}
