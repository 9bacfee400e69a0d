//! Everything that a plan follows from, as one value.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::catalog::validated::ValidatedVirtualService;
use crate::catalog::{Catalog, Kind, MarkMask, NamespacedName, Scope, Update};
use crate::host::{KUBE_PROXY_LINK, Network};

use super::globals::globals;
use super::roles::{Node, Role};

/// Everything that a plan follows from.
#[derive(Debug, Default)]
pub struct World {
    /// All objects.
    pub catalog: Catalog,
    /// The node.
    pub node: Node,
    /// The node's links, addresses and routes, without what Weir itself put there; `None` where they are not known, and
    /// what depends on them is not planned.
    pub network: Option<Network>,
    /// How much is known of what is wanted.
    pub knowledge: Knowledge,
}

/// How much is known of what is wanted: an object that has not been read yet, or cannot be, looks like one that is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Knowledge {
    /// Not everything that there is has been reported once: nothing can be planned.
    #[default]
    Awaited,
    /// Everything that can be read has been reported. Something could not be, not even once: nothing is deleted.
    Partial,
    /// Everything has been read at least once.
    Whole,
}

impl Knowledge {
    /// Whether a plan can be made.
    pub fn allows_planning(self) -> bool {
        self != Self::Awaited
    }

    /// Whether what nobody wants may be deleted.
    pub fn allows_deleting(self) -> bool {
        self == Self::Whole
    }
}

/// What a change of the world concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concern {
    /// The virtual services whose plan may be another.
    pub services: Scope,
    /// Whether what the node has once is another.
    pub globals: bool,
}

impl World {
    /// A world without objects, of a node of which nothing else is known yet.
    pub fn new(node: Node, mark_mask: MarkMask) -> Self {
        Self {
            catalog: Catalog::new(mark_mask),
            node,
            ..Self::default()
        }
    }

    /// Takes in what a source reports of an object, and says what that concerns.
    pub fn update(&mut self, update: Update) -> Concern {
        if update.object().kind != Kind::DirectorGroup {
            return Concern {
                services: self.catalog.update(update),
                globals: false,
            };
        }
        let before = globals(self);
        let services = self.catalog.update(update);
        Concern {
            services,
            globals: globals(self) != before,
        }
    }

    /// Takes in the node's labels, and says what that concerns.
    pub fn set_labels(&mut self, labels: BTreeMap<String, String>) -> Concern {
        if self.node.labels == labels {
            return Concern::default();
        }
        let (before, roles_before) = (globals(self), self.roles());
        self.node.labels = labels;
        let roles = self.roles();
        let changed = roles_before
            .iter()
            .filter(|(group, role)| roles.get(*group) != Some(role));
        let services = changed.flat_map(|(group, _)| self.catalog.of_group(group).cloned());
        Concern {
            services: Scope::These(services.collect()),
            globals: globals(self) != before,
        }
    }

    /// The node's part in each group.
    fn roles(&self) -> BTreeMap<Arc<str>, Role> {
        let groups = self.catalog.director_groups();
        groups
            .map(|(name, group)| (name.clone(), self.node.role(group)))
            .collect()
    }

    /// The virtual services of a scope that there are.
    pub fn services<'a>(
        &'a self,
        scope: &'a Scope,
    ) -> impl Iterator<Item = (NamespacedName, &'a ValidatedVirtualService)> {
        let (every, these) = match scope {
            Scope::Every => (Some(self.catalog.virtual_services()), None),
            Scope::These(names) => (None, Some(names)),
        };
        let named = these
            .into_iter()
            .flatten()
            .filter_map(|name| Some((name.clone(), self.catalog.virtual_service(name)?)));
        every.into_iter().flatten().chain(named)
    }

    /// Whether the node has use for Services and their endpoints: virtual services refer to some, and it may balance them.
    pub fn needs_endpoints(&self) -> bool {
        self.catalog.refers_to_services() && self.node.may_direct(&self.catalog)
    }
}

/// The VIPs that kube-proxy has on its link as well, of all virtual services: each node's kube-proxy has them, whatever its
/// part.
pub fn vips_of_kube_proxy(world: &World) -> BTreeSet<IpAddr> {
    let network = world.network.as_ref();
    let Some(link) = network.and_then(|network| network.link(KUBE_PROXY_LINK)) else {
        return BTreeSet::new();
    };
    let vips = world
        .catalog
        .virtual_services()
        .flat_map(|(_, service)| service.listen.addresses());
    let vips: BTreeSet<IpAddr> = vips.copied().collect();
    let theirs = link.addresses.iter().map(|own| own.address);
    theirs.filter(|address| vips.contains(address)).collect()
}
