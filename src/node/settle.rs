//! A plan, and what is there → what there should be: with those who leave, until they have left. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::catalog::NamespacedName;
use crate::host::{self, Around, HostState};
use crate::ipvs::{Entry, ServiceKey, Table};
use crate::phases::drain::{Drains, Wanted};
use crate::plan::{Globals, Plan};

use super::globals::CurrentGlobals;
use super::table_digest::ServiceDigest;

/// What there is, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Current {
    /// Entries of the table.
    pub table: Table,
    /// The node around it.
    pub around: Option<host::Current>,
    /// What the node has once.
    pub globals: Option<CurrentGlobals>,
}

/// What there should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Entries of the table.
    pub table: Table,
    /// Which virtual service wants each of them.
    pub owners: BTreeMap<ServiceKey, NamespacedName>,
    /// The node around it, if that was read.
    pub around: Option<HostState>,
    /// What the node has once.
    pub globals: Globals,
}

/// The table that a plan comes to.
#[derive(Debug, Default)]
pub(super) struct SettledTable {
    pub(super) table: Table,
    pub(super) owners: BTreeMap<ServiceKey, NamespacedName>,
    /// Services that are not as they should be, though nothing else is wanted of them than what the last pass left.
    pub(super) disturbed: BTreeSet<ServiceKey>,
}

/// Takes the entries out of a plan, and puts those destinations back that leave. `left` is what the last pass left of a
/// service, if that was what it should have been.
pub(super) fn settle_table(
    plan: &mut Plan,
    keys: &BTreeSet<ServiceKey>,
    current: &Table,
    left: impl Fn(&ServiceKey) -> Option<ServiceDigest>,
    leaving: &mut Leaving<'_>,
) -> SettledTable {
    let SettledTable {
        mut table,
        mut owners,
        mut disturbed,
    } = SettledTable::default();
    for (name, service) in &mut plan.services {
        for (key, mut entry) in std::mem::take(&mut service.entries) {
            let there = current.services.get(&key);
            if there != Some(&entry)
                && left(&key).is_some_and(|left| left == ServiceDigest::of_entry(&key, &entry))
            {
                disturbed.insert(key);
            }
            if let Some(there) = there {
                let wanted = Wanted {
                    key,
                    entry: &mut entry,
                    serving: &service.leaving,
                    draining: service.draining,
                };
                leaving.hold(wanted, there);
            }
            table.services.insert(key, entry);
            owners.insert(key, name.clone());
        }
    }
    if let Leaving::Drains(drains, _) = leaving {
        let is_there = |key: &&ServiceKey| owners.contains_key(key) && current.services.contains_key(key);
        keys.iter()
            .filter(|key| !is_there(key))
            .for_each(|key| drains.forget(key));
    }
    SettledTable {
        table,
        owners,
        disturbed,
    }
}

/// What is done about destinations that leave.
#[derive(Debug)]
pub(super) enum Leaving<'a> {
    /// They are drained.
    Drains(&'a mut Drains, Instant),
    /// Those that still serve stay.
    KeepServing,
    /// Nothing: whatever is not wanted is kept by whoever takes the steps.
    Ignore,
}

impl Leaving<'_> {
    fn hold(&mut self, wanted: Wanted<'_>, current: &Entry) {
        match self {
            Self::Drains(drains, now) => drains.hold(wanted, current, *now),
            Self::KeepServing => {
                for (key, destination) in &current.destinations {
                    if wanted.serving.contains_key(&(wanted.key, *key)) {
                        wanted.entry.destinations.insert(*key, destination.quiesced());
                    }
                }
            }
            Self::Ignore => {}
        }
    }
}

/// What should be around the table, for all virtual services and the director groups.
pub(super) fn settle_around<'a>(
    services: impl Iterator<Item = &'a Around>,
    globals: &Globals,
    current: &host::Current,
) -> HostState {
    host::desired(services, &globals.sysctls, current)
}
