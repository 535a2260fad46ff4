//! Looking at what goes into matrix products: for calibration, and to compare models.

use crate::kernels::act::Activations;
use std::cell::{Cell, RefCell};

/// Hears the name of a matrix, the number of its columns, and rows of what it is multiplied with.
pub type Observer = Box<dyn FnMut(&str, usize, &[f32])>;

thread_local! {
    static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with an observer of all products that this thread asks for.
pub fn watch<T>(observer: Observer, work: impl FnOnce() -> T) -> T {
    /// Also when `work` panics.
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            IS_WATCHED.set(false);
            OBSERVER.set(None);
        }
    }
    OBSERVER.set(Some(observer));
    IS_WATCHED.set(true);
    let _ends = Ends;
    work()
}

/// Whether there is an observer.
pub fn is_watched() -> bool {
    IS_WATCHED.get()
}

/// Tells the observer, if there is one.
pub fn seen(name: &str, act: &Activations) {
    if is_watched() {
        OBSERVER.with_borrow_mut(|observer| {
            if let Some(observer) = observer {
                observer(name, act.k(), act.x());
            }
        });
    }
}
