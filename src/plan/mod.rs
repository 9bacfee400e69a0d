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
//! | `roles` | the node, and its part in each director group |
//! | `desired` | one virtual service → entries of the kernel's table |
//! | `finding` | what is to be said about objects |
//! | `interner` | texts that many objects share |
//! | `small_set` | a set that mostly holds one thing |

mod desired;
mod finding;
mod interner;
mod namespace;
mod roles;
mod small_set;
mod snapshot;
pub mod validate;
pub mod validated;

use std::collections::BTreeMap;

use crate::ipvs::{ServiceKey, Table, Timeouts};

pub use finding::{Finding, Kind, NamespacedName, ObjectRef, Reason};
pub use roles::{Node, Role};
pub use small_set::SmallSet;
pub use snapshot::{Form, Scope, Snapshot, Update};

/// What a node's kernel should hold for the virtual services of a scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// The entries.
    pub table: Table,
    /// Which virtual service wants each of them.
    pub owners: BTreeMap<ServiceKey, NamespacedName>,
    /// What is to be said about each virtual service of the scope and the objects it uses.
    pub findings: BTreeMap<NamespacedName, Vec<Finding>>,
}

/// Plans the virtual services of a scope.
pub fn plan(snapshot: &Snapshot, node: &Node, scope: &Scope) -> Plan {
    let mut plan = Plan::default();
    match scope {
        Scope::All => {
            for (name, service) in snapshot.virtual_services() {
                plan.add(snapshot, node, name, service);
            }
        }
        Scope::Some(names) => {
            for name in names {
                if let Some(service) = snapshot.virtual_service(name) {
                    plan.add(snapshot, node, name.clone(), service);
                }
            }
        }
    }
    plan
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
    fn add(
        &mut self,
        snapshot: &Snapshot,
        node: &Node,
        name: NamespacedName,
        service: &validated::ValidatedVirtualService,
    ) {
        let (role, finding) = node.role_for(snapshot, &name, service);
        let mut wanted = match role {
            Role::Active => desired::want(snapshot, &name, service),
            Role::Standby | Role::None => desired::Wanted::default(),
        };
        wanted.findings.extend(finding);
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
