//! Director groups → what a node has once, and no virtual service for itself.

use std::collections::BTreeMap;

use crate::catalog::validated::Listen;
use crate::ipvs::{SyncDaemon, SyncDaemonRole, Timeouts};

use super::roles::Role;
use super::world::World;

/// What a node has once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    /// The connection timeouts; `None` leaves them as they are.
    pub timeouts: Option<Timeouts>,
    /// The half of connection sync that runs.
    pub sync_daemon: Option<SyncDaemon>,
    /// The settings that director groups own, by name.
    pub sysctls: BTreeMap<Box<str>, Box<str>>,
}

/// What the node should have once. Of two groups that want the same thing, the first in the order of names has it.
pub fn globals(world: &World) -> Globals {
    Globals {
        timeouts: timeouts(world),
        sync_daemon: sync_daemon(world),
        sysctls: sysctls(world),
    }
}

/// Those of the first group that has some and in which the node is active.
fn timeouts(world: &World) -> Option<Timeouts> {
    let mut groups = world.catalog.director_groups();
    groups.find_map(|(_, group)| {
        let is_active = world.node.role(group) == Role::Active;
        group.timeouts.filter(|_| is_active)
    })
}

fn sysctls(world: &World) -> BTreeMap<Box<str>, Box<str>> {
    let mut sysctls = BTreeMap::new();
    for (_, group) in world.catalog.director_groups() {
        if world.node.role(group) != Role::None {
            for (name, value) in &group.sysctls {
                sysctls.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    sysctls
}

/// The sync daemon of the first group that wants connections passed on and in which the node has a part: one sends as
/// active, or receives as standby.
fn sync_daemon(world: &World) -> Option<SyncDaemon> {
    let World {
        catalog,
        node,
        network,
        ..
    } = world;
    let (name, group, sync) = catalog.director_groups().find_map(|(name, group)| {
        let has_part = node.role(group) != Role::None;
        Some((name, group, group.connection_sync.as_ref().filter(|_| has_part)?))
    })?;
    let interface = sync.interface.as_deref().or(group.interface.as_deref());
    let of_first_vip = || {
        let service = catalog.virtual_service(catalog.of_group(name).next()?)?;
        let Listen::Addresses { addresses, .. } = &service.listen else {
            return None;
        };
        Some(&*network.as_ref()?.link_of_network(*addresses.first()?)?.name)
    };
    let role = match node.role(group) {
        Role::Active => SyncDaemonRole::Master,
        Role::Standby | Role::None => SyncDaemonRole::Backup,
    };
    Some(SyncDaemon::new(
        role,
        interface.or_else(of_first_vip)?,
        sync.sync_id,
    ))
}
