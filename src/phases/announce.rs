//! Announcing a VIP more than once: the first who hear of it may not be all.
//!
//! RFC 9568 does not ask for it; keepalived does the same (`vrrp_garp_master_repeat`, five by default). Each VIP has its own
//! count, so that one that comes later takes nothing from those before it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::BoundAddress;

/// How often a VIP is announced after the first time, and how long after each other.
const REPEATS: u8 = 4;
const INTERVAL: Duration = Duration::from_secs(1);

/// The VIPs that are to be announced again.
#[derive(Debug, Default)]
pub struct Announcements {
    left: BTreeMap<BoundAddress, u8>,
}

impl Announcements {
    /// Takes in that a VIP has been announced because it came here, and says when it is announced again.
    pub fn begin(&mut self, bound: &BoundAddress, now: Instant) -> Instant {
        self.left.insert(bound.clone(), REPEATS);
        now + INTERVAL
    }

    /// Takes in that a VIP is not here any more.
    pub fn end(&mut self, bound: &BoundAddress) {
        self.left.remove(bound);
    }

    /// Whether a VIP is to be announced, now that its time has come, and when again.
    pub fn due(&mut self, bound: &BoundAddress, now: Instant) -> Option<Next> {
        let left = self.left.get_mut(bound)?;
        *left -= 1;
        if *left == 0 {
            self.left.remove(bound);
            return Some(Next { again: None });
        }
        Some(Next {
            again: Some(now + INTERVAL),
        })
    }
}

/// A VIP that is announced now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// When it is announced after this, if ever.
    pub again: Option<Instant>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(last: u8) -> BoundAddress {
        BoundAddress {
            link: "eth0".into(),
            address: [10, 0, 0, last].into(),
        }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn each_vip_is_announced_five_times_whatever_comes_between() {
        let (mut announcements, start) = (Announcements::default(), Instant::now());
        let mut times = vec![announcements.begin(&vip(1), start)];
        announcements.begin(&vip(2), start + Duration::from_millis(1500));
        while let Some(now) = times.last().copied() {
            match announcements.due(&vip(1), now) {
                Some(Next { again: Some(again) }) => times.push(again),
                Some(Next { again: None }) => break,
                None => unreachable!("it has not left"),
            }
        }
        let seconds: Vec<u64> = times.iter().map(|time| (*time - start).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 3, 4]);
        assert_eq!(announcements.due(&vip(1), start), None);
        announcements.end(&vip(2));
        assert_eq!(announcements.due(&vip(2), start), None);
    }
}
