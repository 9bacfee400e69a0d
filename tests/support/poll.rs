//! Waiting for conditions.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// How many times longer than on an idle machine something may take, unless `WEIR_TEST_TIMEOUT_SCALE` says otherwise.
const SCALE: f64 = 2.0;

/// The limit of what takes no longer than `timeout` on an idle machine. A limit is for noticing that something will not happen,
/// so it can be generous: a test should pass on a machine that does other things as well.
pub fn scaled(timeout: Duration) -> Duration {
    let scale = env::var("WEIR_TEST_TIMEOUT_SCALE").map_or(SCALE, |text| {
        text.parse()
            .expect("WEIR_TEST_TIMEOUT_SCALE is a number such as 3 or 1.5")
    });
    timeout.mul_f64(scale)
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
