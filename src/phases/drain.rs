//! Draining: a destination that is not wanted any more gets no new connections, and goes when those it has have ended
//! or their time is over. Pure: what the kernel counts and what time it is are arguments.
//!
//! ```text
//!  not wanted, in the kernel ─► weight 0 ─► no connections, or time is over ─► removed
//!                                  │ ▲
//!                     wanted again ▼ │ looked at again and again
//! ```
//!
//! The kernel drops the packets of connections to a destination that is gone, so on the director this is all that an
//! established connection's life depends on; on the real server see [`linger`](super::linger).
//!
//! - **TCP, SCTP**: a connection counts as active from its handshake until one side closes it (`tcp_state_active` of
//!   `net/netfilter/ipvs/ip_vs_proto_tcp.c`). The kernel remembers those that are being closed for minutes, whether or not the
//!   other side still has something to say; so a destination goes after a while without active connections, or at once if
//!   it has none of any kind.
//! - **UDP** has no connections that end: the kernel remembers a flow until it has been silent for long. A destination
//!   that still serves keeps its flows until then or until their time is over. One that does not is removed at once,
//!   and the next packet of each flow goes to another (`expire_nodest_conn`).
//!
//! Time runs from when this agent saw that a destination is not wanted: after a restart it has its whole time again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::catalog::NamespacedName;
use crate::catalog::validated::ValidatedDraining;
use crate::ipvs::{Connections, DestinationKey, Entry, ListedService, Protocol, ServiceKey};

/// How long a destination without active connections stays, for those of which one side is still sending.
const SETTLING: Duration = Duration::from_secs(3);
/// Time between two looks at a destination's connections: a tenth of the time it has been draining, within these.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// The destinations that are leaving a node's table.
#[derive(Debug, Default)]
pub struct Drains {
    services: BTreeMap<ServiceKey, ServiceDrains>,
    /// How many there are.
    count: usize,
    /// How many destinations each RealServer that leaves still is.
    real_servers: BTreeMap<NamespacedName, usize>,
}

type ServiceDrains = BTreeMap<DestinationKey, Drain>;

#[derive(Debug)]
struct Drain {
    since: Instant,
    /// Since when it has been seen without connections that count.
    quiet_since: Option<Instant>,
    next_look: Instant,
    over: Option<Drained>,
    draining: ValidatedDraining,
    /// The RealServer that it is, if it still is one.
    real_server: Option<NamespacedName>,
}

/// How the draining of a destination ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How long it took.
    pub took: Duration,
    /// Whether its time was over before its connections were.
    pub forced: bool,
}

/// What is wanted of a service whose destinations may leave.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The service.
    pub key: ServiceKey,
    /// Its entry.
    pub entry: &'a mut Entry,
    /// Its destinations that are not wanted any more but still serve, each with the RealServer that it is, if it is one.
    pub serving: &'a BTreeMap<(ServiceKey, DestinationKey), Option<NamespacedName>>,
    /// How long its destinations have.
    pub draining: ValidatedDraining,
}

impl Drains {
    /// Puts the destinations that leave a service back into its entry, without new connections, but for those whose
    /// time is over. `current` is what the kernel holds of it.
    pub fn hold(&mut self, wanted: Wanted<'_>, current: &Entry, now: Instant) {
        let Wanted {
            key: service,
            entry,
            serving,
            draining,
        } = wanted;
        let mut before = self.take(&service);
        let mut drains = BTreeMap::new();
        for (key, destination) in &current.destinations {
            if entry.destinations.contains_key(key) {
                continue;
            }
            let serves = serving.get(&(service, *key));
            if is_udp(&service) && serves.is_none() {
                continue;
            }
            let drain = before.remove(key).unwrap_or_else(|| Drain::new(now, draining));
            let drain = Drain {
                draining,
                real_server: serves.cloned().flatten(),
                ..drain
            };
            if drain.over.is_none() {
                entry.destinations.insert(*key, destination.quiesced());
            }
            drains.insert(*key, drain);
        }
        self.put(service, drains);
    }

    /// Takes in that a service is not wanted any more, or is not there: nothing of it drains.
    pub fn forget(&mut self, service: &ServiceKey) {
        self.take(service);
    }

    /// Takes in that a destination has been removed, and says how its draining ended if that is why.
    pub fn removed(&mut self, service: &ServiceKey, key: &DestinationKey) -> Option<Drained> {
        let mut drains = self.take(service);
        let drain = drains.remove(key);
        self.put(*service, drains);
        drain?.over
    }

    /// When the connections of a service's destinations should be looked at next.
    pub fn next_look(&self, service: &ServiceKey) -> Option<Instant> {
        let drains = self.services.get(service)?;
        drains.values().map(|drain| drain.next_look).min()
    }

    /// Takes in what the kernel counts, and decides whose time is over.
    pub fn observe(&mut self, listed: &[ListedService], now: Instant) {
        for ListedService {
            key, destinations, ..
        } in listed
        {
            let Some(drains) = self.services.get_mut(key) else {
                continue;
            };
            for destination in destinations {
                if let Some(drain) = drains.get_mut(&destination.key) {
                    drain.observe(is_udp(key), destination.connections, now);
                }
            }
        }
    }

    /// How many destinations are leaving.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The RealServers that the leaving destinations are, each with how many it still is.
    pub fn real_servers(&self) -> &BTreeMap<NamespacedName, usize> {
        &self.real_servers
    }

    fn take(&mut self, service: &ServiceKey) -> ServiceDrains {
        let drains = self.services.remove(service).unwrap_or_default();
        self.count -= drains.len();
        for name in drains.values().filter_map(|drain| drain.real_server.as_ref()) {
            if let Some(count) = self.real_servers.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.real_servers.remove(name);
                }
            }
        }
        drains
    }

    fn put(&mut self, service: ServiceKey, drains: ServiceDrains) {
        if drains.is_empty() {
            return;
        }
        self.count += drains.len();
        for name in drains.values().filter_map(|drain| drain.real_server.as_ref()) {
            *self.real_servers.entry(name.clone()).or_default() += 1;
        }
        self.services.insert(service, drains);
    }
}

impl Drain {
    /// Its connections are to be looked at as soon as it gets no new ones.
    fn new(now: Instant, draining: ValidatedDraining) -> Self {
        Self {
            since: now,
            quiet_since: None,
            next_look: now,
            over: None,
            draining,
            real_server: None,
        }
    }

    fn observe(&mut self, udp: bool, connections: Connections, now: Instant) {
        let Connections { active, inactive, .. } = connections;
        let counted = if udp {
            active.saturating_add(inactive)
        } else {
            active
        };
        if counted > 0 {
            self.quiet_since = None;
        } else {
            self.quiet_since.get_or_insert(now);
        }
        let deadline = self.since.checked_add(self.draining.timeout);
        let times = [
            deadline.filter(|_| !self.draining.keep),
            self.quiet_since.map(|since| since + SETTLING),
        ];
        let times = times.into_iter().flatten();
        let is_over = (active == 0 && inactive == 0) || times.clone().any(|time| time <= now);
        self.over = is_over.then(|| Drained {
            took: now - self.since,
            forced: counted > 0,
        });
        let interval = ((now - self.since) / 10).clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        self.next_look = times
            .filter(|time| *time > now)
            .fold(now + interval, Instant::min);
    }
}

fn is_udp(service: &ServiceKey) -> bool {
    let udp = Protocol::Udp;
    matches!(service, ServiceKey::Address { protocol, .. } if *protocol == udp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: ValidatedDraining = ValidatedDraining {
        timeout: Duration::from_secs(60),
        keep: false,
    };

    fn connections(active: u32, inactive: u32) -> Connections {
        Connections {
            active,
            inactive,
            persistent: 0,
        }
    }

    /// A drain is told what time it is.
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be had otherwise")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Looks whenever the drain asks for it, and says after how many seconds it is over, if ever, and after how many looks.
    /// It is forced if there is something left then.
    fn course(
        draining: ValidatedDraining,
        udp: bool,
        counts: impl Fn(u64) -> Connections,
    ) -> (Option<u64>, usize) {
        let start = start();
        let mut drain = Drain::new(start, draining);
        for looks in 1..1000 {
            let now = drain.next_look;
            drain.observe(udp, counts((now - start).as_secs()), now);
            if let Some(over) = drain.over {
                let took = now - start;
                let left = counts(took.as_secs());
                let forced = left.active > 0 || udp && left.inactive > 0;
                assert_eq!(over, Drained { took, forced });
                return (Some(took.as_secs()), looks);
            }
            assert!(drain.next_look > now, "time goes on");
        }
        (None, 1000)
    }

    #[test]
    fn without_any_connection_it_is_over_with_the_first_look() {
        assert_eq!(course(TIMEOUT, false, |_| connections(0, 0)), (Some(0), 1));
        assert_eq!(course(TIMEOUT, true, |_| connections(0, 0)), (Some(0), 1));
    }

    #[test]
    fn established_connections_are_waited_for_and_those_being_closed_are_not() {
        let (over, looks) = course(TIMEOUT, false, |second| match second {
            0..20 => connections(7, 1),
            _ => connections(0, 8),
        });
        assert!(over.is_some_and(|over| (23..=26).contains(&over)), "{over:?}");
        assert!(looks < 25, "{looks}");
    }

    #[test]
    fn what_comes_to_life_meanwhile_is_waited_for() {
        let (over, _) = course(TIMEOUT, false, |second| match second {
            0..2 => connections(0, 1),
            2..10 => connections(1, 0),
            _ => connections(0, 0),
        });
        assert_eq!(over, Some(10));
    }

    #[test]
    fn what_does_not_end_has_its_time_and_no_more() {
        let (over, looks) = course(TIMEOUT, false, |_| connections(1, 0));
        assert_eq!(over, Some(60));
        assert!(looks < 40, "{looks}");
        assert_eq!(course(TIMEOUT, true, |_| connections(0, 1)).0, Some(60));
        let none = ValidatedDraining {
            timeout: Duration::ZERO,
            keep: false,
        };
        assert_eq!(course(none, false, |_| connections(1, 0)), (Some(0), 1));
    }

    #[test]
    fn to_keep_is_to_wait_for_the_last_however_long() {
        let keep = ValidatedDraining {
            keep: true,
            ..TIMEOUT
        };
        assert_eq!(course(keep, false, |_| connections(1, 0)).0, None);
        let (over, _) = course(keep, false, |second| connections(u32::from(second < 3600), 0));
        assert!(over.is_some_and(|over| (3600..=3610).contains(&over)), "{over:?}");
    }

    #[test]
    fn flows_of_datagrams_are_waited_for_until_the_kernel_forgets_them() {
        let (over, _) = course(TIMEOUT, true, |second| connections(0, u32::from(second < 30)));
        assert!(over.is_some_and(|over| (30..=34).contains(&over)), "{over:?}");
    }
}
