//! Memory while malformed files are refused: at most four times the bytes received and 16 MiB.
//! One test only: the allocator counts the whole process.

#![cfg(not(target_arch = "wasm32"))]

mod bad_files;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bad_files::{Case, complaint, large};
use bitpane::container::stream::Stream;

/// Counts the bytes in use. `realloc` is the trait's default (a new block, a copy, then the old
/// one freed), so that growing counts at its worst.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(IN_USE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `ptr` comes from `alloc` above with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes that `f` has in use at a time beyond those in use before.
fn peak(f: impl FnOnce()) -> usize {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    f();
    PEAK.load(Relaxed) - before
}

/// Bytes that a stream takes before it refuses the file or has seen all of it.
fn received(file: &[u8], chunk: usize) -> u64 {
    let mut stream = Stream::new(None);
    let mut sink = bad_files::tally::Tally::default();
    for piece in file.chunks(chunk) {
        if stream.push(piece, &mut sink).is_err() {
            break;
        }
    }
    stream.received()
}

/// The greatest share of the allowance that a reading of this file uses.
fn check(case: &Case) -> f64 {
    let mut worst: f64 = 0.0;
    for chunk in [4096, 1 << 16, usize::MAX] {
        let allowed = 4 * received(&case.bytes, chunk) as usize + (16 << 20);
        for len in [None, Some(case.bytes.len() as u64)] {
            let mut verdict = Ok(());
            let used = peak(|| verdict = bad_files::stream(&case.bytes, len, chunk));
            assert_eq!(complaint(case, &verdict), None, "{} {}", case.id, case.what);
            assert!(used <= allowed, "{} {} by {chunk}: {used} bytes of {allowed}", case.id, case.what);
            worst = worst.max(used as f64 / allowed as f64);
        }
    }
    let mut verdict = Ok(());
    let used = peak(|| verdict = bad_files::parse(&case.bytes));
    let allowed = 4 * case.bytes.len() + (16 << 20);
    assert_eq!(complaint(case, &verdict), None, "{} {}", case.id, case.what);
    assert!(used <= allowed, "{} {} at once: {used} bytes of {allowed}", case.id, case.what);
    worst.max(used as f64 / allowed as f64)
}

#[test]
fn memory_stays_within_the_bytes_received() {
    assert!(peak(|| drop(vec![0u8; 12_345])) >= 12_345, "the allocator counts");
    let mut n = 0;
    let mut worst = (0.0, String::new());
    let mut take = |case: Case| {
        n += 1;
        let share = check(&case);
        if share > worst.0 {
            worst = (share, format!("{} {}", case.id, case.what));
        }
    };
    bad_files::all().into_iter().for_each(&mut take);
    large::builders().into_iter().for_each(|build| take(build()));
    println!("{n} cases; most used: {:.0} % of 4 x received + 16 MiB by {}", 100.0 * worst.0, worst.1);
}
