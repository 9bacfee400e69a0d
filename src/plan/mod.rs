//! Planning: all objects and the node's identity → what the node's kernel should hold. Pure: no clock, no socket.
//!
//! ```text
//! plan(catalog, node, scope) ─► Plan
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `roles` | the node, and its part in each director group |
//! | `services` | one virtual service → the services of the kernel it is made of |
//! | `desired` | one virtual service → entries of the kernel's table |
//! | `needs` | virtual services → what they need of the node around its table |

mod desired;
mod needs;
mod roles;
mod services;

use std::collections::BTreeMap;

use crate::catalog::{Catalog, Finding, NamespacedName, Scope, validated};
use crate::ipvs::{DestinationKey, ServiceKey, Table, Timeouts};

pub use needs::{
    NodeNeeds, RealServerNeeds, ServiceNeeds, group_needs, node_needs, sync_daemon, vips_of_kube_proxy,
};
pub use roles::{Directing, Node, Role};

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
pub fn plan(catalog: &Catalog, node: &Node, scope: &Scope) -> Plan {
    let mut plan = Plan::default();
    for (name, service) in in_scope(catalog, scope) {
        plan.add(catalog, node, name, service);
    }
    plan
}

/// The virtual services of a scope that there are.
fn in_scope<'a>(
    catalog: &'a Catalog,
    scope: &'a Scope,
) -> impl Iterator<Item = (NamespacedName, &'a validated::ValidatedVirtualService)> {
    let (all, some) = match scope {
        Scope::All => (Some(catalog.virtual_services()), None),
        Scope::Some(names) => (None, Some(names)),
    };
    let named = some
        .into_iter()
        .flatten()
        .filter_map(|name| Some((name.clone(), catalog.virtual_service(name)?)));
    all.into_iter().flatten().chain(named)
}

/// The connection timeouts the node should have: those of the first group, in the order of names, that has some
/// and in which the node is active.
pub fn plan_timeouts(catalog: &Catalog, node: &Node) -> Option<Timeouts> {
    catalog
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
        catalog: &Catalog,
        node: &Node,
        name: NamespacedName,
        service: &validated::ValidatedVirtualService,
    ) {
        let (role, finding) = node.role_for(catalog, &name, service);
        let group = catalog.director_group(&service.director_group);
        let balances = match role {
            Role::Active => true,
            Role::Standby => group.is_some_and(validated::ValidatedDirectorGroup::standby_keeps_table),
            Role::None => false,
        };
        let mut wanted = if balances {
            let synchronized = group.is_some_and(|group| group.connection_sync.is_some());
            desired::want(catalog, &name, service, synchronized)
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
