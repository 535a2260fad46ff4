//! Random changes to the seeds in tests/fuzz/corpus, without a look at coverage. The step `fuzz` of `cargo xtask test`
//! gives each target a minute, `cargo xtask fuzz --seconds N` any time.
//!
//! Each input is made from a number alone, so that a failure names the number and `FUZZ_SEED` brings it back. Targets
//! for libFuzzer, which looks at coverage but needs a C++ compiler, are in fuzz/.
#![cfg(not(target_arch = "wasm32"))]

mod bad_files;
#[path = "fuzz/checkpoint.rs"]
mod checkpoint;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/seeds.rs"]
mod seeds;
#[path = "fuzz/template.rs"]
mod template;
#[path = "fuzz/tokenizer.rs"]
mod tokenizer;

use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// Seconds for each target where nothing else is said.
const SECONDS: u64 = 2;
/// No input may take longer than this, by far.
const SLOWEST: Duration = Duration::from_secs(10);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Runs a target on one input after another, from `FUZZ_SEED` or 0 on, for `FUZZ_SECONDS`.
fn run(name: &str, target: fn(u64)) {
    let begin = Instant::now();
    let limit = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(SECONDS));
    let first = number("FUZZ_SEED").unwrap_or(0);
    let mut seed = first;
    while seed < first + 100 || begin.elapsed() < limit {
        let start = Instant::now();
        let outcome = catch_unwind(|| target(seed));
        let again = format!("FUZZ_SEED={seed} cargo test --test fuzz {name}");
        assert!(outcome.is_ok(), "input {seed} panics; again with: {again}");
        assert!(start.elapsed() < SLOWEST, "input {seed} takes {:?}; again with: {again}", start.elapsed());
        seed += 1;
    }
    println!("{name}: {} inputs in {:.0} s", seed - first, begin.elapsed().as_secs_f64());
}

#[test]
fn checkpoint() {
    run("checkpoint", checkpoint::one);
}

#[test]
fn template() {
    run("template", template::one);
}

#[test]
fn tokenizer() {
    run("tokenizer", tokenizer::one);
}

#[test]
#[ignore = "writes files for the targets in fuzz/"]
fn write_seeds() {
    seeds::write_all().unwrap();
}
