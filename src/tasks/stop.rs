//! Stop strings that may span tokens: text is held back while it could begin one.

/// Watches a stream of text for stop strings.
pub(super) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

impl StopFilter {
    /// A filter; empty strings never match.
    pub fn new(stops: Vec<String>) -> Self {
        StopFilter { stops: stops.into_iter().filter(|s| !s.is_empty()).collect(), held: String::new() }
    }

    /// Takes the next piece; gives what may be shown, and whether a stop string was met (it
    /// and what follows are never shown).
    pub fn push(&mut self, piece: &str) -> (String, bool) {
        self.held.push_str(piece);
        let met = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = met {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = self.stops.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What is still held back at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Length of the longest end of `text` that begins `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::StopFilter;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|s| s.to_string()).collect());
        let mut shown = String::new();
        for piece in pieces {
            let (text, met) = filter.push(piece);
            shown.push_str(&text);
            if met {
                return (shown, true);
            }
        }
        shown.push_str(&filter.finish());
        (shown, false)
    }

    #[test]
    fn stop_strings_are_found_across_pieces_and_never_shown() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".into(), true));
        assert_eq!(run(&["END"], &["a E", "N", "d b"]), ("a ENd b".into(), false));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["xy", "y"], &["ax", "y"]), ("a".into(), true));
        assert_eq!(run(&[""], &["abc"]), ("abc".into(), false));
        assert_eq!(run(&["é!"], &["caf", "é", "!"]), ("caf".into(), true));
        assert_eq!(run(&["ab"], &["a"]), ("a".into(), false));
    }

    #[test]
    fn a05_many_stop_strings_and_empty_ones() {
        let many: Vec<String> = (0..10_000).map(|i| format!("stop {i:05}!")).chain([String::new()]).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = "so st stop 0999 stop 09999! more";
        let pieces: Vec<&str> = (0..text.len()).map(|i| &text[i..=i]).collect();
        assert_eq!(run(&many, &pieces), ("so st stop 0999 ".into(), true));
        assert_eq!(run(&["", ""], &pieces), (text.into(), false));
    }
}
