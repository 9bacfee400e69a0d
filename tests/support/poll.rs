//! Waiting for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// A timeout, stretched by `WEIR_TEST_TIMEOUT_SCALE` for machines that are slower than ours.
pub fn scaled(timeout: Duration) -> Duration {
    let scale = std::env::var("WEIR_TEST_TIMEOUT_SCALE").ok();
    timeout.mul_f64(scale.map_or(1.0, |text| {
        text.parse().expect("WEIR_TEST_TIMEOUT_SCALE is a number")
    }))
}

/// Looks until `look` sees something, and hands it back.
///
/// # Panics
///
/// When `timeout` (scaled) is over; the message says `what` was waited for.
#[track_caller]
pub fn eventually<T>(timeout: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(timeout, look) {
        Some(seen) => seen,
        None => panic!("not within {:?}: {what}", scaled(timeout)),
    }
}

/// Looks until `look` sees something or `timeout` (scaled) is over.
pub fn within<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + scaled(timeout);
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}
