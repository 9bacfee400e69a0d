//! The node, and its part in each director group.

use std::collections::BTreeMap;

use crate::catalog::validated::{ValidatedDirectorGroup, ValidatedFailover, ValidatedVirtualService};
use crate::catalog::{Catalog, Finding, NamespacedName, ObjectRef, Reason};

/// The node for which is planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it may be director.
    pub directing: Directing,
}

/// When a node may be director.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Directing {
    /// Where a DirectorGroup says so.
    #[default]
    InGroups,
    /// There, and as long as nobody has any DirectorGroup: a host with a folder of manifests.
    AlsoAlone,
    /// Never: it is real server only.
    Never,
    /// In every group, as if it were whichever node is active there: what follows from the objects alone.
    Everywhere,
}

/// A node's part in a director group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It balances.
    Active,
    /// It may have to balance.
    Standby,
    /// It has no part.
    None,
}

impl Node {
    /// The node's part in a group.
    pub fn role(&self, group: &ValidatedDirectorGroup) -> Role {
        let labels: Vec<(&str, &str)> = self
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        if self.directing == Directing::Everywhere {
            return Role::Active;
        }
        if self.directing == Directing::Never || !group.node_selector.matches(&labels) {
            return Role::None;
        }
        match &group.failover {
            ValidatedFailover::Static(active) if **active == *self.name => Role::Active,
            ValidatedFailover::Routed => Role::Active,
            ValidatedFailover::Static(_) | ValidatedFailover::NotSupported => Role::Standby,
        }
    }

    /// Whether it may have to balance anything.
    pub fn may_direct(&self, catalog: &Catalog) -> bool {
        let alone = self.directing == Directing::AlsoAlone && !catalog.knows_director_groups();
        let mut groups = catalog.director_groups();
        alone || groups.any(|(_, group)| self.role(group) != Role::None)
    }

    /// The node's part for a virtual service, and what is to be said where its group is missing.
    pub fn role_for(
        &self,
        catalog: &Catalog,
        name: &NamespacedName,
        service: &ValidatedVirtualService,
    ) -> (Role, Option<Finding>) {
        if let Some(group) = catalog.director_group(&service.director_group) {
            return (self.role(group), None);
        }
        if self.directing == Directing::Never {
            return (Role::None, None);
        }
        if self.directing == Directing::AlsoAlone && !catalog.knows_director_groups() {
            return (Role::Active, None);
        }
        let finding = Finding::new(
            ObjectRef::virtual_service(name),
            "spec.directorGroupRef",
            Reason::NotFound,
            format!(
                "there is no valid DirectorGroup \"{}\": create or correct it, or name another",
                service.director_group
            ),
        );
        (Role::None, Some(finding))
    }
}
