//! What a controller does, as numbers.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::pass::{Counters, from_zero, increase};

/// What a controller tells of itself. Clones share their numbers.
#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    leader: Gauge,
    writes: Counters<1>,
    failures: Counters<1>,
    events: Counter,
    suppressed: Counter,
}

/// The kinds whose objects a controller writes.
const KINDS: [&str; 3] = ["DirectorGroup", "RealServer", "VirtualService"];

impl Default for ControllerMetrics {
    fn default() -> Self {
        Self {
            leader: Gauge::default(),
            writes: from_zero("kind", KINDS),
            failures: from_zero("kind", KINDS),
            events: Counter::default(),
            suppressed: Counter::default(),
        }
    }
}

impl ControllerMetrics {
    /// Takes in whether this controller is the one that writes.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Takes in that an object was written, or could not be.
    pub fn wrote(&self, kind: &'static str, ok: bool) {
        let counters = if ok { &self.writes } else { &self.failures };
        increase(counters, [("kind", kind.into())], 1);
    }

    /// Takes in that an event may be told, or was left out.
    pub fn told(&self, told: bool) {
        if told {
            self.events.inc()
        } else {
            self.suppressed.inc()
        };
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("leader", "Whether this controller writes", self.leader.clone());
        registry.register("object_writes", "Writes to objects", self.writes.clone());
        let help = "Writes to objects that failed";
        registry.register("object_write_errors", help, self.failures.clone());
        registry.register("events_emitted", "Events told of objects", self.events.clone());
        let help = "Events suppressed as duplicates or by the rate limit";
        registry.register("events_suppressed", help, self.suppressed.clone());
    }
}
