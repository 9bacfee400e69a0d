//! Whom news concern: what they cost at a large cluster follows from that.

use serde_json::{Value, json};

use super::*;
use crate::api::{FailureReport, RoleReport};
use crate::catalog::{Form, Reason, validate};
use crate::plan::Directing;

const MANY: usize = 200;

fn name(name: &str) -> NamespacedName {
    NamespacedName {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn web(number: usize) -> NamespacedName {
    name(&format!("web-{number}"))
}

fn put(object: ObjectRef, form: Option<Form>, status: Status) -> News {
    let update = Update::Put {
        object,
        form,
        remarks: Vec::new(),
    };
    let object = Object {
        uid: "1".to_owned(),
        generation: 1,
        deleted: false,
        held: true,
        status,
    };
    News::Object(update, Some(Box::new(object)))
}

fn virtual_service(number: usize, summary: &str) -> News {
    virtual_service_of("edge", number, summary)
}

/// With a status that says so of a number of destinations.
fn virtual_service_of(group: &str, number: usize, summary: &str) -> News {
    let name = web(number);
    let object = json!({
        "metadata": { "name": &*name.name, "namespace": "shop", "generation": 1 },
        "spec": {
            "addresses": [format!("10.0.{}.{}", number / 250, number % 250 + 1)],
            "listeners": [{ "name": "http", "protocol": "TCP", "port": 80 }],
            "directorGroupRef": { "name": group },
            "backends": [{ "name": "web", "realServers": { "selector": { "matchLabels": { "app": "web" } } } }],
        },
    });
    let object = serde_json::from_value(object).unwrap();
    let form = validate::virtual_service(&object).value.unwrap();
    let status = VirtualServiceStatus {
        backend_summary: Some(summary.to_owned()),
        ..VirtualServiceStatus::default()
    };
    put(
        ObjectRef::virtual_service(&name),
        Some(Form::VirtualService(Box::new(form))),
        Status::VirtualService(status),
    )
}

fn real_server(address: &str) -> News {
    let object = json!({
        "metadata": { "name": "rs", "namespace": "shop", "labels": { "app": "web" } },
        "spec": { "address": address },
    });
    let object = serde_json::from_value(object).unwrap();
    let form = validate::real_server(&object).value.map(Form::RealServer);
    put(
        ObjectRef::real_server(&name("rs")),
        form,
        Status::RealServer(RealServerStatus::default()),
    )
}

fn group(active: &str) -> News {
    group_called("edge", active)
}

fn group_called(name: &str, active: &str) -> News {
    let failover = json!({ "type": "Static", "static": { "activeNode": active } });
    let selector = json!({ "matchLabels": { "role": "director" } });
    let object: Value = json!({
        "metadata": { "name": name }, "spec": { "nodeSelector": selector, "failover": failover },
    });
    let object = serde_json::from_value(object).unwrap();
    let form = validate::director_group(&object).value.unwrap();
    put(
        ObjectRef::director_group(name.into()),
        Some(Form::DirectorGroup(Box::new(form))),
        Status::DirectorGroup(DirectorGroupStatus::default()),
    )
}

fn edge() -> ObjectRef {
    ObjectRef::director_group("edge".into())
}

fn node(name: &str, ready: bool) -> News {
    let node = Node {
        name: name.to_owned(),
        labels: BTreeMap::from([("role".to_owned(), "director".to_owned())]),
        directing: Directing::InGroups,
    };
    News::Node(name.into(), Some(NodeFacts { node, ready }))
}

/// What the agent of d1 says when it has everything for these, and lacks something for that one.
fn report(served: std::ops::Range<usize>, lacks: Option<usize>) -> News {
    let mut generations = Generations::default();
    for number in served {
        generations.exchange(None, Some(Generation::new(&web(number), Some(1))));
    }
    let failure = lacks.map(|number| FailureReport {
        virtual_service: Some(web(number).to_string()),
        message: "Invalid argument".to_owned(),
    });
    let status = NodeStateStatus {
        roles: vec![RoleReport {
            director_group: "edge".to_owned(),
            role: DirectorRole::Active,
        }],
        programmed_virtual_services: Some(generations.to_string()),
        failures: failure.into_iter().collect(),
        ..NodeStateStatus::default()
    };
    News::NodeState("d1".into(), Some(Box::new(status)))
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    let services = (0..MANY).map(|number| virtual_service(number, "0/0"));
    let others = [
        group("d1"),
        real_server("10.1.0.1"),
        node("d1", true),
        report(0..MANY, None),
    ];
    services.chain(others).for_each(|news| drop(cluster.take(news)));
    cluster
}

#[test]
fn a_status_concerns_its_object_alone() {
    let mut cluster = cluster();
    let written = cluster.take(virtual_service(7, "1/1"));
    assert_eq!(written, [ObjectRef::virtual_service(&web(7))].into());
}

#[test]
fn a_report_concerns_those_of_which_it_says_something_else() {
    let mut cluster = cluster();
    assert_eq!(cluster.take(report(0..MANY, None)), [].into());
    assert_eq!(
        cluster.take(report(0..MANY, Some(7))),
        [ObjectRef::virtual_service(&web(7))].into()
    );
    assert_eq!(cluster.take(report(0..MANY, Some(7))), [].into());
    let concerned = cluster.take(report(1..MANY, Some(7)));
    assert!(
        concerned.contains(&ObjectRef::virtual_service(&web(0))),
        "{concerned:?}"
    );
    assert!(concerned.len() < MANY / 10, "{concerned:?}");
}

#[test]
fn a_node_that_only_stands_by_concerns_its_group_alone() {
    let mut cluster = cluster();
    assert_eq!(cluster.take(node("d2", true)), [edge()].into());
    assert_eq!(cluster.take(node("d2", false)), [edge()].into());
    assert_eq!(cluster.take(node("d2", false)), [].into());
    assert_eq!(cluster.take(node("d1", false)).len(), MANY + 1);
    assert_eq!(cluster.take(News::Node("d2".into(), None)), [edge()].into());
}

#[test]
fn an_agent_without_a_node_is_known_whichever_of_the_two_goes_or_comes() {
    let mut cluster = cluster();
    let strays = |cluster: &Cluster| cluster.agents_without_node().len();
    assert_eq!(strays(&cluster), 0);
    cluster.take(News::Node("d1".into(), None));
    assert_eq!(strays(&cluster), 1);
    cluster.take(News::NodeState("d1".into(), None));
    assert_eq!(strays(&cluster), 0);
    cluster.take(report(0..1, None));
    assert_eq!(strays(&cluster), 1);
    cluster.take(node("d1", true));
    assert_eq!(strays(&cluster), 0);
}

#[test]
fn what_a_virtual_service_says_of_a_real_server_goes_with_it() {
    let mut cluster = cluster();
    let unfit = |number: usize| {
        let object = ObjectRef::real_server(&name("rs"));
        let finding = Finding::new(
            object.clone(),
            "spec.address",
            Reason::Mismatch,
            format!("says {number}"),
        );
        (object, finding)
    };
    let (object, first) = unfit(0);
    assert_eq!(
        cluster.hear_about(&web(0), vec![first.clone()]),
        [object.clone()].into()
    );
    assert_eq!(cluster.hear_about(&web(0), vec![first]), [].into());
    assert_eq!(
        cluster.hear_about(&web(1), vec![unfit(1).1]),
        [object.clone()].into()
    );
    let deleted = News::Object(Update::Delete(ObjectRef::virtual_service(&web(0))), None);
    assert!(cluster.take(deleted).contains(&object));
    assert_eq!(
        cluster.about_real_servers[&name("rs")].keys().collect::<Vec<_>>(),
        [&web(1)]
    );
    assert_eq!(cluster.hear_about(&web(1), Vec::new()), [object].into());
    assert!(cluster.about_real_servers.is_empty() && cluster.has_said.is_empty());
}

#[test]
fn an_agent_has_everything_when_it_says_so_of_all_groups_that_it_directs() {
    let mut cluster = cluster();
    assert!(cluster.has_everything("d1", &web(0)));
    cluster.take(virtual_service_of("core", 0, "0/0"));
    cluster.take(group_called("core", "d1"));
    assert!(cluster.has_everything("d1", &web(0)));
    cluster.take(group_called("core", "d2"));
    assert!(
        !cluster.has_everything("d1", &web(0)),
        "it says more than it should have"
    );
    cluster.take(group_called("core", "d1"));
    assert!(cluster.has_everything("d1", &web(0)));
    cluster.take(News::Object(
        Update::Delete(ObjectRef::director_group("core".into())),
        None,
    ));
    assert!(!cluster.has_everything("d1", &web(0)));
    assert_eq!(cluster.directs["d1"], ["edge".into()].into());
}
