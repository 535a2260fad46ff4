//! The native command line.

/// Runs the command line; the exit code.
pub fn run() -> i32 {
    2
}
