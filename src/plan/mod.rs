//! Planning: all objects, the node and its network → what the node should have. Pure: no clock, no socket.
//!
//! ```text
//! World { catalog, node, network, knowledge } ─► plan(world, scope) ─► Plan { services, globals }
//! ```
//!
//! Whoever needs to know what a node should have asks [`plan`]: the agent, `weir plan` and `apply`, `weir check`, the
//! controller, the golden tests.
//!
//! | file | what |
//! | --- | --- |
//! | `world` | everything that a plan follows from, and what an update of it concerns |
//! | `roles` | the node, and its part in each director group |
//! | `services` | one virtual service → the services of the kernel it is made of |
//! | `backends` | the RealServers and endpoints that a virtual service's backends are |
//! | `entries` | one virtual service → entries of the kernel's table |
//! | `around` | one virtual service → what it needs of the node around the table, as director and as real server |
//! | `globals` | director groups → what a node has once: timeouts, the sync daemon, settings |

mod around;
mod backends;
mod entries;
mod globals;
mod roles;
mod services;
mod world;

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::catalog::validated::{ValidatedDirectorGroup, ValidatedDraining, ValidatedVirtualService};
use crate::catalog::{Finding, Generation, NamespacedName, ObjectRef, Scope};
use crate::ipvs::{DestinationKey, Entry, ServiceKey};

pub use around::{RealServerAround, ServiceAround};
pub use globals::{Globals, globals};
pub use roles::{Directing, Node, Role};
pub use world::{Concern, Knowledge, World, vips_of_kube_proxy};

/// What a node should have, for the virtual services of a scope.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Those of the scope that there are.
    pub services: BTreeMap<NamespacedName, ServicePlan>,
    /// What the node has once, whatever the scope.
    pub globals: Globals,
}

/// What a node should have for one virtual service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePlan {
    /// Its entries of the kernel's table, in the order of their keys.
    pub entries: Vec<(ServiceKey, Entry)>,
    /// Destinations that are no longer wanted but still serve the connections they have, each with the RealServer
    /// that it is, if it is one. They are not among the entries: nobody adds one that is not there.
    pub leaving: BTreeMap<(ServiceKey, DestinationKey), Option<NamespacedName>>,
    /// What it needs around the table.
    pub around: ServiceAround,
    /// What is to be said about it and the objects it uses.
    pub findings: Vec<Finding>,
    /// Its generation, if this node is its active director and its latest version is the one that is planned.
    pub served_as: Option<Generation>,
    /// How long its destinations have to leave.
    pub draining: ValidatedDraining,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
}

/// Plans the virtual services of a scope.
pub fn plan(world: &World, scope: &Scope) -> Plan {
    let planned = world.services(scope).map(|(name, service)| {
        let plan = plan_service(world, &name, service);
        (name, plan)
    });
    Plan {
        services: planned.collect(),
        globals: globals(world),
    }
}

/// Plans one virtual service.
pub fn plan_service(world: &World, name: &NamespacedName, service: &ValidatedVirtualService) -> ServicePlan {
    let World { catalog, node, .. } = world;
    let (role, missing_group) = node.role_for(catalog, name, service);
    let group = catalog.director_group(&service.director_group);
    let balances = match role {
        Role::Active => true,
        Role::Standby => group.is_some_and(ValidatedDirectorGroup::standby_keeps_table),
        Role::None => false,
    };
    let mut findings: Vec<Finding> = missing_group.into_iter().collect();
    let services = services::services(catalog, name, service);
    let mut table = entries::Entries::default();
    if balances {
        findings.extend(services.conflicts.iter().cloned());
        let synchronized = group.is_some_and(|group| group.connection_sync.is_some());
        table = entries::entries(catalog, name, service, &services.services, synchronized);
        findings.append(&mut table.findings);
    }
    let mut around = ServiceAround::default();
    if let Some(network) = &world.network {
        let subject = around::Subject {
            world,
            network,
            name,
            service,
            services: &services.services,
            entries: &table.entries,
        };
        let (planned, mut of_around) = around::Planner::new(subject).plan(role);
        around = planned;
        findings.append(&mut of_around);
    }
    // The same real server is looked at for every key, and what is wrong with it is the same for all.
    findings.sort();
    findings.dedup();
    let is_served = role == Role::Active && !catalog.is_invalid(&ObjectRef::virtual_service(name));
    ServicePlan {
        entries: table.entries,
        leaving: table.leaving,
        around,
        findings,
        served_as: is_served.then(|| Generation::new(name, service.generation)),
        draining: service.draining,
        vips: service.listen.addresses().to_vec(),
    }
}

impl ServicePlan {
    /// Whether it wants no entry of the table.
    pub fn has_no_entries(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests;
