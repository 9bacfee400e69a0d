//! What is still to be done, and in which order. Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::catalog::Scope;
use crate::host::BoundAddress;
use crate::node::{AroundWork, Failed, Leavers, TableWork, Work};
use crate::plan::{Concern, Plan, World, plan};

/// What is still to be done.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The virtual services that are to be planned and brought.
    services: Scope,
    /// Whether what is around the table is to be planned anew for every one, since the network is another.
    network_changed: bool,
    /// Whether what is around the table is to be brought again.
    around: bool,
    /// Whether what the node has once is to be brought.
    globals: bool,
    /// VIPs of which the neighbours are to be told again.
    pub(super) announce: BTreeSet<BoundAddress>,
    /// Links on which the neighbours are to be told again of all VIPs.
    pub(super) announce_links: BTreeSet<Box<str>>,
    /// Whether to see if an entry is missing.
    pub(super) check_for_flush: bool,
}

impl Pending {
    /// Whether nothing waits to be brought.
    pub(super) fn is_settled(&self) -> bool {
        self.services.is_empty() && !self.network_changed && !self.around && !self.globals
    }

    /// Adds what a change of the world concerns.
    pub(super) fn add(&mut self, concern: Concern) {
        self.services.extend(concern.services);
        self.globals |= concern.globals;
    }

    /// Adds virtual services.
    pub(super) fn add_services(&mut self, services: Scope) {
        self.services.extend(services);
    }

    /// Adds what is around the table.
    pub(super) fn add_around(&mut self) {
        self.around = true;
    }

    /// Takes in that the network is another.
    pub(super) fn network_changed(&mut self) {
        self.network_changed = true;
    }

    /// Adds what was refused.
    pub(super) fn add_failed(&mut self, failed: &Failed) {
        self.services
            .extend(Scope::These(failed.services.iter().cloned().collect()));
        self.around |= failed.around;
        self.globals |= failed.globals;
    }

    /// The most urgent of it as one piece of work: what virtual services are concerned, before what is around all of them.
    pub(super) fn take(&mut self, world: &World, now: Instant) -> Option<Work> {
        if self.is_settled() {
            return None;
        }
        let (scope, table) = match std::mem::take(&mut self.services) {
            Scope::Every => {
                self.network_changed = false;
                (Scope::Every, TableWork::Everything)
            }
            scope if scope.is_empty() && self.network_changed => {
                self.network_changed = false;
                (Scope::Every, TableWork::Nothing)
            }
            scope => (scope, TableWork::Planned),
        };
        let around = match std::mem::take(&mut self.around) || scope == Scope::Every {
            true => AroundWork::Bring,
            false => AroundWork::IfNeeded,
        };
        self.globals = false;
        let plan = plan(world, &scope);
        Some(work(world, (scope, plan), table, around, now))
    }
}

/// Work for a world, in which destinations that leave are drained.
pub(super) fn work(
    world: &World,
    (scope, plan): (Scope, Plan),
    table: TableWork,
    around: AroundWork,
    now: Instant,
) -> Work {
    Work {
        scope,
        plan,
        table,
        around,
        leavers: Leavers::Drain(now),
        may_delete: world.knowledge.allows_deleting(),
    }
}
