//! Names of classes from a text file.

use super::open;
use crate::error::Result;
use std::path::Path;

/// Far more than a list of classes needs.
const MAX_BYTES: u64 = 16 << 20;

/// Reads one name per line; empty lines at the end do not count.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    Ok(parse(&open::read_text(path, MAX_BYTES)?))
}

fn parse(text: &str) -> Vec<String> {
    text.trim_end().lines().map(|line| strip_synset(line.trim()).to_string()).collect()
}

/// Lists of ImageNet classes begin each line with a WordNet id: `n`, eight digits, a space.
fn strip_synset(line: &str) -> &str {
    match line.split_once([' ', '\t']) {
        Some((id, name)) if is_synset(id) => name.trim_start(),
        _ => line,
    }
}

fn is_synset(id: &str) -> bool {
    id.len() == 9 && id.starts_with('n') && id[1..].bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_list_are_read() {
        assert_eq!(parse("cat\r\n dog \n\n"), ["cat", "dog"]);
        assert_eq!(parse("n01440764 tench, Tinca tinca\nn0144076x y"), ["tench, Tinca tinca", "n0144076x y"]);
        assert_eq!(parse("a\n\nb"), ["a", "", "b"]);
        assert_eq!(parse("nünf0000 x"), ["nünf0000 x"]);
    }
}
