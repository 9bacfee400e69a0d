//! Which virtual services a node has everything for, as their active director.

use crate::catalog::{Generation, Generations, NamespacedName, ObjectRef, Scope};
use crate::host::{HostChange, HostStore};
use crate::ipvs::TableStore;
use crate::plan::Role;

use super::Reconciler;

impl<S: TableStore, H: HostStore> Reconciler<S, H> {
    /// Counts anew those of a scope.
    pub(super) fn count_serving(&mut self, scope: &Scope) {
        let names: Vec<NamespacedName> = match scope {
            Scope::All => {
                self.serving.clear();
                self.generations = Generations::default();
                self.catalog.virtual_services().map(|(name, _)| name).collect()
            }
            Scope::Some(names) => names.iter().cloned().collect(),
        };
        for name in names {
            let new = self.served_generation(&name);
            let old = match new {
                Some(new) => self.serving.insert(name, new),
                None => self.serving.remove(&name),
            };
            self.generations.exchange(old, new);
        }
    }

    /// The generation of a virtual service for which the node has everything as its active director.
    fn served_generation(&self, name: &NamespacedName) -> Option<Generation> {
        let service = self.catalog.virtual_service(name)?;
        let (role, _) = self.node.role_for(&self.catalog, name, service);
        let serves = role == Role::Active
            && !self.catalog.is_invalid(&ObjectRef::virtual_service(name))
            && self
                .ledger
                .entries()
                .keys_of(name)
                .all(|key| self.desired.agrees_about(&self.programmed, &key))
            && !self
                .host_failures
                .iter()
                .any(|failure| self.concerns(&failure.change, name));
        serves.then(|| Generation::new(name, service.generation))
    }

    /// Whether a virtual service does not work without a step.
    fn concerns(&self, change: &HostChange, name: &NamespacedName) -> bool {
        let Some(needs) = self.needs.get(name) else {
            return false;
        };
        match change {
            HostChange::AddAddress(bound) | HostChange::Announce(bound) => {
                let mut all = needs.all();
                all.any(|needs| needs.answered.contains(bound) || needs.held.contains(&bound.address))
            }
            HostChange::SetSysctl { .. }
            | HostChange::AddLink { .. }
            | HostChange::OpenGuePort(_)
            | HostChange::ChangeRules(_) => true,
            HostChange::RestoreSysctl { .. }
            | HostChange::DeleteLink { .. }
            | HostChange::DeleteAddress(_)
            | HostChange::CloseGuePort(_) => false,
        }
    }
}
