//! The threads of builds with shared memory. JavaScript starts a worker for each but the first and has
//! it call [`pool_work`]; in other builds all this does nothing.

use super::{now_ms, to_object};
use crate::error::{Code, Error};
use crate::kernels::{crew, pool};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wasm_bindgen::prelude::*;

/// Computes with `n` threads from now on, of which n - 1 are in [`pool_work`].
#[wasm_bindgen(js_name = setThreads)]
pub fn set_threads(n: usize) -> usize {
    pool::calibrate(&now_ms);
    pool::set_threads(n)
}

/// Computes with as many threads as are worth while, at most `max`, and sends the others home; gives
/// the number. Takes some 15 ms.
#[wasm_bindgen(js_name = chooseThreads)]
pub fn choose_threads(max: usize) -> Result<usize, JsValue> {
    let n = crew::choose_threads(max, &now_ms).map_err(to_object)?;
    pool::dismiss_idle_workers();
    Ok(n)
}

/// A worker's life; `index` is 1 for the first. Returns when the worker is sent home.
#[wasm_bindgen(js_name = poolWork)]
pub fn pool_work(index: usize) {
    pool::work(index);
}

/// The address of a 32-bit word to set to 1 where a worker has trapped without a panic.
#[wasm_bindgen(js_name = poolBrokenAt)]
pub fn pool_broken_at() -> usize {
    std::ptr::from_ref(pool::broken_flag()).addr()
}

/// Runs regions of 0 to 40 parts and counts: an error where a part did not run exactly once. In region
/// `panic_in` a thread other than this one panics, if there is one.
#[wasm_bindgen(js_name = checkPool)]
pub fn check_pool(regions: u32, panic_in: Option<u32>) -> Result<(), JsValue> {
    let owner = std::thread::current().id();
    let parts: Vec<AtomicU32> = (0..40).map(|_| AtomicU32::new(0)).collect();
    for region in 0..regions {
        let n = (region * 7919 % 41) as usize;
        pool::run(n, &|part| {
            if panic_in == Some(region) && pool::threads() > 1 {
                assert!(std::thread::current().id() == owner, "deliberate, in region {region}");
                while pool::broken_flag().load(Relaxed) == 0 {
                    std::hint::spin_loop();
                }
            }
            parts[part].fetch_add(1, Relaxed);
        });
        for (i, part) in parts.iter().enumerate() {
            let runs = part.swap(0, Relaxed);
            if runs != u32::from(i < n) {
                let what = format!("region {region}: part {i} of {n} ran {runs} times");
                return Err(to_object(Error::new(Code::RuntimeUnavailable, what)));
            }
        }
    }
    Ok(())
}
