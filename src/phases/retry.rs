//! What failed, and when it is tried again: after a second at first, then after twice as long each time.

use std::time::{Duration, Instant};

/// The first wait; it doubles.
const FIRST: Duration = Duration::from_secs(1);

/// The next try.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    longest: Duration,
    wait: Duration,
    planned: Option<Instant>,
}

impl Retry {
    /// Nothing has failed yet; no wait is longer than `longest`.
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            wait: FIRST,
            planned: None,
        }
    }

    /// Takes in whether anything is refused now, and says when to try again. A try that is planned stays so: other news
    /// neither hurries it nor puts it off.
    pub fn after(&mut self, anything_failed: bool, now: Instant) -> Option<Instant> {
        if !anything_failed {
            *self = Self::new(self.longest);
        } else if self.planned.is_none() {
            self.planned = Some(now + self.wait);
            self.wait = (self.wait * 2).min(self.longest);
        }
        self.planned
    }

    /// Takes in that the time has come.
    pub fn due(&mut self) {
        self.planned = None;
    }

    /// Whether a try is planned.
    pub fn is_planned(&self) -> bool {
        self.planned.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn waits_double_and_begin_anew_when_all_is_well() {
        let (mut retry, start) = (Retry::new(Duration::from_secs(5)), Instant::now());
        let mut wait = |failed| {
            retry.due();
            retry.after(failed, start).map(|time| (time - start).as_secs())
        };
        assert_eq!([(); 4].map(|()| wait(true)), [Some(1), Some(2), Some(4), Some(5)]);
        assert_eq!(wait(false), None);
        assert_eq!(wait(true), Some(1));
        let planned = retry.after(true, start);
        assert_eq!(retry.after(true, start + Duration::from_millis(500)), planned);
    }
}
