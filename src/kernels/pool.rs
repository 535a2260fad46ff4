//! Threads that share one computation: fork, do the parts, join.
//!
//! A region is a function and a number of parts. Its owner publishes it, takes parts itself and
//! returns when all are done; workers take what is left. Each thread begins with a share of its own, the same
//! stretch of the parts in every region, so that what it reads is for the most part what it wrote in the region
//! before and is in its core's cache; then it takes of others' shares. Parts are handed out by one
//! compare-and-swap each, so a worker that is late costs nothing: others do its parts.
//! Between regions workers look for the next one for up to 200 microseconds, then sleep.
//!
//! There is one pool per process. Who finds it in use (another thread, or a region within a
//! region) does all parts itself: results never depend on how many threads there are.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Threads that can share a region.
pub const MAX_THREADS: usize = 16;
/// Parts that a region can have.
pub const MAX_PARTS: usize = 0xffff;

/// Polls before sleeping, until [`calibrate`] knows better.
const DEFAULT_SPINS: u32 = 4_000;
/// For how long to poll: several times what waking a sleeper takes, and what there is to do between regions.
const SPIN_MS: f64 = 0.3;
/// How often an owner that sleeps looks whether a worker died.
const PATIENCE: Duration = Duration::from_millis(20);

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// A region, on its owner's stack.
struct Region<'a> {
    task: &'a Task<'a>,
    n_parts: usize,
    done: AtomicU32,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Parts that a thread is the first to take, on a line of its own: region number (32 bits), the part after the
/// last (16), the next part to take (16). A region number and part never come again, so a successful exchange
/// shows that the region is still open.
#[repr(align(64))]
struct Share(AtomicU64);

struct Pool {
    /// The shares of the threads, the owner's first.
    shares: [Share; MAX_THREADS],
    /// Of the last region.
    number: AtomicU32,
    region: AtomicPtr<Region<'static>>,
    /// Whether a region is under way.
    in_use: AtomicBool,
    /// Regions begun.
    begun: Event,
    /// Regions whose last part is done.
    ended: Event,
    /// Changes of `threads`.
    roster: Event,
    /// Threads that share regions, the owner included.
    threads: AtomicUsize,
    /// Workers beyond this one end.
    last_worker: AtomicUsize,
    spins: AtomicU32,
    /// Not 0: a worker trapped and its part will never be done.
    broken: AtomicU32,
    why_broken: Mutex<String>,
}

static POOL: Pool = Pool {
    shares: [const { Share(AtomicU64::new(0)) }; MAX_THREADS],
    number: AtomicU32::new(0),
    region: AtomicPtr::new(std::ptr::null_mut()),
    in_use: AtomicBool::new(false),
    begun: Event::new(),
    ended: Event::new(),
    roster: Event::new(),
    threads: AtomicUsize::new(1),
    last_worker: AtomicUsize::new(MAX_THREADS),
    spins: AtomicU32::new(DEFAULT_SPINS),
    broken: AtomicU32::new(0),
    why_broken: Mutex::new(String::new()),
};

/// Whether this build can have more than one thread.
const CAN_SHARE: bool = cfg!(any(not(target_family = "wasm"), target_feature = "atomics"));

/// Threads that share a region, the caller's included.
pub fn threads() -> usize {
    if CAN_SHARE { POOL.threads.load(Relaxed) } else { 1 }
}

/// Has `n` threads share regions from now on and gives how many do. Natively it starts those that
/// are missing, and there are fewer where that fails; in WebAssembly the caller sees to it that
/// somebody runs [`work`] for each.
pub fn set_threads(n: usize) -> usize {
    let wanted = n.clamp(1, MAX_THREADS) - 1;
    #[cfg(not(target_family = "wasm"))]
    let wanted = start_workers(wanted);
    POOL.threads.store(1 + wanted, SeqCst);
    POOL.roster.signal();
    POOL.begun.signal(); // for those that wait for a region in which they no longer share
    1 + wanted
}

/// Starts workers until there are `wanted`; gives how many of those run.
#[cfg(not(target_family = "wasm"))]
fn start_workers(wanted: usize) -> usize {
    static STARTED: Mutex<usize> = Mutex::new(0);
    let mut started = lock(&STARTED);
    while *started < wanted {
        let index = *started + 1;
        let worker = std::thread::Builder::new().name(format!("bitpane-{index}"));
        if worker.spawn(move || work(index)).is_err() {
            break;
        }
        *started = index;
    }
    wanted.min(*started)
}

/// Sends home all workers that do not share regions: their [`work`] returns.
pub fn dismiss_idle_workers() {
    POOL.last_worker.store(threads() - 1, SeqCst);
    POOL.roster.signal();
}

/// A worker's life; `index` is 1 for the first. Returns when [`dismiss_idle_workers`] says so.
pub fn work(index: usize) {
    while index <= POOL.last_worker.load(SeqCst) {
        let (begun, roster) = (POOL.begun.count(), POOL.roster.count());
        if index < threads() {
            POOL.take_parts(index);
            POOL.begun.wait(begun, POOL.spins.load(Relaxed), None);
        } else if index <= POOL.last_worker.load(SeqCst) {
            POOL.roster.wait(roster, 0, None);
        }
    }
}

/// Has the regions that `f` begins run on this thread alone, unless another thread's is under way.
pub fn on_one_thread<T>(f: impl FnOnce() -> T) -> T {
    let taken = !POOL.in_use.swap(true, Acquire);
    let result = f();
    if taken {
        POOL.in_use.store(false, Release);
    }
    result
}

/// Calls `task` once with each of `0 .. n_parts`, on all threads, and returns when all calls have.
///
/// # Panics
/// Where a call panicked; and for more than [`MAX_PARTS`] parts: a bug in the caller.
pub fn run(n_parts: usize, task: &Task) {
    assert!(n_parts <= MAX_PARTS, "{n_parts} parts");
    if n_parts < 2 || threads() < 2 || POOL.in_use.swap(true, Acquire) {
        return (0..n_parts).for_each(task);
    }
    let panic = POOL.share(n_parts, task);
    POOL.in_use.store(false, Release);
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}

impl Pool {
    /// Runs a region; gives the panic of a part, if one did.
    fn share(&self, n_parts: usize, task: &Task) -> Option<Box<dyn Any + Send>> {
        self.check_whole();
        let region = Region { task, n_parts, done: AtomicU32::new(0), panic: Mutex::new(None) };
        self.region.store((&raw const region).cast_mut().cast(), Relaxed);
        let number = self.number.load(Relaxed).wrapping_add(1);
        self.number.store(number, Relaxed);
        // Shares beyond these stay those of a region that has ended: empty.
        let threads = threads().min(MAX_THREADS);
        for (i, share) in self.shares[..threads].iter().enumerate() {
            let first = |i: usize| (n_parts * i / threads) as u64;
            share.0.store(u64::from(number) << 32 | first(i + 1) << 16 | first(i), Release);
        }
        self.begun.signal();
        self.take_parts(0);
        loop {
            let ended = self.ended.count();
            // What the workers wrote happened before they counted themselves done.
            if region.done.load(Acquire) as usize == n_parts {
                break;
            }
            // Parts are short: the workers' limit is not the owner's.
            self.ended.wait(ended, 8 * self.spins.load(Relaxed), Some(PATIENCE));
            self.check_whole();
        }
        lock(&region.panic).take()
    }

    fn check_whole(&self) {
        if self.broken.load(Relaxed) != 0 {
            panic!("a thread of the pool failed: {}", lock(&self.why_broken));
        }
    }

    /// Takes parts of the open region until none is left, those of share `own` first.
    fn take_parts(&self, own: usize) {
        for i in own..own + MAX_THREADS {
            self.take_share(&self.shares[i % MAX_THREADS].0);
        }
    }

    fn take_share(&self, share: &AtomicU64) {
        loop {
            let claim = share.load(Acquire);
            let (end, part) = (claim >> 16 & 0xffff, claim & 0xffff);
            if part >= end {
                return;
            }
            let region = self.region.load(Relaxed);
            if share.compare_exchange_weak(claim, claim + 1, AcqRel, Relaxed).is_err() {
                std::hint::spin_loop();
                continue;
            }
            // SAFETY: the exchange succeeded, so the region was open when its address was read,
            // and its owner does not leave before this part is counted done.
            let region = unsafe { &*region };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (region.task)(part as usize))) {
                lock(&region.panic).get_or_insert(panic);
            }
            // After this the region may be gone.
            if region.done.fetch_add(1, AcqRel) as usize + 1 == region.n_parts {
                self.ended.signal();
            }
        }
    }
}

/// Says that a worker trapped and why; whoever runs a region panics with this text instead of
/// waiting for ever. For builds in which panics do not unwind.
pub fn set_broken(why: &str) {
    if POOL.broken.swap(1, AcqRel) == 0 {
        lock(&POOL.why_broken).push_str(why);
    }
    POOL.ended.signal();
}

/// A word of memory that is set to 1 to say the same from outside of the instance.
pub fn broken_flag() -> &'static AtomicU32 {
    &POOL.broken
}

/// Measures how many polls take the time for which they are worth while. `now_ms` is a clock in milliseconds.
///
/// Engines come to optimise the polling after some thousands, and then poll faster: the fastest of many
/// rounds counts, and there are rounds until that must have happened.
pub fn calibrate(now_ms: &dyn Fn() -> f64) {
    const POLLS: u32 = 10_000;
    const MOST_ROUNDS: u32 = 1000;
    const LONG_MS: f64 = 5.0;
    // Of an event that nobody else can change the compiler knows what polling gives.
    let event = std::hint::black_box(&POOL.ended);
    let (begin, mut fastest) = (now_ms(), f64::INFINITY);
    let mut first = begin;
    // Clocks of pages have steps of up to 0.1 ms: a measurement takes several.
    let mut n_rounds = 0;
    for _ in 0..MOST_ROUNDS {
        event.spin(event.count(), POLLS);
        n_rounds += 1;
        let now = now_ms();
        if now - first >= 0.4 {
            fastest = fastest.min((now - first) / f64::from(n_rounds * POLLS));
            (first, n_rounds) = (now, 0);
        }
        if now - begin >= LONG_MS {
            break;
        }
    }
    if fastest.is_finite() {
        POOL.spins.store((SPIN_MS / fastest).clamp(200.0, 1_000_000.0) as u32, Relaxed);
    }
}

/// A count that threads wait for to change: polling first, then asleep. On a line of its own,
/// so that polling one does not slow who changes another.
#[repr(align(64))]
struct Event {
    count: AtomicU32,
    sleepers: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Event {
    const fn new() -> Self {
        Event {
            count: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        }
    }

    fn count(&self) -> u32 {
        self.count.load(SeqCst)
    }

    /// Changes the count and wakes who sleeps.
    fn signal(&self) {
        self.count.fetch_add(1, SeqCst);
        // Either this sees the sleeper, or the sleeper, who counts itself first, sees the change.
        if self.sleepers.load(SeqCst) > 0 {
            drop(lock(&self.lock));
            self.changed.notify_all();
        }
    }

    /// Polls up to `n` times; whether the count is no longer `seen`.
    fn spin(&self, seen: u32, n: u32) -> bool {
        for _ in 0..n {
            if self.count.load(Acquire) != seen {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Waits until the count is no longer `seen`, or for `limit` beyond the polling.
    fn wait(&self, seen: u32, spins: u32, limit: Option<Duration>) {
        if self.spin(seen, spins) {
            return;
        }
        let mut guard = lock(&self.lock);
        self.sleepers.fetch_add(1, SeqCst);
        while self.count() == seen {
            guard = match limit {
                None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(limit) => {
                    let woken = self.changed.wait_timeout(guard, limit);
                    let (guard, outcome) = woken.unwrap_or_else(PoisonError::into_inner);
                    if outcome.timed_out() {
                        self.sleepers.fetch_sub(1, SeqCst);
                        return drop(guard);
                    }
                    guard
                }
            };
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

/// The pool's own locks guard nothing that a panic could leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_last_as_long_as_they_are_to() {
        let ms = std::cell::Cell::new(0.0);
        // 10,000 polls to 0.1 ms, by this clock.
        calibrate(&|| ms.replace(ms.get() + 0.1));
        let spins = f64::from(POOL.spins.load(Relaxed));
        assert!((spins * 1e-5 / SPIN_MS - 1.0).abs() < 0.3, "{spins} polls");
    }
}
