//! Whether the object of a real server is held until its connections have ended. Pure.

use std::time::{Duration, Instant};

use crate::catalog::{NamespacedName, ObjectRef, Scope};

use super::cluster::Cluster;

/// What to do about the finalizer of a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Nothing: it is as it should be.
    AsItShouldBe,
    /// Put it on: connections may depend on the object.
    Hold,
    /// Take it off: the object may go.
    Release,
    /// The object is deleted and connections may still depend on it, until then at most.
    Until(Instant),
}

impl Cluster {
    /// What to do about the finalizer of a real server. `deleted_since` is when the controller saw first that the object is
    /// deleted.
    ///
    /// An object that is gone is no real server of its node any more, which takes the VIP off it. So it is held while
    /// any virtual service selects it, and after its deletion until every director says that nothing is left of it,
    /// but no longer than connections have to end.
    pub fn holding(&self, name: &NamespacedName, deleted_since: Instant, now: Instant) -> Holding {
        let Some(object) = self.object(&ObjectRef::real_server(name)) else {
            return Holding::AsItShouldBe;
        };
        let Scope::These(services) = self.world.catalog.selecting(name) else {
            return Holding::AsItShouldBe;
        };
        match (object.deleted, object.held) {
            (false, false) if !services.is_empty() => Holding::Hold,
            (false, _) | (true, false) => Holding::AsItShouldBe,
            (true, true) => {
                let timeouts = services.iter().filter_map(|service| {
                    let service = self.world.catalog.virtual_service(service)?;
                    Some(service.draining.timeout)
                });
                let longest = timeouts.max().unwrap_or(Duration::ZERO);
                let deadline = deleted_since.checked_add(longest);
                match deadline {
                    _ if services.is_empty() || self.has_left(name) => Holding::Release,
                    Some(deadline) if deadline > now => Holding::Until(deadline),
                    Some(_) => Holding::Release,
                    // Longer than clocks go.
                    None => Holding::AsItShouldBe,
                }
            }
        }
    }
}
