//! The laws of the indexes: planning what an update concerns comes to the same as planning everything, and an
//! update concerns no more than it must.

mod updates;

use proptest::prelude::*;

use super::*;
use crate::host::{Address, Link, Network, Route};
use crate::plan::{Directing, Node, Plan, World, plan};
use updates::{update, updates};

/// What an agent remembers of the passes it has made: for each virtual service of a scope, what it had goes, and
/// what it has now comes.
#[derive(Debug, Default, PartialEq)]
struct Remembered {
    plan: Plan,
}

impl Remembered {
    fn pass(&mut self, world: &World, scope: &Scope) {
        let fresh = plan(world, scope);
        self.plan.services.retain(|name, _| !scope.contains(name));
        self.plan.services.extend(fresh.services);
        self.plan.globals = fresh.globals;
    }

    fn afresh(world: &World) -> Self {
        let mut afresh = Self::default();
        afresh.pass(world, &Scope::Every);
        afresh
    }
}

/// The node has the address of one of the real servers.
fn network() -> Network {
    let own = |address: &str, prefix| Address {
        address: address.parse().unwrap(),
        prefix,
        ours: false,
    };
    let addresses = vec![own("10.0.0.11", 24), own("fd00::1", 64)];
    let route = |address: &Address| Route {
        network: address.address,
        prefix: address.prefix,
        link: 2,
        gateway: false,
        metric: 0,
    };
    let routes = addresses.iter().map(route).collect();
    let eth0 = Link {
        index: 2,
        name: "eth0".into(),
        up: true,
        resolves: true,
        mtu: 1500,
        addresses,
        ..Link::default()
    };
    Network::new(vec![eth0], routes)
}

/// A director's world without objects.
fn director(stands_alone: bool) -> World {
    let node = Node {
        name: "n1".to_owned(),
        labels: [("role".to_owned(), "director".to_owned())].into(),
        directing: if stands_alone {
            Directing::AlsoAlone
        } else {
            Directing::InGroups
        },
    };
    World {
        network: Some(network()),
        ..World::new(node, MarkMask::default())
    }
}

/// The virtual services that select a real server as it is now, found without any index.
fn selecting(catalog: &Catalog, object: &ObjectRef) -> BTreeSet<NamespacedName> {
    let namespace = object.namespace.clone().unwrap();
    let server = catalog
        .namespaces
        .get(&namespace)
        .and_then(|content| content.real_servers.get(&object.name));
    let Some(server) = server else {
        return BTreeSet::new();
    };
    let selects = |service: &ValidatedVirtualService| {
        service
            .backends
            .iter()
            .filter_map(|backend| backend.source.selector())
            .any(|selector| selector.matches(&server.labels))
    };
    catalog
        .virtual_services()
        .filter(|(name, service)| name.namespace == namespace && selects(service))
        .map(|(name, _)| name)
        .collect()
}

/// What an index holds, keys without anything included.
fn index_sizes(catalog: &Catalog) -> [usize; 7] {
    let sum = |size: fn(&Namespace) -> usize| catalog.namespaces.values().map(size).sum();
    [
        catalog.claims.len() + catalog.marks.len(),
        catalog.by_group.len(),
        catalog.endpoints.len(),
        catalog.remarks.len(),
        sum(|namespace| namespace.by_label.len()),
        sum(|namespace| namespace.selecting.len()),
        sum(|namespace| namespace.selecting_widely.len()),
    ]
}

fn object_of(update: &Update) -> &ObjectRef {
    match update {
        Update::Put { object, .. } | Update::Delete(object) => object,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 4, ..ProptestConfig::default() })]

    #[test]
    fn planning_what_each_update_concerns_comes_to_the_same_as_planning_everything(
        updates in updates(1..40),
        stands_alone: bool,
    ) {
        let mut world = director(stands_alone);
        let mut remembered = Remembered::default();
        for update in updates {
            let globals = remembered.plan.globals.clone();
            let concern = world.update(update.clone());
            remembered.pass(&world, &concern.services);
            prop_assert_eq!(remembered.plan.globals != globals, concern.globals);
            prop_assert_eq!(&remembered, &Remembered::afresh(&world), "after {:?}", update);
        }
    }

    #[test]
    fn several_updates_may_be_reconciled_together(batches in proptest::collection::vec(updates(1..6), 1..10)) {
        let mut world = director(true);
        let mut remembered = Remembered::default();
        for batch in batches {
            let mut scope = Scope::default();
            for update in batch {
                scope.extend(world.update(update).services);
            }
            remembered.pass(&world, &scope);
        }
        prop_assert_eq!(remembered, Remembered::afresh(&world));
    }

    #[test]
    fn a_real_server_concerns_exactly_the_virtual_services_that_select_it_before_or_after(
        history in updates(0..40),
        update in update(Kind::RealServer),
    ) {
        let mut catalog = Catalog::default();
        for update in history {
            catalog.update(update);
        }
        let object = object_of(&update).clone();
        let unchanged = match &update {
            Update::Put { form: Some(form), .. } => catalog.holds(&object, form),
            Update::Put { form: None, .. } => true,
            Update::Delete(_) => false,
        };
        let mut expected = selecting(&catalog, &object);
        let scope = catalog.update(update);
        expected.extend(selecting(&catalog, &object));
        if unchanged {
            expected.clear();
        }
        prop_assert_eq!(scope, Scope::These(expected));
    }

    #[test]
    fn the_same_report_again_concerns_nobody(history in updates(1..40)) {
        let mut catalog = Catalog::default();
        let mut latest = BTreeMap::new();
        for update in history {
            latest.insert(object_of(&update).clone(), update.clone());
            catalog.update(update);
        }
        for (_, update) in latest {
            if matches!(update, Update::Put { form: Some(_), .. }) {
                prop_assert_eq!(catalog.update(update), Scope::default());
            }
        }
    }

    #[test]
    fn the_order_of_reports_does_not_matter(
        history in updates(1..30),
        order in any::<prop::sample::Index>(),
    ) {
        let mut latest = BTreeMap::new();
        for update in history {
            if matches!(update, Update::Put { form: Some(_), .. }) {
                latest.insert(object_of(&update).clone(), update);
            }
        }
        let mut updates: Vec<Update> = latest.into_values().collect();
        let mut one = director(false);
        updates.iter().cloned().for_each(|update| drop(one.update(update)));
        if !updates.is_empty() {
            let turn = order.index(updates.len());
            updates.rotate_left(turn);
        }
        let mut other = director(false);
        updates.into_iter().for_each(|update| drop(other.update(update)));
        prop_assert_eq!(Remembered::afresh(&one), Remembered::afresh(&other));
    }

    #[test]
    fn when_all_objects_are_gone_the_indexes_are_empty(history in updates(1..40)) {
        let mut catalog = Catalog::default();
        let mut objects = BTreeSet::new();
        for update in history {
            objects.insert(object_of(&update).clone());
            catalog.update(update);
        }
        for object in objects {
            catalog.update(Update::Delete(object));
        }
        prop_assert_eq!(index_sizes(&catalog), [0; 7]);
    }
}
