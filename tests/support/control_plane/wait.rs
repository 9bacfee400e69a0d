//! Waiting for something to become true, and no longer than a limit.

use std::{env, time::Duration};

use tokio::time::{sleep, timeout};

/// How long between two looks. Short beside what is waited for (seconds), long beside one look (a millisecond).
const PAUSE: Duration = Duration::from_millis(50);

/// A limit of so many seconds on an idle machine; `WEIR_TEST_TIMEOUT_SCALE=3` makes every limit three times longer
/// on a slow one. A limit is for noticing that something will not happen, so it can be generous.
pub(crate) fn limit(seconds: u32) -> Duration {
    let scale = match env::var("WEIR_TEST_TIMEOUT_SCALE") {
        Ok(text) => text
            .parse()
            .expect("WEIR_TEST_TIMEOUT_SCALE is a number such as 3 or 1.5"),
        Err(_) => 1.0,
    };
    Duration::from_secs(u64::from(seconds)).mul_f64(scale)
}

/// Calls `attempt` until it succeeds, and returns what it returned.
///
/// # Panics
/// When `limit` has passed, with what was waited for and why the last attempt failed.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut last = "the first attempt did not end".to_owned();
    let polling = async {
        loop {
            match attempt().await {
                Ok(value) => return value,
                Err(why) => last = why,
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(limit, polling).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} for {what}; the last attempt: {last}"),
    }
}
