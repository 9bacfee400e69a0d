//! Waiting for something to become true, and no longer than a limit.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::poll::scaled;

/// How long between two looks. Short beside what is waited for (seconds), long beside one look (a millisecond).
const PAUSE: Duration = Duration::from_millis(50);

/// The limit of what takes no longer than so many seconds on an idle machine, see [`scaled`].
pub(crate) fn limit(seconds: u32) -> Duration {
    scaled(Duration::from_secs(u64::from(seconds)))
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
