//! What golden cases do not show: scopes, timeouts, and a node's part as a table. The rest is in `tests/data/golden`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::api;
use crate::catalog::validated::{ValidatedDirectorGroup, ValidatedFailover};
use crate::catalog::{Form, MarkMask, ObjectRef, Update, validate};
use crate::ipvs::Timeouts;

fn node(name: &str, role: &str) -> Node {
    Node {
        name: name.to_owned(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        directing: Directing::InGroups,
    }
}

fn group(spec: Value) -> ValidatedDirectorGroup {
    let mut group = json!({
        "apiVersion": api::API_VERSION,
        "kind": "DirectorGroup",
        "metadata": {"name": "any"},
        "spec": {"nodeSelector": {"matchLabels": {"role": "director"}}},
    });
    group["spec"]
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    validate::director_group(&serde_json::from_value(group).unwrap())
        .value
        .unwrap()
}

fn put_group(world: &mut World, name: &str, spec: Value) -> Scope {
    let concern = world.update(Update::Put {
        object: ObjectRef::director_group(name.into()),
        form: Some(Form::DirectorGroup(Box::new(group(spec)))),
        remarks: Vec::new(),
    });
    concern.services
}

fn world(node: Node) -> World {
    World::new(node, MarkMask::default())
}

fn put_service(world: &mut World, name: &str, vip: &str) -> NamespacedName {
    let object = json!({
        "apiVersion": api::API_VERSION,
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": {"addresses": [vip], "listeners": [{"name": "http", "protocol": "TCP", "port": 80}]},
    });
    let name = NamespacedName {
        namespace: "shop".into(),
        name: name.into(),
    };
    let service = validate::virtual_service(&serde_json::from_value(object).unwrap())
        .value
        .unwrap();
    world.update(Update::Put {
        object: ObjectRef::virtual_service(&name),
        form: Some(Form::VirtualService(Box::new(service))),
        remarks: Vec::new(),
    });
    name
}

#[test]
fn a_node_has_a_part_by_its_labels_and_is_active_by_the_failover() {
    use Role::{Active, None, Standby};
    let by_name = json!({"failover": {"type": "Static", "static": {"activeNode": "d1"}}});
    let routed = json!({"failover": {"type": "Routed"}});
    let vrrp = json!({"failover": {"type": "VRRP"}});
    for (spec, node, expected) in [
        (&by_name, node("d1", "director"), Active),
        (&by_name, node("d2", "director"), Standby),
        (&by_name, node("d1", "worker"), None),
        (&routed, node("d1", "director"), Active),
        (&routed, node("d2", "director"), Active),
        (&routed, node("d1", "worker"), None),
        (&vrrp, node("d1", "director"), Standby),
    ] {
        assert_eq!(
            node.role(&group(spec.clone())),
            expected,
            "{} in {spec}",
            node.name
        );
    }
    assert_eq!(group(vrrp).failover, ValidatedFailover::NotSupported);
}

#[test]
fn a_scope_is_planned_and_nothing_else() {
    let mut world = world(Node {
        directing: Directing::AlsoAlone,
        ..node("host", "any")
    });
    let one = put_service(&mut world, "one", "10.0.0.200");
    let other = put_service(&mut world, "other", "10.0.0.201");
    let gone = NamespacedName {
        namespace: "shop".into(),
        name: "gone".into(),
    };
    let owners =
        |scope: &Scope| -> Vec<NamespacedName> { plan(&world, scope).services.into_keys().collect() };
    assert_eq!(owners(&Scope::Every), [one.clone(), other]);
    assert_eq!(owners(&Scope::These([one.clone(), gone].into())), [one]);
    assert_eq!(owners(&Scope::default()), []);
}

#[test]
fn the_first_group_and_the_last_concern_everything_and_others_their_own() {
    let mut world = world(node("d1", "director"));
    let service = put_service(&mut world, "one", "10.0.0.200");
    let routed = json!({"failover": {"type": "Routed"}});
    let gone = |name: &str| Update::Delete(ObjectRef::director_group(Arc::from(name)));
    assert_eq!(put_group(&mut world, "other", routed.clone()), Scope::Every);
    let own = Scope::These([service].into());
    assert_eq!(put_group(&mut world, api::DEFAULT_DIRECTOR_GROUP, routed), own);
    assert_eq!(world.update(gone("other")).services, Scope::default());
    assert_eq!(
        world.update(gone(api::DEFAULT_DIRECTOR_GROUP)).services,
        Scope::Every
    );
}

#[test]
fn timeouts_are_those_of_the_first_group_in_which_the_node_is_active() {
    let seconds = |world: &mut World, node: &Node| {
        world.node = node.clone();
        globals(world).timeouts.map(|timeouts| timeouts.tcp.as_secs())
    };
    let with = |active: &str, tcp: &str| {
        json!({
            "failover": {"type": "Static", "static": {"activeNode": active}},
            "timeouts": {"tcp": tcp},
        })
    };
    let (d1, worker) = (node("d1", "director"), node("d1", "worker"));
    let mut world = world(d1.clone());
    put_group(&mut world, "a", with("d2", "1s"));
    assert_eq!(seconds(&mut world, &d1), None);
    put_group(&mut world, "c", with("d1", "3s"));
    put_group(&mut world, "b", json!({"failover": {"type": "Routed"}}));
    assert_eq!(seconds(&mut world, &d1), Some(3));
    assert_eq!(seconds(&mut world, &worker), None);
    put_group(&mut world, "b", with("d1", "2s"));
    assert_eq!(seconds(&mut world, &d1), Some(2));
}

#[test]
fn timeouts_are_whole_seconds_and_zero_where_none_is_asked_for() {
    let group = group(json!({"failover": {"type": "Routed"}, "timeouts": {"tcp": "1999ms", "udp": "596h"}}));
    let expected = Timeouts {
        tcp: Duration::from_secs(1),
        tcp_fin: Duration::ZERO,
        udp: Duration::from_secs(596 * 3600),
    };
    assert_eq!(group.timeouts, Some(expected));
}

#[test]
fn who_is_in_no_group_directs_nothing() {
    let alone = Node {
        directing: Directing::AlsoAlone,
        ..Node::default()
    };
    let mut world = world(alone.clone());
    let may_direct = |world: &World, node: Node| node.may_direct(&world.catalog);
    assert!(may_direct(&world, alone.clone()) && !may_direct(&world, node("n1", "director")));
    put_group(
        &mut world,
        "edge",
        json!({"failover": {"type": "Static", "static": {"activeNode": "n1"}}}),
    );
    assert!(may_direct(&world, node("n1", "director")), "the active one");
    assert!(may_direct(&world, node("n2", "director")), "a standby");
    assert!(!may_direct(&world, node("n3", "worker")) && !may_direct(&world, alone));
}
