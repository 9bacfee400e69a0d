//! Planning: all objects and the node's identity → what the node's kernel should hold. Pure: no clock, no socket.
//!
//! ```text
//! api::VirtualService … ─► validate ─► Update ─► Snapshot ─► plan(snapshot, node, scope) ─► Plan
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `validate` | resources as written → validated, or remarks |
//! | `validated` | what planning needs of a resource |
//! | `snapshot`, `namespace` | all objects, and which virtual services a change concerns |
//! | `scope` | the virtual services that a pass looks at |
//! | `endpoints` | Services, their endpoints, and who may refer to them |
//! | `claims`, `marks` | who has which address, port and mark |
//! | `roles` | the node, and its part in each director group |
//! | `services` | one virtual service → the services of the kernel it is made of |
//! | `desired` | one virtual service → entries of the kernel's table |
//! | `needs` | virtual services → what they need of the node around its table |
//! | `generations` | which virtual services in which generations, as a digest |
//! | `finding` | what is to be said about objects |
//! | `interner` | texts that many objects share |
//! | `small_set` | a set that mostly holds one thing |

mod claims;
mod desired;
mod endpoints;
mod finding;
mod generations;
mod interner;
mod marks;
mod namespace;
mod needs;
mod roles;
mod scope;
mod services;
mod small_set;
mod snapshot;
pub mod validate;
pub mod validated;

use std::collections::BTreeMap;

use crate::ipvs::{DestinationKey, ServiceKey, Table, Timeouts};

pub use finding::{Finding, Kind, NamespacedName, ObjectRef, Reason};
pub use generations::{Generation, Generations};
pub use marks::{MarkMask, MarkMaskError};
pub use needs::{
    NodeNeeds, RealServerNeeds, ServiceNeeds, group_needs, node_needs, sync_daemon, vips_of_kube_proxy,
};
pub use roles::{Directing, Node, Role};
pub use scope::Scope;
pub use small_set::SmallSet;
pub use snapshot::{Form, Snapshot, Update};

/// What a node's kernel should hold for the virtual services of a scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The entries.
    pub table: Table,
    /// Which virtual service wants each of them.
    pub owners: BTreeMap<ServiceKey, NamespacedName>,
    /// Destinations that are not wanted any more but still serve the connections they have, each with the RealServer
    /// that it is, if it is one. They are not in the table: nobody adds one that is not there.
    pub leaving: BTreeMap<(ServiceKey, DestinationKey), Option<NamespacedName>>,
    /// What is to be said about each virtual service of the scope and the objects it uses.
    pub findings: BTreeMap<NamespacedName, Vec<Finding>>,
}

/// Plans the virtual services of a scope.
pub fn plan(snapshot: &Snapshot, node: &Node, scope: &Scope) -> Plan {
    let mut plan = Plan::default();
    for (name, service) in in_scope(snapshot, scope) {
        plan.add(snapshot, node, name, service);
    }
    plan
}

/// The virtual services of a scope that there are.
fn in_scope<'a>(
    snapshot: &'a Snapshot,
    scope: &'a Scope,
) -> impl Iterator<Item = (NamespacedName, &'a validated::ValidatedVirtualService)> {
    let (all, some) = match scope {
        Scope::All => (Some(snapshot.virtual_services()), None),
        Scope::Some(names) => (None, Some(names)),
    };
    let named = some
        .into_iter()
        .flatten()
        .filter_map(|name| Some((name.clone(), snapshot.virtual_service(name)?)));
    all.into_iter().flatten().chain(named)
}

/// The connection timeouts the node should have: those of the first group, in the order of names, that has some
/// and in which the node is active.
pub fn plan_timeouts(snapshot: &Snapshot, node: &Node) -> Option<Timeouts> {
    snapshot
        .director_groups()
        .find(|(_, group)| group.timeouts.is_some() && node.role(group) == Role::Active)
        .and_then(|(_, group)| group.timeouts)
}

impl Plan {
    /// Keeps the leaving destinations that a table has, without new connections: for who looks once, and cannot wait
    /// until their connections have ended.
    pub fn keep_leaving(&mut self, current: &Table) {
        for (service, key) in self.leaving.keys() {
            let there = current
                .services
                .get(service)
                .and_then(|entry| entry.destinations.get(key));
            if let (Some(there), Some(entry)) = (there, self.table.services.get_mut(service)) {
                entry.destinations.insert(*key, there.quiesced());
            }
        }
    }

    fn add(
        &mut self,
        snapshot: &Snapshot,
        node: &Node,
        name: NamespacedName,
        service: &validated::ValidatedVirtualService,
    ) {
        let (role, finding) = node.role_for(snapshot, &name, service);
        let group = snapshot.director_group(&service.director_group);
        let balances = match role {
            Role::Active => true,
            Role::Standby => group.is_some_and(validated::ValidatedDirectorGroup::standby_keeps_table),
            Role::None => false,
        };
        let mut wanted = if balances {
            let synchronized = group.is_some_and(|group| group.connection_sync.is_some());
            desired::want(snapshot, &name, service, synchronized)
        } else {
            desired::Wanted::default()
        };
        wanted.findings.extend(finding);
        self.leaving.append(&mut wanted.leaving);
        for (key, entry) in wanted.entries {
            self.owners.insert(key, name.clone());
            self.table.services.insert(key, entry);
        }
        if !wanted.findings.is_empty() {
            self.findings.insert(name, wanted.findings);
        }
    }
}

#[cfg(test)]
mod tests;
