//! Which of several controllers writes: the one that holds the Lease. The decision is pure.
//!
//! Nobody compares clocks of two machines: a candidate remembers when, by its own clock that never goes back, it saw the
//! Lease change last, and takes it over when that is longer ago than the Lease says it lasts. The holder writes while it
//! has renewed within less than that, so that it has stopped before another may begin. Of two that try at once one loses: a
//! write names the version it replaces.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

/// How long a Lease lasts that nobody renews.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long the holder goes on without having been able to renew.
const GRACE: Duration = Duration::from_secs(10);
/// Time between two tries to take or to renew.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// A candidate's view of the Lease.
#[derive(Debug)]
pub struct Election {
    identity: String,
    /// The Lease as it was seen last, and when it was seen to change.
    seen: Option<(Observed, Instant)>,
    /// When this candidate began the write that was the last to succeed.
    renewed: Option<Instant>,
}

/// What tells whether a Lease has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    version: Option<String>,
    holder: Option<String>,
    duration: Duration,
}

/// What a candidate should do with a Lease.
#[derive(Debug, PartialEq)]
pub enum Act {
    /// Write this in its place: it names the version that it replaces, if there is one.
    Write(Box<LeaseSpec>),
    /// Leave it to its holder.
    Leave,
}

impl Election {
    /// A candidate of a name that no other has.
    pub fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            renewed: None,
        }
    }

    /// Until when this candidate holds the Lease, whatever it hears or does not hear meanwhile.
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + GRACE)
    }

    /// Who else holds the Lease, as far as is known.
    pub fn other_holder(&self) -> Option<&str> {
        let holder = self.seen.as_ref()?.0.holder.as_deref()?;
        (holder != self.identity).then_some(holder)
    }

    /// Takes in the Lease as it is, and says what to do with it. `wall` is written into it for people.
    pub fn look(&mut self, lease: Option<&Lease>, now: Instant, wall: Timestamp) -> Act {
        let spec = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let observed = Observed {
            version: lease.and_then(|lease| lease.metadata.resource_version.clone()),
            holder: spec.holder_identity.clone().filter(|holder| !holder.is_empty()),
            duration: spec
                .lease_duration_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(DURATION, Duration::from_secs),
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == observed => *since,
            _ => now,
        };
        let ours = observed.holder.as_deref() == Some(&*self.identity);
        let free = observed.holder.is_none() || now >= since + observed.duration;
        self.seen = Some((observed, since));
        if !ours {
            // Somebody else has it: whatever this candidate believed is over.
            self.renewed = None;
        }
        if !ours && !free {
            return Act::Leave;
        }
        let transitions = spec.lease_transitions.unwrap_or_default();
        Act::Write(Box::new(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if ours {
                spec.acquire_time
            } else {
                Some(MicroTime(wall))
            },
            renew_time: Some(MicroTime(wall)),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }))
    }

    /// Takes in that the write which began at a time succeeded.
    pub fn written(&mut self, began: Instant) {
        self.renewed = Some(began);
    }

    /// Takes in that somebody else wrote first.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    /// The Lease as its holder leaves it behind: free at once.
    pub fn released(&self, lease: &Lease) -> Option<LeaseSpec> {
        let spec = lease.spec.clone()?;
        let ours = spec.holder_identity.as_deref() == Some(&*self.identity);
        ours.then_some(LeaseSpec {
            holder_identity: None,
            ..spec
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    /// What the API server holds.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        version: u32,
    }

    impl Server {
        /// One candidate's turn.
        fn turn(&mut self, candidate: &mut Election, now: Instant) {
            if let Act::Write(spec) = candidate.look(self.lease.as_ref(), now, Timestamp::UNIX_EPOCH) {
                self.put(*spec);
                candidate.written(now);
            }
        }

        fn put(&mut self, spec: LeaseSpec) {
            self.version += 1;
            self.lease = Some(Lease {
                metadata: ObjectMeta {
                    resource_version: Some(self.version.to_string()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            });
        }
    }

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn start() -> Instant {
        Instant::now()
    }

    fn leads(candidate: &Election, now: Instant) -> bool {
        candidate.leads_until().is_some_and(|until| now < until)
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_first_leads_and_the_second_waits_until_it_is_silent() {
        let (begin, mut server) = (start(), Server::default());
        let [mut one, mut two] = ["one", "two"].map(|name| Election::new(name.to_owned()));
        server.turn(&mut one, begin);
        assert!(leads(&one, begin));
        for second in 0..30 {
            let now = begin + seconds(second);
            server.turn(&mut one, now);
            server.turn(&mut two, now);
            assert!(leads(&one, now) && !leads(&two, now));
        }
        // Now the first hangs.
        for second in 30..60 {
            let now = begin + seconds(second);
            server.turn(&mut two, now);
            assert!(
                !(leads(&one, now) && leads(&two, now)),
                "never both, after {second} s"
            );
        }
        assert!(leads(&two, begin + seconds(60)));
        assert_eq!(
            server
                .lease
                .as_ref()
                .unwrap()
                .spec
                .as_ref()
                .unwrap()
                .lease_transitions,
            Some(2)
        );
        // And comes back.
        server.turn(&mut one, begin + seconds(60));
        assert!(!leads(&one, begin + seconds(60)));
        assert_eq!(one.other_holder(), Some("two"));
    }

    /// Its clock may be years off: times that others wrote do not count.
    #[test]
    fn a_candidate_waits_by_its_own_clock() {
        let (begin, mut server) = (start(), Server::default());
        let [mut one, mut two] = ["one", "two"].map(|name| Election::new(name.to_owned()));
        server.turn(&mut one, begin);
        assert_eq!(two.look(server.lease.as_ref(), begin, Timestamp::MAX), Act::Leave);
        assert_eq!(
            two.look(server.lease.as_ref(), begin + seconds(14), Timestamp::MAX),
            Act::Leave
        );
        let act = two.look(server.lease.as_ref(), begin + seconds(15), Timestamp::MAX);
        assert!(matches!(act, Act::Write(_)), "{act:?}");
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_another_may_begin() {
        let (begin, mut server) = (start(), Server::default());
        let mut one = Election::new("one".to_owned());
        server.turn(&mut one, begin);
        server.turn(&mut one, begin);
        assert_eq!(one.other_holder(), None);
        assert!(leads(&one, begin + seconds(9)));
        assert!(!leads(&one, begin + seconds(10)));
        one.lost();
        assert!(!leads(&one, begin));
    }

    #[test]
    fn what_is_released_is_taken_at_once() {
        let (begin, mut server) = (start(), Server::default());
        let [mut one, mut two] = ["one", "two"].map(|name| Election::new(name.to_owned()));
        server.turn(&mut one, begin);
        let spec = one.released(server.lease.as_ref().unwrap()).unwrap();
        server.put(spec);
        server.turn(&mut two, begin);
        assert!(leads(&two, begin));
        assert_eq!(
            one.released(server.lease.as_ref().unwrap()),
            None,
            "it is not one's any more"
        );
    }
}
